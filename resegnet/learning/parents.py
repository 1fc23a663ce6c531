"""Releases that a training run builds on: the parent release that it fine-tunes, and its teachers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resegnet.config import Config
from resegnet.errors import ReleaseError, ResegnetError, TrainingError, first_line
from resegnet.hub import CONFIG_NAME, TRAINING_NAME, find_release
from resegnet.learning.calibration import Calibration
from resegnet.learning.eyes import from_texts
from resegnet.learning.options import TrainingOptions
from resegnet.releases.records import as_list, as_number, as_object, read_record, release_name, training_runs


@dataclass(frozen=True)
class ParentRelease:
    """A release that a training run builds on, found once.

    Attributes
    ----------
    source
        Folder, Hub id or bundled name, as the user gave it.
    folder
        Where its files are.
    commit
        Commit on the Hub, None for a folder.
    record
        Its `training.json`, empty if it has none that can be read.
    """

    source: str
    folder: Path
    commit: str | None
    record: Mapping[str, Any]

    @classmethod
    def find(cls, option: str, source: str, commit: str | None = None) -> ParentRelease:
        """Find a release, and download it if it is on the Hub.

        Parameters
        ----------
        option
            Name of the command-line option that `source` was given to, for the error.
        source
            Folder, Hub id or bundled name.
        commit
            Commit on the Hub to use; None uses the newest one.

        Raises
        ------
        TrainingError
            If there is no such release or it cannot be downloaded.
        """
        try:
            folder, commit = find_release(source, commit)
        except (ResegnetError, OSError) as error:
            raise TrainingError(f"{option} {source}: {first_line(error)}.") from error
        try:
            record = read_record(folder / TRAINING_NAME)
        except ReleaseError:  # a release without a record can still be fine-tuned
            record = {}
        return cls(source, folder, commit, record)

    @property
    def name(self) -> str:
        """Last part of the path or Hub id. For the folder `release` of a run, the name of the run's folder."""
        return release_name(self.source)

    @property
    def training_ids(self) -> set[str]:
        """Recorded `image_id`s of the photographs that this release and its own parents were trained on."""
        return {str(name) for run in training_runs(self.record) for name in as_list(run.get("train_ids"))}

    @property
    def training_eyes(self) -> np.ndarray:
        """Recorded fingerprints, (N, 16, 64) uint8, of the eyes that it and its own parents were trained on."""
        return from_texts([text for run in training_runs(self.record) for text in as_list(run.get("train_eyes"))])

    def calibration(self, config: Config) -> Calibration:
        """Return the calibration of this release, for a run that keeps no photographs for validation.

        Parameters
        ----------
        config
            Configuration of the run, whose network has to be the same: parts that start from random weights would
            make the calibration meaningless.

        Raises
        ------
        TrainingError
            If the release does not record its calibration, or has another decoder.
        """
        scaling = as_object(self.record.get("logits_scaled"))
        slope, offset = (as_number(scaling.get(name)) for name in ("slope", "offset"))
        if not slope or offset is None:
            raise TrainingError(
                f"--validation-fraction 0: {self.source} does not record how it was calibrated. Give --start-from a "
                "release that `train.py` made, or keep photographs for validation."
            )
        own = Config.load(self.folder / CONFIG_NAME)
        if own.decoder_channels != config.decoder_channels:
            raise TrainingError(
                f"--validation-fraction 0: {self.source} has the decoder channels {own.decoder_channels}, this run "
                f"{config.decoder_channels}, so its calibration does not apply. Give the same --decoder-channels."
            )
        return Calibration(slope, offset, own.threshold)


@dataclass(frozen=True)
class Parents:
    """All releases that a training run builds on.

    Attributes
    ----------
    start
        Parent release, whose weights are fine-tuned; None for a run that starts from an encoder's weights.
    detail
        Release of a plain network that the detail branch of two looks starts from, or None.
    teachers
        Releases whose mean probability is mixed into the references.
    calibration
        The parent release's calibration, for a run that keeps no photographs for validation; else None.
    """

    start: ParentRelease | None
    detail: ParentRelease | None
    teachers: tuple[ParentRelease, ...]
    calibration: Calibration | None

    @property
    def commits(self) -> dict[str, str]:
        """Commit of each release from the Hub, by the name that the user gave."""
        found = (*self.teachers, *(parent for parent in (self.start, self.detail) if parent))
        return {release.source: release.commit for release in found if release.commit is not None}


def find_parents(options: TrainingOptions, commits: Mapping[str, str]) -> Parents:
    """Find each release that the options name, once.

    Parameters
    ----------
    options
        Options of the run.
    commits
        Commits that the run started with, by name, so that a resumed run uses the same ones.

    Raises
    ------
    TrainingError
        If a release cannot be had, or its calibration is needed and missing.
    """
    found: dict[str, ParentRelease] = {}
    named = [("--start-from", options.start_from), ("--detail-from", options.detail_from)]
    for option, source in (*named, *(("--teacher", source) for source in options.teacher)):
        if source and source not in found:
            found[source] = ParentRelease.find(option, source, commits.get(source))
    start = found.get(options.start_from)
    calibration = None
    if start is not None and not options.validation_fraction:
        calibration = start.calibration(options.config())
    return Parents(
        start, found.get(options.detail_from), tuple(found[source] for source in options.teacher), calibration
    )
