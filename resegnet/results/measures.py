"""Numbers by name, and why one of them is undefined."""

from __future__ import annotations

import math
from enum import StrEnum


class Undefined(StrEnum):
    """Why a number is nan."""

    NO_FIELD = "no_field"  # there is no pixel of the field of view
    NO_SEGMENT = "no_segment"  # no vessel is long enough, and far enough from branch points and rim, to be measured
    FEW_PIXELS = "few_pixels"  # the field is too small, or the mask has too few pixels, for a fractal dimension
    NO_DISC = "no_disc"
    DISC_CUT_OFF = "disc_cut_off"  # the rim of the field cuts a part of the disc off
    NO_FOVEA = "no_fovea"
    ZONE_OUTSIDE_FIELD = "zone_outside_field"  # the field shows less than half of zone B, or nothing of the zone
    FEW_VESSELS = "few_zone_b_vessels"  # fewer than six vessels of the kind cross zone B
    NO_ARCADE = "no_arcade"  # no vessel of the kind is found on one of the sides


class Measures(dict[str, float]):
    """Numbers by name.

    Attributes
    ----------
    undefined
        Reason of each number that is nan, by name.
    """

    undefined: dict[str, Undefined]

    def __init__(self, numbers: dict[str, float], reasons: dict[str, Undefined] | None = None) -> None:
        """Give each nan its reason: that of `reasons`, else the one that follows from its name."""
        super().__init__(numbers)
        self.undefined = {
            key: (reasons or {}).get(key) or _general_reason(key) for key, value in numbers.items() if math.isnan(value)
        }


def _general_reason(key: str) -> Undefined:
    if "vessel_density" in key:
        return Undefined.NO_FIELD
    return Undefined.FEW_PIXELS if "fractal_d" in key else Undefined.NO_SEGMENT
