"""The photographs of a training run: loaded and checked, then brought to the working size."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm import tqdm

from resegnet.config import Config
from resegnet.learning.anatomy import AnatomySample, find_kinds, load_anatomy, read_kinds, split_anatomy
from resegnet.learning.checks import check_disjoint, warn_of_test_eyes
from resegnet.learning.crops import WorkingSample
from resegnet.learning.data import load_vessels
from resegnet.learning.eyes import fingerprints_of, same_eye
from resegnet.learning.label import read_labelled_by
from resegnet.learning.options import TrainingOptions, short_name
from resegnet.learning.parents import ParentRelease, Parents
from resegnet.learning.samples import SOURCE_COLUMN, encoded, photograph_digests, read_sample
from resegnet.learning.self_training import KindsTeacher, tell_kinds
from resegnet.learning.split import split_validation
from resegnet.releases.quantise import Look
from resegnet.releases.records import photographs_trained_on, training_runs
from resegnet.segmenter import Segmenter
from resegnet.version import __version__

logger = logging.getLogger(__name__)

_QUANTISATION_COUNT = 12  # photographs from which `write_release` takes the ranges of the ONNX network's integers


@dataclass(frozen=True)
class TrainingData:
    """Rows of `load_vessels` by what a run uses them for.

    Attributes
    ----------
    train, validation
        The split `train` of the data sets, divided by patient.
    extra
        Photographs with vessel masks that models made, for training only.
    tests
        The split `test` of every data set and of those that are only scored, by name.
    labelled_by
        Records of the models that made the masks of `extra`, see `resegnet.learning.label.read_labelled_by`.
    """

    train: Dataset
    validation: Dataset
    extra: Dataset
    tests: Mapping[str, Dataset]
    labelled_by: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def load(cls, options: TrainingOptions) -> TrainingData:
        """Load and check all photographs of a run, so that unusable data is reported before the long work.

        Raises
        ------
        DataError
            For unusable data, and for a photograph that would be trained on and scored.
        """
        photographs = load_vessels(options.dataset, "train", options.patient_pattern)
        tests = {
            short_name(source): load_vessels(source, "test", options.patient_pattern) for source in options.dataset
        }
        tests |= {short_name(source): load_vessels(source, "test") for source in options.unseen}
        extra = load_vessels(options.extra, "train") if options.extra else photographs.select([])
        labelled_by = [record for source in options.extra for record in read_labelled_by(source)]
        check_disjoint(photographs, tests)
        check_disjoint(extra, tests)
        warn_of_test_eyes({"trained or validated on": photographs, "trained on": extra}, tests)
        if options.validation_fraction:
            train, validation = split_validation(photographs, options.validation_fraction, options.seed)
        else:
            train, validation = photographs, photographs.select([])
        logger.info("%d photographs to train on, %d to validate on", len(train), len(validation))
        return cls(train, validation, extra, tests, labelled_by)

    def warn_of_known_eyes(self, releases: Iterable[ParentRelease]) -> None:
        """Warn if a release that the run learns from was trained on eyes that are validated on or scored.

        Photographs are compared by `image_id` and, as far as the record of the release holds these, by the SHA-256 of
        their pixels and by the vessels of the eyes.
        """
        parents = {parent.source: parent for parent in releases}.values()
        digests = [photographs_trained_on(training_runs(parent.record), "sha256") for parent in parents]
        consequence = "validation scores are optimistic, and the threshold may be biased."
        parts = {"validation": (self.validation, consequence)}
        parts |= {f"'{name}' test": (rows, "scores there are optimistic.") for name, rows in self.tests.items()}
        for name, (rows, consequence) in parts.items():
            pixels = photograph_digests(rows) if any(digests) else [""] * len(rows)
            for parent, trained_on in zip(parents, digests, strict=True):
                by_name = np.isin(np.array(rows["image_id"]), list(parent.training_ids))
                by_pixels = np.array([digest in trained_on for digest in pixels], bool)
                by_vessels = same_eye(fingerprints_of(rows), parent.training_eyes).any(axis=1)
                known = by_name | by_pixels | by_vessels
                if known.any():
                    logger.warning(
                        "%s was trained on the eyes of %d of the %d %s photographs (%d have the same image_id, %d the "
                        "same pixels, %d the same vessels): %s",
                        parent.source, known.sum(), len(rows), name,
                        by_name.sum(), by_pixels.sum(), by_vessels.sum(), consequence,
                    )  # fmt: skip


@dataclass(frozen=True)
class WorkingSamples:
    """The photographs of a run at the working size."""

    train: list[WorkingSample]
    validation: list[WorkingSample]
    extra: list[WorkingSample]
    anatomy: list[AnatomySample]
    anatomy_validation: list[AnatomySample]

    @classmethod
    def read(
        cls,
        data: TrainingData,
        options: TrainingOptions,
        parents: Parents,
        cache: Path,
        kinds_teacher: KindsTeacher | None = None,
    ) -> WorkingSamples:
        """Decode and resize the photographs, and mix the teachers' probabilities into the references of `train`.

        Where no person labelled arteries and veins, `kinds_teacher` tells them, if given. Photographs for two looks
        are kept in the folder `cache`, so that a run resumes in seconds.
        """
        config, device = options.config(), options.device
        kinds: dict[str, Path] = {}
        if config.context_size is not None:
            cache.mkdir(exist_ok=True)
            kinds = {source: folder for source in options.dataset if (folder := find_kinds(source)) is not None}
        anatomy: list[AnatomySample] = []
        if options.anatomy:
            scored, trained_on = (data.validation, *data.tests.values()), (data.train, data.extra)
            anatomy = load_anatomy(options.anatomy, config, cache, scored, trained_on)
        anatomy, anatomy_validation = split_anatomy(anatomy, options.validation_fraction, options.seed)
        teachers = [
            Segmenter.from_pretrained(teacher.folder, engine="torch", device=device) for teacher in parents.teachers
        ]
        logger.info("reading the photographs%s", _and_labelling(kinds_teacher))
        if kinds_teacher:
            anatomy = tell_kinds(anatomy, kinds_teacher, cache)
        return cls(
            train=_read(data.train, config, cache, teachers, kinds, kinds_teacher),
            validation=_read(data.validation, config, cache, kinds=kinds),
            extra=_read(data.extra, config, cache),
            anatomy=anatomy,
            anatomy_validation=anatomy_validation,
        )

    def quantisation_photographs(self) -> list[Look]:
        """Return a few training photographs as the network's input, spread evenly over the data sets."""
        places = np.linspace(0, len(self.train) - 1, min(_QUANTISATION_COUNT, len(self.train))).astype(int)
        samples = [self.train[place] for place in places]
        return [sample.pixels if sample.look is None else (sample.pixels, sample.look) for sample in samples]


def _and_labelling(teacher: KindsTeacher | None) -> str:
    return ", and telling arteries from veins where no person did: about a second each, once" if teacher else ""


def _read(
    rows: Dataset,
    config: Config,
    cache: Path,
    teachers: Sequence[Segmenter] = (),
    kinds: Mapping[str, Path] | None = None,
    kinds_teacher: KindsTeacher | None = None,
) -> list[WorkingSample]:
    """Read photographs; `kinds` has the folder with labels of arteries and veins of each source that has one."""
    samples = []
    for row in tqdm(rows, desc="reading", unit="photograph", disable=None if len(rows) else True):
        # Only in the folder of the row's own source: another data set may use the same `image_id`.
        folder = (kinds or {}).get(row[SOURCE_COLUMN])
        classes = [file] if folder and (file := folder / f"{row['image_id']}.png").is_file() else []
        path: Path | None = None
        if config.context_size is not None and not teachers:
            told_by = kinds_teacher.digest if kinds_teacher and not classes else ""
            path = cache / f"{_digest(row, config, classes, told_by)}.npz"
        sample = WorkingSample.load(path, row["dataset"]) if path else None
        if sample is None:
            decoded = read_sample(row)
            answers = [teacher(decoded.image).probability for teacher in teachers]
            answer = np.mean(answers, axis=0) if answers else None
            known = read_kinds(classes[0], decoded.vessels.shape) if classes else None
            if kinds_teacher and known is None:
                known = kinds_teacher(decoded.image)
            sample = WorkingSample.of(decoded, config, answer, known)
            if path:
                sample.save(path)
        samples.append(replace(sample, kinds_by_person=bool(classes)))
    return samples


def _digest(row: Mapping[str, Any], config: Config, classes: Sequence[Path], told_by: str) -> str:
    """Return the SHA-256 of everything that a working sample is made from."""
    sizes = (config.input_size, config.smallest_input_size, config.context_size, __version__)
    digest = hashlib.sha256(repr(sizes).encode() + told_by.encode())
    for part in (encoded(row["image"]), encoded(row["mask"]), *(path.read_bytes() for path in classes)):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()
