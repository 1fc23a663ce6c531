"""Calibration of a trained network: its logits are scaled and its threshold is set."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from resegnet.engine import TorchNetwork
from resegnet.learning.samples import read_sample
from resegnet.model import ReSegNet, round_to_half, scale_logits
from resegnet.results.calibration import fit_scaling, half_of_best_f1, reliability
from resegnet.results.metrics import probability_histograms
from resegnet.segmenter import Segmenter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """Scaling of the logits, `slope * logit + offset`, and the threshold of the probability."""

    slope: float
    offset: float
    threshold: float

    def undo_scaling(self, model: ReSegNet) -> None:
        """Scale the logits of a calibrated model back, in place, to those that training gave."""
        scale_logits(model, 1 / self.slope, -self.offset / self.slope)


def calibrate(
    model: ReSegNet, validation: Iterable[Mapping[str, Any]], inherited: Calibration | None
) -> dict[str, Any]:
    """Scale the logits and set the threshold of a model, in place.

    The kernels are rounded to float16 before the threshold is fitted, because the release stores them so.

    Parameters
    ----------
    model
        Network with the weights of the best epoch.
    validation
        Validation rows of `load_vessels`; not used with `inherited`.
    inherited
        Calibration of the parent release, for a run that keeps no photographs for validation.

    Returns
    -------
    record
        Part of `training.json`.
    """
    if inherited is None:
        slope, offset = fit_scaling(*_validation_histograms(model, validation))
    else:
        slope, offset = inherited.slope, inherited.offset
    scale_logits(model, slope, offset)
    round_to_half(model)
    record: dict[str, Any] = {"logits_scaled": {"slope": slope, "offset": offset}}
    if inherited is None:
        histograms, names = _validation_histograms(model, validation)
        threshold, f1 = half_of_best_f1(histograms, names)
        logger.info("threshold %.4f, validation F1 %.4f at original size", threshold, f1)
        record["validation_f1"] = f1
        record["validation_reliability"] = reliability(histograms, names)
        record["threshold_fitted_on"] = (
            "validation photographs at original size: half of the best mean of the sets' pooled F1"
        )
    else:
        threshold = inherited.threshold
        record["threshold_fitted_on"] = "validation photographs of the parent release"
    model.config = dataclasses.replace(model.config, threshold=min(max(round(threshold, 4), 1e-4), 1 - 1e-4))
    return record


def _validation_histograms(
    model: ReSegNet, validation: Iterable[Mapping[str, Any]]
) -> tuple[list[np.ndarray], list[str]]:
    """Return histograms of the probability at original size, and the data set, of each validation photograph.

    See `resegnet.results.metrics.probability_histograms`. The data set's own field of view is used where it has one.
    """
    segmenter = Segmenter(TorchNetwork(model), model.config)
    histograms, names = [], []
    for row in tqdm(validation, desc="validation at original size", disable=None):
        sample = read_sample(row)
        result = segmenter(sample.image)
        fov = result.fov if sample.fov is None else sample.fov
        histograms.append(probability_histograms(result.probability * result.fov, sample.vessels, fov))
        names.append(sample.dataset)
    return histograms, names
