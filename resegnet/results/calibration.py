"""Fit the threshold and the calibration of a model, and measure its reliability, from histograms of its probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from scipy.optimize import minimize

from resegnet.errors import ArgumentError
from resegnet.results.metrics import BINS


class Reliability(TypedDict):
    """Agreement of the probability with the share of vessels, over bins of equal width."""

    expected_calibration_error: float
    probability: list[float | None]
    vessels: list[float | None]
    pixels: list[float]


def fit_threshold(histograms: Sequence[np.ndarray], dataset_names: Sequence[str] | None = None) -> tuple[float, float]:
    """Find the threshold of the highest F1 over validation pictures.

    Parameters
    ----------
    histograms : sequence of (2, BINS) int64
        One for each picture, see `resegnet.results.metrics.probability_histograms`.
    dataset_names : sequence of str, optional
        Data set of each picture. The pixels are then pooled within a set, and the mean F1 of the sets is maximised, so
        that large photographs do not dominate. None pools all pixels.

    Returns
    -------
    threshold : float
        A multiple of 1 / BINS in (0, 1). Of several equally good ones the middle one, so a network that answers with 0
        and 1 only gets 0.5.
    f1 : float
        F1 at that threshold.

    Raises
    ------
    ArgumentError
        If there is no picture, if the names do not match the pictures, or if a set has no vessel pixel.
    """
    thresholds, f1 = _mean_f1(histograms, dataset_names)
    best = np.flatnonzero(f1 == f1.max())
    middle = best[len(best) // 2]
    return float(thresholds[middle]), float(f1[middle])


def half_of_best_f1(
    histograms: Sequence[np.ndarray], dataset_names: Sequence[str] | None = None
) -> tuple[float, float]:
    """Find the threshold that suits a calibrated probability: half of the highest F1.

    For a calibrated probability the highest F1 is expected there (Lipton et al. 2014, arXiv:1402.1892). It is more
    stable than `fit_threshold`, since the curve of F1 is flat about its top: a few pictures move the place of the top
    more than its height.

    Parameters and errors are those of `fit_threshold`.

    Returns
    -------
    threshold : float
        A multiple of 1 / BINS in (0, 1).
    f1 : float
        F1 at that threshold.
    """
    thresholds, f1 = _mean_f1(histograms, dataset_names)
    place = int(np.abs(thresholds - f1.max() / 2).argmin())
    return float(thresholds[place]), float(f1[place])


def fit_scaling(histograms: Sequence[np.ndarray], dataset_names: Sequence[str]) -> tuple[float, float]:
    """Fit slope and offset of the logit that calibrate the probability, by least cross-entropy.

    Each data set has the same weight. Platt scaling (Platt 1999; Guo et al. 2017, arXiv:1706.04599).

    Parameters
    ----------
    histograms : sequence of (2, BINS) int64
        One for each picture, see `resegnet.results.metrics.probability_histograms`.
    dataset_names : sequence of str
        Data set of each picture.

    Returns
    -------
    slope, offset : float
        1 and 0 for a calibrated probability. The slope is from 0.1 to 10, the offset from -5 to 5. A positive slope
        keeps the order of the probabilities, and with it every score that some threshold reaches.
    """
    background, vessels = _mean_of_sets(histograms, dataset_names)
    middles = (np.arange(BINS) + 0.5) / BINS
    logits = np.log(middles / (1 - middles))

    def cross_entropy(scaling: np.ndarray) -> float:
        scaled = scaling[0] * logits + scaling[1]
        return float(background @ np.logaddexp(0, scaled) + vessels @ np.logaddexp(0, -scaled))

    slope, offset = minimize(cross_entropy, (1.0, 0.0), bounds=((0.1, 10), (-5, 5))).x
    return float(slope), float(offset)


def reliability(histograms: Sequence[np.ndarray], dataset_names: Sequence[str], bins: int = 10) -> Reliability:
    """Measure how well the probability agrees with the share of vessels: of pixels with 0.3, are 30 % vessels?

    Each data set has the same weight, whatever the size of its photographs.

    Parameters
    ----------
    histograms : sequence of (2, BINS) int64
        One for each picture, see `resegnet.results.metrics.probability_histograms`.
    dataset_names : sequence of str
        Data set of each picture.
    bins : int
        Number of bins of equal width over [0, 1].

    Returns
    -------
    dict
        `expected_calibration_error` in [0, 1], the mean distance between probability and share of vessels, weighted by
        the share of pixels (Naeini et al. 2015, 10.1609/aaai.v29i1.9602); and for each bin the mean `probability`, the
        share of `vessels`, and the share `pixels` of all pixels. The first two are None for an empty bin. The middles
        of the histogram's far finer bins stand for the probability.
    """
    background, vessels = _mean_of_sets(histograms, dataset_names)
    middles = (np.arange(BINS) + 0.5) / BINS
    place = (middles * bins).astype(int)
    pixels, vessel_pixels, probability = (
        np.bincount(place, weights=weights, minlength=bins)
        for weights in (background + vessels, vessels, (background + vessels) * middles)
    )
    return {
        "expected_calibration_error": float(np.abs(probability - vessel_pixels).sum()),
        "probability": [p / n if n else None for p, n in zip(probability.tolist(), pixels.tolist(), strict=True)],
        "vessels": [v / n if n else None for v, n in zip(vessel_pixels.tolist(), pixels.tolist(), strict=True)],
        "pixels": pixels.tolist(),
    }


def _mean_f1(
    histograms: Sequence[np.ndarray], dataset_names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return all thresholds, (BINS - 1,), and the mean F1 of the data sets at each of them."""
    names = ["all"] * len(histograms) if dataset_names is None else list(dataset_names)
    if not len(histograms) or len(names) != len(histograms):
        raise ArgumentError(
            f"There are {len(histograms)} histograms and {len(names)} names of data sets, expected one histogram or "
            "more, and one name for each or none at all."
        )
    thresholds = np.arange(1, BINS) / BINS
    curves = []
    for name, (background, vessels) in _pool_by_set(histograms, names).items():
        if not vessels.any():
            raise ArgumentError(f"There is no vessel pixel in the pictures of {name!r}, so F1 is undefined there.")
        hits = _count_from(vessels)
        curves.append(2 * hits / (hits + _count_from(background) + vessels.sum()))
    return thresholds, np.mean(curves, axis=0)


def _count_from(histogram: np.ndarray) -> np.ndarray:
    """Return the number of pixels at or above each bin edge but 0, (BINS - 1,)."""
    return np.cumsum(histogram[::-1])[::-1][1:]


def _mean_of_sets(histograms: Sequence[np.ndarray], dataset_names: Sequence[str]) -> np.ndarray:
    """Return shares of all pixels, (2, BINS), with the same weight for each data set."""
    pooled = _pool_by_set(histograms, dataset_names).values()
    return np.mean([histogram / histogram.sum() for histogram in pooled], axis=0)


def _pool_by_set(histograms: Sequence[np.ndarray], dataset_names: Sequence[str]) -> dict[str, np.ndarray]:
    pooled: dict[str, np.ndarray] = {}
    for name, histogram in zip(dataset_names, histograms, strict=True):
        pooled[name] = pooled.get(name, 0) + histogram
    return pooled
