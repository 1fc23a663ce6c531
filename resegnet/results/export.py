"""Files of a segmentation: mask, probability and overlay as PNG of the photograph's size, summary as JSON."""

from __future__ import annotations

import io
import os
import platform
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resegnet.io import json_bytes, png, safe_name, without_nan, write_atomically
from resegnet.results.measure import measure
from resegnet.results.render import overlay
from resegnet.version import __version__

if TYPE_CHECKING:
    from resegnet.results.segmentation import Segmentation

# What a result depends on besides this package.
_PACKAGES = ("torch", "segmentation-models-pytorch", "onnxruntime", "numpy", "scipy", "scikit-image", "pillow")


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
    return {"resegnet": __version__, "python": platform.python_version(), **_installed()}


@cache  # found by reading files
def _installed() -> dict[str, str]:
    return {package: version(package) for package in _PACKAGES}


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
