"""Split photographs for validation off those for training."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict

from datasets import Dataset

from resegnet.errors import ArgumentError, DataError
from resegnet.learning.eyes import EYE_COLUMN, eye_numbers, fingerprints_of

logger = logging.getLogger(__name__)


def split_validation(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split off photographs for validation, by patient and within each data set.

    Each data set gives `fraction` of its patients, at least one, and keeps at least one. The choice depends on the
    seed and the names of the data set's patients only, not on the order of the rows or on other data sets. An eye that
    another data set also holds is the exception: all its patients are validated on if one of them is.

    Parameters
    ----------
    dataset
        Rows with the columns `dataset` and `patient` and, unless eyes are not to be compared, `eye`.
    fraction
        Share of the patients, between 0 and 1.
    seed
        Any whole number.

    Returns
    -------
    train, validation
        Both in the order of the given rows.

    Raises
    ------
    ArgumentError
        If `fraction` is not between 0 and 1.
    DataError
        If no data set has two patients, or none would be left to train on.
    """
    if not 0 < fraction < 1:
        raise ArgumentError(f"The validation fraction must lie between 0 and 1; got {fraction}.")
    eyes = list(zip(dataset["dataset"], dataset["patient"], strict=True))
    patients: defaultdict[str, list[str]] = defaultdict(list)
    for name, patient in sorted(set(eyes)):
        patients[name].append(patient)
    chosen: set[tuple[str, str]] = set()
    for name, members in patients.items():
        if len(members) == 1:
            logger.warning("%s has a single patient, who stays in training: no validation on this data set.", name)
            continue
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        # Sorted by a hash: with a random generator, the choice in one data set would depend on the others.
        members.sort(key=lambda patient, name=name: _order(seed, name, patient))  # type: ignore[misc]
        chosen.update((name, patient) for patient in members[:count])
    if not chosen:
        raise DataError(
            f"No validation split is possible: {len(patients)} data set(s) with one patient each. "
            "At least one data set needs two patients (column 'patient')."
        )
    if EYE_COLUMN in dataset.column_names:
        _add_patients_of_same_eyes(chosen, eyes, eye_numbers(fingerprints_of(dataset)).tolist())
    rows = [index for index, eye in enumerate(eyes) if eye not in chosen]
    if not rows:
        raise DataError("No validation split is possible: the data sets hold the same few eyes. Name one of them only.")
    validation_rows = [index for index, eye in enumerate(eyes) if eye in chosen]
    return dataset.select(rows), dataset.select(validation_rows)


def _add_patients_of_same_eyes(chosen: set[tuple[str, str]], patients: list[tuple[str, str]], eyes: list[int]) -> None:
    """Add to `chosen` each patient with an eye of a chosen one. `patients` and `eyes` have one entry for each row."""
    while True:
        validated = {eye for patient, eye in zip(patients, eyes, strict=True) if patient in chosen}
        more = {patient for patient, eye in zip(patients, eyes, strict=True) if eye in validated} - chosen
        if not more:
            return
        logger.info(
            "Also validated on, because they show eyes that another data set validates on: %s",
            ", ".join(f"{patient} of {name}" for name, patient in sorted(more)),
        )
        chosen |= more


def _order(seed: int, dataset: str, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{dataset}\n{patient}".encode()).digest()
