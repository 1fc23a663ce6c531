"""Training crops of two looks: a place in an eye, its surroundings small and itself at the photograph's own pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as T

from resegnet.config import Config
from resegnet.learning.anatomy import AnatomySample
from resegnet.learning.augment import Camera, Place, compress_jpeg, cut_crops, draw_camera
from resegnet.learning.crops import STRONG_SHARE, WEAK_STRENGTH, WorkingSample
from resegnet.two_looks import sample_squares

ANATOMY_EVERY = 4  # crops of vessels for each crop of a photograph with known disc or fovea
SOFTENED_SHARE = 0.25  # of the crops
SOFTEST = 0.004  # sigma of the softest lens, in sides of the square round the field
# Above this zoom the context is cut from the larger picture: a camera of a narrow field is not blurred by it.
SHARP_ZOOM = 1.2
DISC_RADIUS = 0.075  # of a disc whose centre alone is known, in sides of the square; IDRiD's are 0.056 to 0.090


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


@dataclass
class LookBatch:
    """What a step is made of; float32 in [0, 1], N crops of vessels and A of disc and fovea."""

    detail: torch.Tensor  # (N, 3, S, S)
    detail_masks: torch.Tensor  # (N, 3, S, S): vessels, field, centrelines
    context: torch.Tensor  # (N + A, 3, C, C)
    context_masks: torch.Tensor  # (N, 4, C, C): vessels, field, arteries, veins; the last two 0 where unknown
    anatomy_masks: torch.Tensor  # (A, 4, C, C): disc, its weight, fovea, its weight
    places: torch.Tensor  # (N, 2, 3), see `resegnet.two_looks.TwoLooks.forward`

    def to(self, device: torch.device) -> LookBatch:
        """The same batch on a device."""
        parts = {name: part.to(device, non_blocking=True) for name, part in vars(self).items()}
        for name in ("detail", "context"):
            parts[name] = parts[name].contiguous(memory_format=torch.channels_last)
        return LookBatch(**parts)


class LookCrops(torch.utils.data.Dataset):
    """An endless row of augmented crops of two looks; the crop at a place depends on the seed and the place alone.

    Each data set is drawn from by the square root of its photographs' sides, so that a large set leads without
    drowning a small one.

    Parameters
    ----------
    samples
        Photographs with vessels, each with its context.
    anatomy
        Photographs with known disc or fovea; may be empty.
    config
        Of a network of two looks.
    crop_sizes
        Of the detail and the context, px.
    seed
        0 or more.
    weak_from
        Place from which most crops are augmented weakly; None for none.
    device
        Where the photographs are kept and the crops are made.
    """

    def __init__(
        self,
        samples: Sequence[WorkingSample],
        anatomy: Sequence[AnatomySample],
        config: Config,
        crop_sizes: tuple[int, int],
        seed: int,
        weak_from: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.photographs = [_Photograph(sample, device) for sample in samples]
        self.anatomy = [_Eye(sample, device) for sample in anatomy]
        self.config, self.seed, self.weak_from = config, seed, weak_from
        self.crop_size, self.context_crop_size = crop_sizes
        sides = np.array([sample.pixels.shape[0] for sample in samples], float)
        names = np.array([sample.dataset for sample in samples])
        totals = {name: sides[names == name].sum() for name in sorted(set(names))}
        weights = np.array([side / totals[name] ** 0.5 for side, name in zip(sides, names, strict=True)])
        self.chances = weights / weights.sum()

    def __getitems__(self, places: Sequence[int]) -> LookBatch:
        """The crops at several places; a DataLoader that is given `identity_collate` asks for these."""
        photographs, views, cameras, eyes = [], [], [], []
        for place in places:
            rng = np.random.default_rng((self.seed, 1, place))
            photograph = self.photographs[rng.choice(len(self.photographs), p=self.chances)]
            strength = self._strength(rng, place)
            photographs.append(photograph)
            views.append(
                draw_view(
                    rng,
                    photograph.inside,
                    photograph.detail.shape[-1],
                    self.config,
                    (self.crop_size, self.context_crop_size),
                    strength,
                )
            )
            cameras.append(_draw_camera(rng, strength))
            if self.anatomy and place % ANATOMY_EVERY == ANATOMY_EVERY - 1:
                eyes.append(self._eye(rng, self._strength(rng, place)))
        details = _cut(
            [p.detail for p in photographs], [v.detail for v in views], [v.detail_finer for v in views], self.crop_size
        )
        contexts = _cut(
            [p.sharp_context() if v.sharp else p.context for p, v in zip(photographs, views, strict=True)],
            [v.context for v in views],
            [v.context_finer for v in views],
            self.context_crop_size,
        )
        positions = _positions(views, self.crop_size, self.context_crop_size).to(details.device)
        context, detail = augment_looks([contexts[:, :3], details[:, :3]], positions, views, cameras)
        size = self.context_crop_size
        return LookBatch(
            detail=detail,
            detail_masks=details[:, 3:],
            context=torch.cat([context, *(eye for eye, _ in eyes)]),
            context_masks=contexts[:, 3:],
            anatomy_masks=torch.cat([masks for _, masks in eyes]) if eyes else contexts.new_zeros((0, 4, size, size)),
            places=positions,
        )

    def _strength(self, rng: np.random.Generator, place: int) -> float:
        """How strongly the crop is augmented, 0 to 1."""
        weak = self.weak_from is not None and place >= self.weak_from and rng.random() >= STRONG_SHARE
        return WEAK_STRENGTH if weak else 1.0

    def _eye(self, rng: np.random.Generator, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
        """A crop of a photograph with known disc or fovea, (1, 3, C, C), and its masks, (1, 4, C, C)."""
        eye = self.anatomy[rng.integers(len(self.anatomy))]
        side, size = self.config.context_size, self.context_crop_size
        assert side is not None
        known = [centre for centre in (eye.disc_centre, eye.fovea_centre) if centre is not None]
        near = known[rng.integers(len(known))] + rng.uniform(-0.16, 0.16, 2) * side if rng.random() < 0.6 else None
        inside = eye.inside if near is None else _away_from_middle(near, side)
        view = draw_view(rng, inside, side, self.config, (0, size), strength, fixed=True)
        planes = _cut([eye.planes], [view.detail], [view.detail_finer], size)
        (picture,) = augment_looks([planes[:, :3]], None, [view], [_draw_camera(rng, strength)])
        field = planes[:, 3:4]
        disc, disc_weight = eye.disc_at(planes, view, size)
        fovea, fovea_weight = eye.fovea_at(view, size)
        return picture, torch.cat([disc, disc_weight * field, fovea, fovea_weight * field], dim=1)


class _Photograph:
    """A sample as crops are cut from it: its planes on their device, and the places inside its field."""

    def __init__(self, sample: WorkingSample, device: torch.device | str) -> None:
        assert sample.context is not None
        self.detail = sample.planes().to(device)
        self.context = torch.from_numpy(sample.context).to(device)
        self.inside = np.argwhere(sample.field[::8, ::8] > 127) * 8

    def sharp_context(self) -> torch.Tensor:
        """The planes of the context at the size of the detail, (7, S, S) uint8."""
        side = self.detail.shape[-1]
        kinds = F.interpolate(self.context[None, 5:].float(), size=(side, side), mode="bilinear")[0]
        return torch.cat([self.detail[:5], kinds.to(torch.uint8)])


class _Eye:
    """A photograph with known disc or fovea as crops are cut from it."""

    def __init__(self, sample: AnatomySample, device: torch.device | str) -> None:
        self.planes = torch.from_numpy(sample.planes).to(device)  # (4 or 5, C, C): colours, field and perhaps disc
        self.disc_centre, self.fovea_centre = sample.disc_centre, sample.fovea_centre
        if len(sample.planes) == 5:
            self.disc_centre = np.argwhere(sample.planes[4] > 127).mean(axis=0) + 0.5
        self.inside = np.argwhere(sample.planes[3, ::8, ::8] > 127) * 8

    def disc_at(self, planes: torch.Tensor, view: View, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The disc in the crop and the weight of each pixel, (1, 1, C, C): where only its centre is known, of the
        pixels that are disc or not at any plausible size."""
        if len(self.planes) == 5:
            return planes[:, 4:5], torch.ones_like(planes[:, 4:5])
        if self.disc_centre is None:
            return (torch.zeros_like(planes[:, :1]),) * 2
        radius = DISC_RADIUS * self.planes.shape[-1]
        distance = _distances(view, self.disc_centre, size).to(planes.device)
        return (distance < radius).float(), ((distance < 0.6 * radius) | (distance > 1.3 * radius)).float()

    def fovea_at(self, view: View, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A smooth spot at the fovea, 1 in its middle, and the weight of each pixel, (1, 1, C, C)."""
        if self.fovea_centre is None:
            return (torch.zeros((1, 1, size, size), device=self.planes.device),) * 2
        spread = 0.019 * self.planes.shape[-1]
        spot = torch.exp(-0.5 * (_distances(view, self.fovea_centre, size) / spread) ** 2).to(self.planes.device)
        return spot, 1 + 20 * spot


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

    Some crops keep every pixel as it was, of both looks, and turn by right angles at most. The others are turned,
    sheared and zoomed, both looks alike; and the detail alone is made larger or smaller, as by a camera of more or
    fewer pixels.

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
        The detail keeps the size of its picture.
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
        if not fixed and share < 0.15:
            smallest = max((config.smallest_input_size or side) / side, 0.5)
            larger = math.exp(rng.uniform(math.log(min(smallest, 1)), 0))
        elif not fixed and share < 0.6:
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
    middle = np.round(position * context_side / side - turn @ mirror @ offset / context_zoom)
    # After rounding, so that crops that keep their pixels keep them.
    offset = mirror @ np.linalg.inv(turn) @ (position * context_side / side - middle) * context_zoom
    softness = None
    if rng.random() < SOFTENED_SHARE * (0.5 + 0.5 * strength):
        softness = math.exp(rng.uniform(math.log(SOFTEST / 8), math.log(SOFTEST)))

    def place(where: np.ndarray, scaled: float) -> tuple[Place, int]:
        finer = 2 if scaled < 1 / 1.3 else 1
        return Place(int(where[0]), int(where[1]), turn / (scaled * finer), flip), finer

    detail, detail_finer = place(position, zoom * larger)
    context, context_finer = place(middle, context_zoom)
    return View(detail, context, sharp, detail_finer, context_finer, scale, offset, side * larger, softness)


def _draw_camera(rng: np.random.Generator, strength: float) -> Camera:
    """Another camera; now and then one of very little contrast."""
    camera = draw_camera(rng, strength)
    if camera.contrast != 1 and rng.random() < 0.3:
        camera = replace(camera, contrast=rng.uniform(0.35, 0.7))
    return camera


def _away_from_middle(position: np.ndarray, side: int) -> np.ndarray:
    """(1, 2), what `draw_view` draws towards the middle to this position."""
    return (side / 2 + (position - side / 2) / 0.75)[None]


def _positions(views: Sequence[View], crop_size: int, context_crop_size: int) -> torch.Tensor:
    """Where each detail crop lies in its context crop, (N, 2, 3), in the terms of `affine_grid`: columns first."""
    positions = np.zeros((len(views), 2, 3), np.float32)
    for position, view in zip(positions, views, strict=True):
        position[0, 0] = position[1, 1] = view.scale * crop_size / context_crop_size
        position[:, 2] = 2 * view.offset[::-1] / context_crop_size
    return torch.from_numpy(positions)


def _cut(pictures: Sequence[torch.Tensor], places: Sequence[Place], finer: Sequence[int], size: int) -> torch.Tensor:
    """A crop of each picture, (K, S, S) uint8: (N, K, size, size) float32 in [0, 1]."""
    crops = []
    for picture, place, times in zip(pictures, places, finer, strict=True):
        crop = cut_crops([picture], [place], size * times)
        crops.append(F.avg_pool2d(crop, times) if times > 1 else crop)
    return torch.cat(crops)


def _distances(view: View, centre: np.ndarray, size: int) -> torch.Tensor:
    """Distance of each pixel of a crop of the picture to a point of it, (1, 1, size, size) float32, picture px."""
    steps = (np.arange(size) + 0.5 - size / 2) * view.detail_finer
    rows, columns = np.meshgrid(steps, -steps if view.detail.flip else steps, indexing="ij")
    matrix = view.detail.matrix
    y = view.detail.row + matrix[0, 0] * rows + matrix[0, 1] * columns - centre[0]
    x = view.detail.column + matrix[1, 0] * rows + matrix[1, 1] * columns - centre[1]
    return torch.from_numpy(np.hypot(y, x).astype(np.float32))[None, None]


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
    context = looks[0]
    alone = len(looks) == 1

    def numbers(values: Sequence) -> torch.Tensor:
        stacked = np.asarray(values, np.float32).reshape(len(values), -1, 1, 1)
        return torch.from_numpy(stacked).to(context.device)

    def some(name: str) -> tuple[list[int], list]:
        chosen = [at for at, camera in enumerate(cameras) if getattr(camera, name) is not None]
        return chosen, [getattr(cameras[at], name) for at in chosen]

    def smooth_field(coarse: Sequence[np.ndarray]) -> torch.Tensor:
        return F.interpolate(
            numbers(coarse).view(-1, 1, 4, 4), size=context.shape[-2:], mode="bicubic", align_corners=True
        )

    def in_both(planes: torch.Tensor, chosen: list[int]) -> list[torch.Tensor]:
        """The planes of the context, and the part of them that the detail shows."""
        if alone or positions is None:
            return [planes]
        return [planes, sample_squares(planes, positions[chosen], (looks[1].shape[-2], looks[1].shape[-1]))]

    for at, view in enumerate(views):
        sides = [view.side] if alone else [view.side * view.scale, view.side]
        for look, side in zip(looks, sides, strict=True):
            if view.softness is not None and view.softness * side > 0.2:
                look[at] = soften(look[at], view.softness * side)
    gains, gammas, contrasts, saturations, greys = (
        numbers([getattr(camera, name) for camera in cameras])
        for name in ("gains", "gamma", "contrast", "saturation", "grey")
    )
    looks = [(look * gains).clamp(0, 1) ** gammas for look in looks]
    mean = T.rgb_to_grayscale(looks[0]).mean(dim=(1, 2, 3), keepdim=True)
    for number, look in enumerate(looks):
        look = (mean + contrasts * (look - mean)).clamp(0, 1)
        grey = T.rgb_to_grayscale(look)
        look = (grey + saturations * (look - grey)).clamp(0, 1)
        looks[number] = torch.where(greys > 0, look[:, 1:2], look)
    chosen, haze = some("haze")
    if chosen:
        coarse = F.adaptive_avg_pool2d(looks[0][chosen], math.ceil(context.shape[-1] / 16))
        near = in_both(F.interpolate(coarse, size=context.shape[-2:], mode="bilinear"), chosen)
        for look, neighbourhood, lost in zip(looks, near, in_both(smooth_field(haze), chosen), strict=True):
            look[chosen] = torch.lerp(look[chosen], neighbourhood, lost)
    chosen, lights = some("light")
    if chosen:
        for look, light in zip(looks, in_both(smooth_field(lights).exp(), chosen), strict=True):
            look[chosen] *= light
    generator = torch.Generator(context.device)
    for at, (camera, view) in enumerate(zip(cameras, views, strict=True)):
        generator.manual_seed(camera.seed)
        for number, look in enumerate(looks):
            # What is done to the photograph's own pixels shows less in a context that is scaled down.
            share = 1.0 if alone or number == 1 else view.scale
            if camera.blur is not None and view.softness is None and camera.blur * share > 0.3:
                look[at] = soften(look[at], camera.blur * share)
            if camera.sharpness is not None and share > 0.7:
                smooth = F.avg_pool2d(F.pad(look[at][None].clamp(0, 1), (1, 1, 1, 1), "reflect"), 3, 1)[0]
                look[at] = smooth + camera.sharpness * (look[at] - smooth)
            if camera.noise is not None:
                noise = torch.randn(look.shape[1:], generator=generator, device=look.device)
                look[at] += camera.noise * share * noise
    for number, look in enumerate(looks):
        looks[number] = look = look.clamp(0, 1)
        chosen = [
            at
            for at, (camera, view) in enumerate(zip(cameras, views, strict=True))
            if camera.quality is not None and (number == 1 or alone or view.scale > 0.7)
        ]
        if chosen:
            look[chosen] = compress_jpeg(look[chosen], [cameras[at].quality or 95 for at in chosen])
    return looks
