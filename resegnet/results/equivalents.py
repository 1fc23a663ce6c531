"""The calibre of the central retinal artery and vein that the six largest vessels of zone B stand for."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from resegnet.results.anatomy import Disc
from resegnet.results.centrelines import Centrelines
from resegnet.results.regions import clip, segment_calibres
from resegnet.results.zones import ZONE_B

# Calibre of a stem divided by the root of the sum of the squares of its branches' calibres.
ARTERY_COEFFICIENT, VEIN_COEFFICIENT = 0.88, 0.95

VESSELS = 6
CIRCLES = 9  # on which vessels are counted; odd, so that there is one in the middle


def central_equivalent(calibres: Iterable[float], coefficient: float) -> float:
    """Combine the calibres of vessels to that of the vessel which they branch from.

    The revised formulas of Knudtson et al. 2003, doi:10.1076/ceyr.27.3.143.16049: the widest vessel makes a pair with
    the narrowest, the second widest with the second narrowest, and so on. Each pair is replaced by `coefficient` times
    the root of the sum of its squares; of an odd number, the one in the middle stays. This is repeated until one is
    left.

    Parameters
    ----------
    calibres
        In any unit, which is that of the result. The six largest count.
    coefficient
        `ARTERY_COEFFICIENT` or `VEIN_COEFFICIENT`.

    Returns
    -------
    float
        nan without a calibre.
    """
    left = sorted(calibres, reverse=True)[:VESSELS]
    if not left:
        return math.nan
    while len(left) > 1:
        half = len(left) // 2
        pairs = zip(left[:half], reversed(left[-half:]), strict=True)
        left = sorted([coefficient * math.hypot(*pair) for pair in pairs] + left[half : len(left) - half], reverse=True)
    return left[0]


def measure_equivalent(lines: Centrelines, disc: Disc, coefficient: float) -> tuple[float, int]:
    """Measure the central equivalent of arteries or of veins in zone B.

    A vessel that branches inside the zone must not count together with its branches. So vessels are counted where
    they cross a circle about the disc's centre, on nine circles evenly across the zone; each has the median of its
    calibre between the borders of the zone and its own branch points. The result is that of the circle whose equivalent
    is the median.

    Parameters
    ----------
    lines
        Centrelines of vessels of one kind.
    disc
        In the same frame.
    coefficient
        `ARTERY_COEFFICIENT` or `VEIN_COEFFICIENT`.

    Returns
    -------
    equivalent, count
        px, or nan without a vessel; and the number of vessels that went in, 0 to 6.
    """
    lines = clip(lines, lambda places: ZONE_B.holds(places, disc))
    calibres = segment_calibres(lines)
    away = np.hypot(*(lines.points - disc.centre).T)
    nearest, farthest = np.full(len(calibres), np.inf), np.zeros(len(calibres))
    np.minimum.at(nearest, lines.segments, away)
    np.maximum.at(farthest, lines.segments, away)
    results = []
    for radius in np.linspace(*ZONE_B.borders_px(disc), CIRCLES + 2)[1:-1]:
        crossing = calibres[(nearest <= radius) & (radius <= farthest) & ~np.isnan(calibres)]
        if len(crossing):
            results.append((central_equivalent(crossing.tolist(), coefficient), min(len(crossing), VESSELS)))
    return sorted(results)[len(results) // 2] if results else (math.nan, 0)
