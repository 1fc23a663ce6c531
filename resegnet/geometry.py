"""The transform from a photograph's own frame to the network's square, and its inverse."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from resegnet.fov import Box, bounding_box


@dataclass(frozen=True)
class Geometry:
    """A square box round the field of view, and the transform from it to the network's input and back.

    Scaling the field, not the picture, brings the vessels of every camera to a similar scale; a square box keeps the
    aspect. Where the frame cuts the field off, the box may extend beyond the frame. Black then fills it, since black
    surrounds the field in most photographs.
    """

    original_size: tuple[int, int]  # (H, W) of the photograph, px
    box: tuple[int, int, int]  # (top, left, side) of the square in the photograph's frame, px
    input_size: int  # side of the network's square, px

    @classmethod
    def around(cls, fov: np.ndarray, input_size: int, smallest: int | None = None) -> Geometry:
        """Choose the box: centred on the field of view, and a hundredth of its size wider on each side.

        Parameters
        ----------
        fov
            (H, W) bool, the mask of the field of view. An empty one stands for the whole frame.
        input_size
            Side of the network's square, px.
        smallest
            If given, a box of `smallest` to `input_size` pixels is not scaled, since scaling costs time and blurs the
            finest vessels twice. It is made wider, to a multiple of 32, and every pixel of the square is then one of
            the photograph's. A smaller box is enlarged to `smallest`.
        """
        height, width = fov.shape
        box = bounding_box(fov)
        if not box.height:
            box = Box(0, 0, height, width)
        # The margin is there because the padding of a convolution disturbs the last pixels of its input.
        side = round(1.02 * max(box.height, box.width))
        multiple = -(-side // 32) * 32
        if smallest is not None and multiple <= input_size:
            side, input_size = (multiple, multiple) if multiple >= smallest else (side, smallest)
        top, left = (box.top + box.bottom - side) // 2, (box.left + box.right - side) // 2
        return cls((height, width), (top, left, side), input_size)

    def with_input_size(self, input_size: int) -> Geometry:
        """Return the same box, scaled to a square of another side, px."""
        return replace(self, input_size=input_size)

    def to_input(self, picture: np.ndarray) -> np.ndarray:
        """Crop to the box and scale, antialiased: a photograph by cubic interpolation, a mask by linear.

        Parameters
        ----------
        picture
            (H, W, 3) uint8 photograph, or (H, W) bool or float mask in [0, 1].

        Returns
        -------
        scaled
            (S, S, 3) uint8, or (S, S) float32 in [0, 1]. A mask becomes soft, since nearest-neighbour loses vessels.
        """
        top, left, side = self.box
        rows, columns = self._inside()
        part, kernel = picture[rows, columns], Image.Resampling.BICUBIC
        if part.ndim == 2:
            part, kernel = part.astype(np.float32), Image.Resampling.BILINEAR
        scaled = np.zeros((self.input_size, self.input_size, *part.shape[2:]), part.dtype)
        # Only the part inside the frame is scaled, to those pixels of the square that it covers completely. So no black
        # bleeds into the field where the frame cuts it, and no square of the photograph's longer side takes up memory.
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
            size = (end_column - first_column, end_row - first_row)  # Pillow: (width, height)
            resized = Image.fromarray(np.ascontiguousarray(part)).resize(size, kernel, box=source)
            scaled[first_row:end_row, first_column:end_column] = np.asarray(resized)
        return scaled

    def to_original(self, probability: np.ndarray) -> np.ndarray:
        """Scale a probability back: (S, S) float32 in the network's frame to (H, W) float32 in the photograph's.

        The probability is 0 outside the box.
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
        original[rows, columns] = np.asarray(part)
        return original

    def to_input_nearest(self, plane: np.ndarray) -> np.ndarray:
        """Crop to the box and scale without new values: (H, W) in the photograph's frame to (S, S) in the network's.

        Pixels outside the frame are 0. What is thinner than a pixel of the network's frame may be lost.
        """
        steps = (2 * np.arange(self.input_size) + 1) * self.box[2] // (2 * self.input_size)
        at = [steps + start for start in self.box[:2]]
        inside = [(place >= 0) & (place < size) for place, size in zip(at, self.original_size, strict=True)]
        scaled = np.zeros((self.input_size, self.input_size), plane.dtype)
        scaled[np.ix_(*inside)] = plane[np.ix_(*(place[kept] for place, kept in zip(at, inside, strict=True)))]
        return scaled

    def pixels_of(self, part: tuple[slice, ...]) -> tuple[slice, slice, tuple[np.ndarray, ...]]:
        """Find the pixels of the photograph whose middles lie in a part of the network's square.

        Parameters
        ----------
        part
            Rows and columns of the square.

        Returns
        -------
        rows, columns
            In the photograph.
        places
            Of these in the part: an index that samples the part, cut out, at each pixel.
        """
        found, places = [], []
        for edge, start, size in zip(part, self.box[:2], self.original_size, strict=True):
            all_places = (2 * (np.arange(size) - start) + 1) * self.input_size // (2 * self.box[2])
            first, end = np.searchsorted(all_places, (edge.start, min(edge.stop, self.input_size)))
            found.append(slice(int(first), int(end)))
            places.append(all_places[first:end] - edge.start)
        return found[0], found[1], np.ix_(*places)

    def _inside(self) -> tuple[slice, slice]:
        """Return the part of the box that lies in the frame, as slices of the photograph's rows and columns."""
        top, left, side = self.box
        height, width = self.original_size
        return slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width))


def as_network_input(pixels: np.ndarray) -> np.ndarray:
    """Convert pixels, (S, S, 3) uint8, to the network's input, (3, S, S) float32 in [0, 1]."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)
