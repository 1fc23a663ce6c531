"""Scores of a network on validation photographs, at the working size."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from resegnet.engine import TorchNetwork
from resegnet.learning.anatomy import AnatomySample
from resegnet.learning.anatomy_scores import count_kinds, score_centres
from resegnet.learning.crops import WorkingSample
from resegnet.learning.stress import Stress, count_under_stress
from resegnet.model import ReSegNet
from resegnet.results.calibration import fit_threshold
from resegnet.results.metrics import probability_histograms
from resegnet.segmenter import Segmenter, predict

# Kinds of degradation that models failed at most, one of each sort, so that a validation does not take much longer.
VALIDATION_STRESSES = (
    Stress("softened by 0.3 %", softened=0.003),
    Stress("enlarged 2 times, softened by 0.3 %", enlarged=2.0, softened=0.003),
    Stress("contrast cut to 0.45", contrast=0.45),
)
STRESSED_PER_SET = 2  # photographs of each data set that are degraded


def score_validation(
    model: ReSegNet,
    samples: Sequence[WorkingSample],
    anatomy: Sequence[AnatomySample],
    *,
    under_stress: bool,
    bfloat16: bool = False,
) -> dict[str, float]:
    """Score a network on validation photographs.

    Parameters
    ----------
    model
        Network to score.
    samples
        Photographs with vessels, at least one.
    anatomy
        Photographs with known disc or fovea, for a network of two looks.
    under_stress
        Also score a few degraded photographs.
    bfloat16
        Compute in bfloat16 on a CPU.

    Returns
    -------
    scores
        See `resegnet.learning.run.Run.validate`. Each is in [0, 1].
    """
    network = TorchNetwork(model, bfloat16)
    histograms, kinds = [], []
    for sample in samples:
        probability, found = predict(network, sample.pixels, sample.look)
        histograms.append(probability_histograms(probability, sample.vessels > 127, sample.field > 127))
        if found is not None and sample.context is not None:
            kinds.append(count_kinds(found, sample.context))
    names = [sample.dataset for sample in samples]
    threshold, f1 = fit_threshold(histograms, names)
    scores = {"validation_f1": f1}
    for name in sorted(set(names)):
        own = [histogram for histogram, owner in zip(histograms, names, strict=True) if owner == name]
        scores[f"validation_f1_{name}"] = fit_threshold(own)[1]
    if under_stress:
        config = dataclasses.replace(model.config, threshold=threshold)
        scores["validation_stress"] = min(
            _f1_under_stress(Segmenter(network, config), samples, stress) for stress in VALIDATION_STRESSES
        )
    right, known = np.sum(kinds, axis=0) if kinds else (0, 0)
    if known:
        scores["validation_kinds"] = float(right / known)
    if anatomy:
        places = score_centres(model, anatomy)
        scores |= {f"validation_{name}": share for name, share in places.items()}
    return scores


def _f1_under_stress(segmenter: Segmenter, samples: Sequence[WorkingSample], stress: Stress) -> float:
    """Return the mean of the data sets' F1, each pooled over its first photographs, at the segmenter's threshold."""
    counts: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for sample in samples:
        own = counts[sample.dataset]
        if len(own) < STRESSED_PER_SET:
            vessels, field = sample.vessels > 127, sample.field > 127
            own.append(count_under_stress(segmenter, sample.pixels, vessels, field, stress))
    pooled = (np.sum(own, axis=0) for own in counts.values())
    return float(np.mean([2 * hits / max(found + traced, 1) for hits, found, traced in pooled]))
