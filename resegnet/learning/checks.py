"""Checks of data sets, each of which reports all that is wrong in one error."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from resegnet.errors import DataError, ImageError
from resegnet.image import read_image
from resegnet.learning.eyes import fingerprint, fingerprints_of, same_eye
from resegnet.learning.samples import COLUMNS, encoded, read_mask

logger = logging.getLogger(__name__)


def check_vessels(
    rows: Iterable[Mapping[str, Any]], name: str, other_splits: Sequence[tuple[str, Dataset]] = ()
) -> list[np.ndarray]:
    """Check every row of a data set, and that none of its photographs is in another split.

    Returns the fingerprint of each row's eye, see `resegnet.learning.eyes.fingerprint`: the masks are decoded here.

    Parameters
    ----------
    rows
        Rows with the columns `COLUMNS`.
    name
        Name of the data in the error.
    other_splits
        Names and rows of other splits, with a column `image`.

    Raises
    ------
    DataError
        With every problem listed, see `resegnet.learning.data.load_vessels`.
    """
    problems: list[str] = []
    fingerprints: list[np.ndarray] = []
    ids: Counter[str] = Counter()
    by_digest: dict[str, str] = {}
    for row in rows:
        ids[row["image_id"]] += 1
        own_problems, vessels = _check_row(row)
        problems += own_problems
        if vessels is not None:
            fingerprints.append(fingerprint(vessels))
        digest, picture = _digest(row["image"]), _name_of_picture(row, "image")
        if digest in by_digest:
            logger.warning("%s is the same photograph as %s.", picture, by_digest[digest])
        elif digest is not None:
            by_digest[digest] = picture
    if not ids:
        raise DataError(f"There are no pictures in {name}.")
    problems += [f"{image_id}: {count} pictures have this image_id" for image_id, count in ids.items() if count > 1]
    for other_name, other in other_splits:
        problems += _photographs_also_in(other_name, other, by_digest)
    _raise_problems(problems, name)
    return fingerprints


def check_disjoint(rows: Dataset, others: Mapping[str, Dataset]) -> None:
    """Check that no photograph of a data set has the same bytes as one of the other data sets, given by name.

    Raises
    ------
    DataError
        With every such photograph listed.
    """
    by_digest = {
        digest: _name_of_picture(row, "image") for row in rows if (digest := _digest(row["image"])) is not None
    }
    problems = [problem for name, other in others.items() for problem in _photographs_also_in(name, other, by_digest)]
    _raise_problems(problems, "the photographs to train on")


def warn_of_shared_patients(rows: Dataset, splits: Mapping[str, Dataset], source: str, split: str) -> None:
    """Warn of patients of a split, whose rows are given, who are also in another split of the same source."""
    for other_split, other in splits.items():
        if "patient" not in other.column_names:
            continue
        shared = set(rows["patient"]) & {str(patient) for patient in other["patient"] if patient is not None}
        if shared:
            logger.warning(
                "%s: patients are both in '%s' and in '%s', so scores will be optimistic: %s",
                source, split, other_split, ", ".join(sorted(shared)),
            )  # fmt: skip


def warn_of_test_eyes(seen: Mapping[str, Dataset], tests: Mapping[str, Dataset]) -> None:
    """Warn of photographs to be scored whose eyes, by their vessels, are among those of other rows.

    Parameters
    ----------
    seen
        Rows of `load_vessels`, by what is done with them: "trained on".
    tests
        Rows of `load_vessels` to be scored, by the name of the data set.
    """
    for use, rows in seen.items():
        for name, test in tests.items():
            pairs = np.argwhere(same_eye(fingerprints_of(test), fingerprints_of(rows)))
            if len(pairs):
                scored, other = pairs[0].tolist()
                logger.warning(
                    "%d of the %d photographs to score in %s show eyes that are %s, such as %s and %s: scores there "
                    "are optimistic.",
                    len(set(pairs[:, 0].tolist())), len(test), name, use,
                    test["image_id"][scored], rows["image_id"][other],
                )  # fmt: skip


def _photographs_also_in(name: str, other: Dataset, by_digest: Mapping[str, str]) -> list[str]:
    """Return a problem for each photograph of `other` whose digest is a key of `by_digest`."""
    digests = map(_digest, other.select_columns("image").cast_column("image", COLUMNS["image"])["image"])
    return [
        f"{by_digest[digest]}: the same photograph is in another split ({name})"
        for digest in digests
        if digest is not None and digest in by_digest
    ]


def _raise_problems(problems: Sequence[str], name: str) -> None:
    if problems:
        heading = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in {name}:"
        raise DataError("\n- ".join([heading, *problems]))


def _check_row(row: Mapping[str, Any]) -> tuple[list[str], np.ndarray | None]:
    """Return all that is wrong with one row by itself, and its vessels, (H, W) bool, if they can be read."""
    problems = []
    pixels: dict[str, np.ndarray] = {}
    if row["image"] is None:
        problems.append(f"{_name_of_picture(row, 'mask')}: no photograph belongs to this mask")
    if row["mask"] is None:
        problems.append(f"{_name_of_picture(row, 'image')}: no mask belongs to this photograph")
    for column in ("image", "mask", "fov"):
        cell = row[column]
        if cell is None:
            continue
        try:
            pixels[column] = read_image(encoded(cell)) if column == "image" else read_mask(cell)
        except FileNotFoundError:
            problems.append(f"{_name_of_picture(row, column)}: the file is missing")
        except (OSError, ImageError) as error:
            problems.append(f"{_name_of_picture(row, column)}: {error}")
    image, vessels, fov = pixels.get("image"), pixels.get("mask"), pixels.get("fov")
    for column in ("mask", "fov"):
        if image is not None and column in pixels and pixels[column].shape != image.shape[:2]:
            problems.append(
                f"{_name_of_picture(row, column)}: its size {_size(pixels[column])} differs from the photograph's, "
                f"{_size(image)}"
            )
    if vessels is not None and (fov is None or fov.shape == vessels.shape):
        problems += _problems_of_mask(row, vessels, fov)
    return problems, vessels


def _problems_of_mask(row: Mapping[str, Any], vessels: np.ndarray, fov: np.ndarray | None) -> list[str]:
    """Return a problem unless vessels cover a part, less than half, of the field of view, or of the frame without one.

    `vessels` and `fov` are (H, W) bool.
    """
    inside = vessels if fov is None else vessels[fov]
    if not inside.size:
        return [f"{_name_of_picture(row, 'fov')}: the field of view is empty"]
    share = inside.mean()
    place = "frame" if fov is None else "field of view"
    if 0 < share < 0.5:
        return []
    found = "no vessel is marked in" if share == 0 else f"inverted? Vessels cover {share:.0%} of"
    return [f"{_name_of_picture(row, 'mask')}: {found} the {place} (expected 255 on vessels, 0 elsewhere)"]


def _digest(cell: Mapping[str, Any] | None) -> str | None:
    """Return the SHA-256 of a picture's encoded bytes, or None if they cannot be read."""
    try:
        return None if cell is None else hashlib.sha256(encoded(cell)).hexdigest()
    except OSError:
        return None


def _name_of_picture(row: Mapping[str, Any], column: str) -> str:
    """Return the name of a row's picture for a message: its path, or data set, id and column."""
    cell = row[column]
    if cell is not None and cell["bytes"] is None:
        return cell["path"]
    return f"{row['dataset']}/{row['image_id']} ({column})"


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
