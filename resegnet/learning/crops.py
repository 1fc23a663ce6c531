"""What training sees: photographs at the working size, and augmented crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from skimage.morphology import skeletonize

from resegnet.config import Config
from resegnet.learning.augment import cut, draw_camera, draw_place, vary
from resegnet.learning.samples import Sample
from resegnet.segmenter import prepare_input

WEAK_STRENGTH = 0.2
STRONG_SHARE = 0.25  # share of the crops that are augmented strongly also in the epochs of weak augmentation


@dataclass(frozen=True)
class WorkingSample:
    """A photograph, its vessels and field at the working size, kept in 8 bit so that a whole set fits into memory.

    `pixels` is (S, S, 3) uint8, the network's input before scaling to [0, 1]; `vessels`, `field` and `centrelines` are
    (S, S) uint8, 255 for certain; the first two are soft at their borders, the last are three pixels wide.
    """

    pixels: np.ndarray
    vessels: np.ndarray
    field: np.ndarray
    centrelines: np.ndarray
    dataset: str

    @classmethod
    def of(cls, sample: Sample, config: Config, answer: np.ndarray | None = None) -> WorkingSample:
        """With a teacher's `answer`, probability (H, W) float32, the vessels are the mean of it and the reference.

        Of what a hand left out or drew too wide, the teacher's doubt is closer to the truth than a 0 or 1: Hinton et
        al. 2015, arXiv:1503.02531.
        """
        pixels, fov, geometry = prepare_input(sample.image, config)
        traced, field = (geometry.to_input(mask) for mask in (sample.vessels, fov.mask))
        lines = binary_dilation(skeletonize(np.round(traced * 255) > 127), np.ones((3, 3), bool))
        vessels = traced if answer is None else (traced + geometry.to_input(answer)) / 2
        vessels, field = (np.round(mask * 255).astype(np.uint8) for mask in (vessels, field))
        return cls(pixels, vessels, field, lines.astype(np.uint8) * 255, sample.dataset)

    def planes(self) -> torch.Tensor:
        """(6, S, S) uint8: red, green, blue, vessels, field and centre lines."""
        colours = self.pixels.transpose(2, 0, 1)
        return torch.from_numpy(np.stack([*colours, self.vessels, self.field, self.centrelines]))


class Crops(torch.utils.data.Dataset):
    """An endless row of augmented crops: the crop at a place depends on the seed and the place, on nothing else.

    That is what lets an interrupted run go on exactly, with any number of worker processes. Every third crop is of the
    `extra` photographs, however many there are: enough to see their cameras, and the traced ones keep the word.

    Parameters
    ----------
    samples, extra
        Of any sizes.
    crop_size
        px.
    seed
        0 or more.
    weak_from
        First place from which most crops are augmented weakly; None augments all strongly.
    device
        Where the photographs are kept and the crops are made.
    """

    def __init__(
        self,
        samples: Sequence[WorkingSample],
        crop_size: int,
        seed: int,
        weak_from: int | None = None,
        extra: Sequence[WorkingSample] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        self.traced, self.labelled = (_in_turn(part, device) for part in (samples, extra))
        self.crop_size = crop_size
        self.seed = seed
        self.weak_from = weak_from

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (3, C, C) and masks (3, C, C): vessels, field, centre lines; float32 in [0, 1]."""
        images, masks = self.__getitems__([place])
        return images[0], masks[0]

    def __getitems__(self, places: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the crops at several places, stacked. A DataLoader with `collate_fn=identity_collate` calls this."""
        photographs, cuts, cameras = [], [], []
        for place in places:
            photograph, rng = self._photograph(place), np.random.default_rng((self.seed, 1, place))
            photographs.append(photograph.planes)
            # Strong variation teaches what holds on any camera, but also blurs what tells cameras, and so their
            # annotators, apart; the last epochs see most photographs nearly as they are.
            weak = self.weak_from is not None and place >= self.weak_from and rng.random() >= STRONG_SHARE
            strength = WEAK_STRENGTH if weak else 1.0
            cuts.append(draw_place(rng, photograph.inside, photograph.planes.shape[-1], strength))
            cameras.append(draw_camera(rng, strength))
        images, masks = cut(photographs, cuts, self.crop_size).split(3, dim=1)
        return vary(images, cameras), masks

    def _photograph(self, place: int) -> _Photograph:
        photographs, turn = self.traced, place
        if self.labelled:
            turn, third = divmod(place, 3)
            photographs, turn = (self.labelled, turn) if third == 2 else (self.traced, 2 * turn + third)
        passed, position = divmod(turn, len(photographs))
        return photographs[np.random.default_rng((self.seed, 0, passed)).permutation(len(photographs))[position]]


class _Photograph:
    """A sample as crops are cut from it: its planes on their device, and the places inside its field."""

    def __init__(self, sample: WorkingSample, device: torch.device | str) -> None:
        self.planes = sample.planes().to(device)
        self.inside = np.argwhere(sample.field[::8, ::8] > 127) * 8


def _in_turn(samples: Sequence[WorkingSample], device: torch.device | str) -> list[_Photograph]:
    """The photographs as a pass takes them: as often as a side holds the smallest one's, for the crops are of one size.

    Once each, a photograph of 1664 px is seen a sixth as often, pixel for pixel, as one of 704 px.
    """
    sides = [sample.pixels.shape[0] for sample in samples]
    photographs = [_Photograph(sample, device) for sample in samples]
    return [photograph for photograph, side in zip(photographs, sides, strict=True) for _ in range(side // min(sides))]


def identity_collate(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """For a DataLoader over `Crops`, which gives whole batches."""
    return batch
