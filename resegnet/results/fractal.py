"""Fractal dimensions of a vessel mask by the sandbox method."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import isotonic_regression

# Sides of the windows, as shares of the field's diameter. Below 1/32 a window sees the width of a vessel, not the shape
# of the tree; above 1/4 few windows lie inside the field.
_SIDES = np.geomspace(1 / 32, 1 / 4, 8)
_MIN_SIZES = 3  # sizes of windows that a slope needs
_MIN_CENTRES = 100


def fractal_dimensions(mask: np.ndarray, fov: np.ndarray) -> tuple[float, float, float]:
    """Capacity, information and correlation dimension (D0, D1, D2) of a mask.

    The sandbox method (Tel et al. 1989, doi:10.1016/0378-4371(89)90563-3; for retinal vessels Stosic and Stosic 2006,
    doi:10.1109/TMI.2006.879316) counts the vessel pixels in square windows centred on vessel pixels. The dimensions are
    the slopes of the logarithms of the harmonic, geometric and arithmetic mean of these counts against the logarithm of
    the window's side. Only windows that lie inside the field count, so that its border does not: with a grid of boxes,
    boxes cut by the border make D0 come out below D1 and D2.

    No set has D0 < D1 or D1 < D2 (Hentschel and Procaccia 1983, doi:10.1016/0167-2789(83)90235-X), but three lines
    fitted each for itself can, where the mask has few vessels. So the three are fitted together, by least squares under
    the condition D0 >= D1 >= D2. Slopes that meet it anyway stay as they are; the others become equal.

    Parameters
    ----------
    mask
        (H, W) bool, vessels.
    fov
        (H, W) bool, field of view.

    Returns
    -------
    d0, d1, d2
        About 1 (a line) to 2 (a surface), d0 >= d1 >= d2. nan where the field is too small for three sizes of windows,
        or where fewer than 100 vessel pixels have a window of every size inside the field.
    """
    rows, columns = (np.flatnonzero(fov.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return math.nan, math.nan, math.nan
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mask, fov = mask[box] & fov[box], fov[box]
    halves = np.unique(np.round((_SIDES * max(fov.shape) - 1) / 2).astype(int))
    halves = halves[halves > 0]
    if len(halves) < _MIN_SIZES:
        return math.nan, math.nan, math.nan

    largest = int(halves[-1])
    y, x = np.nonzero(mask[largest:-largest, largest:-largest])
    y, x = y + largest, x + largest
    whole = _window_sums(_integral(fov), y, x, largest) == (2 * largest + 1) ** 2
    y, x = y[whole], x[whole]
    if len(y) < _MIN_CENTRES:
        return math.nan, math.nan, math.nan
    integral = _integral(mask)
    logs = []
    for half in halves:
        counts = _window_sums(integral, y, x, int(half)).astype(float)
        logs.append((-math.log((1 / counts).mean()), np.log(counts).mean(), math.log(counts.mean())))
    slopes = np.polyfit(np.log(2 * halves + 1), np.array(logs), 1)[0]
    # All three lines have the same sides, so their sums of squares grow alike with the change of a slope.
    d0, d1, d2 = isotonic_regression(slopes, increasing=False).x
    return float(d0), float(d1), float(d2)


def _integral(mask: np.ndarray) -> np.ndarray:
    """Sums over all rectangles from the upper left corner, (H + 1, W + 1) int32."""
    return np.pad(mask.astype(np.int32), ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)


def _window_sums(integral: np.ndarray, y: np.ndarray, x: np.ndarray, half: int) -> np.ndarray:
    """Sums over the windows of side 2 * `half` + 1 centred on the pixels (y, x), (N,) int32."""
    top, bottom, left, right = y - half, y + half + 1, x - half, x + half + 1
    return integral[bottom, right] - integral[top, right] - integral[bottom, left] + integral[top, left]
