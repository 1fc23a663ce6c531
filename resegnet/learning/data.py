"""Photographs with references from every kind of source, checked and in one form.

`load_vessels` returns a `datasets.Dataset` whose picture columns stay encoded. So `read_sample`, with
`resegnet.image.read_image` inside, is the only decoder of the pixels that are trained on or scored.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset
from scipy.sparse.csgraph import connected_components

from resegnet.dataset_source import FORMS, load_splits
from resegnet.errors import DataError
from resegnet.learning.checks import check_vessels, warn_of_shared_patients
from resegnet.learning.eyes import EYE_COLUMN, fingerprints_of, same_eye
from resegnet.learning.samples import COLUMNS, SOURCE_COLUMN, Sample, encoded, read_mask, read_sample
from resegnet.learning.synthetic_rows import synthetic_rows

__all__ = ["COLUMNS", "Sample", "encoded", "load_vessels", "read_mask", "read_sample"]

logger = logging.getLogger(__name__)


def load_vessels(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], split: str, patient_pattern: str = ""
) -> Dataset:
    """Load one split of one or several sources and check all of it.

    Parameters
    ----------
    source
        One of these, or a list of them, whose rows are joined in the given order:

        * `synthetic`: synthetic photographs, 24 in `train` and 8 in `test` (a folder of that name is `./synthetic`);
        * an image folder with `metadata.jsonl` (`image_file_name`, `mask_file_name` and, as far as known,
          `fov_file_name`, `image_id`, `patient`, `dataset`);
        * the public layout `train/image`, `train/mask`, `test/image`, `test/mask`, paired by file name;
        * a Parquet folder or file, or a folder written by `save_to_disk`, with columns `image` and `mask`;
        * a Hub id.
    split
        Name of the split, such as `train` or `test`.
    patient_pattern
        Regular expression. Where it matches part of a photograph's file name, or else of its `image_id`, its first
        group, or all of it if it has none, is the patient, whatever the source says. "" changes no patient.

    Returns
    -------
    Dataset
        Columns `image`, `mask`, `fov` (encoded, see `read_sample`; `fov` may be None), `image_id`, `patient`,
        `dataset`, `source`, `eye`. Where the source has no such column, `dataset` is the folder's name and `patient`
        the `image_id`. `source` is the source as it was given, `eye` the fingerprint, see `resegnet.learning.eyes`.

    Raises
    ------
    DataError
        For an unknown source or split; or with every problem listed: a photograph without mask or a mask without
        photograph, unreadable files, sizes that differ, masks without vessels or with vessels in the majority
        (inverted), an `image_id` that is used twice, a photograph of this split that is also in another split (same
        bytes); for a pattern that matches no photograph.

    Notes
    -----
    Pictures of one eye within a data set, found by their vessels although turned, mirrored or rescaled, get one
    `patient`, and the log says so. Two eyes of one person are not found. The public layout says nothing about patients.
    Names such as `21_training_2.png` start with DRIVE's number of the eye, which is used. For other names give a
    pattern, or put a `metadata.jsonl` into `train/` and `test/` with a line such as
    `{"image_file_name": "image/0.png", "mask_file_name": "mask/0.png", "patient": "21"}` for each picture.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not sources:
        raise DataError(f"No data set was named. Give {FORMS}.")
    parts: list[Dataset] = []
    other_splits: list[tuple[str, Dataset]] = []
    for item in map(str, sources):
        if item == "synthetic":  # the other split need not be made: their seeds differ
            parts.append(_with_source(synthetic_rows(split), item))
            continue
        name, splits = load_splits(item)
        if patient_pattern:
            splits = {
                key: _with_patients_by_pattern(rows, patient_pattern, key == split) for key, rows in splits.items()
            }
        if split not in splits:
            raise DataError(_explain_missing_split(item, split, splits))
        parts.append(_with_source(_with_all_columns(splits.pop(split), name, item), item))
        if not patient_pattern and split == "train":  # no other split is divided by patient
            _warn_of_unnamed_patients(parts[-1], item, split)
        warn_of_shared_patients(parts[-1], splits, item, split)
        other_splits += [(f"{name}, {key}", rows) for key, rows in splits.items() if "image" in rows.column_names]
    joined = datasets.concatenate_datasets(parts)
    fingerprints = check_vessels(joined, f"the split '{split}'", other_splits)
    eyes = [fingerprint.tobytes() for fingerprint in fingerprints]
    return _with_one_patient_per_eye(joined.add_column(EYE_COLUMN, eyes, feature=datasets.Value("binary")))


def _with_source(rows: Dataset, source: str) -> Dataset:
    """Return rows with the column `source`: what a row says of its data set need not be the name of the folder."""
    return rows.add_column(SOURCE_COLUMN, [source] * len(rows), feature=datasets.Value("string"))


def _explain_missing_split(source: str, split: str, splits: Iterable[str]) -> str:
    folder = Path(os.path.expanduser(source)) / split
    said = f"{source} has no split '{split}'; it has: {', '.join(sorted(splits)) or 'none'}."
    if not folder.is_dir():
        return said
    found = ", ".join(sorted(path.name for path in folder.glob("*/"))) or "none"
    return f"{said} {folder} needs the folders image and mask, or a metadata.jsonl; its folders: {found}."


def _with_patients_by_pattern(rows: Dataset, pattern: str, required: bool) -> Dataset:
    """Return a split with the patients that `pattern` finds in the names; a picture without a match keeps its own.

    Raises
    ------
    DataError
        If it is required to match a picture of the split and does not.
    """
    if not len(rows) or not {"image", "image_id"} & set(rows.column_names):
        return rows
    names = _file_names(rows)
    ids = rows["image_id"] if "image_id" in rows.column_names else [None] * len(rows)
    patients: list[str | None] = list(rows["patient"]) if "patient" in rows.column_names else [None] * len(rows)
    matched = 0
    for index, candidates in enumerate(zip(names, ids, strict=True)):
        match = next((match for name in candidates if name and (match := re.search(pattern, str(name)))), None)
        if match:
            matched += 1
            patients[index] = match[1] if match.re.groups and match[1] is not None else match[0]
    if required and not matched:
        example = names[0] or ids[0] or "pictures without a name"
        raise DataError(f"--patient-pattern {pattern} matches none of {len(rows)} names, such as {example}.")
    others = rows.remove_columns("patient") if "patient" in rows.column_names else rows
    texts = [None if patient is None else str(patient) for patient in patients]
    return others.add_column("patient", texts, feature=datasets.Value("string"))


def _file_names(rows: Dataset) -> list[str]:
    """Return the names of the photographs' files, "" where there is no file."""
    if "image" not in rows.column_names:
        return [""] * len(rows)
    cells = rows.select_columns("image").cast_column("image", COLUMNS["image"])["image"]
    return [Path((cell or {}).get("path") or "").name for cell in cells]


def _warn_of_unnamed_patients(part: Dataset, source: str, split: str) -> None:
    """Warn if the patients are those that the public layout has for names that it does not know."""
    unnamed = [f"{split}_{Path(name).stem}" for name in _file_names(part)]
    if part["patient"][:] == unnamed:
        logger.warning(
            "The file names in %s do not identify patients: each eye counts as its own patient. --patient-pattern "
            "takes patients from the names.",
            source,
        )


def _with_one_patient_per_eye(rows: Dataset) -> Dataset:
    """Return the rows with one `patient` for all pictures of one eye in a data set: that of the first of them."""
    names, patients = list(rows["dataset"]), list(rows["patient"])
    fingerprints = fingerprints_of(rows)
    for name in dict.fromkeys(names):
        places = [place for place, own in enumerate(names) if own == name]
        same = same_eye(fingerprints[places], fingerprints[places])
        count = connected_components(same, directed=False)[0]
        own_patients = np.array([patients[place] for place in places])
        persons, numbers = connected_components(same | (own_patients[:, None] == own_patients), directed=False)
        if persons == len(set(own_patients)):
            continue
        for place, number in zip(places, numbers, strict=True):
            patients[place] = str(own_patients[np.argmax(numbers == number)])
        logger.info(
            "%s: %d pictures of %d eyes, found by their vessels; pictures of one eye count as one patient.",
            name,
            len(places),
            count,
        )
    if patients == rows["patient"][:]:
        return rows
    columns = rows.column_names
    return (
        rows.remove_columns("patient")
        .add_column("patient", patients, feature=COLUMNS["patient"])
        .select_columns(columns)
    )


def _with_all_columns(part: Dataset, name: str, source: str) -> Dataset:
    """Return a split with the columns `COLUMNS`. No cache file is written: the source's folder may be read-only.

    Parameters
    ----------
    part
        The split, with the columns as they come.
    name
        Name of the data set, for rows that give none.
    source
        Source as the user gave it, for the error.

    Raises
    ------
    DataError
        If the column `image` or `mask` is missing.
    """
    if missing := {"image", "mask"} - set(part.column_names):
        raise DataError(
            f"{source} lacks the column {' and '.join(sorted(missing))}; "
            f"it has: {', '.join(part.column_names)}. In a metadata.jsonl, 'image_file_name' "
            "and 'mask_file_name' give these columns."
        )
    texts: dict[str, list[str | None]] = {
        column: [None if value is None else str(value) for value in part[column]]
        if column in part.column_names
        else [None] * len(part)
        for column in ("image_id", "patient", "dataset")
    }
    unified = part.select_columns([column for column in ("image", "mask", "fov") if column in part.column_names])
    for column in unified.column_names:
        unified = unified.cast_column(column, COLUMNS[column])
    if "fov" not in unified.column_names:
        unified = unified.add_column("fov", [None] * len(part), feature=COLUMNS["fov"])
    paths = [(cell or {}).get("path") for cell in unified["image"]]
    texts["image_id"] = [
        value or f"{name}_{Path(path).stem if path else format(index, '04d')}"
        for index, (value, path) in enumerate(zip(texts["image_id"], paths, strict=True))
    ]
    texts["patient"] = [value or other for value, other in zip(texts["patient"], texts["image_id"], strict=True)]
    texts["dataset"] = [value or name for value in texts["dataset"]]
    for column, values in texts.items():
        unified = unified.add_column(column, values, feature=COLUMNS[column])
    return unified.select_columns(list(COLUMNS))
