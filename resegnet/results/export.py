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
from PIL import Image

from resegnet.io import json_bytes, png, safe_name, without_nan, write_atomically
from resegnet.results.measure import measure
from resegnet.results.render import OVERLAY_COLOR, OVERLAY_OPACITY, overlay
from resegnet.version import __version__

if TYPE_CHECKING:
    from resegnet.results.segmentation import Segmentation

# Packages on which a result depends besides this one.
_PACKAGES = ("torch", "segmentation-models-pytorch", "onnxruntime", "numpy", "scipy", "scikit-image", "pillow")


# Colours in which programs show `kinds_png`: nothing, artery, vein, both. The same as in the data set RITE (Hu et al.
# 2013, doi:10.1007/978-3-642-40763-5_54).
_KINDS_PALETTE = (0, 0, 0, 255, 0, 0, 0, 0, 255, 0, 255, 0)


class PlaceSummary(TypedDict):
    """A place in the photograph, px."""

    row: float
    column: float


class DiscSummary(PlaceSummary):
    """Centre and diameter of the optic disc, px."""

    diameter_px: float


class Summary(TypedDict):
    """Description of a segmentation that fits into JSON; what is undefined or was not found is None."""

    model: str
    height_px: int
    width_px: int
    threshold: float
    warnings: list[str]
    warning_codes: list[str]  # of the same warnings
    um_per_px: float | None
    measures: dict[str, float | None]
    undefined: dict[str, str]  # reason of each measure that is None, see `resegnet.results.measures.Undefined`
    disc: DiscSummary | None
    fovea: PlaceSummary | None
    eye: str | None
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


def kinds_png(segmentation: Segmentation) -> bytes | None:
    """Encode the kinds as PNG of the photograph's size with a palette: 0 no vessel, 1 artery, 2 vein, 3 both.

    None for a result without anatomy.
    """
    if segmentation.kinds is None:
        return None
    picture = Image.fromarray(segmentation.kinds)
    picture.putpalette(_KINDS_PALETTE)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def kinds_map_png(segmentation: Segmentation, safe_colors: bool = False) -> bytes | None:
    """Encode `Segmentation.kinds_map` as 8-bit RGB PNG; None without anatomy."""
    drawn = segmentation.kinds_map(safe_colors)
    return None if drawn is None else png(drawn)


def summary(segmentation: Segmentation, um_per_px: float | None = None) -> Summary:
    """Describe a segmentation: model, size, threshold, warnings, scale, measures, disc, fovea, eye and versions.

    `um_per_px`, micrometres on the retina for a pixel, adds measures in micrometres. None takes the photograph's own
    scale, if its file gives one.
    """
    um_per_px = segmentation.um_per_px if um_per_px is None else um_per_px
    height, width = segmentation.fov.shape
    disc, fovea = segmentation.disc, segmentation.fovea
    measures = measure(segmentation, um_per_px)
    return {
        "model": segmentation.model,
        "height_px": height,
        "width_px": width,
        "threshold": segmentation.threshold,
        "warnings": list(segmentation.warnings),
        "warning_codes": [warning.code for warning in segmentation.warnings],
        "um_per_px": um_per_px,
        "measures": without_nan(measures),
        "undefined": {key: reason.value for key, reason in measures.undefined.items()},
        "disc": None
        if disc is None
        else {"row": disc.centre[0], "column": disc.centre[1], "diameter_px": disc.diameter},
        "fovea": None if fovea is None else {"row": fovea[0], "column": fovea[1]},
        "eye": segmentation.eye,
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
    safe_colors: bool = False,
) -> dict[str, tuple[str, bytes]]:
    """Return file names and contents of a segmentation, by `mask`, `probability`, `overlay` and `summary`.

    With anatomy, `kinds` and `kinds_map` come too.

    Parameters
    ----------
    segmentation : Segmentation
    name : str
        Start of the file names, as `resegnet.io.safe_name` returns it.
    color, opacity
        Look of the overlay, see `resegnet.results.render.overlay`.
    safe_colors
        See `Segmentation.kinds_map`.
    """
    with ThreadPoolExecutor() as pool:  # zlib, which takes most of the time, releases the interpreter lock
        overlaid = pool.submit(overlay_png, segmentation, color, opacity)
        probability = pool.submit(probability_png, segmentation)
        kinds = kinds_png(segmentation)  # first, since the kinds are kept for the next
        kinds_map = pool.submit(kinds_map_png, segmentation, safe_colors)
        files = {
            "mask": (f"{name}_mask.png", mask_png(segmentation)),
            "probability": (f"{name}_probability.png", probability.result()),
            "overlay": (f"{name}_overlay.png", overlaid.result()),
            "summary": (f"{name}_summary.json", json_bytes(summary(segmentation))),
        }
    for kind, content in (("kinds", kinds), ("kinds_map", kinds_map.result())):
        if content is not None:
            files[kind] = f"{name}_{kind}.png", content
    return files


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
        By `mask`, `probability`, `overlay` and `summary`; with anatomy also by `kinds` and `kinds_map`.

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
