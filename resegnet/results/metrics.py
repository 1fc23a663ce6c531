"""Scores of vessel probabilities against a person's reference: their names, and how they are counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from resegnet.errors import ArgumentError

# All scores, in the order of reports: the key in reports and in `metrics.json`, and the title on card, page and tables.
# The key of the sensitivity is scikit-learn's word for it.
SCORES: dict[str, str] = {
    "f1": "F1 (Dice)",
    "iou": "IoU (Jaccard)",
    "precision": "Precision",
    "recall": "Sensitivity",
    "specificity": "Specificity",
    "accuracy": "Accuracy",
    "mcc": "MCC",
    "auroc": "AUROC",
    "cldice": "clDice",
}

# As fine as the 16-bit probability that `resegnet.results.export` writes. A power of two, so that bin edges are exact
# in float32, and counting "probability >= edge" in the histogram gives the number of pixels exactly.
BINS = 65536


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts from which the scores of a picture follow. Those of several pictures can be added.

    Attributes
    ----------
    predicted_skeleton_hits
        Pixels of the prediction's skeleton on vessels of the reference.
    reference_skeleton_hits
        Pixels of the reference's skeleton on predicted vessels.
    histograms : (2, BINS) int64
        Probability over background and over vessels, see `probability_histograms`.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    predicted_skeleton: int
    predicted_skeleton_hits: int
    reference_skeleton: int
    reference_skeleton_hits: int
    histograms: np.ndarray

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def count_picture(
    probability: np.ndarray,
    vessels: np.ndarray,
    fov: np.ndarray | None,
    threshold: float,
    with_skeletons: bool = True,
) -> Counts:
    """Reduce one picture to the counts from which its scores follow.

    Parameters
    ----------
    probability : (H, W) float in [0, 1], or bool
        A pixel is predicted as vessel where this is `threshold` or more.
    vessels : (H, W) bool, or integers 0 and 1
        The person's reference.
    fov : (H, W) bool or None
        Pixels that count; None counts all.
    threshold : float in [0, 1]
    with_skeletons
        False leaves the skeletons empty, so that clDice is undefined.

    Raises
    ------
    ArgumentError
        If shapes differ, values are outside these ranges or the field of view has no pixel.

    Notes
    -----
    The two skeletons (Zhang and Suen 1984, 10.1145/357994.358023, by scikit-image) take most of the time: 2.6 s for a
    photograph of 3504 x 2336. A skeleton takes longer the wider a shape is: 39 s at that size for a prediction that
    calls every pixel a vessel.
    """
    if not 0 <= threshold <= 1:
        raise ArgumentError(f"threshold is {threshold}, expected a number from 0 to 1.")
    probability, vessels, fov = _check_picture(probability, vessels, fov)
    predicted = (probability >= threshold) & fov
    vessels = vessels & fov
    true_positives = int(np.count_nonzero(predicted & vessels))
    false_positives = int(np.count_nonzero(predicted)) - true_positives
    false_negatives = int(np.count_nonzero(vessels)) - true_positives
    in_field = int(np.count_nonzero(fov))
    if with_skeletons:
        from skimage.morphology import skeletonize

        predicted_skeleton, reference_skeleton = skeletonize(predicted), skeletonize(vessels)
    else:
        predicted_skeleton = reference_skeleton = np.zeros_like(fov)
    return Counts(
        true_positives=true_positives,
        false_positives=false_positives,
        false_negatives=false_negatives,
        true_negatives=in_field - true_positives - false_positives - false_negatives,
        predicted_skeleton=int(np.count_nonzero(predicted_skeleton)),
        predicted_skeleton_hits=int(np.count_nonzero(predicted_skeleton & vessels)),
        reference_skeleton=int(np.count_nonzero(reference_skeleton)),
        reference_skeleton_hits=int(np.count_nonzero(reference_skeleton & predicted)),
        histograms=_histograms(probability, vessels, fov),
    )


def scores(counts: Counts) -> dict[str, float]:
    """Return the scores by their keys in `SCORES`: MCC in [-1, 1], all others in [0, 1].

    A score that is undefined is nan: a share of nothing (precision of an empty prediction), F1 and IoU where neither
    holds a vessel, MCC and AUROC where prediction or reference is of one class only, clDice where neither holds a
    skeleton (0 where one does).

    References
    ----------
    clDice: Shit et al. 2021, 10.1109/CVPR46437.2021.01629. For several pictures the pixels of their skeletons are
    pooled.
    """
    tp, fp = counts.true_positives, counts.false_positives
    fn, tn = counts.false_negatives, counts.true_negatives
    return {
        "f1": _share(2 * tp, 2 * tp + fp + fn),
        "iou": _share(tp, tp + fp + fn),
        "precision": _share(tp, tp + fp),
        "recall": _share(tp, tp + fn),
        "specificity": _share(tn, tn + fp),
        "accuracy": _share(tp + tn, tp + fp + fn + tn),
        # Python's integers, since the product of four counts of a pooled set exceeds 64 bits.
        "mcc": _share(tp * tn - fp * fn, math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
        "auroc": auroc(counts.histograms),
        "cldice": _cldice(counts),
    }


def mean_and_sd(pictures: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return mean and sample standard deviation (n - 1) of each score over the pictures where it is defined."""
    mean, sd = {}, {}
    for key in SCORES:
        values = [row[key] for row in pictures if not math.isnan(row[key])]
        mean[key] = float(np.mean(values)) if values else math.nan
        sd[key] = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return mean, sd


def probability_histograms(probability: np.ndarray, vessels: np.ndarray, fov: np.ndarray | None = None) -> np.ndarray:
    """Count the probability over background and over vessels; sums over pictures pool them.

    Parameters and errors are those of `count_picture`.

    Returns
    -------
    (2, BINS) int64
        Row 0 background, row 1 vessels. Bin k holds k / BINS <= p < (k + 1) / BINS, and the last bin p = 1 too.
    """
    return _histograms(*_check_picture(probability, vessels, fov))


def auroc(histograms: np.ndarray) -> float:
    """Return the area under the ROC curve from (2, BINS) histograms; nan where a class is empty.

    A vessel pixel and a background pixel in one bin count as a tie, one half. The error is at most half the share of
    such pairs: under 1e-4 for float32 noise, as a test shows. It grows if a network gives much of both classes less
    than 1 / BINS, where ranks mean least.
    """
    background, vessels = histograms
    background_below = np.cumsum(background) - background
    wins_twice = int(np.sum(vessels * (2 * background_below + background)))
    return _share(wins_twice, 2 * int(vessels.sum()) * int(background.sum()))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _cldice(counts: Counts) -> float:
    if counts.predicted_skeleton == 0 and counts.reference_skeleton == 0:
        return math.nan
    if counts.predicted_skeleton == 0 or counts.reference_skeleton == 0:
        return 0.0
    precision = counts.predicted_skeleton_hits / counts.predicted_skeleton
    sensitivity = counts.reference_skeleton_hits / counts.reference_skeleton
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def _histograms(probability: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> np.ndarray:
    bins = np.minimum((probability * BINS).astype(np.int32), BINS - 1)
    background, foreground = bins[fov & ~vessels], bins[fov & vessels]
    return np.stack([np.bincount(background, minlength=BINS), np.bincount(foreground, minlength=BINS)])


def _check_picture(
    probability: np.ndarray, vessels: np.ndarray, fov: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    probability = np.asarray(probability)
    if probability.dtype not in (np.float32, np.float64):  # half precision cannot hold BINS
        probability = probability.astype(np.float32)
    vessels = _check_mask("reference", vessels)
    fov = np.ones(vessels.shape, bool) if fov is None else _check_mask("field of view", fov)
    if vessels.ndim != 2 or not probability.shape == vessels.shape == fov.shape:
        raise ArgumentError(
            f"The prediction has the shape {probability.shape}, the reference {vessels.shape} and the field of view "
            f"{fov.shape}, expected (H, W) of one photograph for all three."
        )
    if not fov.any():
        raise ArgumentError(
            "The field of view has no pixel, expected one that holds the retina; None counts all pixels."
        )
    low, high = probability.min(), probability.max()
    if not (low >= 0 and high <= 1):  # also catches nan
        raise ArgumentError(
            f"The predictions go from {low} to {high}, expected probabilities from 0 to 1 or a bool mask."
        )
    return probability, vessels, fov


def _check_mask(name: str, mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.dtype == bool:
        return mask
    if not np.isin(mask, (0, 1)).all():
        raise ArgumentError(f"The {name} has values from {mask.min()} to {mask.max()}, expected bool, or 0 and 1.")
    return mask.astype(bool)
