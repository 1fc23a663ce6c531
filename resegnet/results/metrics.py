"""Scores of vessel maps against a person's reference: numpy arithmetic, and the `evaluate.Metric` round it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.optimize import minimize
from skimage.morphology import skeletonize

SCORE_NAMES = ("f1", "iou", "precision", "recall", "specificity", "accuracy", "mcc", "auroc", "cldice")

# As fine as the 16-bit probability that `resegnet.results.export` writes. A power of two, so that every bin
# edge is exact in float32 and "probability >= edge" counted from the histogram is the very count of pixels.
BINS = 65536

_DESCRIPTION = """\
Scores of vessel probabilities against a person's reference, inside the field of view: F1 (Dice), IoU,
precision, recall
(sensitivity), specificity, accuracy, Matthews correlation (MCC), AUROC and clDice."""

_CITATION = """\
@inproceedings{shit2021cldice,
  title     = {clDice - a Novel Topology-Preserving Loss Function for Tubular Structure Segmentation},
  author    = {Shit, Suprosanna and Paetzold, Johannes C. and others},
  booktitle = {CVPR},
  year      = {2021},
  doi       = {10.1109/CVPR46437.2021.01629}
}"""

_INPUTS = """
Inputs, one entry per picture:
    predictions: (H, W) vessel probability in [0, 1], or a bool mask.
    references: (H, W) bool, the person's reference.
    fov: (H, W) bool, pixels that count; None counts all.

compute() returns the scores pooled over all pixels of all pictures ("f1", "iou", ...), and "mean" and "sd"
over the pictures and "pictures", the scores of each. A score that is not defined is nan and is left out of
mean and sd.
"""


@dataclass(frozen=True)
class Counts:
    """All that the scores of a picture, or of several added up, depend on.

    `predicted_skeleton_hits` are pixels of the prediction's skeleton on the true vessels,
    `true_skeleton_hits` pixels of the truth's skeleton on the predicted ones. `histograms` is (2, BINS)
    int64: probability of the background (row 0) and of the vessels (row 1), see `probability_histograms`.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    predicted_skeleton: int
    predicted_skeleton_hits: int
    true_skeleton: int
    true_skeleton_hits: int
    histograms: np.ndarray

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def count_picture(probability: np.ndarray, vessels: np.ndarray, fov: np.ndarray | None, threshold: float) -> Counts:
    """Reduce one picture to the counts that its scores are made of.

    Parameters
    ----------
    probability : (H, W) float in [0, 1], or bool
        Vessel where it is `threshold` or more.
    vessels : (H, W) bool, or integers 0 and 1
        The person's reference.
    fov : (H, W) bool or None
        Pixels that count; None counts all.
    threshold : float in (0, 1]

    Raises
    ------
    ValueError
        For shapes that differ, values outside these ranges or a field without a pixel.

    Notes
    -----
    Two skeletons (Zhang and Suen 1984, 10.1145/357994.358023, by scikit-image) take most of the time: 2.6 s
    for a photograph of 3504 x 2336. A skeleton takes longer the wider a shape is: 39 s at that size for a
    prediction that is vessel all over.
    """
    _check_threshold(threshold)
    probability, vessels, fov = _check_picture(probability, vessels, fov)
    predicted = (probability >= threshold) & fov
    vessels = vessels & fov
    true_positives = int(np.count_nonzero(predicted & vessels))
    false_positives = int(np.count_nonzero(predicted)) - true_positives
    false_negatives = int(np.count_nonzero(vessels)) - true_positives
    in_field = int(np.count_nonzero(fov))
    predicted_skeleton = skeletonize(predicted)
    true_skeleton = skeletonize(vessels)
    return Counts(
        true_positives=true_positives,
        false_positives=false_positives,
        false_negatives=false_negatives,
        true_negatives=in_field - true_positives - false_positives - false_negatives,
        predicted_skeleton=int(np.count_nonzero(predicted_skeleton)),
        predicted_skeleton_hits=int(np.count_nonzero(predicted_skeleton & vessels)),
        true_skeleton=int(np.count_nonzero(true_skeleton)),
        true_skeleton_hits=int(np.count_nonzero(true_skeleton & predicted)),
        histograms=_histograms(probability, vessels, fov),
    )


def scores(counts: Counts) -> dict[str, float]:
    """Scores by the names in `SCORE_NAMES`, each in [0, 1], MCC in [-1, 1]; nan where a score is not defined.

    Not defined: a share of nothing (precision of an empty prediction), F1 and IoU where neither holds a
    vessel, MCC and AUROC where prediction or truth is of one class only, clDice where neither holds a
    skeleton (0 where one does).

    References
    ----------
    clDice: Shit et al. 2021, 10.1109/CVPR46437.2021.01629. Over several pictures the skeleton's pixels are
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
        # Python's integers: the product of four counts of a pooled set does not fit into 64 bits.
        "mcc": _share(tp * tn - fp * fn, math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
        "auroc": auroc(counts.histograms),
        "cldice": _cldice(counts),
    }


def mean_and_sd(pictures: Sequence[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and sample standard deviation (n - 1) of each score over the pictures where it is defined."""
    mean, sd = {}, {}
    for name in SCORE_NAMES:
        values = [row[name] for row in pictures if not math.isnan(row[name])]
        mean[name] = float(np.mean(values)) if values else math.nan
        sd[name] = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return mean, sd


def probability_histograms(probability: np.ndarray, vessels: np.ndarray, fov: np.ndarray | None = None) -> np.ndarray:
    """Histogram of the probability over background and over vessels; sums over pictures pool them.

    Arguments as for `count_picture`.

    Returns
    -------
    (2, BINS) int64
        Row 0 background, row 1 vessels. Bin k holds k / BINS <= p < (k + 1) / BINS, the last one p = 1 too.
    """
    return _histograms(*_check_picture(probability, vessels, fov))


def auroc(histograms: np.ndarray) -> float:
    """Area under the ROC curve from (2, BINS) histograms; nan where a class is empty.

    A vessel and a background pixel in one bin count as a tie, one half. The error is at most half the share
    of such pairs: under 1e-4 for float32 noise, checked in the tests. It grows where a network calls much of
    both classes less than 1 / BINS, which is where ranks mean least.
    """
    background, vessels = histograms
    background_below = np.cumsum(background) - background
    wins_twice = int(np.sum(vessels * (2 * background_below + background)))
    return _share(wins_twice, 2 * int(vessels.sum()) * int(background.sum()))


def precision_recall(histograms: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of "probability >= threshold" from (2, BINS) histograms.

    Parameters
    ----------
    histograms : (2, BINS) int64
        See `probability_histograms`.
    thresholds : (N,) float in (0, 1]
        Rounded up to the next multiple of 1 / BINS, and 1 down to the last.

    Returns
    -------
    precision, recall : (N,) float64
        nan where nothing is called vessel, or nothing is.
    """
    background, vessels = (_at_or_above(row, thresholds) for row in histograms)
    total = np.full(len(vessels), histograms[1].sum())
    return _shares(vessels, vessels + background), _shares(vessels, total)


def fit_threshold(histograms: Sequence[np.ndarray], dataset_names: Sequence[str] | None = None) -> tuple[float, float]:
    """Threshold of the highest F1 over validation pictures, and that F1.

    Parameters
    ----------
    histograms : sequence of (2, BINS) int64
        One per picture, see `probability_histograms`.
    dataset_names : sequence of str, optional
        The set that each picture comes from. Pixels are then pooled within a set and the mean of the sets' F1
        is maximised, so that a set of large photographs does not outvote the others. Without it all pixels
        are pooled.

    Returns
    -------
    threshold : float
        A multiple of 1 / BINS in (0, 1). Of several that are equally good, the middle one: a network that
        answers with 0 and 1 only gets 0.5.
    f1 : float
        What that threshold scores.

    Raises
    ------
    ValueError
        Without a picture, for names that do not match the pictures, or for a set without a vessel pixel.
    """
    thresholds, f1 = _mean_f1(histograms, dataset_names)
    best = np.flatnonzero(f1 == f1.max())
    middle = best[len(best) // 2]
    return float(thresholds[middle]), float(f1[middle])


def half_of_best_f1(
    histograms: Sequence[np.ndarray], dataset_names: Sequence[str] | None = None
) -> tuple[float, float]:
    """Threshold for a calibrated probability: half of the highest F1, where that F1 is expected (Lipton et al. 2014,
    arXiv:1402.1892).

    The curve is flat about its top, and a few pictures move the top along it more than they change its height.
    Arguments, threshold's range and errors as for `fit_threshold`; gives the F1 at that threshold, too.
    """
    thresholds, f1 = _mean_f1(histograms, dataset_names)
    place = int(np.abs(thresholds - f1.max() / 2).argmin())
    return float(thresholds[place]), float(f1[place])


def _mean_f1(
    histograms: Sequence[np.ndarray], dataset_names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    names = ["all"] * len(histograms) if dataset_names is None else list(dataset_names)
    if not len(histograms) or len(names) != len(histograms):
        raise ValueError(
            f"got {len(histograms)} histograms and {len(names)} names of sets; give at least one picture, "
            "and one name per picture or none at all"
        )
    pooled = _pool_by_set(histograms, names)
    thresholds = np.arange(1, BINS) / BINS
    curves = []
    for name, (background, vessels) in pooled.items():
        if not vessels.any():
            raise ValueError(f"no vessel pixel in the pictures of {name!r}; F1 is not defined there")
        hits = _at_or_above(vessels, thresholds)
        curves.append(2 * hits / (hits + _at_or_above(background, thresholds) + vessels.sum()))
    return thresholds, np.mean(curves, axis=0)


def fit_scaling(histograms: Sequence[np.ndarray], dataset_names: Sequence[str]) -> tuple[float, float]:
    """Slope and offset of the logit that make the probability mean what it says (Platt 1999; Guo et al. 2017,
    arXiv:1706.04599): least cross-entropy, every set counting alike.

    Parameters
    ----------
    histograms : sequence of (2, BINS) int64
        One per picture, see `probability_histograms`.
    dataset_names : sequence of str
        The set that each picture comes from.

    Returns
    -------
    slope, offset : float
        1 and 0 where nothing is to be changed. The slope is from 0.1 to 10, the offset from -5 to 5: the order of the
        probabilities stays, and so does what any threshold can reach.
    """
    background, vessels = _mean_of_sets(histograms, dataset_names)
    middles = (np.arange(BINS) + 0.5) / BINS
    logits = np.log(middles / (1 - middles))

    def cross_entropy(scaling: np.ndarray) -> float:
        scaled = scaling[0] * logits + scaling[1]
        return float(background @ np.logaddexp(0, scaled) + vessels @ np.logaddexp(0, -scaled))

    slope, offset = minimize(cross_entropy, (1.0, 0.0), bounds=((0.1, 10), (-5, 5))).x
    return float(slope), float(offset)


def reliability(histograms: Sequence[np.ndarray], dataset_names: Sequence[str], bins: int = 10) -> dict[str, Any]:
    """How far the probability can be taken at its word: of the pixels called 0.3, are 30 % vessels?

    Every set counts alike, whatever the size of its photographs.

    Parameters
    ----------
    histograms : sequence of (2, BINS) int64
        One per picture, see `probability_histograms`.
    dataset_names : sequence of str
        The set that each picture comes from.
    bins : int
        Of equal width over [0, 1].

    Returns
    -------
    dict
        `expected_calibration_error` in [0, 1], the mean distance between probability and share of vessels, weighted
        by the share of pixels (Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602); and per bin `probability` (mean),
        `vessels` (share) and `pixels` (share of all); the first two are None for an empty bin. Within a bin the
        middles of the histogram's far finer ones stand for the probability.
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


class VesselScores(evaluate.Metric):
    """Vessel scores as a metric of Hugging Face `evaluate`, made directly: `VesselScores(threshold=0.4)`.

    `evaluate` keeps all inputs in an Arrow file until `compute`. One photograph of 3504 x 2336 would be 41 MB
    there, so each picture is reduced to its counts when it is added and nothing is written. That makes it a
    metric for one process: `evaluate`'s distributed mode is not offered.

    Parameters
    ----------
    threshold : float in (0, 1]
        Probability from which a pixel is a vessel. No default: it belongs to the model that is scored.
    """

    def __init__(self, threshold: float) -> None:
        _check_threshold(threshold)
        super().__init__()
        self.threshold = threshold
        self._start()

    def _start(self) -> None:
        self._pooled: Counts | None = None
        self._pictures: list[dict[str, float]] = []

    def _info(self) -> evaluate.MetricInfo:
        def plane(dtype: str) -> datasets.List:
            return datasets.List(datasets.List(datasets.Value(dtype)))

        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": plane("float32"), "references": plane("bool"), "fov": plane("bool")}
            ),
            reference_urls=["https://doi.org/10.1109/CVPR46437.2021.01629"],
        )

    def __len__(self) -> int:
        """Number of pictures added since the last `compute`."""
        return len(self._pictures)

    def add(self, *, prediction: np.ndarray, reference: np.ndarray, fov: np.ndarray | None = None) -> None:
        """Add one picture."""
        counts = count_picture(prediction, reference, fov, self.threshold)
        self._pictures.append(scores(counts))
        self._pooled = counts if self._pooled is None else self._pooled + counts

    def add_batch(
        self,
        *,
        predictions: Sequence[np.ndarray],
        references: Sequence[np.ndarray],
        fov: Sequence[np.ndarray | None] | None = None,
    ) -> None:
        """Add several pictures, which may differ in size."""
        fields_of_view = [None] * len(predictions) if fov is None else fov
        if not len(predictions) == len(references) == len(fields_of_view):
            raise ValueError(
                f"got {len(predictions)} predictions, {len(references)} references and "
                f"{len(fields_of_view)} fields of view; give one of each per picture"
            )
        for prediction, reference, field_of_view in zip(predictions, references, fields_of_view, strict=True):
            self.add(prediction=prediction, reference=reference, fov=field_of_view)

    def compute(
        self,
        *,
        predictions: Sequence[np.ndarray] | None = None,
        references: Sequence[np.ndarray] | None = None,
        fov: Sequence[np.ndarray | None] | None = None,
    ) -> dict:
        """Scores of all pictures added, and of those given here; then start anew."""
        try:
            if predictions is not None or references is not None:
                self.add_batch(
                    predictions=[] if predictions is None else predictions,
                    references=[] if references is None else references,
                    fov=fov,
                )
            if self._pooled is None:
                raise ValueError(
                    "no picture was added; call add or add_batch first, or give predictions and references"
                )
            mean, sd = mean_and_sd(self._pictures)
            return {**scores(self._pooled), "mean": mean, "sd": sd, "pictures": self._pictures}
        finally:
            self._start()


def _mean_of_sets(histograms: Sequence[np.ndarray], dataset_names: Sequence[str]) -> np.ndarray:
    """Shares of all pixels, (2, BINS), every set counting alike whatever the size of its photographs."""
    pooled = _pool_by_set(histograms, dataset_names).values()
    return np.mean([histogram / histogram.sum() for histogram in pooled], axis=0)


def _pool_by_set(histograms: Sequence[np.ndarray], dataset_names: Sequence[str]) -> dict[str, np.ndarray]:
    pooled: dict[str, np.ndarray] = {}
    for name, histogram in zip(dataset_names, histograms, strict=True):
        pooled[name] = pooled.get(name, 0) + histogram
    return pooled


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _cldice(counts: Counts) -> float:
    if counts.predicted_skeleton == 0 and counts.true_skeleton == 0:
        return math.nan
    if counts.predicted_skeleton == 0 or counts.true_skeleton == 0:
        return 0.0
    precision = counts.predicted_skeleton_hits / counts.predicted_skeleton
    sensitivity = counts.true_skeleton_hits / counts.true_skeleton
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def _histograms(probability: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> np.ndarray:
    bins = np.minimum((probability * BINS).astype(np.int32), BINS - 1)
    background, foreground = bins[fov & ~vessels], bins[fov & vessels]
    return np.stack([np.bincount(background, minlength=BINS), np.bincount(foreground, minlength=BINS)])


def _at_or_above(histogram: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Pixels of a (BINS,) histogram at each threshold or above it."""
    first_bin = np.minimum(np.ceil(np.asarray(thresholds) * BINS).astype(np.int64), BINS - 1)
    return np.cumsum(histogram[::-1])[::-1][first_bin]


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise ValueError(f"got a threshold of {threshold}; it is a probability above 0 and up to 1")


def _check_picture(
    probability: np.ndarray, vessels: np.ndarray, fov: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    probability = np.asarray(probability)
    if probability.dtype not in (np.float32, np.float64):  # half precision cannot hold BINS
        probability = probability.astype(np.float32)
    vessels = _check_mask("reference", vessels)
    fov = np.ones(vessels.shape, bool) if fov is None else _check_mask("field of view", fov)
    if vessels.ndim != 2 or not probability.shape == vessels.shape == fov.shape:
        raise ValueError(
            f"got a prediction of shape {probability.shape}, a reference of {vessels.shape} and a field of "
            f"view of {fov.shape}; all three are (H, W) of one photograph"
        )
    if not fov.any():
        raise ValueError("the field of view has no pixel; give one that holds the retina, or None to count all")
    low, high = probability.min(), probability.max()
    if not (low >= 0 and high <= 1):  # also catches nan
        raise ValueError(f"got predictions from {low} to {high}; give probabilities in [0, 1] or a bool mask")
    return probability, vessels, fov


def _check_mask(name: str, mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.dtype == bool:
        return mask
    if not np.isin(mask, (0, 1)).all():
        raise ValueError(f"got a {name} with values from {mask.min()} to {mask.max()}; give bool, or 0 and 1")
    return mask.astype(bool)
