"""How sharp a photograph is for its pixels, by the edges of the vessels found in it, and what follows from that."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Edges(NamedTuple):
    """Width of the edges of the main vessels: the height of an edge divided by its slope, both in grey levels.

    Attributes
    ----------
    width_px
        Median over up to 120 spots on main vessels, px of the photograph.
    share
        Median of the same, as a share of the vessel's width there.
    """

    width_px: float
    share: float


def is_soft(edges: Edges) -> bool:
    """Tell whether the edges of the main vessels are half as wide as these, and too wide for a small photograph."""
    # On 52 photographs of five data sets that are more than 900 px wide, `share` is at most 0.45; softened by 0.3 %
    # of the field it is 0.50 and more on those of DRIVE, enlarged 3 times, HRF and DR-HAGIS. An edge of less than 5 px
    # is one of a small photograph.
    return edges.width_px > 5 and edges.share > 0.49


def smaller_side(edges: Edges | None, side: int, scale: float, smallest: int) -> int | None:
    """Choose the size at which a photograph with more pixels than detail is segmented a second time.

    Scaled down until an edge is 4 px wide, it loses little detail, and its vessels look as the network knows them from
    sharp photographs. The mean of both is the safest: docs/experiments.md, "Two sizes for soft photographs".

    Parameters
    ----------
    edges
        From `measure_edges`.
    side
        Side of the square that the photograph was segmented in, px.
    scale
        Pixels of the square for each of the photograph's, along a side.
    smallest
        Smallest side that the network takes, px.

    Returns
    -------
    side
        Of the smaller square, px: at least `smallest` and half of the first one. Where there were too few vessels to
        measure, it is that least side. None if the photograph is sharp enough, or its square has less than 1000 px.
    """
    if side < 1000 or side <= smallest:
        return None
    wanted = 0.0
    if edges is not None:
        edge = scale * edges.width_px
        # In narrow fields vessels are broad, so that a sharp edge can be 8 px wide: 35 of 41 of ORVS stay below 0.36.
        if edge <= 5 or edges.share <= 0.36:
            return None
        wanted = side * 4 / edge
    return max(smallest, -(-round(max(wanted, side / 2)) // 32) * 32)


def measure_edges(green: np.ndarray, vessels: np.ndarray, diameter: float) -> Edges | None:
    """Measure how wide the edges of the main vessels are.

    Parameters
    ----------
    green
        (H, W) uint8, at the photograph's own size.
    vessels
        (H, W) bool, the vessels found.
    diameter
        Diameter of the field, px.

    Returns
    -------
    edges
        None where there are fewer than 15 spots on main vessels to measure, and for a field of at most 900 px, which
        has too few pixels to be soft for their number.
    """
    if diameter <= 900:
        return None
    from scipy import ndimage  # takes longer to import than the rest of the package

    step = max(1, int(diameter // 600))  # a coarse copy is enough to find the vessels' middles
    coarse = vessels[::step, ::step]
    # The mean of the two is within 6 % of the Euclidean distance, which takes three times as long.
    radius = ndimage.distance_transform_cdt(coarse, "chessboard") + ndimage.distance_transform_cdt(coarse, "taxicab")
    radius = radius / 2
    rows, columns = np.nonzero((radius > 0) & (radius == ndimage.maximum_filter(radius, 3)))
    if len(rows) == 0:
        return None
    radius = radius[rows, columns]
    main = radius >= np.percentile(radius, 85)
    radius_px = float(np.median(radius[main])) * step
    reach = int(np.ceil(2.5 * radius_px)) + 2
    rows, columns = rows[main] * step, columns[main] * step
    whole = (np.minimum(rows, columns) >= reach) & (rows + reach < len(green)) & (columns + reach < green.shape[1])
    rows, columns = rows[whole], columns[whole]
    every = np.linspace(0, len(rows) - 1, min(120, len(rows))).astype(int)
    rows, columns = rows[every, None, None], columns[every, None, None]

    # (spots, side, side) squares round the spots.
    offset = np.arange(-reach, reach + 1)
    rows, columns = rows + offset[:, None], columns + offset
    light = ndimage.gaussian_filter(green[rows, columns].astype(np.float32), (0, 0.7, 0.7))
    vessel = vessels[rows, columns]
    distance = np.hypot(offset[:, None], offset)
    around = distance <= 2.5 * radius_px
    slope = np.percentile(np.hypot(*np.gradient(light, axis=(1, 2)))[:, distance <= 1.5 * radius_px], 90, axis=1)
    dark = np.median(light[:, distance <= max(1, 0.4 * radius_px)], axis=1)
    width = np.count_nonzero(vessel & around, axis=(1, 2)) / (5 * radius_px)  # of a straight vessel through the middle
    edge, share = [], []
    for spot in range(len(light)):
        outside = light[spot][around & ~vessel[spot]]
        height = np.percentile(outside, 60) - dark[spot] if len(outside) else 0
        if height > 8 and slope[spot] > 0:  # grey levels; less is noise
            edge.append(height / slope[spot])
            share.append(edge[-1] / width[spot])
    return Edges(float(np.median(edge)), float(np.median(share))) if len(edge) >= 15 else None
