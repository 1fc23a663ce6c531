"""Fitting circles and upright ellipses to points, most of which may lie elsewhere.

An ellipse is (4,) float: centre y, centre x, radius y, radius x.
"""

from __future__ import annotations

import numpy as np

TRIALS = 64  # random circles for each threshold: if half the points are good, all circles miss with chance 2e-4
TRIAL_POINTS = 160


def fit_ellipse(points: np.ndarray, squashed: bool) -> np.ndarray:
    """Fit a circle or upright ellipse to (..., N, 2) points by least squares: (..., 4), nan where there is none."""
    y, x = points[..., 0], points[..., 1]
    one = np.ones_like(y)
    columns = [y, x, one, -(x**2)] if squashed else [y, x, one]
    matrix = np.stack(columns, axis=-1)
    target = y**2 if squashed else y**2 + x**2
    transposed = np.swapaxes(matrix, -1, -2)
    normal = transposed @ matrix
    normal = normal + 1e-9 * np.eye(len(columns))  # three points on a line: a huge circle, refused later
    solution = np.linalg.solve(normal, transposed @ target[..., None])[..., 0]
    aspect = solution[..., 3] if squashed else np.ones(solution.shape[:-1])  # (radius y / radius x) squared
    with np.errstate(invalid="ignore", divide="ignore"):
        centre_y = solution[..., 0] / 2
        centre_x = solution[..., 1] / 2 / aspect
        radius_y = np.sqrt(solution[..., 2] + centre_y**2 + aspect * centre_x**2)
        return np.stack([centre_y, centre_x, radius_y, radius_y / np.sqrt(aspect)], axis=-1)


def fit_by_trials(
    points: np.ndarray, shape: tuple[int, int], squashed: bool, random: np.random.Generator
) -> tuple[np.ndarray | None, float]:
    """Fit the ellipse on which most of the (N, 2) points lie, by RANSAC (doi:10.1145/358669.358692).

    Returns
    -------
    ellipse
        (4,) float, refitted to the points on it; None if there is none.
    share
        Share of the points that lie on it.
    """
    if len(points) < 12:
        return None, 0.0
    sample = random.choice(points, size=min(len(points), TRIAL_POINTS), replace=False)
    trials = random.integers(len(sample), size=(TRIALS, 4 if squashed else 3))
    ellipses = fit_ellipse(sample[trials], squashed)
    ellipses = ellipses[is_plausible(ellipses, shape)]
    if len(ellipses) == 0:
        return None, 0.0
    ellipse = ellipses[(distance_from_rim(sample, ellipses) < 1.5).sum(axis=1).argmax()]
    for _ in range(2):
        near = distance_from_rim(points, ellipse[None])[0] < 1.5
        if near.sum() < 8:
            return None, 0.0
        ellipse = fit_ellipse(points[near], squashed)
        if not is_plausible(ellipse, shape):
            return None, 0.0
    return ellipse, float((distance_from_rim(points, ellipse[None])[0] < 2.0).mean())


def is_plausible(ellipse: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Tell which (..., 4) ellipses could be a field in a frame of this shape: not tiny, not far outside, not flat."""
    with np.errstate(invalid="ignore"):
        radii, centre = ellipse[..., 2:], ellipse[..., :2]
        fits = (radii > 0.12 * min(shape)).all(-1) & (radii < 1.2 * max(shape)).all(-1)
        within = (centre > 0).all(-1) & (centre < np.array(shape)).all(-1)
        ratio = radii[..., 0] / radii[..., 1]
        return fits & within & (ratio > 0.5) & (ratio < 2)


def distance_from_rim(points: np.ndarray, ellipses: np.ndarray) -> np.ndarray:
    """Return the distance of (N, 2) points from the rims of (M, 4) ellipses, (M, N) px; it is exact for circles."""
    centre_y, centre_x, radius_y, radius_x = ellipses.T[:, :, None]
    rim_at_one = np.sqrt(((points[:, 0] - centre_y) / radius_y) ** 2 + ((points[:, 1] - centre_x) / radius_x) ** 2)
    return np.abs(rim_at_one - 1) * (radius_y + radius_x) / 2
