"""The measures that the page shows, each with its unit, one sentence, and its agreement with manual segmentations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from resegnet.io import without_nan
from resegnet.results.measures import Undefined
from resegnet.results.segmentation import Segmentation
from resegnet.web.messages import ServedFile

# Share of the field of view above which a mask is not measured: it has no centrelines of vessels then, and to look for
# them takes up to 39 s (8 megapixels).
MAX_VESSEL = 0.5
MEASURED_MODEL = "bundled"  # whose agreement with manual segmentations is known
UNDEFINED = "\u2013"  # in place of a number
TOO_MUCH_VESSEL = (
    "More than half of the field of view is vessel at this threshold, so nothing is measured. Raise the threshold."
)


# Why a measure has no number, in words; {vessels} stands for arteries, veins or both.
REASONS = {
    Undefined.NO_FIELD: "No field of view was found.",
    Undefined.NO_SEGMENT: "No vessel is long enough to be measured.",
    Undefined.FEW_PIXELS: "The field of view is too small, or too little of it is vessel.",
    Undefined.NO_DISC: "The optic disc was not found.",
    Undefined.DISC_CUT_OFF: "The field of view cuts a part of the optic disc off.",
    Undefined.NO_FOVEA: "The fovea was not found.",
    Undefined.ZONE_OUTSIDE_FIELD: "Less than half of zone B, or nothing of the zone, lies in the field of view.",
    Undefined.FEW_VESSELS: "Fewer than six {vessels} cross zone B.",
    Undefined.NO_ARCADE: "No arcade was found.",
}
_VESSELS = {"crae_px": "arteries", "crve_px": "veins"}


class ShownMeasure(TypedDict):
    """A measure as `viewer.js` shows it."""

    key: str  # in `resegnet.results.measure.measure_mask`
    title: str
    unit: str  # "%", "px" or "": a share, a length, a bare number
    digits: int  # after the point, in pixels or without a unit
    meaning: str
    icc: tuple[float, float] | None  # least and greatest of the data sets in docs/measurements.md, of `MEASURED_MODEL`
    needs_anatomy: bool  # only models that tell arteries, veins, disc and fovea have it
    reliable: bool


SHOWN_MEASURES: list[ShownMeasure] = [
    {
        "key": "vessel_density",
        "title": "Vessel density",
        "unit": "%",
        "digits": 1,
        "meaning": "Share of the field of view that is vessel.",
        "icc": (0.31, 0.92),
        "needs_anatomy": False,
        "reliable": True,
    },
    {
        "key": "skeleton_length_px",
        "title": "Length",
        "unit": "px",
        "digits": 0,
        "meaning": "Length of all centrelines together.",
        "icc": (0.13, 0.91),
        "needs_anatomy": False,
        "reliable": True,
    },
    {
        "key": "calibre_mean_px",
        "title": "Mean calibre",
        "unit": "px",
        "digits": 2,
        "meaning": "Width at right angles to the centreline, over all centrelines.",
        "icc": (0.06, 0.80),
        "needs_anatomy": False,
        "reliable": False,
    },
    {
        "key": "tortuosity",
        "title": "Tortuosity",
        "unit": "",
        "digits": 3,
        "meaning": "Length of the vessel segments divided by the distances of their ends; 1 is straight.",
        "icc": (0.07, 0.85),
        "needs_anatomy": False,
        "reliable": True,
    },
    {
        "key": "fractal_d0",
        "title": "Fractal dimension",
        "unit": "",
        "digits": 3,
        "meaning": "How densely the vessels fill the field at all scales (D0): 1 for a line, 2 for an area.",
        "icc": (0.26, 0.93),
        "needs_anatomy": False,
        "reliable": True,
    },
    {
        "key": "crae_px",
        "title": "CRAE",
        "unit": "px",
        "digits": 2,
        "meaning": "Central retinal artery equivalent: one calibre for the six widest arteries near the disc.",
        "icc": (0.65, 0.84),
        "needs_anatomy": True,
        "reliable": True,
    },
    {
        "key": "crve_px",
        "title": "CRVE",
        "unit": "px",
        "digits": 2,
        "meaning": "Central retinal vein equivalent: one calibre for the six widest veins near the disc.",
        "icc": (0.33, 0.80),
        "needs_anatomy": True,
        "reliable": True,
    },
    {
        "key": "avr",
        "title": "AVR",
        "unit": "",
        "digits": 3,
        "meaning": "Ratio of arteries to veins: CRAE divided by CRVE. It says little of a single eye.",
        "icc": (0.52, 0.76),
        "needs_anatomy": True,
        "reliable": True,
    },
    {
        "key": "disc_diameter_px",
        "title": "Disc diameter",
        "unit": "px",
        "digits": 1,
        "meaning": "Diameter of a circle with the area of the optic disc.",
        "icc": None,
        "needs_anatomy": True,
        "reliable": True,
    },
    {
        "key": "disc_fovea_distance_dd",
        "title": "Disc to fovea",
        "unit": "",
        "digits": 2,
        "meaning": "Distance of the fovea from the middle of the disc, in disc diameters.",
        "icc": None,
        "needs_anatomy": True,
        "reliable": True,
    },
    {
        "key": "branch_points",
        "title": "Branch points",
        "unit": "",
        "digits": 0,
        "meaning": "Places where vessels part, join or cross.",
        "icc": (0.07, 0.64),
        "needs_anatomy": False,
        "reliable": False,
    },
    {
        "key": "end_points",
        "title": "End points",
        "unit": "",
        "digits": 0,
        "meaning": "Places where vessels end inside the field of view.",
        "icc": (0.06, 0.27),
        "needs_anatomy": False,
        "reliable": False,
    },
]


class Measured(TypedDict):
    """An answer to `viewer.js`: the measures of a photograph at a threshold."""

    photo: str | None  # file on the server
    threshold: float | None  # None without a photograph
    measures: dict[str, float | None] | None  # None if the mask is not measured
    reason: str | None  # a sentence: why it is not
    reasons: dict[str, str]  # a sentence for each of `measures` that is None
    kinds: ServedFile | None  # packed, see `resegnet.results.kinds`; None if not asked for
    calibres: ServedFile | None  # see `resegnet.web.layers.pack_calibres`; None if not asked for


@dataclass(frozen=True)
class ShownNumbers:
    """The measures of `SHOWN_MEASURES` that a result has, by key, and a sentence for each that is None."""

    values: dict[str, float | None]
    reasons: dict[str, str]


def shown_measures(result: Segmentation) -> ShownNumbers | None:
    """Measure what the page shows. None if the mask covers more than `MAX_VESSEL` of the field of view."""
    if np.count_nonzero(result.mask & result.fov) > MAX_VESSEL * np.count_nonzero(result.fov):
        return None
    measures = result.measure()
    keys = [shown["key"] for shown in SHOWN_MEASURES if shown["key"] in measures]
    numbers = without_nan(measures)
    reasons = {
        key: REASONS[measures.undefined[key]].format(vessels=_VESSELS.get(key, "arteries or veins"))
        for key in keys
        if key in measures.undefined
    }
    return ShownNumbers({key: numbers[key] for key in keys}, reasons)


def write_measure(shown: ShownMeasure, value: float | None, um_per_px: float | None) -> str:
    """Return a measure with its unit, as `viewer.js` writes it.

    Parameters
    ----------
    value
        In pixels, if it is a length; None if it is undefined.
    um_per_px
        Micrometres on the retina for a pixel. None leaves lengths in pixels.
    """
    if value is None:
        return UNDEFINED
    if shown["unit"] == "%":
        return f"{value:.1%}"
    if shown["unit"] == "px" and um_per_px is not None:
        length_um = value * um_per_px
        return f"{length_um:,.1f} µm" if length_um < 10_000 else f"{length_um / 1000:,.1f} mm"
    return f"{value:,.{shown['digits']}f} {shown['unit']}".rstrip()
