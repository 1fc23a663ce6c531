"""Measure a vessel mask: area, length, branching, calibre, tortuosity, fractal dimension."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from resegnet.errors import ArgumentError
from resegnet.results.centrelines import Centrelines, field_diameter_px, find_centrelines
from resegnet.results.fractal import fractal_dimensions

if TYPE_CHECKING:
    from resegnet.results.segmentation import Segmentation

# Least distance between the ends of a segment that counts for the tortuosity, as a share of the field's diameter: a
# shorter segment says nothing about the vessel's course.
MIN_CHORD = 0.02


def measure(segmentation: Segmentation, um_per_px: float | None = None) -> dict[str, float]:
    """Measure the vessels at the segmentation's own threshold; see `measure_mask`. The given scale comes first."""
    return measure_mask(segmentation.mask, segmentation.fov, segmentation.um_per_px if um_per_px is None else um_per_px)


def measure_mask(mask: np.ndarray, fov: np.ndarray | None = None, um_per_px: float | None = None) -> dict[str, float]:
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
    dict of str to float
        Always the same keys in the same order, for the field of view:

        * `field_area_px`, `vessel_area_px`: numbers of pixels. `vessel_density`: their quotient, [0, 1].
        * `skeleton_length_px`: length of all centrelines, 0 or more, smoothed to fractions of a pixel, see
          `resegnet.results.centrelines`.
        * `branch_points`, `end_points`, `segments`: counts. A crossing is one branch point. A vessel that leaves the
          field has no end there. A segment runs from a branch point or end to the next.
        * `calibre_mean_px`, `calibre_median_px`, `calibre_sd_px`: width at right angles to the centreline, over all
          points of all centrelines, 0 or more, except near branch points and near the rim of the field.
        * `tortuosity`: length of a segment divided by the distance between its ends (Hart et al. 1999,
          10.1016/S1386-5056(98)00163-4), mean over segments weighted by length, 1 (straight) or more. Only segments
          whose ends are at least 2 % of the field's diameter apart count.
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

        A number that is undefined is nan: the density without a field; calibre, tortuosity and curvature without a
        segment that can be measured; fractal dimensions of a small
        field or of a mask of few pixels.

    Raises
    ------
    ArgumentError
        If the arrays are no masks of one size, or the scale is not a positive number.
    """
    fov = np.ones_like(mask) if fov is None else fov
    if mask.ndim != 2 or mask.shape != fov.shape or mask.dtype != bool or fov.dtype != bool:
        raise ArgumentError(
            f"The mask has the shape {mask.shape} and the type {mask.dtype}, the field of view {fov.shape} and "
            f"{fov.dtype}, expected two (H, W) bool of one size."
        )
    if um_per_px is not None and not (math.isfinite(um_per_px) and um_per_px > 0):
        raise ArgumentError(
            f"um_per_px is {um_per_px}, expected a positive number of micrometres per pixel, or None if it is unknown."
        )
    mask = mask & fov
    lines = find_centrelines(mask, fov)
    height, width = mask.shape
    numbers = _measure_region(mask, fov, lines, np.s_[0:height, 0:width])
    numbers |= zip(("fractal_d0", "fractal_d1", "fractal_d2"), fractal_dimensions(mask, fov), strict=True)
    row, column = _find_middle(fov)
    for vertical, rows in (("upper", np.s_[0:row]), ("lower", np.s_[row:height])):
        for horizontal, columns in (("left", np.s_[0:column]), ("right", np.s_[column:width])):
            quadrant = _measure_region(mask, fov, lines, (rows, columns))
            numbers |= {f"{vertical}_{horizontal}_{key}": value for key, value in quadrant.items()}
    return numbers if um_per_px is None else numbers | _in_um(numbers, um_per_px)


def _measure_region(
    mask: np.ndarray, fov: np.ndarray, lines: Centrelines, region: tuple[slice, slice]
) -> dict[str, float]:
    """Measure the part of a mask inside a region of rows and columns."""
    field_area, vessel_area = int(np.count_nonzero(fov[region])), int(np.count_nonzero(mask[region]))

    def inside(points: np.ndarray) -> np.ndarray:
        row, column = np.floor(points + 0.5).T
        rows, columns = region
        return (row >= rows.start) & (row < rows.stop) & (column >= columns.start) & (column < columns.stop)

    here, mine = inside(lines.points), inside(lines.middles)
    steps = lines.steps_px[here]
    calibres, calibre_steps = _defined(lines.calibres_px[here], steps)
    calibre_mean = _mean(calibres, calibre_steps)
    lengths, chords = lines.lengths_px[mine], lines.chords_px[mine]
    long = chords >= MIN_CHORD * field_diameter_px(fov)
    return {
        "field_area_px": float(field_area),
        "vessel_area_px": float(vessel_area),
        "vessel_density": vessel_area / field_area if field_area else math.nan,
        "skeleton_length_px": float(steps.sum()),
        "branch_points": float(np.count_nonzero(inside(lines.branch_points))),
        "end_points": float(np.count_nonzero(inside(lines.end_points))),
        "segments": float(np.count_nonzero(mine)),
        "calibre_mean_px": calibre_mean,
        "calibre_median_px": _median(calibres, calibre_steps),
        "calibre_sd_px": math.sqrt(_mean((calibres - calibre_mean) ** 2, calibre_steps)),
        "tortuosity": _mean(lengths[long] / chords[long], lengths[long]),
        "curvature_per_px": _mean(*_defined(lines.curvatures_per_px[here], steps)),
    }


def _defined(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values that are not nan, and their weights."""
    is_defined = ~np.isnan(values)
    return values[is_defined], weights[is_defined]


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights)) if weights.sum() > 0 else math.nan


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.quantile(values, 0.5, weights=weights, method="inverted_cdf")) if weights.sum() > 0 else math.nan


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
    converted = {}
    for key, value in numbers.items():
        if key.endswith("_area_px"):
            converted[key.removesuffix("px") + "um2"] = value * um_per_px**2
        elif key.endswith("_per_px"):
            converted[key.removesuffix("px") + "um"] = value / um_per_px
        elif key.endswith("_px"):
            converted[key.removesuffix("px") + "um"] = value * um_per_px
    return converted
