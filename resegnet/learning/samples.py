"""One photograph with its reference, as a row of a data set and decoded, and folders with further references."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from resegnet.dataset_source import PICTURE_CELL
from resegnet.image import read_image

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
SOURCE_COLUMN = "source"  # of the data sets that `load_vessels` returns: the folder, file or Hub id of a row


@dataclass(frozen=True)
class Sample:
    """One photograph with its reference, all in the photograph's own frame.

    Attributes
    ----------
    image
        (H, W, 3) uint8 RGB.
    vessels
        (H, W) bool, True on a vessel.
    fov
        (H, W) bool, True inside the field of view, or None if the data set has none.
    image_id, patient, dataset
        Names of the photograph, the person, and the data set.
    """

    image: np.ndarray
    vessels: np.ndarray
    fov: np.ndarray | None
    image_id: str
    patient: str
    dataset: str


def read_sample(row: Mapping[str, Any]) -> Sample:
    """Decode one row of `resegnet.learning.data.load_vessels`.

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


def photograph_sha256(image: np.ndarray) -> str:
    """Return the SHA-256 of a decoded photograph, (H, W, 3) uint8, its size included, as hexadecimal text.

    The same pixels in another file, under another name or in another lossless format, give the same digest.
    """
    height, width, _ = image.shape
    return hashlib.sha256(b"%d %d " % (height, width) + image.tobytes()).hexdigest()


def read_mask(cell: Mapping[str, Any]) -> np.ndarray:
    """Decode a cell of a mask column, `{"bytes": ..., "path": ...}`.

    Returns
    -------
    mask
        (H, W) bool. True where the brightest channel exceeds 127 of 255; in a mask that holds only 0 and 1, as label
        pictures do, True where it is 1.

    Raises
    ------
    ImageError
        If the mask cannot be decoded.
    """
    red, green, blue = np.moveaxis(read_image(encoded(cell)), 2, 0)
    values = np.maximum(np.maximum(red, green), blue)  # 25 times as fast as .max(axis=2)
    return values > (127 if values.max() > 1 else 0)


def folder_beside(source: str | os.PathLike[str], name: str) -> Path | None:
    """Return the folder `name` inside a data set's folder or beside it, or None."""
    folder = Path(os.path.expanduser(source))
    for found in (folder / name, folder.absolute().parent / name):
        if folder.is_dir() and found.is_dir():
            return found
    return None


def encoded(cell: Mapping[str, Any]) -> bytes:
    """Return the encoded bytes of a cell of a picture column.

    Raises
    ------
    OSError
        If the cell names a file that cannot be read.
    """
    return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()


def photograph_digests(rows: datasets.Dataset) -> list[str]:
    """Return the SHA-256 of each photograph of rows of `load_vessels`, see `photograph_sha256`. It decodes them all."""
    return [photograph_sha256(read_image(encoded(row["image"]))) for row in rows.select_columns("image")]
