"""The record of a training run, `training.json` of its release."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from resegnet.hub import is_hub_id
from resegnet.learning.anatomy import AnatomySample
from resegnet.learning.eyes import fingerprints_of, to_text
from resegnet.learning.options import TrainingOptions, short_name
from resegnet.learning.parents import Parents
from resegnet.learning.photographs import TrainingData, WorkingSamples
from resegnet.learning.run import Run
from resegnet.learning.samples import encoded, photograph_digests
from resegnet.releases.records import teacher_record


def training_record(
    run: Run, data: TrainingData, samples: WorkingSamples, parents: Parents, calibration: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of `training.json`.

    Parameters
    ----------
    run
        The finished run.
    data
        Photographs that it was trained and validated on.
    samples
        Its photographs at the working size, and those with known disc or fovea.
    parents
        Releases that it builds on.
    calibration
        Record of `resegnet.learning.calibration.calibrate`.
    """
    options = run.options
    return {
        "options": published_options(options, parents),
        "hub_datasets": [source for source in options.dataset if is_hub_id(source)],
        "epochs_run": run.epoch,
        "best_epoch": run.best_epoch,
        **calibration,
        **_photographs("train", data.train),
        **_photographs("validation", data.validation),
        **_photographs("labelled", data.extra),
        **({"train_eyes": [to_text(eye) for eye in fingerprints_of(data.train)]} if options.eye_fingerprints else {}),
        "artery_vein_datasets": sorted({sample.dataset for sample in samples.train if sample.kinds_by_person}),
        **_anatomy_photographs("train", samples.anatomy),
        **_anatomy_photographs("validation", samples.anatomy_validation),
        "earlier": dict(parents.start.record) if parents.start else {},
        "detail_earlier": dict(parents.detail.record) if parents.detail else {},
        **({"start_from_commit": parents.start.commit} if parents.start and parents.start.commit else {}),
        "teachers": [teacher_record(teacher.name, teacher.record, teacher.commit) for teacher in parents.teachers],
        "labelled_by": [dict(labeller) for labeller in data.labelled_by],
        "data_sha256": _fingerprint(data.train, data.validation, data.extra),
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "device": options.device,
            "processes": run.processes,
            "commit": _git_commit(),
        },
    }


def published_options(options: TrainingOptions, parents: Parents) -> dict[str, Any]:
    """Return the options with names in place of paths: the record is published, the paths are private."""
    return (
        dataclasses.asdict(options)
        | {
            "dataset": [short_name(source) for source in options.dataset],
            "extra": [short_name(source) for source in options.extra],
            "teacher": [teacher.name for teacher in parents.teachers],
            "unseen": [short_name(source) for source in options.unseen],
            "anatomy": [short_name(source) for source in options.anatomy],
            "encoder_weights": short_name(options.encoder_weights),
            "start_from": parents.start.name if parents.start else "",
            "detail_from": parents.detail.name if parents.detail else "",
        }
        | dict.fromkeys(("track", "track_space"), "")
    )  # private names, without effect on the weights


def _photographs(use: str, rows: Dataset) -> dict[str, list[str]]:
    """Return ids and SHA-256 of the photographs of one use, so that a copy under another name can be recognised."""
    return {f"{use}_ids": list(rows["image_id"]), f"{use}_sha256": photograph_digests(rows)}


def _anatomy_photographs(use: str, samples: Sequence[AnatomySample]) -> dict[str, list[str]]:
    """Return the same of photographs with known disc or fovea."""
    return {
        f"anatomy_{use}_ids": [sample.image_id for sample in samples],
        f"anatomy_{use}_sha256": [sample.sha256 for sample in samples],
    }


def _fingerprint(*parts: Iterable[Mapping[str, Any]]) -> str:
    """Return the SHA-256 over all photographs and references, in order."""
    digest = hashlib.sha256()
    for rows in parts:
        for row in rows:
            for column in ("image", "mask"):
                digest.update(hashlib.sha256(encoded(row[column])).digest())
    return digest.hexdigest()


def _git_commit() -> str | None:
    """Return the commit of the code, if the package runs from a git checkout of its own."""

    def ask(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=file.parent, capture_output=True, text=True, timeout=10, check=True).stdout

    file = Path(__file__)
    try:
        # An installed package may lie inside the checkout of another project, in its virtual environment.
        ask("ls-files", "--error-unmatch", file.name)
        return ask("rev-parse", "HEAD").strip()
    except (OSError, subprocess.SubprocessError):
        return None
