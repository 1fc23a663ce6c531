"""Finds the field of view: the part of a fundus photograph that shows the eye, without the camera's surround.

Almost every camera images through a round mask, so the field is a circle. The frame, or a flat strip inside it, may cut
the circle off. The circle is fitted to where light begins, then placed on the sharpest step along its rim: a threshold
alone would lose a dark periphery on one photograph and take in the camera's stray light on the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from resegnet.ellipse import distance_from_rim, fit_by_trials, fit_ellipse, is_plausible
from resegnet.errors import ArgumentError

SMALL_PX = 256  # longest side of the copy on which the circle is first sought
SMALLEST_SIDE_PX = 24  # below this a rim is a handful of pixels; the whole frame is the better answer
THRESHOLDS = (3, 5, 8, 13, 20, 32, 50, 80)  # grey levels above the surround, in steps of about 1.6
RIM_ANGLES = 256
# A fit scores rim contrast times the share of edge points on the rim: 0.62 to 0.93 on the training photographs,
# 55 manually segmented and 516 of IDRiD.
GOOD_SCORE, FAIR_SCORE, POOR_SCORE = 0.75, 0.6, 0.15
STRAY_LIGHT = 8.0  # grey levels; keeps noise of a black surround from passing for contrast


class Box(NamedTuple):
    """Upright rectangle of whole pixels: rows `top` to `bottom`, columns `left` to `right`, both half open."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Number of rows, px."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns, px."""
        return self.right - self.left


class Ellipse(NamedTuple):
    """Upright ellipse, px; the middle of a pixel lies at whole numbers."""

    centre_y: float
    centre_x: float
    radius_y: float
    radius_x: float


@dataclass(frozen=True, eq=False)
class FieldOfView:
    """The field of view of one photograph, in the photograph's own frame.

    Attributes
    ----------
    mask
        (H, W) bool, True inside the field.
    rim
        The circle, or upright ellipse on a squashed photograph, of which the frame and flat strips inside it leave
        `mask`. None where no round rim is in sight.
    """

    mask: np.ndarray
    rim: Ellipse | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.mask, np.ndarray) or self.mask.dtype != bool:
            got = f"an array of {self.mask.dtype}" if isinstance(self.mask, np.ndarray) else type(self.mask).__name__
            raise TypeError(f"Got {got} as the mask of a field of view, expected a bool array: convert it.")

    @cached_property
    def box(self) -> Box:
        """The smallest box that holds the field; all 0 for an empty field."""
        return bounding_box(self.mask)

    @property
    def diameter(self) -> float:
        """Diameter of the whole field, px, or the longer side of a field without a round rim."""
        box, rim = self.box, self.rim
        return 2 * max(rim.radius_y, rim.radius_x) if rim else float(max(box.height, box.width))


def bounding_box(mask: np.ndarray) -> Box:
    """Return the smallest box that holds all True pixels of a mask, (H, W) bool; all 0 if there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return Box(0, 0, 0, 0)
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def find_fov(image: np.ndarray) -> np.ndarray:
    """Find the mask of the field of view of a fundus photograph.

    Parameters
    ----------
    image
        (H, W, 3) uint8, RGB.

    Returns
    -------
    fov
        (H, W) bool, the image's own frame; True inside the field. The `mask` of `find_field_of_view`.

    Raises
    ------
    TypeError
        If `image` is not a uint8 array.
    ArgumentError
        If its shape is not (H, W, 3), or it has no pixels.
    """
    return find_field_of_view(image).mask


def find_field_of_view(image: np.ndarray) -> FieldOfView:
    """Find the field of view of a fundus photograph: its mask, its rim and its box.

    The corners of the frame show the surround, dark or white. Where no round field stands out against it, the field is
    the whole frame: a field that fills the frame looks like that, and so does a picture of something else.

    Parameters
    ----------
    image
        (H, W, 3) uint8, RGB.

    Raises
    ------
    TypeError
        If `image` is not a uint8 array.
    ArgumentError
        If its shape is not (H, W, 3), or it has no pixels.
    """
    check_image(image)
    height, width = image.shape[:2]
    step = max(1, round(max(height, width) / SMALL_PX))
    small = image[step // 2 :: step, step // 2 :: step]
    # The copy of a long strip has no pixel.
    surround = _surround_colour(image) if min(height, width) >= SMALLEST_SIDE_PX and small.size else None
    if surround is None:
        return FieldOfView(np.ones((height, width), bool))
    light = _without_specks(_difference(small, surround))

    ellipse, bounds, has_rim = _find_ellipse(light)
    ellipse = ellipse * step
    ellipse[:2] += step // 2
    bounds = _to_full_size(bounds, light.shape, step, (height, width))
    if has_rim:
        ellipse = _settle_on_rim(image, surround, ellipse, bounds, reach=3 * step)
    mask = _draw(ellipse, bounds, (height, width))
    return FieldOfView(mask, Ellipse(*map(float, ellipse)) if has_rim else None)


def check_image(image: np.ndarray) -> None:
    """Refuse anything but an (H, W, 3) uint8 array with at least one pixel.

    Raises
    ------
    TypeError
        If `image` is not a uint8 array.
    ArgumentError
        If its shape is not (H, W, 3), or it has no pixels.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = f"an array of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"Got {got}, expected an (H, W, 3) uint8 array: read pictures with resegnet.image.read_image.")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ArgumentError(
            f"Got an array of shape {image.shape}, expected (H, W, 3): read pictures with resegnet.image.read_image."
        )


def _surround_colour(image: np.ndarray) -> np.ndarray | None:
    """Return the surround's RGB, (3,) float, as the corners show it; None if they are neither dark nor white."""
    height, width = image.shape[:2]
    rows, columns = max(2, height // 50), max(2, width // 50)
    corners = np.array(
        [
            np.median(image[y, x].reshape(-1, 3), axis=0)
            for y in (slice(rows), slice(-rows, None))
            for x in (slice(columns), slice(-columns, None))
        ]
    )
    white = corners.min(axis=1) > 200
    if white.sum() >= 3:
        return corners[white].mean(axis=0)
    darkest = corners[corners.max(axis=1).argmin()]  # one corner is enough: the field may cover the others
    return darkest if darkest.max() < 64 else None


def _difference(image: np.ndarray, surround: np.ndarray) -> np.ndarray:
    """Return the largest difference of a channel from the surround: (..., 3) uint8 to (...) uint8."""
    red, green, blue = (np.abs(image[..., c] - np.float32(surround[c])) for c in range(3))
    return np.maximum(np.maximum(red, green), blue).astype(np.uint8)


def _without_specks(light: np.ndarray) -> np.ndarray:
    """Take the median of three along the columns, then along the rows: a speck goes, an edge stays where it is."""
    for _ in range(2):
        padded = np.pad(light, ((1, 1), (0, 0)), mode="edge")
        before, here, after = padded[:-2], padded[1:-1], padded[2:]
        light = np.maximum(np.minimum(before, here), np.minimum(np.maximum(before, here), after)).T
    return light


def _find_ellipse(light: np.ndarray) -> tuple[np.ndarray, Box, bool]:
    """Find the circle, or upright ellipse if the picture was squashed, with the strongest rim in `light` (h, w) uint8.

    Returns
    -------
    ellipse
        (4,) float: centre y, centre x, radius y, radius x; px of `light`.
    bounds
        The box that cuts the ellipse off, px of `light`.
    has_rim
        False if there is no such rim. The ellipse is then far larger than the frame, and the bounds alone count.
    """
    random = np.random.default_rng(0)  # the same photograph must give the same field
    levels = []
    for threshold in THRESHOLDS:
        lit = light > threshold
        lit_box = _bounds(lit)
        if lit_box is None:
            break
        levels.append((_outermost(lit, lit_box), lit_box))

    everywhere = np.array([*light.shape, *light.shape]) * np.array([0.5, 0.5, 100.0, 100.0])
    cut = _keep_cuts(light, everywhere, levels[0][1]) if levels else Box(0, 0, *light.shape)
    best, best_score = (everywhere, cut, False), POOR_SCORE
    for squashed in (False, True):
        if best_score > FAIR_SCORE:
            break  # a circle explains what is seen; an ellipse could only follow noise
        for points, bounds in levels:
            ellipse, share_on_rim = fit_by_trials(points, light.shape, squashed, random)
            if ellipse is None:
                continue
            cut = _keep_cuts(light, ellipse, bounds)
            score = _rim_contrast(light, ellipse, cut) * share_on_rim
            if score > best_score:
                best, best_score = (ellipse, cut, True), score
            if score > GOOD_SCORE:
                break
    return best


def _bounds(lit: np.ndarray) -> Box | None:
    """Return the box in which `lit`, (h, w) bool, has more than specks; None if there is none."""
    least = 0.04 * min(lit.shape)
    rows = np.flatnonzero(lit.sum(axis=1) > least)
    columns = np.flatnonzero(lit.sum(axis=0) > least)
    if len(rows) == 0 or len(columns) == 0:
        return None
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def _outermost(lit: np.ndarray, bounds: Box) -> np.ndarray:
    """Return the first and last lit pixel of every row and column, (N, 2) float (y, x), without those on the bounds."""
    top, left, bottom, right = bounds
    inside = lit[top:bottom, left:right]
    points = []
    for mask, flipped in ((inside, False), (inside.T, True)):
        line = np.flatnonzero(mask.any(axis=1))
        length = mask.shape[1]
        first = mask[line].argmax(axis=1)
        last = length - 1 - mask[line, ::-1].argmax(axis=1)
        for position, shift in ((first, -0.5), (last, 0.5)):  # the rim lies between two pixels
            free = (position > 0) & (position < length - 1)
            pair = np.stack([line[free], position[free] + shift], axis=1)
            points.append(pair[:, ::-1] if flipped else pair)
    return np.concatenate(points) + np.array([top, left])


def _rim_points(ellipse: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions y and x, each (angles, offsets), that lie `offsets` pixels outward of the rim."""
    angle = np.linspace(0, 2 * np.pi, RIM_ANGLES, endpoint=False)[:, None]
    return (
        ellipse[0] + (ellipse[2] + offsets) * np.sin(angle),
        ellipse[1] + (ellipse[3] + offsets) * np.cos(angle),
    )


def _is_within(y: np.ndarray, x: np.ndarray, bounds: Box) -> np.ndarray:
    top, left, bottom, right = bounds
    return (y >= top) & (y <= bottom - 1) & (x >= left) & (x <= right - 1)


def _contrast(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Return the relative step from outside to inside, below 1: a dim rim on black counts as much as a bright one."""
    return (inner - outer) / (inner + outer + STRAY_LIGHT)


def _rim_contrast(light: np.ndarray, ellipse: np.ndarray, bounds: Box) -> float:
    """Return the mean contrast across the rim inside the bounds; 0 if that part is too short or too patchy."""
    y, x = _rim_points(ellipse, np.array([-3.0, -2.0, 2.0, 3.0]))
    seen = _is_within(*_rim_points(ellipse, np.array([0.0])), bounds)[:, 0]
    if seen.mean() < 0.12:
        return 0.0
    rows = np.clip(np.rint(y), 0, light.shape[0] - 1).astype(int)
    columns = np.clip(np.rint(x), 0, light.shape[1] - 1).astype(int)
    values = light[rows, columns].astype(np.float32)[seen]
    contrast = _contrast(values[:, :2].mean(axis=1), values[:, 2:].mean(axis=1))
    return float(contrast.mean()) if (contrast > 0.1).mean() > 0.6 else 0.0


def _keep_cuts(light: np.ndarray, ellipse: np.ndarray, bounds: Box) -> Box:
    """Move each bound out to the frame unless a sharp, straight step cuts the ellipse there: else light only fades."""
    top, left, bottom, right = bounds
    height, width = light.shape
    upright = ellipse
    lying = ellipse[[1, 0, 3, 2]]
    return Box(
        top if _is_cut(light, upright, top, (left, right)) else 0,
        left if _is_cut(light.T, lying, left, (top, bottom)) else 0,
        bottom if _is_cut(light[::-1], _mirror(upright, height), height - bottom, (left, right)) else height,
        right if _is_cut(light.T[::-1], _mirror(lying, width), width - right, (top, bottom)) else width,
    )


def _mirror(ellipse: np.ndarray, height: int) -> np.ndarray:
    return np.concatenate([[height - 1 - ellipse[0]], ellipse[1:]])


def _is_cut(light: np.ndarray, ellipse: np.ndarray, row: int, columns: tuple[int, int]) -> bool:
    """Tell whether a straight step from dark to light along `row` cuts off the ellipse's upper end."""
    centre_y, centre_x, radius_y, radius_x = ellipse
    depth = (centre_y - row) / radius_y
    if row < 3 or row + 1 >= len(light) or not -0.9 < depth < 0.97:
        return False
    half = 0.9 * radius_x * np.sqrt(1 - depth**2)
    chord = slice(int(max(columns[0], centre_x - half)), int(min(columns[1], centre_x + half)) + 1)
    outer = light[max(0, row - 5) : row - 1, chord].mean(axis=0, dtype=np.float32)
    inner = light[row + 1 : row + 5, chord].mean(axis=0, dtype=np.float32)
    return bool(inner.size and np.median(_contrast(inner, outer)) > 0.4)


def _to_full_size(bounds: Box, small_shape: tuple[int, int], step: int, shape: tuple[int, int]) -> Box:
    """Scale bounds of the small copy to the photograph's size; those on its frame go to the photograph's frame."""
    top, left, bottom, right = bounds
    return Box(
        top * step,
        left * step,
        shape[0] if bottom == small_shape[0] else bottom * step,
        shape[1] if right == small_shape[1] else right * step,
    )


def _settle_on_rim(image: np.ndarray, surround: np.ndarray, ellipse: np.ndarray, bounds: Box, reach: int) -> np.ndarray:
    """Move the ellipse onto the strongest step within `reach` pixels of its rim, at full resolution."""
    window = max(2, reach // 4)
    offsets = np.arange(-reach - window, reach + window + 1)
    y, x = _rim_points(ellipse, offsets)
    seen = _is_within(y, x, bounds).all(axis=1)
    if seen.sum() < RIM_ANGLES // 8:
        return ellipse
    y, x = y[seen], x[seen]
    light = _difference(image[np.rint(y).astype(int), np.rint(x).astype(int)], surround).astype(np.float32)
    total = np.concatenate([np.zeros((len(light), 1), np.float32), light.cumsum(axis=1)], axis=1)
    mean = (total[:, window:] - total[:, :-window]) / window  # mean[:, i] is over offsets i .. i + window - 1
    inner, outer = mean[:, :-window], mean[:, window:]
    contrast = _contrast(inner, outer)
    # Shot noise grows with the root of light. The relative contrast itself would lean outward on a blurred rim.
    strongest = ((inner - outer) / np.sqrt(inner + outer + STRAY_LIGHT)).argmax(axis=1)
    rim = offsets[window] + strongest - 0.5  # between the two windows
    index = np.arange(len(rim))
    weak = contrast[index, strongest] < 0.15
    scale = 1 + rim[:, None] / ellipse[2:]
    centre = ellipse[:2]
    angle_y, angle_x = _rim_points(ellipse, np.array([0.0]))
    on_rim = np.stack([angle_y[seen, 0], angle_x[seen, 0]], axis=1)
    points = (centre + (on_rim - centre) * scale)[~weak]
    squashed = not np.isclose(ellipse[2], ellipse[3])
    settled = ellipse
    for limit in (reach, reach / 2, max(1.5, reach / 6)):
        chosen = points[distance_from_rim(points, settled[None])[0] < limit]
        if len(chosen) < RIM_ANGLES // 8:
            return ellipse
        settled = fit_ellipse(chosen, squashed)
        if not is_plausible(settled, image.shape[:2]):
            return ellipse
    return settled


def _draw(ellipse: np.ndarray, bounds: Box, shape: tuple[int, int]) -> np.ndarray:
    """Fill the ellipse, cut off at the bounds: (H, W) bool."""
    centre_y, centre_x, radius_y, radius_x = ellipse
    top, left, bottom, right = bounds
    fov = np.zeros(shape, bool)
    rows = np.arange(top, bottom)
    half = radius_x * np.sqrt(np.clip(1 - ((rows - centre_y) / radius_y) ** 2, 0, None))
    starts = np.clip(np.ceil(centre_x - half), left, right).astype(int)
    ends = np.clip(np.floor(centre_x + half) + 1, left, right).astype(int)
    for row, start, end in zip(rows, starts, ends, strict=True):
        if end - start > 1:
            fov[row, start:end] = True
    return fov
