"""Measure vessels: area, length, branching, calibre, tortuosity, fractal dimension; arteries and veins, in zones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from resegnet.errors import ArgumentError, short_repr
from resegnet.results.centrelines import field_diameter_px, find_centrelines
from resegnet.results.fractal import fractal_dimensions
from resegnet.results.measure_anatomy import FRACTAL, Numbers, Traced, measure_kinds
from resegnet.results.measures import Measures
from resegnet.results.regions import MIN_CHORD, Inside, measure_lines, select

if TYPE_CHECKING:
    from resegnet.results.anatomy import Disc, Place
    from resegnet.results.segmentation import Segmentation


def measure(segmentation: Segmentation, um_per_px: float | None = None) -> Measures:
    """Measure the vessels at the segmentation's own threshold; see `measure_mask`. The given scale comes first.

    Where the result tells arteries from veins, the numbers of `measure_anatomy` follow.
    """
    um_per_px = segmentation.um_per_px if um_per_px is None else um_per_px
    _check_scale(um_per_px)
    mask, fov = segmentation.mask, segmentation.fov
    vessels = Traced(mask, segmentation.centrelines)
    arteries, veins = segmentation.arteries, segmentation.veins
    numbers = Numbers(_measure_field(vessels, fov), {})
    if arteries is not None and veins is not None:
        kinds = _trace_kinds(arteries, veins, fov)
        added = measure_kinds(vessels, kinds, fov, segmentation.disc, segmentation.fovea)
        numbers = Numbers(numbers.values | added.values, added.reasons)
    return _finish(numbers, um_per_px)


def measure_mask(mask: np.ndarray, fov: np.ndarray | None = None, um_per_px: float | None = None) -> Measures:
    """Measure any vessel mask, for example a person's reference.

    All lengths are in pixels of the photograph. The numbers depend on the camera's resolution and angle of view, on how
    wide and how far out a person or model draws vessels, and on these definitions. Compare only photographs of one
    camera, measured by one version of one tool. They are no clinical measures.

    Parameters
    ----------
    mask : (H, W) bool
        Vessels.
    fov : (H, W) bool, optional
        Field of view; None takes the whole picture. Pixels outside it do not count.
    um_per_px : float, optional
        Micrometres on the retina for a pixel, of a calibrated camera. Adds a value in micrometres for each in pixels.

    Returns
    -------
    Measures
        A dict of str to float, always the same keys in the same order, for the field of view:

        * `field_area_px`, `vessel_area_px`: numbers of pixels. `vessel_density`: their quotient, [0, 1].
        * `skeleton_length_px`: length of all centrelines, 0 or more, smoothed to fractions of a pixel, see
          `resegnet.results.centrelines`.
        * `branch_points`, `end_points`, `segments`: counts. A crossing is one branch point. A vessel that leaves the
          field has no end there. A segment runs from a branch point or end to the next.
        * `calibre_mean_px`, `calibre_median_px`, `calibre_sd_px`: width at right angles to the centreline, over all
          points of all centrelines, 0 or more, except near branch points and near the rim of the field.
        * `tortuosity`: length of the segments divided by the distances between their ends (Hart et al. 1999,
          10.1016/S1386-5056(98)00163-4), both summed over the segments, 1 (straight) or more. Only segments whose ends
          are at least 2 % of the field's diameter apart count.
        * `curvature_per_px`: mean curvature along the centrelines without sign, that is, the angle by which they turn
          per length (the same source), radians per px, 0 or more. Wiggles finer than 1 % of the field's diameter are
          smoothed away. An arc of radius R has 1 / R.
        * `fractal_d0`, `fractal_d1`, `fractal_d2`: capacity, information and correlation dimension of the mask, about
          1 to 2 for vessels, by the sandbox method, see `resegnet.results.fractal`.

        Next come the same numbers, without the fractal dimensions, for each quadrant about the middle of the field, by
        its place in the picture: `upper_left_...`, `upper_right_...`, `lower_left_...`, `lower_right_...`. Areas,
        lengths and counts add up to those of the field; a segment belongs to the quadrant that holds its middle.

        With `um_per_px`, each number whose name ends in `_px` follows again: as `_um`, areas as `_um2`, curvature as
        `_per_um`.

        A number that is undefined is nan, and `undefined` gives the reason: the density without a field; calibre,
        tortuosity and curvature without a segment that can be measured; fractal dimensions of a small field or of a
        mask of few pixels.

    Raises
    ------
    ArgumentError
        If the arrays are no masks of one size, or the scale is not a positive number.
    """
    fov = np.ones_like(mask) if fov is None else fov
    _check_masks(fov, mask=mask)
    _check_scale(um_per_px)
    mask = mask & fov
    return _finish(Numbers(_measure_field(Traced(mask, find_centrelines(mask, fov)), fov), {}), um_per_px)


def measure_anatomy(
    arteries: np.ndarray,
    veins: np.ndarray,
    fov: np.ndarray,
    disc: Disc | None,
    fovea: Place | None,
    um_per_px: float | None = None,
) -> Measures:
    """Measure arteries and veins apart, and in zones round the optic disc, for example those that a person traced.

    Parameters
    ----------
    arteries, veins : (H, W) bool
        A crossing belongs to both.
    fov : (H, W) bool
        Field of view. Pixels outside it do not count.
    disc, fovea
        In the frame of the masks; None if unknown.
    um_per_px : float, optional
        As for `measure_mask`.

    Returns
    -------
    Measures
        Always the same keys in the same order. `undefined` gives the reason of each nan.

        * `artery_...`, `vein_...`: the numbers of `measure_mask` for each kind, without the area of the field and
          without the quadrants.
        * `zone_b_...`, `zone_c_...`: the same for all vessels in a ring round the disc, without fractal dimensions;
          `zone_b_artery_...` and so on for each kind. Zone B reaches from 0.5 to 1 disc diameter from the margin of
          the disc, zone C from 0.5 to 2 (`resegnet.results.zones`). Vessels are cut off at its borders.
          `zone_b_coverage`: share of the zone inside the field, [0, 1].
        * `crae_px`, `crve_px`: central retinal artery and vein equivalent of the six largest vessels of each kind in
          zone B, 0 or more, see `resegnet.results.equivalents`; `crae_vessels`, `crve_vessels`: number of vessels, 0 to
          6, that went in. nan with fewer than six, since each that is missing lowers them by about 5 %, and where the
          field shows less than half of the zone. `avr`: `crae_px` / `crve_px`.
        * `disc_diameter_px`; `disc_fovea_distance_px`: from centre to centre; `disc_fovea_distance_dd`: in disc
          diameters.
        * `artery_arcade_angle_deg`, `vein_arcade_angle_deg`: angle at the disc between the upper and the lower temporal
          arcade, 40 to 210 degrees, see `resegnet.results.arcades`.

        With `um_per_px`, numbers in micrometres follow as in `measure_mask`.

    Raises
    ------
    ArgumentError
        If the arrays are no masks of one size, or the scale is not a positive number.
    """
    _check_masks(fov, arteries=arteries, veins=veins)
    _check_scale(um_per_px)
    mask = (arteries | veins) & fov
    kinds = _trace_kinds(arteries, veins, fov)
    return _finish(measure_kinds(Traced(mask, find_centrelines(mask, fov)), kinds, fov, disc, fovea), um_per_px)


def _check_masks(fov: np.ndarray, **masks: np.ndarray) -> None:
    for name, mask in masks.items():
        if mask.ndim != 2 or mask.shape != fov.shape or mask.dtype != bool or fov.dtype != bool:
            raise ArgumentError(
                f"The {name} has the shape {mask.shape} and the type {mask.dtype}, the field of view {fov.shape} and "
                f"{fov.dtype}, expected two (H, W) bool of one size."
            )


def _check_scale(um_per_px: float | None) -> None:
    value: object = um_per_px  # a caller may pass anything
    if value is not None and not (isinstance(value, (int, float, np.number)) and math.isfinite(value) and value > 0):
        raise ArgumentError(
            f"um_per_px is {short_repr(value)}, expected a positive number of micrometres per pixel, or None if it is "
            "unknown."
        )


def _trace_kinds(arteries: np.ndarray, veins: np.ndarray, fov: np.ndarray) -> dict[str, Traced]:
    masks = {"artery": arteries & fov, "vein": veins & fov}
    return {kind: Traced(mask, find_centrelines(mask, fov)) for kind, mask in masks.items()}


def _finish(numbers: Numbers, um_per_px: float | None) -> Measures:
    """Add the numbers in micrometres, and the reasons."""
    if um_per_px is None:
        return Measures(numbers.values, numbers.reasons)
    reasons = numbers.reasons | {in_um(key): reason for key, reason in numbers.reasons.items()}
    return Measures(numbers.values | _in_um(numbers.values, um_per_px), reasons)


def _measure_field(vessels: Traced, fov: np.ndarray) -> dict[str, float]:
    """Measure all vessels in the field and in its quadrants."""
    mask, lines = vessels.mask, vessels.lines
    height, width = mask.shape
    min_chord = MIN_CHORD * field_diameter_px(fov)

    def measure_box(rows: slice, columns: slice) -> dict[str, float]:
        vessel_area, field_area = (int(np.count_nonzero(part[rows, columns])) for part in (mask, fov))
        return measure_lines(vessel_area, field_area, select(lines, _in_box(rows, columns)), min_chord)

    numbers = measure_box(slice(0, height), slice(0, width))
    numbers |= zip(FRACTAL, fractal_dimensions(mask, fov), strict=True)
    row, column = _find_middle(fov)
    for vertical, rows in (("upper", slice(0, row)), ("lower", slice(row, height))):
        for horizontal, columns in (("left", slice(0, column)), ("right", slice(column, width))):
            numbers |= {f"{vertical}_{horizontal}_{key}": value for key, value in measure_box(rows, columns).items()}
    return numbers


def _in_box(rows: slice, columns: slice) -> Inside:
    """Tell which points lie in a box of pixels."""

    def inside(points: np.ndarray) -> np.ndarray:
        row, column = np.floor(points + 0.5).T
        return (row >= rows.start) & (row < rows.stop) & (column >= columns.start) & (column < columns.stop)

    return inside


def _find_middle(fov: np.ndarray) -> tuple[int, int]:
    """Return row and column at which the lower and the right half of the field of view begin."""
    area = max(np.count_nonzero(fov), 1)
    row, column = (
        int(np.arange(len(counts)) @ counts / area + 0.5)
        for counts in (np.count_nonzero(fov, axis=1), np.count_nonzero(fov, axis=0))
    )
    return row, column


def _in_um(numbers: dict[str, float], um_per_px: float) -> dict[str, float]:
    """Return the numbers whose names end in `_px` in micrometres."""
    powers = {"_area_px": 2, "_per_px": -1}
    return {
        in_um(key): value * um_per_px ** next((power for end, power in powers.items() if key.endswith(end)), 1)
        for key, value in numbers.items()
        if key.endswith("_px")
    }


def in_um(key: str) -> str:
    """Return the name of a number in micrometres, of one whose name ends in `_px`."""
    return key.removesuffix("px") + ("um2" if key.endswith("_area_px") else "um")
