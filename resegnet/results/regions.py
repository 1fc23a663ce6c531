"""Numbers of the vessels in a part of the photograph: area, length, branching, calibre, tortuosity, curvature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from resegnet.results.calibres import median_of_segments
from resegnet.results.centrelines import Centrelines

# Least distance between the ends of a segment that counts for the tortuosity, as a share of the field's diameter: a
# shorter segment says nothing about the vessel's course.
MIN_CHORD = 0.02

Inside = Callable[[np.ndarray], np.ndarray]  # tells which points, (N, 2) px, lie in a region, (N,) bool


def measure_lines(vessel_area: int, field_area: int, lines: Centrelines, min_chord_px: float) -> dict[str, float]:
    """Measure vessels; for the numbers see `resegnet.results.measure.measure_mask`.

    Parameters
    ----------
    vessel_area, field_area
        Numbers of pixels.
    lines
        Centrelines of the vessels in the region alone, by `select` or `clip`.
    min_chord_px
        Segments whose ends are nearer to each other do not count for the tortuosity.
    """
    steps = lines.steps_px
    calibres, calibre_steps = defined(lines.calibres_px, steps)
    calibre_mean = mean(calibres, calibre_steps)
    lengths, chords = lines.lengths_px, lines.chords_px
    long = chords >= min_chord_px
    return {
        "field_area_px": float(field_area),
        "vessel_area_px": float(vessel_area),
        "vessel_density": vessel_area / field_area if field_area else math.nan,
        "skeleton_length_px": float(steps.sum()),
        "branch_points": float(len(lines.branch_points)),
        "end_points": float(len(lines.end_points)),
        "segments": float(len(lengths)),
        "calibre_mean_px": calibre_mean,
        "calibre_median_px": _median(calibres, calibre_steps),
        "calibre_sd_px": math.sqrt(mean((calibres - calibre_mean) ** 2, calibre_steps)),
        # Not a mean of the quotients: one segment that nearly closes a ring would outweigh all the others.
        "tortuosity": float(lengths[long].sum() / chords[long].sum()) if long.any() else math.nan,
        "curvature_per_px": mean(*defined(lines.curvatures_per_px, steps)),
    }


def select(lines: Centrelines, inside: Inside) -> Centrelines:
    """Return the points inside a region, and the whole segments whose middle lies inside it.

    A segment belongs to one of several regions, so that their numbers add up. `segments` and `nodes` of the result do
    not fit its points.
    """
    here, mine = inside(lines.points), inside(lines.middles)
    return replace(
        lines,
        points=lines.points[here],
        steps_px=lines.steps_px[here],
        clear=lines.clear[here],
        calibres_px=lines.calibres_px[here],
        curvatures_per_px=lines.curvatures_per_px[here],
        lengths_px=lines.lengths_px[mine],
        chords_px=lines.chords_px[mine],
        middles=lines.middles[mine],
        branch_points=lines.branch_points[inside(lines.branch_points)],
        end_points=lines.end_points[inside(lines.end_points)],
    )


def clip(lines: Centrelines, inside: Inside) -> Centrelines:
    """Cut the centrelines off at the border of a region. A segment that leaves it and comes back becomes two.

    The cut makes no end points. `nodes` of the result are -1: where a segment was cut off, it has none.
    """
    at = np.flatnonzero(inside(lines.points))
    is_first = (np.diff(at, prepend=-2) > 1) | (np.diff(lines.segments[at], prepend=-1) != 0)
    firsts, segments = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    lasts = np.append(firsts[1:], len(at))[: len(firsts)] - 1
    points, count = lines.points[at], len(firsts)
    gaps = np.hypot(*np.diff(points, axis=0, prepend=points[:1]).T)
    gaps[firsts] = 0  # from one segment to the next
    return Centrelines(
        points=points,
        segments=segments,
        steps_px=lines.steps_px[at],
        clear=lines.clear[at],
        calibres_px=lines.calibres_px[at],
        curvatures_per_px=lines.curvatures_per_px[at],
        lengths_px=np.bincount(segments, weights=gaps, minlength=count),
        chords_px=np.hypot(*(points[lasts] - points[firsts]).T),
        middles=points[(firsts + lasts) // 2],
        nodes=np.full((count, 2), -1),
        node_points=np.empty((0, 2)),
        node_calibres_px=np.empty(0),
        branch_points=lines.branch_points[inside(lines.branch_points)],
        end_points=lines.end_points[inside(lines.end_points)],
    )


def segment_calibres(lines: Centrelines) -> np.ndarray:
    """Return the median calibre of each segment, (S,) float64 px; nan where none is measured.

    Where two vessels part at an acute angle, the calibre of one holds a part of the other, which a mean would show.
    """
    return median_of_segments(lines.calibres_px, lines.segments)


def defined(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values that are not nan, and their weights."""
    is_defined = ~np.isnan(values)
    return values[is_defined], weights[is_defined]


def mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted mean; nan without weight."""
    return float(np.average(values, weights=weights)) if weights.sum() > 0 else math.nan


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.quantile(values, 0.5, weights=weights, method="inverted_cdf")) if weights.sum() > 0 else math.nan
