"""Reads the anatomy that a network of two looks gives: optic disc, fovea, which eye it is, arteries and veins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from resegnet.config import ANATOMY
from resegnet.geometry import Geometry

ARTERY, VEIN = 1, 2  # bits of the kind of a pixel; a crossing has both

Place = tuple[float, float]
Eye = Literal["right", "left"]

# Shares of the picture's shorter side, which is about the diameter of the field.
SMOOTHING = 0.005  # sigma: the disc's border becomes round, and no odd pixel joins or splits it
SPOT = 0.04  # about a fovea: the mean over it tells a spot from one odd pixel
DISC_DIAMETERS = (0.04, 0.5)  # a field of 200 degrees, and one of 20

DISC_PEAK = 0.3  # highest probability that a disc has at least; on the photographs of an unseen camera it may be low
DISC_OUTLINE = 0.5  # share of the peak from which a pixel is part of the disc

# A disc is cut off if more than this share of its outline lies nearer to the rim of the field than this share of its
# diameter. Of a whole circle that touches a straight rim 14 % do, of one that lacks 5 % of its diameter 20 %.
RIM_SHARE, RIM_DISTANCE = 0.2, 0.05
# Mean over the spot. On training photographs of DRIVE, HRF, CHASE_DB1 and DR-HAGIS the least that is right has 0.057,
# the most on those that show no fovea 0.016; a spot that is certain has about 0.5.
FOVEA_PROBABILITY = 0.04

# The fovea lies 2.5 disc diameters from the disc's centre, about 6 degrees below it; a head may be tilted. On 285
# photographs of IDRiD the logarithm of this distance spreads by 0.09; the rest is for discs whose diameter is wrong.
FOVEA_DISTANCE, FOVEA_DISTANCE_SPREAD = 2.5, 0.3
FOVEA_DISTANCES = (1.2, 4.5)  # disc diameters, between which an eye is told
STEEPEST_DEGREES = 45


@dataclass(frozen=True, eq=False)
class Disc:
    """The optic disc. Two are equal if all their values are.

    Attributes
    ----------
    centre
        Row and column of the centroid, px of the photograph; pixel (0, 0) has its middle at (0.0, 0.0).
    diameter
        Diameter of a circle of the same area, px.
    mask
        (H, W) bool, True on the disc.
    """

    centre: Place
    diameter: float
    mask: np.ndarray

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Disc):
            return NotImplemented
        return self.centre == other.centre and self.diameter == other.diameter and np.array_equal(self.mask, other.mask)

    def __hash__(self) -> int:
        return hash((self.centre, self.diameter))


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The anatomy of one photograph, as the network gives it. Places are worked out when they are first asked for.

    Attributes
    ----------
    planes
        (4, C, C) float32 in [0, 1], the probability of each of `resegnet.config.ANATOMY` in the square of `geometry`, 0
        outside the field of view.
    geometry
        From the photograph to that square.
    """

    planes: np.ndarray
    geometry: Geometry

    @cached_property
    def disc(self) -> Disc | None:
        """The optic disc in the photograph's frame; None if it was not found."""
        from scipy import ndimage

        disc = self._small_disc
        if disc is None:
            return None
        # Blurred by one pixel, the outline has no stairs when it is enlarged. Only the part round the disc is enlarged.
        soft = disc.mask.astype(np.float32)
        near = _box_round(disc.mask, 8)
        soft[near] = ndimage.gaussian_filter(soft[near], 1.0)
        (top, left, side), size = self.geometry.box, self.geometry.input_size
        corner, places = np.array((top, left)), np.argwhere(disc.mask) * (side / size)
        margin = 4 * side / size
        first = np.maximum(np.floor(places.min(axis=0) - margin).astype(int) + corner, 0)
        end = np.minimum(np.ceil(places.max(axis=0) + margin).astype(int) + corner, self.geometry.original_size)
        mask = np.zeros(self.geometry.original_size, bool)
        if (end > first).all():
            (first_row, first_column), (end_row, end_column) = first.tolist(), end.tolist()
            box = (top - first_row, left - first_column, side)
            part = Geometry((end_row - first_row, end_column - first_column), box, size)
            mask[first_row:end_row, first_column:end_column] = part.to_original(soft) >= 0.5
        return disc_of(mask)

    @cached_property
    def fovea(self) -> Place | None:
        """Row and column of the fovea, px of the photograph; None if it was not found.

        Where the disc was found, the place is at a plausible distance from it, see `find_fovea`.
        """
        place = find_fovea(self.planes[ANATOMY.index("fovea")], self._small_disc)
        if place is None:
            return None
        top, left, side = self.geometry.box
        scale = side / self.geometry.input_size
        return (place[0] + 0.5) * scale + top - 0.5, (place[1] + 0.5) * scale + left - 0.5

    @cached_property
    def _small_disc(self) -> Disc | None:
        """The disc in the square of `geometry`."""
        return find_disc(self.planes[ANATOMY.index("disc")])

    @property
    def eye(self) -> Eye | None:
        """The eye, right or left; None if that is unknown, see `tell_eye`."""
        disc = self.disc
        return None if disc is None else tell_eye(disc.centre, self.fovea, disc.diameter)

    def kind_probability(self) -> np.ndarray:
        """Return the probability of an artery and of a vein, (2, H, W) float32 in [0, 1], in the photograph's frame."""
        return np.stack([self.geometry.to_original(plane) for plane in self.kinds_of_square()])

    def kinds_at(self, points: np.ndarray) -> np.ndarray:
        """Return the probability of an artery and of a vein at points, (N, 2) px of the photograph: (2, N) float32."""
        from scipy import ndimage

        top, left, side = self.geometry.box
        places = (points + 0.5 - (top, left)) * (self.geometry.input_size / side) - 0.5
        return np.stack(
            [ndimage.map_coordinates(plane, places.T, order=1, mode="nearest") for plane in self.kinds_of_square()]
        )

    def kinds_of_square(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the probability of an artery and of a vein, (C, C) float32 in [0, 1] each, in the network's frame."""
        return self.planes[ANATOMY.index("artery")], self.planes[ANATOMY.index("vein")]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Anatomy):
            return NotImplemented
        return self.geometry == other.geometry and np.array_equal(self.planes, other.planes)

    def __hash__(self) -> int:
        return hash(self.geometry)


def disc_of(mask: np.ndarray) -> Disc | None:
    """Return the disc that a mask, (H, W) bool, shows; None if it is empty. For example, of a person's mask."""
    near = _box_round(mask, 0)
    rows, columns = np.nonzero(mask[near])
    if not len(rows):
        return None
    rows, columns = rows + near[0].start, columns + near[1].start
    return Disc((float(rows.mean()), float(columns.mean())), math.sqrt(4 / math.pi * len(rows)), mask)


def is_cut_off(disc: Disc, fov: np.ndarray) -> bool:
    """Tell whether the rim of the field, (H, W) bool, or the frame cuts a part of the disc off.

    The circle of the area that is left is too small then, by 1 % or more, and its centre is wrong.
    """
    from scipy import ndimage

    margin = math.ceil(RIM_DISTANCE * disc.diameter) + 1
    near = _box_round(np.pad(disc.mask, margin), margin)
    field, mask = np.pad(fov, margin)[near], np.pad(disc.mask, margin)[near]
    outline = mask & ~ndimage.binary_erosion(mask)
    if not outline.any():
        return False
    away = ndimage.distance_transform_edt(field)
    return float((away[outline] <= RIM_DISTANCE * disc.diameter).mean()) > RIM_SHARE


def find_disc(probability: np.ndarray) -> Disc | None:
    """Find the optic disc: of the parts with a probability near the highest, the hull of that with the greatest sum.

    A disc is convex, but vessels that cross its border, and pale crescents at its rim, make notches in the probability.

    Parameters
    ----------
    probability
        (H, W) float in [0, 1]. The field of view fills the shorter side.

    Returns
    -------
    disc
        In the frame of `probability`. None if none is likely, or as large as a disc.
    """
    from scipy import ndimage  # `import resegnet` does without
    from skimage.morphology import convex_hull_image

    side = min(probability.shape)
    sigma = SMOOTHING * side
    plane = np.asarray(probability, np.float32)
    # Beyond four sigma the filter ends. What lies farther than that from all likely pixels is no part of a disc.
    near = _box_round(plane >= DISC_OUTLINE * DISC_PEAK, 2 * math.ceil(4 * sigma + 1))
    if not plane[near].size:
        return None
    smooth = ndimage.gaussian_filter(plane[near], sigma)
    peak = float(smooth.max())
    if peak < DISC_PEAK:
        return None
    parts, _ = ndimage.label(smooth >= DISC_OUTLINE * peak)
    boxes = ndimage.find_objects(parts)
    sums = [smooth[box][parts[box] == part].sum(dtype=np.float64) for part, box in enumerate(boxes, 1)]
    part = 1 + int(np.argmax(sums))
    mask = np.zeros(plane.shape, bool)
    mask[near][boxes[part - 1]] = convex_hull_image(parts[boxes[part - 1]] == part)
    disc = disc_of(mask)
    smallest, largest = (share * side for share in DISC_DIAMETERS)
    return disc if disc is not None and smallest <= disc.diameter <= largest else None


def find_fovea(probability: np.ndarray, disc: Disc | None = None) -> Place | None:
    """Find the fovea: the place where the mean probability over a spot is highest.

    Parameters
    ----------
    probability
        (H, W) float in [0, 1], high in a spot about the fovea. The field of view fills the shorter side.
    disc
        The optic disc in the same frame. If it is known, the mean counts less at distances that few eyes have.

    Returns
    -------
    centre
        Row and column, px of `probability`; pixel (0, 0) has its middle at (0.0, 0.0). None if no spot is likely.
    """
    from scipy import ndimage

    width = round(SPOT * min(probability.shape)) // 2 * 2 + 1
    plane = np.asarray(probability, np.float32)
    near = _box_round(plane >= FOVEA_PROBABILITY, width)  # a likely spot has a likely pixel
    if not plane[near].size:
        return None
    smooth = ndimage.uniform_filter(plane[near], width, mode="constant")
    if disc is not None:
        rows, columns = np.ogrid[: smooth.shape[0], : smooth.shape[1]]
        down, right = rows + near[0].start - disc.centre[0], columns + near[1].start - disc.centre[1]
        distance = np.hypot(down, right) / disc.diameter
        away = np.log(np.maximum(distance, 0.01) / FOVEA_DISTANCE) / FOVEA_DISTANCE_SPREAD
        smooth *= np.exp(-0.5 * away**2)
    row, column = divmod(int(smooth.argmax()), smooth.shape[1])
    if smooth[row, column] < FOVEA_PROBABILITY:
        return None
    row, column = row + near[0].start, column + near[1].start
    top, left = max(row - width, 0), max(column - width, 0)
    spot = plane[top : row + width + 1, left : column + width + 1]
    centre = ndimage.center_of_mass(spot)
    return float(top + centre[0]), float(left + centre[1])


def _box_round(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Return the rows and columns of the True pixels of a mask, (H, W) bool, and of a margin; both empty if all False.

    The box is much smaller than the mask, and so is what takes time.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    first_row, first_column = max(int(rows[0]) - margin, 0), max(int(columns[0]) - margin, 0)
    return slice(first_row, int(rows[-1]) + margin + 1), slice(first_column, int(columns[-1]) + margin + 1)


def tell_eye(disc_centre: Place | None, fovea_centre: Place | None, disc_diameter: float | None = None) -> Eye | None:
    """Tell the right from the left eye: on a photograph that is not mirrored, a right eye's disc is right of the fovea.

    Parameters
    ----------
    disc_centre, fovea_centre
        Row and column, px of one frame. None where unknown.
    disc_diameter
        px. None if unknown; the distance is then not checked.

    Returns
    -------
    eye
        None if a place is unknown, or the two do not lie as in an eye: not side by side, or at no plausible distance.
    """
    if disc_centre is None or fovea_centre is None:
        return None
    down, right = disc_centre[0] - fovea_centre[0], disc_centre[1] - fovea_centre[1]
    if abs(down) >= abs(right) * math.tan(math.radians(STEEPEST_DEGREES)):
        return None
    if disc_diameter is not None:
        nearest, farthest = (times * disc_diameter for times in FOVEA_DISTANCES)
        if not nearest <= math.hypot(down, right) <= farthest:
            return None
    return "right" if right > 0 else "left"
