"""The photographs of a training run: loaded and checked, then brought to the working size."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm import tqdm

from resegnet.config import Config
from resegnet.learning.checks import check_disjoint
from resegnet.learning.crops import WorkingSample
from resegnet.learning.data import load_vessels
from resegnet.learning.options import TrainingOptions, short_name
from resegnet.learning.parents import ParentRelease, Parents
from resegnet.learning.samples import read_sample
from resegnet.learning.split import split_validation
from resegnet.segmenter import Segmenter

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
    """

    train: Dataset
    validation: Dataset
    extra: Dataset
    tests: Mapping[str, Dataset]

    @classmethod
    def load(cls, options: TrainingOptions) -> TrainingData:
        """Load and check all photographs of a run, so that unusable data is reported before the long work.

        Raises
        ------
        DataError
            For unusable data, and for a photograph that would be trained on and scored.
        """
        photographs = load_vessels(options.dataset, "train")
        tests = {short_name(source): load_vessels(source, "test") for source in (*options.dataset, *options.unseen)}
        extra = load_vessels(options.extra, "train") if options.extra else photographs.select([])
        check_disjoint(photographs, tests)
        check_disjoint(extra, tests)
        if options.validation_fraction:
            train, validation = split_validation(photographs, options.validation_fraction, options.seed)
        else:
            train, validation = photographs, photographs.select([])
        logger.info("%d photographs to train on, %d to validate on", len(train), len(validation))
        return cls(train, validation, extra, tests)

    def warn_of_known_validation(self, parent: ParentRelease) -> None:
        """Warn if the parent release was trained on validation photographs.

        The photographs are compared by `image_id`, because its record holds nothing else. A copy with another
        `image_id` is not found.
        """
        known = parent.training_ids & set(self.validation["image_id"])
        if known:
            logger.warning(
                "%s was trained on %d of the %d validation photographs, by their image_id: validation scores are "
                "optimistic, and the threshold may be biased.",
                parent.source,
                len(known),
                len(self.validation),
            )


@dataclass(frozen=True)
class WorkingSamples:
    """The photographs of a run at the working size."""

    train: list[WorkingSample]
    validation: list[WorkingSample]
    extra: list[WorkingSample]

    @classmethod
    def read(cls, data: TrainingData, config: Config, parents: Parents, device: str) -> WorkingSamples:
        """Decode and resize the photographs, and mix the teachers' probabilities into the references of `train`."""
        teachers = [
            Segmenter.from_pretrained(teacher.folder, engine="torch", device=device) for teacher in parents.teachers
        ]
        return cls(
            train=_read(data.train, config, teachers),
            validation=_read(data.validation, config),
            extra=_read(data.extra, config),
        )

    def quantisation_photographs(self) -> list[np.ndarray]:
        """Return a few training photographs, (S, S, 3) uint8, spread evenly so that every data set is among them."""
        places = np.linspace(0, len(self.train) - 1, min(_QUANTISATION_COUNT, len(self.train))).astype(int)
        return [self.train[place].pixels for place in places]


def _read(rows: Iterable[Mapping[str, Any]], config: Config, teachers: Sequence[Segmenter] = ()) -> list[WorkingSample]:
    samples = []
    for row in tqdm(rows, desc="reading", disable=None):
        sample = read_sample(row)
        answers = [teacher(sample.image).probability for teacher in teachers]
        samples.append(WorkingSample.of(sample, config, np.mean(answers, axis=0) if answers else None))
    return samples
