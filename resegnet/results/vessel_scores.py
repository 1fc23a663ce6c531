"""The vessel scores as a metric of Hugging Face `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from resegnet.errors import ArgumentError
from resegnet.results.metrics import SCORES, Counts, count_picture, mean_and_sd, scores

_DESCRIPTION = (
    "Scores of vessel probabilities against a person's reference, inside the field of view: "
    f"{', '.join(SCORES.values())}."
)

_CITATION = """\
@inproceedings{shit2021cldice,
  title     = {clDice - a Novel Topology-Preserving Loss Function for Tubular Structure Segmentation},
  author    = {Shit, Suprosanna and Paetzold, Johannes C. and others},
  booktitle = {CVPR},
  year      = {2021},
  doi       = {10.1109/CVPR46437.2021.01629}
}"""

_INPUTS = """
Inputs, one entry for each picture:
    predictions: (H, W) vessel probability in [0, 1], or a bool mask.
    references: (H, W) bool, the person's reference.
    fov: (H, W) bool, pixels that count; None counts all.

compute() returns the scores pooled over all pixels of all pictures, `mean` and `sd` over the pictures, and in
`pictures` the scores of each. A score that is undefined is nan; mean and sd leave it out.
"""


class VesselScores(evaluate.Metric):
    """Vessel scores as a metric of `evaluate`, created directly: `VesselScores(threshold=0.4)`.

    `evaluate` keeps all inputs in an Arrow file until `compute`. One photograph of 3504 x 2336 takes 41 MB there, so
    each picture is reduced to its counts when it is added, and nothing is written. The metric therefore works in one
    process; `evaluate`'s distributed mode is not offered.

    Parameters
    ----------
    threshold : float in (0, 1]
        Probability from which a pixel is a vessel. It has no default, since it belongs to the model.

    Raises
    ------
    ArgumentError
        If the threshold is out of range.
    """

    def __init__(self, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise ArgumentError(f"threshold is {threshold}, expected a probability above 0 and up to 1.")
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
        """Return the number of pictures added since the last `compute`."""
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
            raise ArgumentError(
                f"There are {len(predictions)} predictions, {len(references)} references and {len(fields_of_view)} "
                "fields of view, expected one of each for every picture."
            )
        for prediction, reference, field_of_view in zip(predictions, references, fields_of_view, strict=True):
            self.add(prediction=prediction, reference=reference, fov=field_of_view)

    def compute(
        self,
        *,
        predictions: Sequence[np.ndarray] | None = None,
        references: Sequence[np.ndarray] | None = None,
        fov: Sequence[np.ndarray | None] | None = None,
    ) -> dict[str, Any]:
        """Return the scores of all pictures added, and of those given here, and forget the pictures.

        Returns
        -------
        dict
            The pooled scores by their keys in `resegnet.results.metrics.SCORES`; `mean` and `sd` over the pictures, by
            the same keys; and `pictures`, the scores of each.

        Raises
        ------
        ArgumentError
            If there is no picture, or a picture does not fit its reference.
        """
        try:
            if predictions is not None or references is not None:
                self.add_batch(
                    predictions=[] if predictions is None else predictions,
                    references=[] if references is None else references,
                    fov=fov,
                )
            if self._pooled is None:
                raise ArgumentError(
                    "No picture was added, expected one or more: call add or add_batch first, or give predictions and "
                    "references."
                )
            mean, sd = mean_and_sd(self._pictures)
            return {**scores(self._pooled), "mean": mean, "sd": sd, "pictures": self._pictures}
        finally:
            self._start()
