"""The zones round the optic disc in which studies measure vessels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from resegnet.results.anatomy import Disc


@dataclass(frozen=True)
class Zone:
    """A ring round the optic disc.

    `inner` and `outer` are the distances of its borders from the margin of the disc, in disc diameters. The disc is
    taken for a circle of its area.
    """

    name: str
    inner: float
    outer: float

    def borders_px(self, disc: Disc) -> tuple[float, float]:
        """Return the distances of both borders from the centre of the disc, px."""
        return (self.inner + 0.5) * disc.diameter, (self.outer + 0.5) * disc.diameter

    def holds(self, places: np.ndarray, disc: Disc) -> np.ndarray:
        """Tell which places, (N, 2) row and column in px, lie in the zone, (N,) bool."""
        inner, outer = self.borders_px(disc)
        away = np.hypot(*(places - disc.centre).T)
        return (away >= inner) & (away < outer)

    def mask(self, shape: tuple[int, int], disc: Disc) -> np.ndarray:
        """Return the pixels of the zone, (H, W) bool, of a picture of this shape."""
        inner, outer = self.borders_px(disc)
        rows, columns = (
            (np.arange(side, dtype=np.float32) - np.float32(middle)) ** 2
            for side, middle in zip(shape, disc.centre, strict=True)
        )
        away = rows[:, None] + columns
        return (away >= inner**2) & (away < outer**2)

    def coverage(self, area_px: int, disc: Disc) -> float:
        """Return the share of the zone that `area_px`, its pixels inside the field of view, cover, [0, 1]."""
        inner, outer = self.borders_px(disc)
        return min(1.0, area_px / (math.pi * (outer**2 - inner**2)))


# From 0.5 to 1 and from 0.5 to 2 disc diameters from the margin of the disc: Knudtson et al. 2003,
# doi:10.1076/ceyr.27.3.143.16049, and Lim et al. 2011, doi:10.1167/iovs.10-6184.
ZONE_B, ZONE_C = Zone("zone_b", 0.5, 1.0), Zone("zone_c", 0.5, 2.0)
ZONES = (ZONE_B, ZONE_C)
