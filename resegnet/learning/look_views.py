"""Places of the two looks at a photograph: drawn at random, cut out, and where they lie in each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from resegnet.config import Config
from resegnet.learning.augment import Place, cut_crops

# Shares of the crops, also under weak augmentation.
SMALLER_SHARE, LARGER_SHARE, SOFTENED_SHARE = 0.08, 0.4, 0.35
SOFTEST = 0.004  # sigma of the softest lens, in sides of the square round the field
# Above this zoom the context is cut from the larger picture: a camera of a narrow field is not blurred by it.
SHARP_ZOOM = 1.2


@dataclass(frozen=True)
class View:
    """Where the two looks at a place lie, and how soft the lens is."""

    detail: Place
    context: Place
    sharp: bool  # the context is cut from the detail's picture
    detail_finer: int  # sampled so many times finer, then averaged: no aliasing where a picture is scaled down
    context_finer: int
    scale: float  # pixels of the context crop for each of the detail crop
    offset: np.ndarray  # (2,) float, row and column of the detail crop's centre from the context crop's, context px
    side: float  # px, of the square round the field at the scale of the detail crop, without zoom
    softness: float | None  # sigma in sides


def draw_view(
    rng: np.random.Generator,
    inside: np.ndarray,
    side: int,
    config: Config,
    crop_sizes: tuple[int, int],
    strength: float = 1.0,
    fixed: bool = False,
) -> View:
    """A place inside the field, and two looks at it.

    Some crops turn by right angles at most. The others are turned, sheared and zoomed, both looks alike. In either
    case, the detail alone can be made larger or smaller, as by a camera of more or fewer pixels.

    Parameters
    ----------
    inside
        (N, 2) int, rows and columns of the field, px of the detail's picture.
    side
        Of the detail's picture, px.
    config
        Of a network of two looks.
    crop_sizes
        Of the detail and the context crop, px.
    strength
        0 to 1, see `resegnet.learning.augment.draw_place`.
    fixed
        The detail is a crop of the context that keeps its size, `crop_sizes[1]`.
    """
    turned = strength == 1
    # Drawn towards the middle: about a rim, half of the crop would be black.
    position = np.round(side / 2 + 0.75 * (inside[rng.integers(len(inside))] - side / 2))
    zoom = larger = 1.0
    if rng.random() < 0.75 - 0.35 * strength:
        turn = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), int(rng.integers(4)) if turned else 0).astype(float)
    else:
        angle = rng.uniform(-math.pi, math.pi) if turned else 0.0
        shear = strength * math.radians(rng.uniform(-8, 8))
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        turn = turn @ np.array([[1.0, math.tan(shear)], [0.0, 1.0]])
        zoom = math.exp(rng.uniform(math.log(0.7), math.log(1.6)))
    share = rng.random()
    if not fixed and share < SMALLER_SHARE:
        smallest = max((config.smallest_input_size or side) / side, 0.5)
        larger = math.exp(rng.uniform(math.log(min(smallest, 1)), 0))
    elif not fixed and share < SMALLER_SHARE + LARGER_SHARE:
        larger = math.exp(rng.uniform(0, math.log(max(config.input_size / side, 1))))
    flip = turned and bool(rng.random() < 0.5)  # turns make the other flip
    assert config.context_size is not None
    scale = config.context_size / (side * larger)
    # Anywhere in its surroundings that leaves all of it inside.
    free = max(0.0, 0.45 * (crop_sizes[1] - crop_sizes[0] * scale))
    mirror = np.diag([1.0, -1.0 if flip else 1.0])
    offset = rng.uniform(-free, free, 2)
    sharp = zoom > SHARP_ZOOM and not fixed
    context_side = side if sharp else config.context_size
    context_zoom = zoom * config.context_size / context_side
    centre = position * context_side / side
    # The context of a prediction is the whole field: the crop shows as much of it as it can.
    middle = _kept_inside(centre - turn @ mirror @ offset / context_zoom, context_side, crop_sizes[1] / context_zoom)
    offset = np.clip(mirror @ np.linalg.inv(turn) @ (centre - middle) * context_zoom, -free, free)
    middle = np.round(centre - turn @ mirror @ offset / context_zoom)
    # After rounding, so that crops that keep their pixels keep them.
    offset = mirror @ np.linalg.inv(turn) @ (centre - middle) * context_zoom
    if fixed:
        position = np.round(_kept_inside(position, side, crop_sizes[1] / zoom))
    softness = None
    if rng.random() < SOFTENED_SHARE:
        softness = math.exp(rng.uniform(math.log(SOFTEST / 8), math.log(SOFTEST)))

    def place(where: np.ndarray, scaled: float) -> tuple[Place, int]:
        finer = 2 if scaled < 1 / 1.3 else 1
        return Place(int(where[0]), int(where[1]), turn / (scaled * finer), flip), finer

    detail, detail_finer = place(position, zoom * larger)
    context, context_finer = place(middle, context_zoom)
    return View(detail, context, sharp, detail_finer, context_finer, scale, offset, side * larger, softness)


def _kept_inside(middle: np.ndarray, side: float, size: float) -> np.ndarray:
    """The middle, (2,), of a crop of `size` px, moved so that the crop does not leave a square of `side` px."""
    free = max(0.0, (side - size) / 2)
    return np.clip(middle, side / 2 - free, side / 2 + free)


def away_from_middle(position: np.ndarray, side: int) -> np.ndarray:
    """(1, 2), what `draw_view` draws towards the middle to this position."""
    return (side / 2 + (position - side / 2) / 0.75)[None]


def detail_positions(views: Sequence[View], crop_size: int, context_crop_size: int) -> torch.Tensor:
    """Where each detail crop lies in its context crop, (N, 2, 3), in the terms of `affine_grid`: columns first."""
    positions = np.zeros((len(views), 2, 3), np.float32)
    for position, view in zip(positions, views, strict=True):
        position[0, 0] = position[1, 1] = view.scale * crop_size / context_crop_size
        position[:, 2] = 2 * view.offset[::-1] / context_crop_size
    return torch.from_numpy(positions)


def cut_looks(
    pictures: Sequence[torch.Tensor], places: Sequence[Place], finer: Sequence[int], size: int
) -> torch.Tensor:
    """A crop of each picture, (K, S, S) uint8: (N, K, size, size) float32 in [0, 1]."""
    crops = []
    for picture, place, times in zip(pictures, places, finer, strict=True):
        crop = cut_crops([picture], [place], size * times)
        crops.append(F.avg_pool2d(crop, times) if times > 1 else crop)
    return torch.cat(crops)


def distances_to(view: View, centre: np.ndarray, size: int) -> torch.Tensor:
    """Distance of each pixel of a crop of the picture to a point of it, (1, 1, size, size) float32, picture px."""
    steps = (np.arange(size) + 0.5 - size / 2) * view.detail_finer
    rows, columns = np.meshgrid(steps, -steps if view.detail.flip else steps, indexing="ij")
    matrix = view.detail.matrix
    y = view.detail.row + matrix[0, 0] * rows + matrix[0, 1] * columns - centre[0]
    x = view.detail.column + matrix[1, 0] * rows + matrix[1, 1] * columns - centre[1]
    return torch.from_numpy(np.hypot(y, x).astype(np.float32))[None, None]
