"""The frame of the camera that photographs a synthetic eye."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Frame:
    """The part of the retina that the camera sees, and the map from millimetres to pixels and back."""

    size: tuple[int, int]  # (H, W), px
    middle_px: tuple[float, float]  # (x, y) of the centre of the field
    middle_mm: tuple[float, float]
    radius_px: float
    radius_mm: float
    macula_on_the_left: bool

    @property
    def px_per_mm(self) -> float:
        return self.radius_px / self.radius_mm

    def to_px(self, points: np.ndarray) -> np.ndarray:
        """Map points, (N, 2) in mm, to (x, y) in pixels."""
        shifted = (points - self.middle_mm) * self.px_per_mm
        if self.macula_on_the_left:
            shifted = shifted * (-1, 1)
        return shifted + self.middle_px

    def place(self, point: tuple[float, float]) -> tuple[float, float]:
        """Map a point, (x, y) in mm, to row and column, px; pixel (0, 0) has its middle at (0.0, 0.0)."""
        x, y = self.to_px(np.array([point]))[0]
        return float(y - 0.5), float(x - 0.5)

    def grid_mm(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y in mm of the pixel centres of this frame, resampled to `shape`; both `shape` float32."""
        height, width = self.size
        x = (np.arange(shape[1], dtype=np.float32) + 0.5) * (width / shape[1]) - self.middle_px[0]
        y = (np.arange(shape[0], dtype=np.float32) + 0.5) * (height / shape[0]) - self.middle_px[1]
        if self.macula_on_the_left:
            x = -x
        x, y = np.meshgrid(x / self.px_per_mm + self.middle_mm[0], y / self.px_per_mm + self.middle_mm[1])
        return x.astype(np.float32), y.astype(np.float32)
