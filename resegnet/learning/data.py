"""Photographs with references from every kind of source, checked and in one form.

`load_vessels` returns a `datasets.Dataset` whose picture columns stay encoded. So `read_sample`, with
`resegnet.image.read_image` inside, is the only decoder of the pixels that are trained on or scored.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import datasets
from datasets import Dataset

from resegnet.dataset_source import FORMS, load_splits
from resegnet.errors import DataError
from resegnet.learning.checks import check_vessels, warn_of_shared_patients
from resegnet.learning.samples import COLUMNS, Sample, encoded, read_mask, read_sample
from resegnet.learning.synthetic_rows import synthetic_rows

__all__ = ["COLUMNS", "Sample", "encoded", "load_vessels", "read_mask", "read_sample"]


def load_vessels(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], split: str) -> Dataset:
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

    Returns
    -------
    Dataset
        Columns `image`, `mask`, `fov` (encoded, see `read_sample`; `fov` may be None), `image_id`, `patient`,
        `dataset`. Where the source has no such column, `dataset` is the folder's name and `patient` the `image_id`.

    Raises
    ------
    DataError
        For an unknown source or split; or with every problem listed: a photograph without mask or a mask without
        photograph, unreadable files, sizes that differ, masks without vessels or with vessels in the majority
        (inverted), an `image_id` that is used twice, a photograph of this split that is also in another split (same
        bytes).

    Notes
    -----
    The public layout says nothing about patients. Names such as `21_training_2.png` start with DRIVE's number of the
    eye, which is used. Otherwise each picture counts as a patient of its own; a validation split is then misleading if
    the pictures include rotated or mirrored copies. To name the patients, put a `metadata.jsonl` into `train/` and
    `test/` with a line such as `{"image_file_name": "image/0.png", "mask_file_name": "mask/0.png", "patient": "21"}`
    for each picture.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not sources:
        raise DataError(f"No data set was named. Give {FORMS}.")
    parts: list[Dataset] = []
    other_splits: list[tuple[str, Dataset]] = []
    for item in map(str, sources):
        if item == "synthetic":  # the other split need not be made: their seeds differ
            parts.append(synthetic_rows(split))
            continue
        name, splits = load_splits(item)
        if split not in splits:
            raise DataError(f"{item} has no split '{split}'; it has: {', '.join(sorted(splits)) or 'none'}.")
        parts.append(_with_all_columns(splits.pop(split), name, item))
        warn_of_shared_patients(parts[-1], splits, item, split)
        other_splits += [(f"{name}, {key}", rows) for key, rows in splits.items() if "image" in rows.column_names]
    joined = datasets.concatenate_datasets(parts)
    check_vessels(joined, f"the split '{split}'", other_splits)
    return joined


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
