"""Photographs with hand-traced vessels, from wherever they lie, checked and in one form.

`load_vessels` gives a `datasets.Dataset` whose picture columns stay encoded, so that `read_sample` and,
inside it, `resegnet.image.read_image` remain the only decoders that a pixel passes on its way into training
or scoring.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset
from PIL import Image

from resegnet.dataset_source import FORMS, PICTURE_CELL, load_splits
from resegnet.errors import DataError, ImageError
from resegnet.image import read_image

logger = logging.getLogger(__name__)

COLUMNS = datasets.Features(
    {
        "image": PICTURE_CELL,
        "mask": PICTURE_CELL,
        "fov": PICTURE_CELL,
        "image_id": datasets.Value("string"),
        "patient": datasets.Value("string"),
        "dataset": datasets.Value("string"),
    }
)

# Seeds of the drawn photographs. Far apart, so that either split can grow without meeting the other.
SYNTHETIC_SEEDS = {"train": range(24), "test": range(1_000_000, 1_000_008)}


@dataclass(frozen=True)
class Sample:
    """One photograph with its reference.

    `image` is (H, W, 3) uint8 RGB; `vessels` (H, W) bool, True on a vessel; `fov` (H, W) bool, True inside
    the field of view, or None where the set gives none. All three share the photograph's own frame.
    """

    image: np.ndarray
    vessels: np.ndarray
    fov: np.ndarray | None
    image_id: str
    patient: str
    dataset: str


def load_vessels(source: str | os.PathLike | Sequence[str | os.PathLike], split: str) -> Dataset:
    """Load one split of one or several sources and check all of it.

    Parameters
    ----------
    source
        One of these, or a list of them, which is joined in its order:

        * `synthetic`: photographs drawn by this package, 24 to train on and 8 to test on (a folder of that name
          is `./drawn`);
        * an image folder with `metadata.jsonl` (`image_file_name`, `mask_file_name` and, as far as known,
          `fov_file_name`, `image_id`, `patient`, `dataset`);
        * the public layout `train/image`, `train/mask`, `test/image`, `test/mask`, paired by file name;
        * a Parquet folder or file, or a folder written by `save_to_disk`, with columns `image` and `mask`;
        * a Hub id.
    split
        Name of the split, as `train` or `test`.

    Returns
    -------
    Dataset
        Columns `image`, `mask`, `fov` (encoded, see `read_sample`; `fov` may be None), `image_id`, `patient`,
        `dataset`. Without a column of that name, `dataset` is the folder's name and `patient` the `image_id`.

    Raises
    ------
    DataError
        For an unknown source or split, and with every offending file listed: a photograph without mask or a
        mask without photograph, unreadable files, sizes that differ, masks without vessels or with vessels in
        the majority (inverted), an `image_id` that is used twice, a photograph of this split that lies in
        another split too (same bytes).

    Notes
    -----
    The public layout says nothing about patients. Names like `21_training_2.png` begin with DRIVE's number of
    the eye, which is used; otherwise each picture counts as a patient of its own, which a validation split
    must not rely on where pictures are rotated or mirrored copies. To say it, put a `metadata.jsonl` into
    `train/` and `test/` with a line such as `{"image_file_name": "image/0.png", "mask_file_name":
    "mask/0.png", "patient": "21"}` for each picture.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not sources:
        raise DataError(f"No data set was named. Give {FORMS}.")
    parts, other_splits = [], []
    for item in sources:
        if item == "synthetic":
            # Drawing takes time, so the split that was not asked for is left out: the seeds keep the two apart.
            name, splits = "synthetic", {split: _draw(split)} if split in SYNTHETIC_SEEDS else {}
        else:
            name, splits = load_splits(str(item))
        if split not in splits:
            known = SYNTHETIC_SEEDS if name == "synthetic" else splits
            raise DataError(f"{item} has no split '{split}'; it has: {', '.join(sorted(known)) or 'none'}.")
        parts.append(_unify(splits.pop(split), name, str(item)))
        _warn_of_shared_patients(parts[-1], splits, str(item), split)
        other_splits += [(f"{name}, {key}", rows) for key, rows in splits.items() if "image" in rows.column_names]
    joined = datasets.concatenate_datasets(parts)
    check_vessels(joined, f"the split '{split}'", other_splits)
    return joined


def read_sample(row: Mapping[str, Any]) -> Sample:
    """Decode one row of `load_vessels`.

    Raises
    ------
    ImageError
        If the photograph or a mask cannot be decoded.
    """
    return Sample(
        image=read_image(encoded(row["image"])),
        vessels=read_mask(row["mask"]),
        fov=None if row["fov"] is None else read_mask(row["fov"]),
        image_id=row["image_id"],
        patient=row["patient"],
        dataset=row["dataset"],
    )


def read_mask(cell: Mapping[str, Any]) -> np.ndarray:
    """Decode the cell of a mask column, `{"bytes": ..., "path": ...}`, to (H, W) bool.

    What is brighter than 127 of 255 in its brightest channel is True. A mask that knows 0 and 1 only, as
    label pictures do, has its ones taken for True.

    Raises
    ------
    ImageError
        If the mask cannot be decoded.
    """
    red, green, blue = np.moveaxis(read_image(encoded(cell)), 2, 0)
    values = np.maximum(np.maximum(red, green), blue)  # 25 times as fast as .max(axis=2)
    return values > (127 if values.max() > 1 else 0)


def split_validation(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split off validation eyes, by patient and within each data set.

    Each data set gives `fraction` of its patients, at least one, and keeps at least one. Which ones depends
    on the seed and the patients alone: not on the order of the rows nor on the other data sets.

    Returns
    -------
    (train, validation)
        Each in the order of the rows that came.

    Raises
    ------
    ValueError
        If `fraction` is not between 0 and 1.
    DataError
        If no data set has two patients.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"The validation fraction must lie between 0 and 1; got {fraction}.")
    eyes = list(zip(dataset["dataset"], dataset["patient"], strict=True))
    patients = defaultdict(list)
    for name, patient in sorted(set(eyes)):
        patients[name].append(patient)
    chosen = set()
    for name, members in patients.items():
        if len(members) == 1:
            logger.warning("%s has a single patient, who stays in training: no validation on this set.", name)
            continue
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        # Ordered by a hash, as a random generator would make the choice in one set depend on the other sets.
        members.sort(key=lambda patient, name=name: hashlib.sha256(f"{seed}\n{name}\n{patient}".encode()).digest())
        chosen.update((name, patient) for patient in members[:count])
    if not chosen:
        raise DataError(
            f"No validation split is possible: {len(patients)} data set(s) with one patient each. "
            "At least one data set needs two patients (column 'patient')."
        )
    rows = [index for index, eye in enumerate(eyes) if eye not in chosen]
    validation_rows = [index for index, eye in enumerate(eyes) if eye in chosen]
    return dataset.select(rows), dataset.select(validation_rows)


def check_vessels(
    rows: Iterable[Mapping[str, Any]], what: str, other_splits: Sequence[tuple[str, Dataset]] = ()
) -> None:
    """Check every row of a data set with `COLUMNS`, and that none of its photographs is in another split.

    `what` is the data's name in the message; `other_splits` holds names and data sets with a column `image`.

    Raises
    ------
    DataError
        One, with all that is wrong; see `load_vessels`.
    """
    problems: list[str] = []
    ids: Counter[str] = Counter()
    where: dict[str, str] = {}
    for row in rows:
        ids[row["image_id"]] += 1
        problems += _check_row(row)
        digest = _digest(row["image"])
        if digest in where:
            logger.warning("%s is the same photograph as %s.", _label(row, "image"), where[digest])
        elif digest is not None:
            where[digest] = _label(row, "image")
    if not ids:
        raise DataError(f"There are no pictures in {what}.")
    problems += [f"{image_id}: {count} pictures have this image_id" for image_id, count in ids.items() if count > 1]
    for name, other in other_splits:
        problems += _shared(where, name, other)
    if problems:
        raise DataError(_listed(problems, what))


def check_disjoint(rows: Dataset, others: Mapping[str, Dataset]) -> None:
    """Check that no photograph of a data set is, byte for byte, in one of the others (name to data set).

    Raises
    ------
    DataError
        With every such photograph.
    """
    where = {_digest(row["image"]): _label(row, "image") for row in rows}
    problems = [problem for name, other in others.items() for problem in _shared(where, name, other)]
    if problems:
        raise DataError(_listed(problems, "the photographs to train on"))


def _shared(where: Mapping[str | None, str], name: str, other: Dataset) -> list[str]:
    """What of a data set is among the photographs of known digest."""
    digests = map(_digest, other.select_columns("image").cast_column("image", COLUMNS["image"])["image"])
    return [
        f"{where[digest]}: the same photograph is in another split ({name})"
        for digest in digests
        if digest is not None and digest in where
    ]


def _warn_of_shared_patients(rows: Dataset, splits: Mapping[str, Dataset], source: str, split: str) -> None:
    for key, other in splits.items():
        if "patient" in other.column_names:
            both = sorted(set(rows["patient"]) & {str(patient) for patient in other["patient"] if patient is not None})
            if both:
                logger.warning(
                    "%s: patients are in '%s' and in '%s' too, so that scores will flatter: %s",
                    source, split, key, ", ".join(both),
                )  # fmt: skip


def _listed(problems: Sequence[str], what: str) -> str:
    return f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in {what}:\n- " + "\n- ".join(problems)


@cache
def _draw(split: str) -> Dataset:
    from resegnet.synthetic import draw_fundus

    rows = []
    for number, seed in enumerate(SYNTHETIC_SEEDS[split]):
        drawn = draw_fundus(seed)
        pictures = {"image": drawn.image, "mask": drawn.vessels, "fov": drawn.fov}
        image_id = f"synthetic_{split}_{number:02d}"
        row: dict[str, Any] = {"image_id": image_id, "patient": image_id, "dataset": "synthetic"}
        for column, pixels in pictures.items():
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
            # Without a path: `datasets` drops the bytes where a file of that name happens to lie about.
            row[column] = {"bytes": stream.getvalue(), "path": None}
        rows.append(row)
    return Dataset.from_list(rows, features=COLUMNS)


def _unify(part: Dataset, name: str, source: str) -> Dataset:
    """Bring a split to `COLUMNS`, without a cache file: the source's folder may be read-only."""
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


def _check_row(row: Mapping[str, Any]) -> list[str]:
    """All that is wrong with one row by itself."""
    problems = []
    pixels: dict[str, np.ndarray] = {}
    if row["image"] is None:
        problems.append(f"{_label(row, 'mask')}: no photograph belongs to this mask")
    if row["mask"] is None:
        problems.append(f"{_label(row, 'image')}: no mask belongs to this photograph")
    for column in ("image", "mask", "fov"):
        if row[column] is None:
            continue
        try:
            cell = row[column]
            pixels[column] = read_image(encoded(cell)) if column == "image" else read_mask(cell)
        except FileNotFoundError:
            problems.append(f"{_label(row, column)}: the file is missing")
        except (OSError, ImageError) as error:
            problems.append(f"{_label(row, column)}: {error}")
    image, vessels, fov = pixels.get("image"), pixels.get("mask"), pixels.get("fov")
    for column in ("mask", "fov"):
        if image is not None and column in pixels and pixels[column].shape != image.shape[:2]:
            problems.append(
                f"{_label(row, column)}: its size {_size(pixels[column])} differs from the photograph's, {_size(image)}"
            )
    if vessels is not None and (fov is None or fov.shape == vessels.shape):
        problems += _polarity(row, vessels, fov)
    return problems


def _polarity(row: Mapping[str, Any], vessels: np.ndarray, fov: np.ndarray | None) -> list[str]:
    """Vessels cover some of the field (of the frame, where no field is given), and less than half of it."""
    inside = vessels if fov is None else vessels[fov]
    if not inside.size:
        return [f"{_label(row, 'fov')}: the field of view is empty"]
    share = inside.mean()
    place = "frame" if fov is None else "field of view"
    if 0 < share < 0.5:
        return []
    found = "no vessel is marked in" if share == 0 else f"inverted? Vessels cover {share:.0%} of"
    return [f"{_label(row, 'mask')}: {found} the {place} (expected 255 on vessels, 0 elsewhere)"]


def encoded(cell: Mapping[str, Any]) -> bytes:
    """Encoded bytes of a picture column's cell."""
    return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()


def _digest(cell: Mapping[str, Any] | None) -> str | None:
    try:
        return None if cell is None else hashlib.sha256(encoded(cell)).hexdigest()
    except OSError:
        return None


def _label(row: Mapping[str, Any], column: str) -> str:
    """What to call a row's picture in a message: its path, or data set, id and column."""
    cell = row[column]
    if cell is not None and cell["bytes"] is None:
        return cell["path"]
    return f"{row['dataset']}/{row['image_id']} ({column})"


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
