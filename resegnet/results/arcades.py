"""The angle between the upper and the lower temporal arcade."""

from __future__ import annotations

import math

import numpy as np

from resegnet.results.anatomy import Disc, Place
from resegnet.results.centrelines import Centrelines
from resegnet.results.regions import clip, segment_calibres

# Distances from the disc's centre at which the arcades are looked for, in disc diameters: there they have parted from
# the nasal vessels, and have not yet bent towards the fovea.
NEAREST, FARTHEST, CIRCLES = 1.25, 1.75, 9

# Between these angles from the line to the fovea, degrees. Nearer lie the vessels of the macula, farther nasal ones.
SMALLEST, LARGEST = 20.0, 105.0


def measure_arcade_angle(lines: Centrelines, disc: Disc, fovea: Place) -> float:
    """Measure the angle at the disc's centre between the upper and the lower temporal artery, or vein.

    The arcade of each side is the widest vessel that crosses a circle about the disc's centre between 20 and 105
    degrees from the line from the disc to the fovea, as on the circles of doi:10.1371/journal.pone.0193555, of which
    the largest has 2.7 mm. Its angle is the median over nine circles with a radius of 1.25 to 1.75 disc diameters. The
    result is the sum of both sides.

    Parameters
    ----------
    lines
        Centrelines of vessels of one kind.
    disc, fovea
        In the same frame.

    Returns
    -------
    float
        Degrees, 40 to 210. nan if there is no such vessel on one of the sides.
    """
    nearest, farthest = NEAREST * disc.diameter, FARTHEST * disc.diameter

    def inside(places: np.ndarray) -> np.ndarray:
        away = np.hypot(*(places - disc.centre).T)
        return (away >= nearest) & (away <= farthest)

    lines = clip(lines, inside)
    calibres = np.nan_to_num(segment_calibres(lines))[lines.segments]
    down, right = (lines.points - disc.centre).T
    away = np.hypot(down, right)
    axis = math.atan2(fovea[0] - disc.centre[0], fovea[1] - disc.centre[1])
    angles = (np.degrees(np.arctan2(down, right) - axis) + 180) % 360 - 180
    steps = np.flatnonzero(np.diff(lines.segments) == 0)  # from a point to the next of its segment
    found: tuple[list[float], list[float]] = ([], [])
    for radius in np.linspace(nearest, farthest, CIRCLES + 2)[1:-1]:
        crossing = steps[(away[steps] < radius) != (away[steps + 1] < radius)]
        for side, sign in zip(found, (1, -1), strict=True):
            angle = sign * angles[crossing]
            width = np.where((angle >= SMALLEST) & (angle <= LARGEST), calibres[crossing], 0)
            if width.any():
                side.append(float(angle[np.argmax(width)]))
    upper, lower = found
    return float(np.median(upper) + np.median(lower)) if upper and lower else math.nan
