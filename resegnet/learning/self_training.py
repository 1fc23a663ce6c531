"""Arteries and veins of photographs that no person labelled, told by a release or by the run itself."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from resegnet.config import Config
from resegnet.engine import TorchNetwork, cpu_has_fast_bfloat16
from resegnet.hub import WEIGHTS_NAME, sha256
from resegnet.io import read_arrays, write_atomically
from resegnet.learning.anatomy import AnatomySample
from resegnet.learning.folder import load_tensors
from resegnet.learning.label import flip
from resegnet.learning.parents import ParentRelease
from resegnet.model import ReSegNet
from resegnet.segmenter import Segmenter
from resegnet.version import __version__

_MIRRORS: tuple[tuple[int, ...], ...] = ((-1,), (-2,), (-2, -1))  # axes that are flipped


class KindsTeacher:
    """Tells arteries and veins better than the network does when it is used.

    It looks at the photograph and its three mirror images, and the pixels of a segment vote. A network that learns from
    such answers under augmentation comes near to them: Xie et al. 2020, doi:10.1109/CVPR42600.2020.01070.

    Parameters
    ----------
    network
        Gives arteries and veins beside the vessels.
    config
        Of the network.
    digest
        Of its weights.
    """

    def __init__(self, network: TorchNetwork, config: Config, digest: str) -> None:
        self._segmenter = Segmenter(network, config)
        self.digest = digest

    @classmethod
    def of_release(cls, release: ParentRelease, device: torch.device) -> KindsTeacher:
        """Make a teacher of a release."""
        model = ReSegNet.from_pretrained(release.folder).to(device)
        digest = sha256(release.folder / WEIGHTS_NAME)
        return cls(_MirroredContext(model, cpu_has_fast_bfloat16()), model.config, digest)

    @classmethod
    def of_weights(cls, path: Path, config: Config, device: torch.device) -> KindsTeacher:
        """Make a teacher of the context branch of a run, from weights that `save_tensors` wrote.

        Its threshold is 0.5: nothing is calibrated yet, and the Dice loss makes such probabilities rare.

        Raises
        ------
        TrainingError
            If the file cannot be read.
        """
        model = ReSegNet(config).to(device)
        model.load_state_dict(load_tensors(path, device))
        digest = sha256(path)
        return cls(_MirroredContextAlone(model, cpu_has_fast_bfloat16()), config, digest)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return masks of arteries and of veins, (H, W) bool, of a photograph, (H, W, 3) uint8 RGB."""
        result = self._segmenter(image)
        assert result.arteries is not None
        assert result.veins is not None
        return result.arteries, result.veins


def tell_kinds(samples: Sequence[AnatomySample], teacher: KindsTeacher, cache: Path) -> list[AnatomySample]:
    """Add arteries and veins, told from the context's own picture. Each answer is kept in the folder `cache`."""
    told = []
    for sample in tqdm(samples, desc="telling arteries and veins", unit="photograph", disable=None):
        picture = np.ascontiguousarray(sample.planes[:3].transpose(1, 2, 0))
        key = hashlib.sha256((__version__ + teacher.digest).encode() + picture.tobytes()).hexdigest()
        path = cache / f"kinds_{key}.npz"
        kinds = _load(path)
        if kinds is None:
            kinds = np.stack(teacher(picture)).astype(np.uint8) * 255
            content = io.BytesIO()
            np.savez_compressed(content, kinds=kinds)
            write_atomically(path, content.getvalue())
        told.append(replace(sample, kinds=kinds))
    return told


def _load(path: Path) -> np.ndarray | None:
    """Read a file that `tell_kinds` wrote. None if it is absent or damaged."""
    arrays = read_arrays(path)
    return None if arrays is None else arrays["kinds"]


class _MirroredContext(TorchNetwork):
    """Looks once for vessels, and at four mirror images for arteries and veins, disc and fovea."""

    def look_twice(self, rgb: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `TorchNetwork.look_twice`."""
        probability, anatomy = super().look_twice(rgb, context)
        mirrored = [flip(self.look_around(flip(context, axes)), axes) for axes in _MIRRORS]
        return probability, np.mean([anatomy, *mirrored], axis=0)


class _MirroredContextAlone(TorchNetwork):
    """Looks at four mirror images of the context, also for vessels: the detail branch has not learned yet."""

    takes_rectangles = False

    def look_twice(self, rgb: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `TorchNetwork.look_twice`."""
        seen = [
            flip(self._compute(lambda look: [self._model.look_around(look)], flip(context, axes))[0], axes)
            for axes in ((), *_MIRRORS)
        ]
        vessels, anatomy = np.split(np.mean(seen, axis=0), [1], axis=1)
        enlarged = F.interpolate(torch.from_numpy(vessels), size=rgb.shape[-2:], mode="bilinear")
        return enlarged[:, 0].numpy(), anatomy
