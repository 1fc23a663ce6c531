"""Augmentation of training crops by what cameras and compression do, in batches on the device that trains.

The parameters of each crop are drawn first, from a generator of its own. Then the whole batch is augmented.
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
    """Position and orientation of a crop in its photograph.

    Attributes
    ----------
    row, column
        Centre of the crop, px of the photograph.
    matrix
        (2, 2) float: a step of (row, column) in the crop is `matrix` times that step in the photograph.
    flip
        Whether the crop is mirrored left to right.
    """

    row: int
    column: int
    matrix: np.ndarray
    flip: bool

    @property
    def exact(self) -> bool:
        """True if the crop is turned by right angles only, so that its pixels are pixels of the photograph."""
        return bool(np.isin(self.matrix, (-1, 0, 1)).all())


@dataclass(frozen=True)
class Camera:
    """Changes of the colours and the sharpness of a crop. None skips a change.

    Attributes
    ----------
    gains
        (3,) float, factors on red, green and blue.
    gamma
        Exponent on all channels.
    contrast, saturation
        Factors on the distance from the mean grey of the crop, and from the grey of the pixel.
    grey
        Whether all channels show the green one, as in a red-free photograph.
    haze
        (4, 4) float, corners of a smooth map of the share of local contrast that is lost.
    light
        (4, 4) float, corners of a smooth map of the logarithm of the light: vignetting, shadows, reflexes.
    blur
        Standard deviation of a Gaussian, px.
    sharpness
        Factor on the distance from a smoothed crop.
    noise
        Standard deviation of Gaussian noise, for channels in [0, 1].
    quality
        Quality of JPEG compression, 1 to 100.
    seed
        Seed of the noise.
    """

    gains: np.ndarray
    gamma: float
    contrast: float
    saturation: float
    grey: bool
    haze: np.ndarray | None
    light: np.ndarray | None
    blur: float | None
    sharpness: float | None
    noise: float | None
    quality: int | None
    seed: int


def draw_place(rng: np.random.Generator, inside: np.ndarray, size: int, strength: float = 1.0) -> Place:
    """Draw the position and orientation of a crop.

    Half of the crops are scaled and sheared, with weak augmentation about a third. The others keep the photograph's own
    pixels and are turned by right angles at most: interpolation blurs the finest vessels, which are sharp in
    prediction. Scales vary widely, because a camera with a narrower field or more pixels shows a vessel twice as wide
    as any in the training photographs.

    Parameters
    ----------
    rng
        Generator of this crop.
    inside
        (N, 2) int, rows and columns of pixels inside the field of view. The crop is centred on one of them, moved
        towards the middle.
    size
        Side S of the photograph at the working size, px.
    strength
        0 to 1, scales the shear and how often it is applied. At 1, crops are also turned and flipped freely. Below 1
        they stay upright: the references of a data set are shifted against its vessels by a fraction of a pixel in one
        direction (DRIVE's by 0.13 px upwards), which a network can only learn from upright eyes.
    """
    turned = strength == 1
    centre = inside[rng.integers(len(inside))] if len(inside) else np.array([size / 2, size / 2])
    # Moved towards the middle: at the rim, half of the crop would be black.
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
    return Place(
        row, column, matrix, flip=turned and bool(rng.random() < 0.5)
    )  # turns and this flip make the other one


def draw_camera(rng: np.random.Generator, strength: float = 1.0) -> Camera:
    """Draw changes of light, colour, focus, noise and compression.

    `strength`, 0 to 1, scales how strong the changes are and how often they are made.
    """

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


def cut_crops(photographs: Sequence[torch.Tensor], places: Sequence[Place], crop_size: int) -> torch.Tensor:
    """Cut a crop out of each photograph.

    Parameters
    ----------
    photographs
        N arrays of planes, each (K, S, S) uint8, all on one device. S may differ.
    places
        Position and orientation of each crop.
    crop_size
        Side C of the crops, px.

    Returns
    -------
    crops
        (N, K, C, C) float32 in [0, 1], 0 beyond the photograph's frame.
    """
    exact, sampled = [], []
    for planes, place in zip(photographs, places, strict=True):
        # A turned and scaled crop needs the part that its corners reach, plus the support of the bicubic kernel.
        reach = crop_size // 2
        if not place.exact:
            reach = math.ceil(np.abs(place.matrix).sum(axis=1).max() * crop_size / 2) + 3
        part = T.crop(planes, place.row - reach, place.column - reach, 2 * reach, 2 * reach)
        if place.exact:
            # A step down in the crop is a step down, left, up or right in the photograph.
            down = [(1, 0), (0, -1), (-1, 0), (0, 1)].index(tuple(place.matrix[:, 0].astype(int)))
            exact.append(part.rot90(down, (-2, -1)))
        else:
            # affine_grid takes columns first, and lengths in units of half a side of each picture.
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


def augment(images: torch.Tensor, cameras: Sequence[Camera]) -> torch.Tensor:
    """Change the colours and the sharpness of each crop.

    Parameters
    ----------
    images
        (N, 3, C, C) float32 RGB in [0, 1].
    cameras
        Changes of each crop.

    Returns
    -------
    images
        (N, 3, C, C) float32 RGB in [0, 1].
    """

    def numbers(values: Sequence) -> torch.Tensor:
        stacked = np.asarray(values, np.float32).reshape(len(values), -1, 1, 1)
        return torch.from_numpy(stacked).to(images.device)

    def some(name: str) -> tuple[list[int], list]:
        """Return the indices of the pictures that have this change, and its values."""
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
        # Contrast is lost towards the mean of about 16 pixels around, not of the crop: the black beyond the rim would
        # turn grey.
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
        images[chosen] = compress_jpeg(images[chosen], qualities)
    return images


def compress_jpeg(images: torch.Tensor, qualities: Sequence[int]) -> torch.Tensor:
    """Apply the losses of baseline JPEG (ITU-T T.81), with colours at half size, to each picture at its own quality.

    Only the coefficients of the cosine transform are rounded, which is where JPEG loses information. No file is made,
    and the pictures, (N, 3, C, C) float32 RGB in [0, 1], stay on their device.
    """
    height, width = images.shape[-2:]
    images = F.pad(images * 255, (0, -width % 16, 0, -height % 16), "replicate")
    red, green, blue = images.split(1, dim=1)
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    colours = F.avg_pool2d(torch.cat([(blue - luminance) / 1.772, (red - luminance) / 1.402], dim=1), 2)
    quality = np.asarray(qualities, np.float64)[:, None, None, None]
    scale = np.where(quality < 50, 5000 / quality, 200 - 2 * quality)  # formula of the Independent JPEG Group's library
    tables = np.clip(np.floor((_JPEG_TABLES * scale + 50) / 100), 1, 255)
    steps = torch.from_numpy(tables.astype(np.float32)).to(images.device)
    luminance = _round_coefficients(luminance - 128, steps[:, :1]) + 128
    colours = _round_coefficients(colours, steps[:, 1:])
    blueness, redness = F.interpolate(colours, scale_factor=2, mode="bilinear").split(1, dim=1)
    red, blue = luminance + 1.402 * redness, luminance + 1.772 * blueness
    green = (luminance - 0.299 * red - 0.114 * blue) / 0.587
    return (torch.cat([red, green, blue], dim=1)[..., :height, :width] / 255).clamp(0, 1)


def _round_coefficients(planes: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Round the cosine coefficients of each block of 8 x 8 pixels to multiples of `steps`.

    `planes` is (N, K, H, W) float32, H and W multiples of 8; `steps` is (N, 1, 8, 8) float32.
    """
    transform = torch.from_numpy(dct(np.eye(8), axis=0, norm="ortho").astype(np.float32)).to(planes.device)
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)  # (N, K, H / 8, W / 8, 8, 8)
    steps = steps[:, :, None, None]
    rounded = ((transform @ blocks @ transform.T) / steps).round() * steps
    return (transform.T @ rounded @ transform).transpose(3, 4).reshape(planes.shape)
