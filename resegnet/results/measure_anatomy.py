"""Measure arteries and veins apart, in zones round the optic disc: calibres, equivalents, arcades, distances."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from resegnet.results.anatomy import Disc, Place, is_cut_off
from resegnet.results.arcades import measure_arcade_angle
from resegnet.results.centrelines import Centrelines, field_diameter_px
from resegnet.results.equivalents import ARTERY_COEFFICIENT, VEIN_COEFFICIENT, VESSELS, measure_equivalent
from resegnet.results.fractal import fractal_dimensions
from resegnet.results.measures import Undefined
from resegnet.results.regions import MIN_CHORD, clip, measure_lines
from resegnet.results.zones import ZONE_B, ZONES, Zone

FRACTAL = ("fractal_d0", "fractal_d1", "fractal_d2")
KINDS = {"artery": ("crae", ARTERY_COEFFICIENT), "vein": ("crve", VEIN_COEFFICIENT)}

MIN_COVERAGE = 0.5  # least share of a zone inside the field


@dataclass(frozen=True, eq=False)
class Traced:
    """A mask, (H, W) bool, and its centrelines."""

    mask: np.ndarray
    lines: Centrelines


@dataclass(frozen=True)
class Numbers:
    """Numbers by name, and the reason of each nan whose name does not tell it."""

    values: dict[str, float]
    reasons: dict[str, Undefined]

    def add(self, key: str, value: float, reason: Undefined) -> None:
        """Add a number; `reason` is that of a nan."""
        self.values[key] = value
        if math.isnan(value):
            self.reasons[key] = reason


def measure_kinds(
    vessels: Traced, kinds: Mapping[str, Traced], fov: np.ndarray, disc: Disc | None, fovea: Place | None
) -> Numbers:
    """Measure what `resegnet.results.measure.measure_anatomy` adds to the numbers of all vessels, without micrometres.

    Parameters
    ----------
    vessels
        All vessels.
    kinds
        Those of "artery" and of "vein".
    fov
        (H, W) bool.
    disc, fovea
        None if unknown.
    """
    numbers = Numbers({}, {})
    no_disc = Undefined.NO_DISC
    if disc is not None and is_cut_off(disc, fov):
        disc, no_disc = None, Undefined.DISC_CUT_OFF
    min_chord = MIN_CHORD * field_diameter_px(fov)
    field_area = int(np.count_nonzero(fov))
    for kind, traced in kinds.items():
        row = measure_lines(int(np.count_nonzero(traced.mask)), field_area, traced.lines, min_chord)
        del row["field_area_px"]
        row |= zip(FRACTAL, fractal_dimensions(traced.mask, fov), strict=True)
        numbers.values.update({f"{kind}_{key}": value for key, value in row.items()})
    for zone in ZONES:
        _add_zone(
            numbers, zone, {"": vessels} | {f"{kind}_": traced for kind, traced in kinds.items()}, fov, disc, no_disc
        )
    _add_equivalents(numbers, kinds, disc, no_disc)
    _add_places(numbers, disc, fovea, no_disc)
    for kind, traced in kinds.items():
        angle = math.nan if disc is None or fovea is None else measure_arcade_angle(traced.lines, disc, fovea)
        reason = no_disc if disc is None else Undefined.NO_FOVEA if fovea is None else Undefined.NO_ARCADE
        numbers.add(f"{kind}_arcade_angle_deg", angle, reason)
    return numbers


def _add_zone(
    numbers: Numbers,
    zone: Zone,
    traced: Mapping[str, Traced],
    fov: np.ndarray,
    disc: Disc | None,
    no_disc: Undefined,
) -> None:
    """Add the numbers of all vessels and of each kind in a zone; `traced` is by the start of their names.

    Here and below, `no_disc` is the reason if `disc` is None.
    """

    def inside(places: np.ndarray) -> np.ndarray:
        return np.zeros(len(places), bool) if disc is None else zone.holds(places, disc)

    ring = np.zeros_like(fov) if disc is None else zone.mask(fov.shape, disc) & fov
    area = int(np.count_nonzero(ring))
    rows = {f"{zone.name}_coverage": math.nan if disc is None else zone.coverage(area, disc)}
    rows[f"{zone.name}_field_area_px"] = float(area)
    for kind, part in traced.items():
        vessel_area = int(np.count_nonzero(part.mask & ring))
        row = measure_lines(vessel_area, area, clip(part.lines, inside), MIN_CHORD * field_diameter_px(fov))
        rows |= {f"{zone.name}_{kind}{name}": value for name, value in row.items() if name != "field_area_px"}
    reason = no_disc if disc is None else Undefined.NO_SEGMENT if area else Undefined.ZONE_OUTSIDE_FIELD
    for key, value in rows.items():
        numbers.add(key, math.nan if disc is None else value, reason)


def _add_equivalents(numbers: Numbers, kinds: Mapping[str, Traced], disc: Disc | None, no_disc: Undefined) -> None:
    """Add CRAE and CRVE with the numbers of vessels that went in, and their quotient."""
    coverage = numbers.values[f"{ZONE_B.name}_coverage"]
    found = {}
    for kind, (name, coefficient) in KINDS.items():
        value, count = (math.nan, 0) if disc is None else measure_equivalent(kinds[kind].lines, disc, coefficient)
        reason = no_disc
        if disc is not None:
            reason = Undefined.ZONE_OUTSIDE_FIELD if coverage < MIN_COVERAGE else Undefined.FEW_VESSELS
        defined = coverage >= MIN_COVERAGE and count == VESSELS
        numbers.add(f"{name}_px", value if defined else math.nan, reason)
        numbers.add(f"{name}_vessels", math.nan if disc is None else float(count), reason)
        found[name] = numbers.values[f"{name}_px"]
    numbers.add("avr", found["crae"] / found["crve"], reason)


def _add_places(numbers: Numbers, disc: Disc | None, fovea: Place | None, no_disc: Undefined) -> None:
    """Add the diameter of the disc and the distance of the fovea from its centre."""
    distance = math.nan if disc is None or fovea is None else math.dist(disc.centre, fovea)
    reason = no_disc if disc is None else Undefined.NO_FOVEA
    diameter = math.nan if disc is None else disc.diameter
    numbers.add("disc_diameter_px", diameter, reason)
    numbers.add("disc_fovea_distance_px", distance, reason)
    numbers.add("disc_fovea_distance_dd", distance / diameter, reason)
