"""Write a segmentation to files: mask, probability and overlay as PNG of the photograph's size, summary as JSON."""

from __future__ import annotations

import io
import os
import platform
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from resegnet.io import json_bytes, png, safe_name, without_nan, write_atomically
from resegnet.results.measure import measure
from resegnet.results.render import OVERLAY_COLOR, OVERLAY_OPACITY, overlay
from resegnet.version import __version__

if TYPE_CHECKING:
    from resegnet.results.segmentation import Segmentation

# Packages on which a result depends besides this one.
_PACKAGES = ("torch", "segmentation-models-pytorch", "onnxruntime", "numpy", "scipy", "scikit-image", "pillow")


class Summary(TypedDict):
    """Description of a segmentation that fits into JSON; a measure that is undefined is None."""

    model: str
    height_px: int
    width_px: int
    threshold: float
    warnings: list[str]
    um_per_px: float | None
    measures: dict[str, float | None]
    versions: dict[str, str]


def mask_png(segmentation: Segmentation) -> bytes:
    """Encode the vessel mask as 8-bit grey PNG of the photograph's size: 255 vessel, 0 background."""
    return png(segmentation.mask.astype(np.uint8) * 255)


def probability_png(segmentation: Segmentation) -> bytes:
    """Encode the probability as 16-bit grey PNG of the photograph's size: times 65,535, rounded."""
    return png(np.round(segmentation.probability * np.float32(65535)).astype(np.uint16))


def overlay_png(
    segmentation: Segmentation, color: tuple[int, int, int] = OVERLAY_COLOR, opacity: float = OVERLAY_OPACITY
) -> bytes:
    """Encode the overlay as 8-bit RGB PNG; see `resegnet.results.render.overlay`."""
    return png(overlay(segmentation.image, segmentation.mask, color, opacity))


def summary(segmentation: Segmentation, um_per_px: float | None = None) -> Summary:
    """Describe a segmentation: model, size, threshold, warnings, scale, measures and versions.

    `um_per_px`, micrometres on the retina for a pixel, adds measures in micrometres. None takes the photograph's own
    scale, if its file gives one.
    """
    um_per_px = segmentation.um_per_px if um_per_px is None else um_per_px
    height, width = segmentation.fov.shape
    return {
        "model": segmentation.model,
        "height_px": height,
        "width_px": width,
        "threshold": segmentation.threshold,
        "warnings": list(segmentation.warnings),
        "um_per_px": um_per_px,
        "measures": without_nan(measure(segmentation, um_per_px)),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the installed packages on which a result depends."""
    return {"resegnet": __version__, "python": platform.python_version(), **_installed()}


@cache  # looking them up reads files
def _installed() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):  # the extra `train` brings the first two
            found[package] = version(package)
    return found


def contents(
    segmentation: Segmentation,
    name: str,
    color: tuple[int, int, int] = OVERLAY_COLOR,
    opacity: float = OVERLAY_OPACITY,
) -> dict[str, tuple[str, bytes]]:
    """Return file names and contents of a segmentation, by `mask`, `probability`, `overlay` and `summary`.

    Parameters
    ----------
    segmentation : Segmentation
    name : str
        Start of the file names, as `resegnet.io.safe_name` returns it.
    color, opacity
        Look of the overlay, see `resegnet.results.render.overlay`.
    """
    with ThreadPoolExecutor() as pool:  # zlib, which takes most of the time, releases the interpreter lock
        overlaid = pool.submit(overlay_png, segmentation, color, opacity)
        probability = pool.submit(probability_png, segmentation)
        return {
            "mask": (f"{name}_mask.png", mask_png(segmentation)),
            "probability": (f"{name}_probability.png", probability.result()),
            "overlay": (f"{name}_overlay.png", overlaid.result()),
            "summary": (f"{name}_summary.json", json_bytes(summary(segmentation))),
        }


def archive(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Pack named contents into a ZIP; the same files give the same bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:  # stored uncompressed, since PNG is compressed already
        for name, content in files:
            zipped.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def save(segmentation: Segmentation, folder: str | os.PathLike[str], name: str = "photograph") -> dict[str, Path]:
    """Write mask, probability, overlay and summary of a segmentation into a folder, which is created if necessary.

    Each file appears complete or not at all. A file of the same name is replaced.

    Parameters
    ----------
    segmentation : Segmentation
    folder : path
    name : str
        Start of the file names, made safe by `resegnet.io.safe_name`.

    Returns
    -------
    dict of str to Path
        By `mask`, `probability`, `overlay` and `summary`.

    Raises
    ------
    OSError
        If the folder cannot be created or written to.
    """
    folder = Path(os.path.expanduser(folder))
    folder.mkdir(parents=True, exist_ok=True)
    files = contents(segmentation, safe_name(name))
    for file_name, content in files.values():
        write_atomically(folder / file_name, content)
    return {kind: folder / file_name for kind, (file_name, _) in files.items()}
