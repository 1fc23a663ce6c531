"""Whether a photograph is soft for its many pixels, by the edges of the vessels found in it."""

from __future__ import annotations

import numpy as np


def is_soft(green: np.ndarray, vessels: np.ndarray, diameter: float) -> bool:
    """Tell whether a photograph is more than 900 px wide, and the edges of its main vessels are half as wide as these.

    Parameters
    ----------
    green
        (H, W) uint8, at the photograph's own size.
    vessels
        (H, W) bool, the vessels found.
    diameter
        Diameter of the field, px.
    """
    if diameter <= 900:
        return False
    # On 52 photographs of five data sets that are more than 900 px wide, `share` is at most 0.45; softened by 0.3 %
    # of the field it is 0.50 and more on those of DRIVE, enlarged 3 times, HRF and DR-HAGIS. An edge of less than 5 px
    # is one of a small photograph.
    edge_px, share = _edge_width(green, vessels, diameter)
    return edge_px > 5 and share > 0.49


def _edge_width(green: np.ndarray, vessels: np.ndarray, diameter: float) -> tuple[float, float]:
    """Measure how wide the edges of the main vessels are; parameters as of `is_soft`.

    The width of an edge is its height divided by its slope, both in grey levels.

    Returns
    -------
    edge_px
        Median over up to 120 spots on main vessels.
    share
        Median of the same, as a share of the vessel's width there. Both are 0 where there are fewer than 15 such spots.
    """
    from scipy import ndimage  # takes longer to import than the rest of the package

    step = max(1, int(diameter // 600))  # a coarse copy is enough to find the vessels' middles
    coarse = vessels[::step, ::step]
    # The mean of the two is within 6 % of the Euclidean distance, which takes three times as long.
    radius = ndimage.distance_transform_cdt(coarse, "chessboard") + ndimage.distance_transform_cdt(coarse, "taxicab")
    radius = radius / 2
    rows, columns = np.nonzero((radius > 0) & (radius == ndimage.maximum_filter(radius, 3)))
    if len(rows) == 0:
        return 0.0, 0.0
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
    return (float(np.median(edge)), float(np.median(share))) if len(edge) >= 15 else (0.0, 0.0)
