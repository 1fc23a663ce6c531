"""Training crops of two looks: a place in an eye, its surroundings small and itself at the photograph's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from resegnet.config import Config
from resegnet.learning.anatomy import AnatomySample
from resegnet.learning.crops import STRONG_SHARE, WEAK_STRENGTH, WorkingSample
from resegnet.learning.look_augment import augment_looks, draw_look_camera
from resegnet.learning.look_views import View, away_from_middle, cut_looks, detail_positions, distances_to, draw_view

ANATOMY_EVERY = 4  # crops of vessels for each crop of a photograph with known disc or fovea
DISC_RADIUS = 0.075  # of a disc whose centre alone is known, in sides of the square; IDRiD's are 0.056 to 0.090


@dataclass
class LookBatch:
    """The crops of a step, float32 in [0, 1]: N of vessels and A of disc and fovea."""

    detail: torch.Tensor | None  # (N, 3, S, S); None where only the context branch learns
    detail_masks: torch.Tensor | None  # (N, 3, S, S): vessels, field, centrelines
    context: torch.Tensor  # (N + A, 3, C, C)
    context_masks: torch.Tensor  # (N, 4, C, C): vessels, field, arteries, veins; the last two 0 where unknown
    # (A, 6, C, C): disc, its weight, fovea, its weight, arteries, veins; the last two 0 where unknown
    anatomy_masks: torch.Tensor
    places: torch.Tensor  # (N, 2, 3), see `resegnet.two_looks.TwoLooks.forward`

    def to(self, device: torch.device) -> LookBatch:
        """The same batch on a device."""
        parts: dict[str, Any] = {
            name: None if part is None else part.to(device, non_blocking=True) for name, part in vars(self).items()
        }
        for name in ("detail", "context"):
            if parts[name] is not None:
                parts[name] = parts[name].contiguous(memory_format=torch.channels_last)
        return LookBatch(**parts)


class LookCrops(torch.utils.data.Dataset):
    """An endless row of augmented crops of two looks; the crop at a place depends on the seed and the place alone.

    Each data set is drawn from as often as every other, so that a large set of broad or sparse tracings does not drown
    a small careful one; within a set, a photograph by its side.

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
    detail_from
        Place from which no crops of disc and fovea are made, as only the detail branch learns; None for none.
    context_until
        Place until which no crops of the detail are made, as only the context branch learns.
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
        detail_from: int | None = None,
        context_until: int = 0,
    ) -> None:
        self.photographs = [_Photograph(sample, device) for sample in samples]
        self.anatomy = [_Eye(sample, device) for sample in anatomy]
        self.config, self.seed, self.weak_from = config, seed, weak_from
        self.detail_from, self.context_until = detail_from, context_until
        self.crop_size, self.context_crop_size = crop_sizes
        sides = np.array([sample.pixels.shape[0] for sample in samples], float)
        names = np.array([sample.dataset for sample in samples])
        totals = {name: sides[names == name].sum() for name in sorted(set(names))}
        weights = np.array([side / totals[name] for side, name in zip(sides, names, strict=True)])
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
            cameras.append(draw_look_camera(rng, strength))
            learns_all = self.detail_from is None or place < self.detail_from
            if self.anatomy and learns_all and place % ANATOMY_EVERY == ANATOMY_EVERY - 1:
                eyes.append(self._eye(rng, self._strength(rng, place)))
        details = None
        if places[0] >= self.context_until:
            details = cut_looks(
                [p.detail for p in photographs],
                [v.detail for v in views],
                [v.detail_finer for v in views],
                self.crop_size,
            )
        contexts = cut_looks(
            [p.sharp_context() if v.sharp else p.context for p, v in zip(photographs, views, strict=True)],
            [v.context for v in views],
            [v.context_finer for v in views],
            self.context_crop_size,
        )
        positions = detail_positions(views, self.crop_size, self.context_crop_size).to(contexts.device)
        looks = [contexts[:, :3]] if details is None else [contexts[:, :3], details[:, :3]]
        context, *detail = augment_looks(looks, positions, views, cameras)
        size = self.context_crop_size
        return LookBatch(
            detail=None if details is None else detail[0],
            detail_masks=None if details is None else details[:, 3:],
            context=torch.cat([context, *(eye for eye, _ in eyes)]),
            context_masks=contexts[:, 3:],
            anatomy_masks=torch.cat([masks for _, masks in eyes]) if eyes else contexts.new_zeros((0, 6, size, size)),
            places=positions,
        )

    def _strength(self, rng: np.random.Generator, place: int) -> float:
        """How strongly the crop is augmented, 0 to 1."""
        weak = self.weak_from is not None and place >= self.weak_from and rng.random() >= STRONG_SHARE
        return WEAK_STRENGTH if weak else 1.0

    def _eye(self, rng: np.random.Generator, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
        """A crop of a photograph with known disc or fovea, (1, 3, C, C), and its masks, (1, 6, C, C)."""
        eye = self.anatomy[rng.integers(len(self.anatomy))]
        side, size = self.config.context_size, self.context_crop_size
        assert side is not None
        known = [centre for centre in (eye.disc_centre, eye.fovea_centre) if centre is not None]
        near = None
        if known and rng.random() < 0.6:
            near = known[rng.integers(len(known))] + rng.uniform(-0.16, 0.16, 2) * side
        inside = eye.inside if near is None else away_from_middle(near, side)
        view = draw_view(rng, inside, side, self.config, (0, size), strength, fixed=True)
        planes = cut_looks([eye.planes], [view.detail], [view.detail_finer], size)
        (picture,) = augment_looks([planes[:, :3]], None, [view], [draw_look_camera(rng, strength)])
        field = planes[:, 3:4]
        disc, disc_weight = eye.disc_at(planes, view, size)
        fovea, fovea_weight = eye.fovea_at(view, size)
        masks = [disc, disc_weight * field, fovea, fovea_weight * field, planes[:, 5:]]
        return picture, torch.cat(masks, dim=1)


class _Photograph:
    """A sample as crops are cut from it: its planes on their device, and the places inside its field."""

    def __init__(self, sample: WorkingSample, device: torch.device | str) -> None:
        assert sample.context is not None
        self.detail = sample.planes().to(device)
        self.context = torch.from_numpy(sample.context).to(device)
        self.kinds_known = sample.kinds_known
        self.inside = np.argwhere(sample.field[::8, ::8] > 127) * 8

    def sharp_context(self) -> torch.Tensor:
        """The planes of the context at the size of the detail, (7, S, S) uint8."""
        side = self.detail.shape[-1]
        if not self.kinds_known:
            return torch.cat([self.detail[:5], self.detail.new_zeros((2, side, side))])
        kinds = F.interpolate(self.context[None, 5:].float(), size=(side, side), mode="bilinear")[0]
        return torch.cat([self.detail[:5], kinds.to(torch.uint8)])


class _Eye:
    """A photograph with known disc or fovea as crops are cut from it."""

    def __init__(self, sample: AnatomySample, device: torch.device | str) -> None:
        self.outlined = len(sample.planes) == 5
        unknown = np.zeros((2, *sample.planes.shape[1:]), np.uint8)
        disc = () if self.outlined else (unknown[:1],)
        # (7, C, C): colours, field, disc, arteries, veins; 0 where unknown
        planes = np.concatenate([sample.planes, *disc, unknown if sample.kinds is None else sample.kinds])
        self.planes = torch.from_numpy(planes).to(device)
        self.disc_centre, self.fovea_centre = sample.disc_centre, sample.fovea_centre
        if self.outlined and sample.planes[4].max() > 127:
            self.disc_centre = np.argwhere(sample.planes[4] > 127).mean(axis=0) + 0.5
        self.inside = np.argwhere(sample.planes[3, ::8, ::8] > 127) * 8

    def disc_at(self, planes: torch.Tensor, view: View, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The disc in the crop and the weight of each pixel, (1, 1, C, C).

        Where only the centre is known, pixels that are disc at one plausible size and not at another have no weight.
        """
        if self.outlined:
            return planes[:, 4:5], torch.ones_like(planes[:, 4:5])
        if self.disc_centre is None:
            return (torch.zeros_like(planes[:, :1]),) * 2
        radius = DISC_RADIUS * self.planes.shape[-1]
        distance = distances_to(view, self.disc_centre, size).to(planes.device)
        return (distance < radius).float(), ((distance < 0.6 * radius) | (distance > 1.3 * radius)).float()

    def fovea_at(self, view: View, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A smooth spot at the fovea, 1 in its middle, and the weight of each pixel, (1, 1, C, C)."""
        if self.fovea_centre is None:
            return (torch.zeros((1, 1, size, size), device=self.planes.device),) * 2
        spread = 0.019 * self.planes.shape[-1]
        spot = torch.exp(-0.5 * (distances_to(view, self.fovea_centre, size) / spread) ** 2).to(self.planes.device)
        return spot, 1 + 20 * spot
