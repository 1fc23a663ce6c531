"""Photographs at the working size, and the augmented crops of them that a network is trained on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from skimage.morphology import skeletonize

from resegnet.config import Config
from resegnet.io import read_arrays, write_atomically
from resegnet.learning.augment import augment, cut_crops, draw_camera, draw_place
from resegnet.learning.samples import Sample
from resegnet.segmenter import prepare_context, prepare_input

WEAK_STRENGTH = 0.2
STRONG_SHARE = 0.25  # share of the crops that are augmented strongly also in the epochs of weak augmentation


@dataclass(frozen=True)
class WorkingSample:
    """A photograph and its reference at the working size, in 8 bits so that a whole data set fits into memory.

    Attributes
    ----------
    pixels
        (S, S, 3) uint8 RGB, the network's input before it is scaled to [0, 1].
    vessels
        (S, S) uint8, 255 on vessels, with soft borders. With teachers, their mean with the teachers' probability.
    field
        (S, S) uint8, 255 inside the field of view, with soft borders.
    centrelines
        (S, S) uint8, 255 on the centrelines of the reference, three pixels wide.
    dataset
        Name of the data set.
    context
        For two looks, (7, C, C) uint8: red, green, blue, vessels, field, arteries, veins; the last two 0 where unknown.
        None for one look.
    kinds_by_person
        True if a person labelled the arteries and veins, False if a model told them or they are unknown.
    """

    pixels: np.ndarray
    vessels: np.ndarray
    field: np.ndarray
    centrelines: np.ndarray
    dataset: str
    context: np.ndarray | None = None
    kinds_by_person: bool = False

    @classmethod
    def of(
        cls,
        sample: Sample,
        config: Config,
        answer: np.ndarray | None = None,
        kinds: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> WorkingSample:
        """Scale a sample to the working size.

        Parameters
        ----------
        sample
            Photograph with its reference.
        config
            States the working size.
        answer
            Probability of a teacher, (H, W) float32 in the photograph's frame. The vessels are then the mean of it and
            the reference. Where a person left a vessel out or drew it too wide, the teacher's probability is closer to
            the truth than 0 or 1 (Hinton et al. 2015, arXiv:1503.02531).
        kinds
            Masks of arteries and veins, (H, W) bool, if they are known.
        """
        pixels, fov, geometry = prepare_input(sample.image, config)
        traced, field = (geometry.to_input(mask) for mask in (sample.vessels, fov.mask))
        lines = binary_dilation(skeletonize(np.round(traced * 255) > 127), np.ones((3, 3), bool))
        vessels = traced if answer is None else (traced + geometry.to_input(answer)) / 2
        vessels, field = (np.round(mask * 255).astype(np.uint8) for mask in (vessels, field))
        context = prepare_context(sample.image, geometry, config)
        if context is not None:
            around = geometry.with_input_size(len(context))
            masks = [around.to_input(mask) for mask in (sample.vessels, fov.mask, *(kinds or ()))]
            masks += [np.zeros_like(masks[0])] * (4 - len(masks))
            context = np.stack(
                [*context.transpose(2, 0, 1), *(np.round(mask * 255).astype(np.uint8) for mask in masks)]
            )
        return cls(pixels, vessels, field, lines.astype(np.uint8) * 255, sample.dataset, context)

    def save(self, path: Path) -> None:
        """Write the pixels to a file, for `load`."""
        content = io.BytesIO()
        context = np.zeros((0, 0, 0), np.uint8) if self.context is None else self.context
        np.savez(content, planes=self.planes().numpy(), context=context)
        write_atomically(path, content.getvalue())

    @classmethod
    def load(cls, path: Path, dataset: str) -> WorkingSample | None:
        """Read a file that `save` wrote. None if it is absent or damaged."""
        arrays = read_arrays(path)
        if arrays is None:
            return None
        planes, context = arrays["planes"], arrays["context"]
        pixels = np.ascontiguousarray(planes[:3].transpose(1, 2, 0))
        # Copies, so that the planes of the colours are not kept twice.
        vessels, field, centrelines = (plane.copy() for plane in planes[3:])
        return cls(pixels, vessels, field, centrelines, dataset, context if context.size else None)

    @property
    def look(self) -> np.ndarray | None:
        """The second look, (C, C, 3) uint8; None for a network of one look."""
        return None if self.context is None else np.ascontiguousarray(self.context[:3].transpose(1, 2, 0))

    @property
    def kinds_known(self) -> bool:
        """Whether arteries or veins are labelled."""
        return self.context is not None and bool(self.context[5:].any())

    def planes(self) -> torch.Tensor:
        """Return red, green, blue, vessels, field and centrelines as (6, S, S) uint8."""
        colours = self.pixels.transpose(2, 0, 1)
        return torch.from_numpy(np.stack([*colours, self.vessels, self.field, self.centrelines]))


class Crops(torch.utils.data.Dataset):
    """An endless sequence of augmented crops. The crop at a place depends only on the seed and the place.

    An interrupted run can therefore be resumed exactly, with any number of worker processes. Every third crop comes
    from the `extra` photographs, however many there are: enough to learn their cameras, while the references of people
    keep the majority.

    Parameters
    ----------
    samples
        Photographs with references of people, of any working sizes.
    crop_size
        Side of a crop, px.
    seed
        Seed, 0 or more.
    weak_from
        First place from which most crops are augmented weakly; None augments all strongly.
    extra
        Photographs with vessel masks that models made.
    device
        Device that holds the photographs and makes the crops.
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
        self.traced, self.labelled = (_photographs_of_a_pass(part, device) for part in (samples, extra))
        self.crop_size = crop_size
        self.seed = seed
        self.weak_from = weak_from

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return image (3, C, C) and masks (3, C, C), vessels, field and centrelines, as float32 in [0, 1]."""
        images, masks = self.__getitems__([place])
        return images[0], masks[0]

    def __getitems__(self, places: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the crops at several places, stacked. A DataLoader with `collate_fn=identity_collate` calls this."""
        photographs, cuts, cameras = [], [], []
        for place in places:
            photograph, rng = self._photograph(place), np.random.default_rng((self.seed, 1, place))
            photographs.append(photograph.planes)
            # Strong augmentation teaches what holds for every camera, but it also hides what distinguishes the cameras,
            # and with them the annotators. The last epochs therefore see most photographs nearly unchanged.
            weak = self.weak_from is not None and place >= self.weak_from and rng.random() >= STRONG_SHARE
            strength = WEAK_STRENGTH if weak else 1.0
            cuts.append(draw_place(rng, photograph.inside, photograph.planes.shape[-1], strength))
            cameras.append(draw_camera(rng, strength))
        images, masks = cut_crops(photographs, cuts, self.crop_size).split(3, dim=1)
        return augment(images, cameras), masks

    def _photograph(self, place: int) -> _Photograph:
        photographs, turn = self.traced, place
        if self.labelled:
            turn, third = divmod(place, 3)
            photographs, turn = (self.labelled, turn) if third == 2 else (self.traced, 2 * turn + third)
        passed, position = divmod(turn, len(photographs))
        return photographs[np.random.default_rng((self.seed, 0, passed)).permutation(len(photographs))[position]]


class _Photograph:
    """A sample on the device: its planes, and the pixels inside its field that a crop can be centred on."""

    def __init__(self, sample: WorkingSample, device: torch.device | str) -> None:
        self.planes = sample.planes().to(device)
        self.inside = np.argwhere(sample.field[::8, ::8] > 127) * 8


def _photographs_of_a_pass(samples: Sequence[WorkingSample], device: torch.device | str) -> list[_Photograph]:
    """Return the photographs of one pass, each as often as its side holds the side of the smallest photograph.

    All crops have one size. If each photograph came once, a pixel of a photograph of 1664 px would be seen a sixth as
    often as one of a photograph of 704 px.
    """
    sides = [sample.pixels.shape[0] for sample in samples]
    photographs = [_Photograph(sample, device) for sample in samples]
    return [photograph for photograph, side in zip(photographs, sides, strict=True) for _ in range(side // min(sides))]


def identity_collate(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the batch unchanged: `Crops` gives whole batches to the DataLoader."""
    return batch
