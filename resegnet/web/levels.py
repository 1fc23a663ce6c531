"""The vessel probability in 8 bits, exact at every stop of the threshold slider.

The browser draws every threshold from one array. Plain rounding to 256 grey levels would move pixels across a
threshold. Here the level of a pixel is the number of slider stops that its probability reaches, so "level > k" means
"probability >= stop k" for every pixel.
"""

from __future__ import annotations

import zlib

import numpy as np

from resegnet.results.segmentation import Segmentation

STEPS = 200  # a stop every 0.005. With the fitted threshold there are up to 202 stops; a byte has room for 255.


def slider_stops(fitted: float) -> list[float]:
    """Return the thresholds that the slider stops at, ascending: each 1 / `STEPS` of [0, 1], and the fitted one."""
    return sorted({k / STEPS for k in range(STEPS + 1)} | {fitted})


def probability_levels(result: Segmentation, stops: list[float]) -> np.ndarray:
    """Count, for each pixel, the stops at or below its probability.

    Parameters
    ----------
    result
        Its threshold is not used.
    stops
        At most 255 thresholds, ascending; the first is 0.

    Returns
    -------
    (H, W) uint8
        In the photograph's frame; 0 outside the field of view.
    """
    levels = result.fov.astype(np.uint8)  # every pixel of the field reaches the stop at 0
    # float32 as in `Segmentation.mask`. The search takes most of the time, and most pixels lie below the second stop.
    thresholds = np.array(stops, np.float32)
    above = result.fov & (result.probability >= thresholds[1])
    levels[above] = np.searchsorted(thresholds, result.probability[above], side="right")
    return levels


def count_levels(levels: np.ndarray, stops: list[float]) -> list[int]:
    """Count, for each stop, the pixels whose probability reaches it but not the next stop."""
    counts: list[int] = np.bincount(levels, minlength=len(stops) + 1)[1:].tolist()
    return counts


def pack(levels: np.ndarray) -> bytes:
    """Encode levels for the browser.

    Parameters
    ----------
    levels
        (H, W) uint8.

    Returns
    -------
    bytes
        The differences of neighbours in row order, modulo 256, as a zlib stream. Browsers unpack it by
        `DecompressionStream`. A PNG would have to be read back from a canvas, and some browsers add noise to that
        against fingerprinting.
    """
    return zlib.compress(np.diff(levels.reshape(-1), prepend=np.uint8(0)).tobytes(), 1)
