"""Layers that the page draws over a view: outlines, places, centrelines with calibres, kinds of the vessels."""

from __future__ import annotations

import zlib
from typing import TypedDict

import numpy as np

from resegnet.fov import bounding_box
from resegnet.results.anatomy import Disc, is_cut_off
from resegnet.results.segmentation import Segmentation
from resegnet.results.zones import ZONES

Line = list[float]  # x and y of its points in turn, px of the photograph; (0, 0) is its upper left corner

MAX_OUTLINE_PX = 1000  # longer side of the picture in which an outline is found


class ShownZone(TypedDict):
    """A zone round the optic disc as the legend names it."""

    title: str
    reach: str
    color: str


# The rings of zone C are dashed, too. A dark border lifts all rings off the fundus.
SHOWN_ZONES: list[ShownZone] = [
    {
        "title": f"zone {zone.name[-1].upper()}",
        "reach": f"{zone.inner:g} to {zone.outer:g} disc diameters from the disc",
        "color": color,
    }
    for zone, color in zip(ZONES, ("#ffd54a", "#e6b3ff"), strict=True)
]


class DiscShape(TypedDict):
    """The optic disc as `viewer.js` draws it, px of the photograph."""

    outline: list[Line]
    x: float
    y: float
    diameter: float
    zones: list[tuple[float, float]]  # distances of the borders of `ZONES` from (x, y); none of a disc cut off


class Shapes(TypedDict):
    """Layers that do not depend on the threshold."""

    field: list[Line]
    disc: DiscShape | None
    fovea: Line | None
    eye: str | None


def find_shapes(result: Segmentation) -> Shapes:
    """Collect the outlines and places of a result; None where there is none."""
    fovea = result.fovea
    return {
        "field": outlines(result.fov),
        "disc": None if result.disc is None else _disc_shape(result.disc, result.fov),
        "fovea": None if fovea is None else [fovea[1] + 0.5, fovea[0] + 0.5],
        "eye": result.eye,
    }


def outlines(mask: np.ndarray) -> list[Line]:
    """Return the borders of a mask, (H, W) bool, exact to 1 px or to a thousandth of the mask's extent."""
    from skimage.measure import approximate_polygon, find_contours

    if not mask.any():
        return []
    box = bounding_box(mask)
    part = mask[box.top : box.bottom, box.left : box.right]
    step = -(-max(part.shape) // MAX_OUTLINE_PX)
    lines = []
    for contour in find_contours(np.pad(part[::step, ::step], 1).astype(np.uint8), 0.5):
        # Sample k of the reduced mask is pixel k * step; the padding shifts it by one, a pixel's middle lies at 0.5.
        points = (approximate_polygon(contour, 0.5) - 1) * step + 0.5 + (box.top, box.left)
        lines.append([round(float(value), 1) for row, column in points for value in (column, row)])
    return lines


def pack_calibres(result: Segmentation) -> bytes:
    """Encode the centrelines for the browser: x, y and calibre in px of each point, float32, as a zlib stream.

    The calibre is nan where it is not measured.
    """
    lines = result.centrelines
    columns = (lines.points[:, 1] + 0.5, lines.points[:, 0] + 0.5, lines.calibres_px)
    return zlib.compress(np.stack(columns, axis=1).astype("<f4").tobytes(), 1)


def _disc_shape(disc: Disc, fov: np.ndarray) -> DiscShape:
    row, column = disc.centre
    return {
        "outline": outlines(disc.mask),
        "x": column + 0.5,
        "y": row + 0.5,
        "diameter": disc.diameter,
        "zones": [] if is_cut_off(disc, fov) else [zone.borders_px(disc) for zone in ZONES],
    }
