"""Measure how wide vessels are, by rays and discs that grow inside a mask."""

from __future__ import annotations

import math

import numpy as np

_STEP_PX = 0.25  # by which rays and discs grow
_CIRCLE = np.stack([np.sin(np.arange(16) * math.pi / 8), np.cos(np.arange(16) * math.pi / 8)], axis=1)

# A chord longer than this many medians of its segment plus this many px runs along another vessel: where several meet,
# one calibre away from the branch point is not far enough.
WIDEST, WIDEST_PX = 2.0, 3.0


def find_radii(points: np.ndarray, vessel: np.ndarray) -> np.ndarray:
    """Return the radius of the greatest disc round each point, (N, 2), that lies inside the vessel, (N,) px."""
    radii = np.zeros(len(points))
    growing, step = np.arange(len(points)), 0
    while len(growing):
        circles = points[growing, None] + (step + 0.5) * _STEP_PX * _CIRCLE
        rows, columns = np.moveaxis(np.rint(circles).astype(np.intp), -1, 0)
        out = ~vessel[rows, columns].all(axis=1)
        radii[growing[out]] = step * _STEP_PX
        growing, step = growing[~out], step + 1
    return radii


def cast_rays(points: np.ndarray, directions: np.ndarray, vessel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the length of each ray inside the vessel, px, and the flat index of the pixel that ends it."""
    inside, width = vessel.reshape(-1), vessel.shape[1]
    reach, ended = np.zeros(len(points)), np.zeros(len(points), np.intp)
    running, step = np.arange(len(points)), 0
    while len(running):
        rows, columns = np.rint(points[running] + (step + 0.5) * _STEP_PX * directions[running]).astype(np.intp).T
        at = rows * width + columns
        out = ~inside[at]
        reach[running[out]] = step * _STEP_PX
        ended[running[out]] = at[out]
        running, step = running[~out], step + 1
    return reach, ended


def measure_calibres(
    points: np.ndarray,
    traced: np.ndarray,
    directions: np.ndarray,
    segments: np.ndarray,
    clear: np.ndarray,
    vessel: np.ndarray,
    field: np.ndarray,
) -> np.ndarray:
    """Return the chord of the vessel at right angles to the direction at the `clear` points; nan where not measured.

    Parameters
    ----------
    points, traced, directions : (N, 2) float64
        Row and column of centrelines, smoothed and not, px; and their unit vectors.
    segments : (N,) int
        Number of each point's segment, ascending from 0.
    clear : (N,) int
        The points at which a chord does not cross a branch point.
    vessel, field : (H, W) bool
        The frame of `points`. The first and last rows and columns of `vessel` are False.

    Returns
    -------
    calibres_px : (N,) float64
    """
    normals = np.stack([-directions[:, 1], directions[:, 0]], axis=1)
    # Every second chord starts half-way to the next point: along a diagonal, all points have the same place on the
    # staircase of the pixels.
    origins = points.copy()
    origins[1:-1:2] = (points[1:-1:2] + points[2::2]) / 2
    lasts = np.flatnonzero(np.diff(segments, append=-1))
    origins[lasts] = points[lasts]
    chords = _cast_chords(origins[clear], normals[clear], vessel, field)
    # Beside a thin or winding vessel, a smoothed point misses the vessel. Its pixel of the skeleton does not.
    missed = chords < 1
    chords[missed] = _cast_chords(traced[clear[missed]], normals[clear[missed]], vessel, field)
    calibres = np.full(len(points), np.nan)
    calibres[clear] = chords
    calibres[calibres > WIDEST * median_of_segments(calibres, segments)[segments] + WIDEST_PX] = np.nan
    return calibres


def _cast_chords(points: np.ndarray, normals: np.ndarray, vessel: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Return the length inside the vessel along the normals, both ways, px; nan where it ends at the rim."""
    chords = np.zeros(len(points))
    for side in (1, -1):
        reach, ended = cast_rays(points, side * normals, vessel)
        chords += np.where(field.reshape(-1)[ended], reach, np.nan)
    return chords


def median_of_segments(values: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Return the median of the values of each segment that are not nan, (S,) float64; nan for a segment without any.

    Parameters
    ----------
    values : (N,) float64
    segments : (N,) int
        Number of each value's segment, ascending from 0.
    """
    medians = np.full(segments[-1] + 1 if len(segments) else 0, np.nan)
    defined = ~np.isnan(values)
    values, segments = values[defined], segments[defined]
    order = np.lexsort((values, segments))
    values, segments = values[order], segments[order]
    numbers, firsts, counts = np.unique(segments, return_index=True, return_counts=True)
    medians[numbers] = (values[firsts + (counts - 1) // 2] + values[firsts + counts // 2]) / 2
    return medians
