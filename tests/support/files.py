"""Functions that read what lies in files and folders."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of each file in a folder and its folders, by its path from there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(picture: Path | str | bytes) -> np.ndarray:
    """Return the pixels of a picture, a file or its content, as they are stored."""
    with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
        return np.array(image)
