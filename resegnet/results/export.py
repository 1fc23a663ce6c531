"""Files of a segmentation: mask, probability and overlay as PNG of the photograph's size, summary as JSON."""

from __future__ import annotations

import io
import json
import math
import os
import platform
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

import resegnet
from resegnet.results.measure import measure
from resegnet.results.render import overlay

if TYPE_CHECKING:
    from resegnet.segmenter import Segmentation

# What a result depends on besides this package.
_PACKAGES = ("torch", "segmentation-models-pytorch", "onnxruntime", "numpy", "scipy", "scikit-image", "pillow")

# Deflate without its search for repeats, of which photographs have none beyond runs. Measured on 3504 x 2336 (one busy
# core): overlay 1.4 s and 6.9 MB, against 1.4 s and 8.7 MB at zlib's level 1, and 8 s and 7.4 MB at Pillow's default of
# 6; probability 0.6 s and 5.4 MB, against 1.1 s and 5.7 MB; mask 0.15 s and 0.1 MB, against 0.3 s and 0.1 MB at 6.
_QUICK = {"compress_level": 1, "compress_type": zlib.Z_RLE}

# A file name may have 255 bytes on common file systems; this leaves room for the endings.
_NAME_BYTES = 150


def mask_png(segmentation: Segmentation) -> bytes:
    """8-bit grey PNG of the photograph's size: 255 vessel, 0 not."""
    return png(segmentation.mask.astype(np.uint8) * 255)


def probability_png(segmentation: Segmentation) -> bytes:
    """16-bit grey PNG of the photograph's size: vessel probability times 65,535, rounded."""
    return png(np.round(segmentation.probability * np.float32(65535)).astype(np.uint16))


def overlay_png(segmentation: Segmentation, **options: Any) -> bytes:
    """8-bit RGB PNG of the photograph with its vessels coloured; options as in `resegnet.results.render.overlay`."""
    return png(overlay(segmentation.image, segmentation.mask, **options))


def summary(segmentation: Segmentation) -> dict:
    """Model, threshold, size, warnings, measures and versions, fit for JSON (an undefined measure is None)."""
    height, width = segmentation.image.shape[:2]
    return {
        "model": segmentation.model,
        "height_px": height,
        "width_px": width,
        "threshold": segmentation.threshold,
        "warnings": list(segmentation.warnings),
        "measures": without_nan(measure(segmentation)),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of all that a result depends on."""
    return {"resegnet": resegnet.__version__, "python": platform.python_version(), **_installed()}


@cache  # found by reading files
def _installed() -> dict[str, str]:
    return {package: version(package) for package in _PACKAGES}


def without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    """The same numbers, None in place of nan, which JSON does not know."""
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def contents(segmentation: Segmentation, name: str, **options: Any) -> dict[str, tuple[str, bytes]]:
    """File names and contents of a segmentation, by "mask", "probability", "overlay" and "summary".

    `name` has gone through `safe_name`; options are those of `overlay_png`.
    """
    with ThreadPoolExecutor() as pool:  # zlib frees the interpreter, and its work is nearly all there is
        overlaid = pool.submit(overlay_png, segmentation, **options)
        probability = pool.submit(probability_png, segmentation)
        return {
            "mask": (f"{name}_mask.png", mask_png(segmentation)),
            "probability": (f"{name}_probability.png", probability.result()),
            "overlay": (f"{name}_overlay.png", overlaid.result()),
            "summary": (f"{name}_summary.json", json_bytes(summary(segmentation))),
        }


def archive(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A ZIP of named contents; the same files give the same bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:  # stored: PNG is compressed already
        for name, content in files:
            zipped.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def save(segmentation: Segmentation, folder: str | os.PathLike[str], name: str = "photograph") -> dict[str, Path]:
    """Write mask, probability, overlay and summary of a segmentation into a folder, which is made if need be.

    A file is there whole or not at all; one of the same name is replaced.

    Parameters
    ----------
    segmentation : Segmentation
    folder : path
    name : str
        Start of the files' names, made harmless by `safe_name`.

    Returns
    -------
    dict of str to Path
        By "mask", "probability", "overlay" and "summary".

    Raises
    ------
    OSError
        If the folder cannot be made or written to.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = contents(segmentation, safe_name(name))
    for file_name, content in files.values():
        write_atomically(folder / file_name, content)
    return {kind: folder / file_name for kind, (file_name, _) in files.items()}


_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}


def safe_name(name: str) -> str:
    r"""Turn any text into the start of a file name that stays in its folder on every system.

    Separators, the characters that Windows refuses and control or unpaired ones become "_"; dots and blanks
    at either end go, and so does what exceeds 150 bytes of UTF-8. What is left empty becomes "photograph". A device
    of Windows, such as CON, gets a "_" before it.
    """
    characters = ["_" if c in '/\\:*?"<>|' or unicodedata.category(c)[0] == "C" else c for c in name]
    short = "".join(characters).strip(". ").encode()[:_NAME_BYTES].decode(errors="ignore")
    short = short.rstrip(". ") or "photograph"
    return f"_{short}" if short.partition(".")[0].upper() in _DEVICES else short


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that `path` holds the old or the new content whole, also if the process is killed.

    Raises
    ------
    OSError
        If it cannot be written; it names the file.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:  # of a full disk it names no file, else the temporary one
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


def png(pixels: np.ndarray, **options: int) -> bytes:
    """Encode (H, W) uint8 or uint16, or (H, W, 3) uint8, as PNG; options are Pillow's, in place of quick ones."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **(options or _QUICK))
    return file.getvalue()


def json_bytes(value: dict) -> bytes:
    """Encode as strict JSON (no NaN), readable by people, ending in a line feed."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
