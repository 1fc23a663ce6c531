"""The vessel probability in 8 bits, exact at every stop of the threshold slider.

The browser draws any threshold from one picture. Plain rounding to 256 grey levels would move pixels across a
threshold; here a pixel's level is the number of slider stops that its probability reaches, so that "level > k" is
"probability >= stop k" to the last pixel.
"""

from __future__ import annotations

import zlib

import numpy as np

from resegnet.results.segmentation import Segmentation

STEPS = 200  # between 0 and 1: stops every 0.005. With the fitted one there are 202; a byte has room for 255.


def slider_stops(fitted: float) -> list[float]:
    """Thresholds that the slider stops at, ascending: every 1 / `STEPS` of [0, 1], and the model's own."""
    return sorted({k / STEPS for k in range(STEPS + 1)} | {fitted})


def probability_levels(result: Segmentation, stops: list[float]) -> np.ndarray:
    """For each pixel the number of stops at or below its probability, 0 outside the field of view.

    Parameters
    ----------
    result : Segmentation
        Its own threshold does not matter.
    stops : list of float
        At most 255, ascending, the first 0.

    Returns
    -------
    (H, W) uint8
    """
    levels = result.fov.astype(np.uint8)  # the stop at 0
    # float32 as in `Segmentation.mask`. Most pixels lie below the second stop, and the search is what takes time.
    thresholds = np.array(stops, np.float32)
    above = result.fov & (result.probability >= thresholds[1])
    levels[above] = np.searchsorted(thresholds, result.probability[above], side="right")
    return levels


def pack(levels: np.ndarray) -> bytes:
    """Differences of neighbours, modulo 256, as a zlib stream.

    A browser unpacks it with its own `DecompressionStream`. A PNG of this size would have to be read back from a
    canvas, which some browsers falsify on purpose against fingerprinting.
    """
    return zlib.compress(np.diff(levels.reshape(-1), prepend=np.uint8(0)).tobytes(), 1)
