"""What cameras, eyes and hands do to a photograph, done to training crops: in batches, on the device that trains.

What is done to a crop is drawn first, as numbers, from its own generator; then it is done to the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy.fft import dct
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as T

Drawn = TypeVar("Drawn")

# Quantisation tables of luminance and colour at quality 50: ITU-T T.81, Annex K.
_JPEG_TABLES = np.array(
    [
        [
            [16, 11, 10, 16, 24, 40, 51, 61],
            [12, 12, 14, 19, 26, 58, 60, 55],
            [14, 13, 16, 24, 40, 57, 69, 56],
            [14, 17, 22, 29, 51, 87, 80, 62],
            [18, 22, 37, 56, 68, 109, 103, 77],
            [24, 35, 55, 64, 81, 104, 113, 92],
            [49, 64, 78, 87, 103, 121, 120, 101],
            [72, 92, 95, 98, 112, 100, 103, 99],
        ],
        [
            [17, 18, 24, 47, 99, 99, 99, 99],
            [18, 21, 26, 66, 99, 99, 99, 99],
            [24, 26, 56, 99, 99, 99, 99, 99],
            [47, 66, 99, 99, 99, 99, 99, 99],
            *[[99] * 8] * 4,
        ],
    ],
    np.float64,
)


@dataclass(frozen=True)
class Place:
    """Where a crop lies in its photograph and how it is turned: a step of (row, column) in the crop is `matrix` times
    that in the photograph."""

    row: int  # px, of the centre
    column: int
    matrix: np.ndarray  # (2, 2) float
    flip: bool

    @property
    def exact(self) -> bool:
        """True where every pixel of the crop is one of the photograph's: no more than turned by right angles."""
        return bool(np.isin(self.matrix, (-1, 0, 1)).all())


@dataclass(frozen=True)
class Camera:
    """What is done to the colours and the sharpness of a crop; None where it is not done."""

    gains: np.ndarray  # (3,) float, of red, green and blue
    gamma: float
    contrast: float
    saturation: float
    grey: bool  # now and then, as red-free cameras give
    haze: np.ndarray | None  # (4, 4) float, smooth field of the share of local contrast that is lost
    light: np.ndarray | None  # (4, 4) float, logarithms of a smooth field of light: vignetting, shadows, reflexes
    blur: float | None  # px, sigma
    sharpness: float | None
    noise: float | None  # sigma
    quality: int | None  # of JPEG
    seed: int  # of the noise


def draw_place(rng: np.random.Generator, inside: np.ndarray, size: int, strength: float = 1.0) -> Place:
    """A place inside the field; half of the crops are scaled and sheared, with weak augmentation a third.

    The others keep every pixel as it was and turn by right angles at most: sampling between the pixels blurs the finest
    vessels, which in prediction are sharp. Those that are scaled are scaled freely: a camera of a narrower field, or
    of more pixels, shows a vessel twice as wide as any that was traced.

    Parameters
    ----------
    inside
        (N, 2) int, rows and columns of the field.
    size
        Side of the photograph at the working size, px.
    strength
        0 to 1, of shearing, and how often. At 1, turns and flips are free: an eye looks as likely either way. Below,
        there are none: a set's references lie beside its vessels by a fraction of a pixel, to one side (DRIVE's 0.13 px
        upwards), and only of eyes that stand upright can that be learned.
    """
    turned = strength == 1
    centre = inside[rng.integers(len(inside))] if len(inside) else np.array([size / 2, size / 2])
    # Drawn towards the middle: about a rim, half of the crop would be black.
    row, column = np.round(size / 2 + 0.75 * (centre - size / 2)).astype(int).tolist()
    if rng.random() < 0.75 - 0.25 * strength:
        turns = int(rng.integers(4)) if turned else 0
        matrix = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), turns).astype(float)
    else:
        angle = rng.uniform(-math.pi, math.pi) if turned else 0.0
        shear = strength * math.radians(rng.uniform(-8, 8))
        scale = math.exp(rng.uniform(math.log(0.65), math.log(2.2)))
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        matrix = turn @ np.array([[1.0, math.tan(shear)], [0.0, 1.0]]) / scale
    return Place(row, column, matrix, flip=turned and bool(rng.random() < 0.5))  # turns make the other flip


def draw_camera(rng: np.random.Generator, strength: float = 1.0) -> Camera:
    """Other light, colour, focus, noise and compression; `strength`, 0 to 1, scales how much and how often."""

    def sometimes(probability: float, draw: Callable[[], Drawn]) -> Drawn | None:
        return draw() if rng.random() < probability else None

    blur = sometimes(0.25 * strength, lambda: rng.uniform(0.3, 1.5))
    return Camera(
        gains=np.exp(strength * (rng.normal(0, 0.12, 3) + rng.normal(0, 0.15))),
        gamma=math.exp(strength * rng.uniform(-0.35, 0.35)),
        contrast=1 + (sometimes(0.5, lambda: strength * rng.uniform(-0.4, 0.4)) or 0),
        saturation=1 + (sometimes(0.5, lambda: strength * rng.uniform(-0.7, 0.5)) or 0),
        grey=bool(rng.random() < 0.05 * strength),
        haze=sometimes(0.4 * strength, lambda: rng.uniform(-0.4, 0.8, (4, 4)).clip(0)),
        light=sometimes(0.6 * strength, lambda: rng.normal(rng.uniform(-0.6, 0), rng.uniform(0.1, 0.4), (4, 4))),
        blur=blur,
        sharpness=sometimes(0.15 * strength, lambda: rng.uniform(1.0, 3.0)) if blur is None else None,
        noise=sometimes(0.4 * strength, lambda: rng.uniform(0.0, 0.04)),
        quality=sometimes(0.2 * strength, lambda: int(rng.integers(40, 95))),
        seed=int(rng.integers(2**62)),
    )


def cut(photographs: Sequence[torch.Tensor], places: Sequence[Place], crop_size: int) -> torch.Tensor:
    """A crop of each photograph, (K, S, S) uint8 on one device: (N, K, C, C) float32 in [0, 1], 0 beyond its frame."""
    exact, sampled = [], []
    for planes, place in zip(photographs, places, strict=True):
        # Of a turned and scaled crop, as far as its corners reach, and what the kernel takes beyond.
        reach = crop_size // 2
        if not place.exact:
            reach = math.ceil(np.abs(place.matrix).sum(axis=1).max() * crop_size / 2) + 3
        part = T.crop(planes, place.row - reach, place.column - reach, 2 * reach, 2 * reach)
        if place.exact:
            # Where a step down in the crop leads in the photograph: down, left, up, right.
            down = [(1, 0), (0, -1), (-1, 0), (0, 1)].index(tuple(place.matrix[:, 0].astype(int)))
            exact.append(part.rot90(down, (-2, -1)))
        else:
            # In the terms of affine_grid: columns first, lengths in halves of each picture's side.
            sampled.append((part, np.pad(place.matrix[::-1, ::-1] * crop_size / (2 * reach), ((0, 0), (0, 1)))))
    crops = torch.empty((len(places), len(photographs[0]), crop_size, crop_size), device=photographs[0].device)
    is_exact = np.array([place.exact for place in places])
    if exact:
        crops[torch.from_numpy(is_exact)] = torch.stack(exact).float()
    if sampled:
        turns = torch.from_numpy(np.stack([turn for _, turn in sampled]).astype(np.float32)).to(crops.device)
        grids = F.affine_grid(turns, [len(sampled), 1, crop_size, crop_size], align_corners=False)
        crops[torch.from_numpy(~is_exact)] = torch.cat(
            [
                F.grid_sample(part[None].float(), grid[None], mode="bicubic", align_corners=False)
                for (part, _), grid in zip(sampled, grids, strict=True)
            ]
        )
    flipped = torch.tensor([place.flip for place in places], device=crops.device)[:, None, None, None]
    return torch.where(flipped, crops.flip(-1), crops).div(255).clamp(0, 1)


def vary(images: torch.Tensor, cameras: Sequence[Camera]) -> torch.Tensor:
    """Each picture of (N, 3, C, C) float32 in [0, 1] by a camera of its own; the same shape and range."""

    def numbers(values: Sequence) -> torch.Tensor:
        stacked = np.asarray(values, np.float32).reshape(len(values), -1, 1, 1)
        return torch.from_numpy(stacked).to(images.device)

    def some(name: str) -> tuple[list[int], list]:
        """Which pictures that is done to, and by how much."""
        chosen = [at for at, camera in enumerate(cameras) if getattr(camera, name) is not None]
        return chosen, [getattr(cameras[at], name) for at in chosen]

    def smooth_field(coarse: Sequence[np.ndarray]) -> torch.Tensor:
        values = numbers(coarse).view(-1, 1, 4, 4)
        return F.interpolate(values, size=images.shape[-2:], mode="bicubic", align_corners=True)

    images = (images * numbers([c.gains for c in cameras])).clamp(0, 1) ** numbers([c.gamma for c in cameras])
    mean = T.rgb_to_grayscale(images).mean(dim=(1, 2, 3), keepdim=True)
    images = (mean + numbers([c.contrast for c in cameras]) * (images - mean)).clamp(0, 1)
    grey = T.rgb_to_grayscale(images)
    images = (grey + numbers([c.saturation for c in cameras]) * (images - grey)).clamp(0, 1)
    images = torch.where(numbers([c.grey for c in cameras]) > 0, images[:, 1:2], images)
    chosen, haze = some("haze")
    if chosen:
        # Towards the mean of some 16 pixels about: not of the crop, or what lies beyond the rim would turn grey.
        coarse = F.adaptive_avg_pool2d(images[chosen], math.ceil(images.shape[-1] / 16))
        neighbourhood = F.interpolate(coarse, size=images.shape[-2:], mode="bilinear")
        images[chosen] = torch.lerp(images[chosen], neighbourhood, smooth_field(haze))
    chosen, lights = some("light")
    if chosen:
        images[chosen] *= smooth_field(lights).exp()
    for at, sigma in zip(*some("blur"), strict=True):
        images[at] = T.gaussian_blur(images[at], [7, 7], [sigma, sigma])
    chosen, sharpness = some("sharpness")
    if chosen:
        smooth = F.avg_pool2d(F.pad(images[chosen].clamp(0, 1), (1, 1, 1, 1), "reflect"), 3, 1)
        images[chosen] = smooth + numbers(sharpness) * (images[chosen] - smooth)
    generator = torch.Generator(images.device)
    for at, sigma in zip(*some("noise"), strict=True):
        generator.manual_seed(cameras[at].seed)
        images[at] += sigma * torch.randn(images.shape[1:], generator=generator, device=images.device)
    images = images.clamp(0, 1)
    chosen, qualities = some("quality")
    if chosen:
        images[chosen] = _jpeg(images[chosen], qualities)
    return images


def _jpeg(images: torch.Tensor, qualities: Sequence[int]) -> torch.Tensor:
    """What baseline JPEG (ITU-T T.81) with colours of half size leaves of (N, 3, C, C), each at its own quality.

    Only the rounding of the cosine transform's coefficients, which is all that is lost: no file is made, and the
    pictures stay on their device.
    """
    height, width = images.shape[-2:]
    images = F.pad(images * 255, (0, -width % 16, 0, -height % 16), "replicate")
    red, green, blue = images.split(1, dim=1)
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    colours = F.avg_pool2d(torch.cat([(blue - luminance) / 1.772, (red - luminance) / 1.402], dim=1), 2)
    quality = np.asarray(qualities, np.float64)[:, None, None, None]
    scale = np.where(quality < 50, 5000 / quality, 200 - 2 * quality)  # as the Independent JPEG Group's library does
    tables = np.clip(np.floor((_JPEG_TABLES * scale + 50) / 100), 1, 255)
    steps = torch.from_numpy(tables.astype(np.float32)).to(images.device)
    luminance = _round_coefficients(luminance - 128, steps[:, :1]) + 128
    colours = _round_coefficients(colours, steps[:, 1:])
    blueness, redness = F.interpolate(colours, scale_factor=2, mode="bilinear").split(1, dim=1)
    red, blue = luminance + 1.402 * redness, luminance + 1.772 * blueness
    green = (luminance - 0.299 * red - 0.114 * blue) / 0.587
    return (torch.cat([red, green, blue], dim=1)[..., :height, :width] / 255).clamp(0, 1)


def _round_coefficients(planes: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """The cosine coefficients of each 8 x 8 pixels of (N, K, H, W) rounded to multiples of `steps` (N, 1, 8, 8)."""
    transform = torch.from_numpy(dct(np.eye(8), axis=0, norm="ortho").astype(np.float32)).to(planes.device)
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)  # (N, K, H / 8, W / 8, 8, 8)
    steps = steps[:, :, None, None]
    rounded = ((transform @ blocks @ transform.T) / steps).round() * steps
    return (transform.T @ rounded @ transform).transpose(3, 4).reshape(planes.shape)
