"""Changes of light, colour and sharpness that both looks at a photograph share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as T

from resegnet.learning.augment import Camera, compress_jpeg, draw_camera
from resegnet.learning.look_views import View
from resegnet.two_looks import sample_squares


def draw_look_camera(rng: np.random.Generator, strength: float) -> Camera:
    """Draw changes as `resegnet.learning.augment.draw_camera` does, now and then to very little contrast."""
    camera = draw_camera(rng, strength)
    if camera.contrast != 1 and rng.random() < 0.3:
        camera = replace(camera, contrast=rng.uniform(0.35, 0.7))
    return camera


def soften(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur (3, H, W) float32 by a Gaussian of `sigma` px."""
    reach = min(max(1, math.ceil(3 * sigma)), min(picture.shape[1:]) - 1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=picture.device) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(picture[:, None], (reach, reach, reach, reach), "reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def augment_looks(
    looks: Sequence[torch.Tensor], positions: torch.Tensor | None, views: Sequence[View], cameras: Sequence[Camera]
) -> list[torch.Tensor]:
    """Change both looks as one camera would, like `resegnet.learning.augment.augment` for one look.

    Parameters
    ----------
    looks
        The context, (N, 3, C, C) float32 in [0, 1], and the detail, (N, 3, S, S); or the context alone.
    positions
        (N, 2, 3), where the detail lies in the context, see `resegnet.two_looks.sample_squares`.
    views, cameras
        N of each.

    Returns
    -------
    looks
        Of the same shapes and range.
    """
    looks = list(looks)
    _soften(looks, views)
    looks = _with_colours(looks, cameras)
    _add_light(looks, positions, cameras)
    _add_noise(looks, views, cameras)
    looks = [look.clamp(0, 1) for look in looks]
    for number, look in enumerate(looks):
        chosen = [
            at
            for at, (camera, view) in enumerate(zip(cameras, views, strict=True))
            if camera.quality is not None and _pixel_share(view, number, len(looks)) > 0.7
        ]
        if chosen:
            look[chosen] = compress_jpeg(look[chosen], [cameras[at].quality or 95 for at in chosen])
    return looks


def _pixel_share(view: View, number: int, count: int) -> float:
    """Return the pixels of a look for each of the photograph's own, along a side; fewer where it is scaled down."""
    return view.scale if number == 0 and count > 1 else 1.0


def _column(values: Sequence[Any], device: torch.device) -> torch.Tensor:
    """Return one or more numbers for each crop as (N, K, 1, 1) float32."""
    return torch.from_numpy(np.asarray(values, np.float32).reshape(len(values), -1, 1, 1)).to(device)


def _soften(looks: Sequence[torch.Tensor], views: Sequence[View]) -> None:
    """Blur both looks as a soft lens does, in place."""
    for at, view in enumerate(views):
        sides = [view.side] if len(looks) == 1 else [view.side * view.scale, view.side]
        for look, side in zip(looks, sides, strict=True):
            if view.softness is not None and view.softness * side > 0.2:
                look[at] = soften(look[at], view.softness * side)


def _with_colours(looks: Sequence[torch.Tensor], cameras: Sequence[Camera]) -> list[torch.Tensor]:
    """Return the looks with other gains, gamma, contrast and saturation."""
    gains, gammas, contrasts, saturations, greys = (
        _column([getattr(camera, name) for camera in cameras], looks[0].device)
        for name in ("gains", "gamma", "contrast", "saturation", "grey")
    )
    looks = [(look * gains).clamp(0, 1) ** gammas for look in looks]
    mean = T.rgb_to_grayscale(looks[0]).mean(dim=(1, 2, 3), keepdim=True)
    coloured = []
    for look in looks:
        look = (mean + contrasts * (look - mean)).clamp(0, 1)
        grey = T.rgb_to_grayscale(look)
        look = (grey + saturations * (look - grey)).clamp(0, 1)
        coloured.append(torch.where(greys > 0, look[:, 1:2], look))
    return coloured


def _add_light(looks: Sequence[torch.Tensor], positions: torch.Tensor | None, cameras: Sequence[Camera]) -> None:
    """Add haze and uneven light, which vary smoothly over the context, in place."""
    context = looks[0]

    def some(name: str) -> tuple[list[int], list[np.ndarray]]:
        chosen = [at for at, camera in enumerate(cameras) if getattr(camera, name) is not None]
        return chosen, [getattr(cameras[at], name) for at in chosen]

    def smooth_field(coarse: Sequence[np.ndarray]) -> torch.Tensor:
        planes = _column(coarse, context.device).view(-1, 1, 4, 4)
        return F.interpolate(planes, size=context.shape[-2:], mode="bicubic", align_corners=True)

    def in_both(planes: torch.Tensor, chosen: list[int]) -> list[torch.Tensor]:
        """The planes of the context, and the part of them that the detail shows."""
        if len(looks) == 1 or positions is None:
            return [planes]
        return [planes, sample_squares(planes, positions[chosen], (looks[1].shape[-2], looks[1].shape[-1]))]

    chosen, haze = some("haze")
    if chosen:
        coarse = F.adaptive_avg_pool2d(context[chosen], math.ceil(context.shape[-1] / 16))
        near = in_both(F.interpolate(coarse, size=context.shape[-2:], mode="bilinear"), chosen)
        for look, neighbourhood, lost in zip(looks, near, in_both(smooth_field(haze), chosen), strict=True):
            look[chosen] = torch.lerp(look[chosen], neighbourhood, lost)
    chosen, lights = some("light")
    if chosen:
        for look, light in zip(looks, in_both(smooth_field(lights).exp(), chosen), strict=True):
            look[chosen] *= light


def _add_noise(looks: Sequence[torch.Tensor], views: Sequence[View], cameras: Sequence[Camera]) -> None:
    """Blur, sharpen and add noise at the scale of the photograph's own pixels, in place."""
    generator = torch.Generator(looks[0].device)
    for at, (camera, view) in enumerate(zip(cameras, views, strict=True)):
        generator.manual_seed(camera.seed)
        for number, look in enumerate(looks):
            share = _pixel_share(view, number, len(looks))
            if camera.blur is not None and view.softness is None and camera.blur * share > 0.3:
                look[at] = soften(look[at], camera.blur * share)
            if camera.sharpness is not None and share > 0.7:
                smooth = F.avg_pool2d(F.pad(look[at][None].clamp(0, 1), (1, 1, 1, 1), "reflect"), 3, 1)[0]
                look[at] = smooth + camera.sharpness * (look[at] - smooth)
            if camera.noise is not None:
                noise = torch.randn(look.shape[1:], generator=generator, device=look.device)
                look[at] += camera.noise * share * noise
