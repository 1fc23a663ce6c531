"""What cameras, eyes and hands do to a photograph, done to a training crop."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as T


def random_crop(
    image: torch.Tensor, masks: torch.Tensor, crop_size: int, strength: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A crop at a random place inside the field, turned and flipped; half of them scaled and sheared, too.

    The other half, and nearly all of those that are varied little, keep every pixel as it was and turn by right angles:
    sampling between the pixels blurs the finest vessels, which in prediction are sharp. All randomness of this module
    comes from torch's global generator.

    Parameters
    ----------
    image
        (3, S, S) float32 in [0, 1].
    masks
        (M, S, S) float32 in [0, 1]: vessels, field of view, and more.
    crop_size
        Side of the crop, px.
    strength
        0 to 1, of scaling and shearing. Turns and flips are always free: an eye looks as likely either way.

    Returns
    -------
    image, masks
        (3, C, C) and (M, C, C) float32 in [0, 1]; black and 0 where the crop leaves the picture.
    """
    size = image.shape[-1]
    inside = torch.nonzero(masks[1, ::8, ::8] > 0.5)
    if len(inside) == 0:
        inside = torch.tensor([[size // 16, size // 16]])
    # Drawn towards the middle: about a rim, half of the crop would be black.
    centre = size / 2 + 0.75 * (inside[torch.randint(len(inside), ())] * 8 - size / 2)
    row, column = centre.tolist()
    stacked = torch.cat([image, masks])
    if _chance(1 - 0.5 * strength):
        stacked = _exact_crop(stacked, round(row), round(column), crop_size)
    else:
        angle, shear = _uniform(-math.pi, math.pi), strength * math.radians(_uniform(-8, 8))
        scale = math.exp(strength * _uniform(math.log(0.65), math.log(1.6)))
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        matrix = turn @ np.array([[1.0, math.tan(shear)], [0.0, 1.0]]) / scale
        stacked = _sampled_crop(stacked, round(row), round(column), crop_size, matrix)
    if torch.rand(()) < 0.5:  # turns make the other flip
        stacked = stacked.flip(-1)
    return stacked[:3], stacked[3:]


def _exact_crop(stacked: torch.Tensor, row: int, column: int, crop_size: int) -> torch.Tensor:
    """(K, S, S) to (K, C, C) about a pixel, turned by a multiple of 90 degrees; 0 where it leaves the picture."""
    half = crop_size // 2
    stacked = T.crop(stacked, row - half, column - half, crop_size, crop_size)
    return stacked.rot90(int(torch.randint(4, ())), (-2, -1))


def _sampled_crop(stacked: torch.Tensor, row: int, column: int, crop_size: int, matrix: np.ndarray) -> torch.Tensor:
    """(K, S, S) to (K, C, C) about a pixel; `matrix` (2, 2) takes steps in the crop, (row, column), to the picture."""
    reach = math.ceil(np.abs(matrix).sum(axis=1).max() * crop_size / 2) + 4  # four more, for the spline
    part = T.crop(stacked, row - reach, column - reach, 2 * reach, 2 * reach).numpy()
    offset = reach - 0.5 + matrix @ np.full(2, 0.5 - crop_size / 2)
    # By cubic splines: linear sampling blurs the finest vessels, which in prediction are sharp.
    planes = [ndimage.affine_transform(plane, matrix, offset, (crop_size, crop_size), order=3) for plane in part]
    return torch.from_numpy(np.stack(planes)).clamp(0, 1)


def vary_camera(image: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """Other light, colour, focus, noise and compression; (3, C, C) float32 in [0, 1] to the same.

    `strength`, 0 to 1, scales how much is changed and how often.
    """
    image = _colour(image, strength)
    if _chance(0.5 * strength):
        image = image * _uneven_light(image.shape[-1])
    if _chance(0.25 * strength):
        image = T.gaussian_blur(image, [7, 7], [_uniform(0.3, 1.5)] * 2)
    elif _chance(0.15 * strength):
        image = T.adjust_sharpness(image.clamp(0, 1), _uniform(1.0, 3.0))
    if _chance(0.4 * strength):
        image = image + torch.randn_like(image) * _uniform(0.0, 0.04)
    image = image.clamp(0, 1)
    if _chance(0.2 * strength):
        image = _jpeg(image, quality=int(torch.randint(40, 95, ())))
    return image


def _colour(image: torch.Tensor, strength: float) -> torch.Tensor:
    """Gain for each channel, gamma, contrast, saturation; now and then a grey picture, as red-free cameras give."""
    gains = torch.exp(strength * (torch.randn(3, 1, 1) * 0.12 + torch.randn(()) * 0.15))
    image = (image * gains).clamp(0, 1) ** math.exp(strength * _uniform(-0.35, 0.35))
    if _chance(0.5):
        image = T.adjust_contrast(image.clamp(0, 1), 1 + strength * _uniform(-0.4, 0.4))
    if _chance(0.5):
        image = T.adjust_saturation(image.clamp(0, 1), 1 + strength * _uniform(-0.7, 0.5))
    if _chance(0.05 * strength):
        image = image[1:2].expand(3, -1, -1)
    return image


def _uneven_light(size: int) -> torch.Tensor:
    """A smooth field of light, (1, C, C), about 1: vignetting, shadows and reflexes of the lens."""
    coarse = torch.exp(torch.randn(1, 1, 4, 4) * 0.2)
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)[0]


def _jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    """Through JPEG and back, by Pillow: torchvision's own encoder is on its way out."""
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255


def _chance(probability: float) -> bool:
    return bool(torch.rand(()) < probability)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
