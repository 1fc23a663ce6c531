"""The way from a photograph's own frame to the network's square, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Geometry:
    """A square box round the field of view, scaled to the network's input. Forward and inverse stand side by side.

    Scaling the field, not the picture, puts the vessels of every camera at a like scale; a square box keeps the
    aspect. The box may reach over the frame where the frame cuts the field off: black fills it up, as it
    surrounds the field in most photographs.
    """

    original_size: tuple[int, int]  # (H, W) of the photograph, px
    box: tuple[int, int, int]  # (top, left, side) of the square in the photograph's frame, px
    input_size: int  # side of the network's square, px

    @classmethod
    def around(cls, fov: np.ndarray, input_size: int, smallest: int | None = None) -> Geometry:
        """The box round the field `fov` (H, W) bool, centred on it, a hundredth of its size wider on each side.

        With `smallest`, a box of `smallest` to `input_size` pixels is not scaled at all, which would cost time and blur
        the finest vessels on the way there and on the way back: it is made wider, to a multiple of 32, and every pixel
        of the square is one of the photograph's. A smaller box is enlarged to `smallest`.
        """
        height, width = fov.shape
        rows, columns = np.flatnonzero(fov.any(axis=1)), np.flatnonzero(fov.any(axis=0))
        if rows.size == 0:  # no field at all: the whole frame
            rows, columns = np.array([0, height - 1]), np.array([0, width - 1])
        # A margin, since the padding of a convolution disturbs the last pixels of its input.
        side = round(1.02 * (max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1))
        whole = -(-side // 32) * 32
        if smallest is not None and whole <= input_size:
            side, input_size = (whole, whole) if whole >= smallest else (side, smallest)
        top, left = (rows[0] + rows[-1] + 1 - side) // 2, (columns[0] + columns[-1] + 1 - side) // 2
        return cls((height, width), (int(top), int(left), side), input_size)

    def to_input(self, picture: np.ndarray) -> np.ndarray:
        """Crop to the box and scale, antialiased: a photograph cubic, which keeps it sharp, a mask linear.

        Parameters
        ----------
        picture
            (H, W, 3) uint8 photograph, or (H, W) bool or float mask in [0, 1].

        Returns
        -------
        scaled
            (S, S, 3) uint8, or (S, S) float32 in [0, 1]: a mask stays soft, since nearest-neighbour loses vessels.
        """
        top, left, side = self.box
        rows, columns = self._inside()
        part, kernel = picture[rows, columns], Image.Resampling.BICUBIC
        if part.ndim == 2:
            part, kernel = part.astype(np.float32), Image.Resampling.BILINEAR
        scaled = np.zeros((self.input_size, self.input_size, *part.shape[2:]), part.dtype)
        # Only what lies in the frame is scaled, to the pixels of the square that it covers whole: no black bleeds into
        # the field where the frame cuts it, and no square of the photograph's longer side is ever held in memory.
        (first_row, end_row), (first_column, end_column) = (
            (-(-(inside.start - start) * self.input_size // side), (inside.stop - start) * self.input_size // side)
            for inside, start in ((rows, top), (columns, left))
        )
        if first_row < end_row and first_column < end_column:
            source = (
                max(0.0, first_column * side / self.input_size - (columns.start - left)),
                max(0.0, first_row * side / self.input_size - (rows.start - top)),
                min(part.shape[1], end_column * side / self.input_size - (columns.start - left)),
                min(part.shape[0], end_row * side / self.input_size - (rows.start - top)),
            )
            scaled[first_row:end_row, first_column:end_column] = Image.fromarray(np.ascontiguousarray(part)).resize(
                (end_column - first_column, end_row - first_row), kernel, box=source
            )
        return scaled

    def to_original(self, probability: np.ndarray) -> np.ndarray:
        """The inverse: (S, S) float32 in the network's frame to (H, W) float32 in the photograph's.

        Outside the box it is 0.
        """
        top, left, side = self.box
        rows, columns = self._inside()
        scale = self.input_size / side
        source = (
            (columns.start - left) * scale,
            (rows.start - top) * scale,
            (columns.stop - left) * scale,
            (rows.stop - top) * scale,
        )
        size = (columns.stop - columns.start, rows.stop - rows.start)  # Pillow: (width, height)
        part = Image.fromarray(np.ascontiguousarray(probability, np.float32)).resize(
            size, Image.Resampling.BILINEAR, box=source
        )
        original = np.zeros(self.original_size, np.float32)
        original[rows, columns] = part
        return original

    def _inside(self) -> tuple[slice, slice]:
        """The part of the box that lies in the frame, as slices of the photograph."""
        top, left, side = self.box
        height, width = self.original_size
        return slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width))


def as_network_input(pixels: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 to what the network takes: (3, S, S) float32 in [0, 1]. Training and prediction share it."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)
