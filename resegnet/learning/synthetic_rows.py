"""Synthetic photographs as a data set."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

from datasets import Dataset
from PIL import Image

from resegnet.errors import DataError
from resegnet.learning.samples import COLUMNS
from resegnet.synthetic import draw_fundus

# Seeds of the photographs of each split. They are far apart, so that either split can grow without meeting the other.
SYNTHETIC_SEEDS = {"train": range(24), "test": range(1_000_000, 1_000_008)}


@cache
def synthetic_rows(split: str) -> Dataset:
    """Make the synthetic photographs of a split, with the columns `COLUMNS`.

    Raises
    ------
    DataError
        If there is no such split.
    """
    if split not in SYNTHETIC_SEEDS:
        raise DataError(f"synthetic has no split '{split}'; it has: {', '.join(sorted(SYNTHETIC_SEEDS))}.")
    rows = []
    for number, seed in enumerate(SYNTHETIC_SEEDS[split]):
        eye = draw_fundus(seed)
        image_id = f"synthetic_{split}_{number:02d}"
        row: dict[str, Any] = {"image_id": image_id, "patient": image_id, "dataset": "synthetic"}
        for column, pixels in (("image", eye.image), ("mask", eye.vessels), ("fov", eye.fov)):
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
            # Without a path, because `datasets` drops the bytes if a file of that name happens to exist.
            row[column] = {"bytes": stream.getvalue(), "path": None}
        rows.append(row)
    return Dataset.from_list(rows, features=COLUMNS)
