"""The result of segmenting one photograph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from resegnet.results.compare import Comparison


@dataclass(frozen=True)
class Segmentation:
    """The vessels of one photograph; every array is in the photograph's own frame, pixel for pixel."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, as it was read
    probability: np.ndarray  # (H, W) float32 in [0, 1]
    fov: np.ndarray  # (H, W) bool, True inside the field of view
    threshold: float
    warnings: tuple[str, ...] = ()  # what a user should know about the photograph
    model: str = ""  # where the weights came from

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool: probability at or above the threshold, inside the field of view."""
        return (self.probability >= self.threshold) & self.fov

    def at(self, threshold: float) -> Segmentation:
        """The same result at another threshold in [0, 1], without a second forward pass.

        Raises
        ------
        ValueError
            If `threshold` is outside [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}, expected a number from 0 to 1.")
        return replace(self, threshold=float(threshold))

    def overlay(self, **options: Any) -> np.ndarray:
        """The photograph with its vessels painted over, (H, W, 3) uint8; see `resegnet.results.render.overlay`."""
        from resegnet.results.render import overlay

        return overlay(self.image, self.mask, **options)

    def measure(self, um_per_px: float | None = None) -> dict[str, float]:
        """Numbers of the vessels, see `resegnet.results.measure.measure_mask`."""
        from resegnet.results.measure import measure

        return measure(self, um_per_px)

    def calibre_map(self) -> np.ndarray:
        """What is measured, (H, W, 3) uint8: centrelines by calibre; see `resegnet.results.render.calibre_map`."""
        from resegnet.results.render import calibre_map

        return calibre_map(self.image, self.mask, self.fov)

    def compare(self, reference: Any) -> Comparison:
        """Scores and error map against a person's reference, see `resegnet.results.compare.compare`."""
        from resegnet.results.compare import compare

        return compare(self, reference)

    def save(self, folder: str | Path, name: str = "photograph") -> dict[str, Path]:
        """Write mask, probability, overlay and a summary, see `resegnet.results.export.save`."""
        from resegnet.results.export import save

        return save(self, folder, name)
