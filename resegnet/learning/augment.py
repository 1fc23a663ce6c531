"""What cameras, eyes and hands do to a photograph, done to a training crop."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as T


def random_crop(image: torch.Tensor, masks: torch.Tensor, crop_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A crop at a random place inside the field, turned, flipped, scaled and sheared.

    All randomness of this module comes from torch's global generator.

    Parameters
    ----------
    image
        (3, S, S) float32 in [0, 1].
    masks
        (2, S, S) float32 in [0, 1]: vessels and field of view.
    crop_size
        Side of the crop, px.

    Returns
    -------
    image, masks
        (3, C, C) and (2, C, C) float32 in [0, 1]; black and 0 where the crop leaves the picture.
    """
    size = image.shape[-1]
    inside = torch.nonzero(masks[1, ::8, ::8] > 0.5)
    if len(inside) == 0:
        inside = torch.tensor([[size // 16, size // 16]])
    # Drawn towards the middle: about a rim, half of the crop would be black.
    centre = size / 2 + 0.75 * (inside[torch.randint(len(inside), ())] * 8 - size / 2)
    row, column = centre.tolist()
    scale = math.exp(_uniform(math.log(0.7), math.log(1.4)))
    # One sampling for all channels, linear for the masks too, so that thin vessels stay where the picture shows them.
    stacked = T.affine(
        torch.cat([image, masks]),
        angle=_uniform(-180, 180),
        translate=[round(size / 2 - column), round(size / 2 - row)],
        scale=scale,
        shear=[_uniform(-8, 8), 0.0],
        interpolation=T.InterpolationMode.BILINEAR,
        center=[column, row],
    )
    stacked = T.center_crop(stacked, [crop_size, crop_size])
    if torch.rand(()) < 0.5:  # turns by any angle make the other flip
        stacked = stacked.flip(-1)
    return stacked[:3], stacked[3:]


def vary_camera(image: torch.Tensor) -> torch.Tensor:
    """Other light, colour, focus, noise and compression; (3, C, C) float32 in [0, 1] to the same."""
    image = _colour(image)
    if torch.rand(()) < 0.5:
        image = image * _uneven_light(image.shape[-1])
    if torch.rand(()) < 0.25:
        image = T.gaussian_blur(image, [7, 7], [_uniform(0.3, 1.5)] * 2)
    elif torch.rand(()) < 0.15:
        image = T.adjust_sharpness(image.clamp(0, 1), _uniform(1.0, 3.0))
    if torch.rand(()) < 0.4:
        image = image + torch.randn_like(image) * _uniform(0.0, 0.04)
    image = image.clamp(0, 1)
    if torch.rand(()) < 0.2:
        image = _jpeg(image, quality=int(torch.randint(40, 95, ())))
    return image


def _colour(image: torch.Tensor) -> torch.Tensor:
    """Gain for each channel, contrast, gamma, saturation; now and then a grey picture, as red-free cameras give."""
    gains = torch.exp(torch.randn(3, 1, 1) * 0.12 + torch.randn(()) * 0.15)
    image = (image * gains).clamp(0, 1) ** math.exp(_uniform(-0.35, 0.35))
    if torch.rand(()) < 0.5:
        image = T.adjust_contrast(image.clamp(0, 1), _uniform(0.6, 1.4))
    if torch.rand(()) < 0.5:
        image = T.adjust_saturation(image.clamp(0, 1), _uniform(0.3, 1.5))
    if torch.rand(()) < 0.05:
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


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
