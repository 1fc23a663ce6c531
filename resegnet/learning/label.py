"""Photographs without references, labelled by models: training data for cameras without manual segmentations."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from resegnet.cohort.photograph import free_name
from resegnet.engine import Network, TwoLookNetwork
from resegnet.errors import DataError, ImageError
from resegnet.image import SUFFIXES, read_image
from resegnet.io import atomic_folder, png, write_atomically
from resegnet.segmenter import Segmenter

logger = logging.getLogger(__name__)


def label(segmenters: Sequence[Segmenter], source: Path, destination: Path, limit: int | None = None) -> int:
    """Make a data set of photographs and the vessel masks that an ensemble of models finds in them.

    The ensemble's probability is the mean over the models, each applied to the photograph and its mirror images (see
    `mirrored`). Its threshold is the mean of the models' thresholds. Photographs with a warning are left out, because
    the models are unreliable on them. Pseudo-labels: Lee 2013, ICML Workshop on Challenges in Representation Learning.

    Parameters
    ----------
    segmenters
        One or more models, of the same working size.
    source
        Folder of photographs, searched with all folders below it.
    destination
        Folder to make, an image folder for `resegnet.learning.data.load_vessels` with the split `train` only. It
        appears when it is complete.
    limit
        Largest number of photographs to label, chosen evenly over the sorted names; None labels all.

    Returns
    -------
    count
        Number of photographs labelled.

    Raises
    ------
    DataError
        If the source holds no photograph, or the destination exists.
    OSError
        If a file cannot be written.
    """
    source, destination = Path(source), Path(destination)
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{source} holds no photograph. Give a folder of pictures.")
    if destination.exists():
        raise DataError(f"{destination} exists already. Remove it or name another folder.")
    if limit is not None and limit < len(paths):
        paths = [paths[index] for index in np.linspace(0, len(paths) - 1, limit).astype(int)]
    threshold = float(np.mean([segmenter.config.threshold for segmenter in segmenters]))
    teacher = Segmenter(MirroredEnsemble([segmenter.network for segmenter in segmenters]), segmenters[0].config)

    with atomic_folder(destination) as folder:
        lines = _write_labelled(teacher, threshold, source, paths, folder / "train", destination.name)
    return len(lines)


def _write_labelled(
    teacher: Segmenter, threshold: float, source: Path, paths: Sequence[Path], folder: Path, dataset: str
) -> list[str]:
    """Write the photographs that can be labelled, their masks and `metadata.jsonl`, and return its lines."""
    folder.mkdir()
    lines: list[str] = []
    taken: dict[str, int] = {}
    for path in tqdm(paths, desc="labelling", unit="picture", disable=None):
        try:
            result = teacher(read_image(path))
        except ImageError as error:
            logger.warning("%s", error)
            continue
        mask = result.at(threshold).mask
        if result.warnings or not mask.any():
            logger.warning("%s is left out: %s", path, " ".join(result.warnings) or "no vessels found.")
            continue
        name = free_name("_".join(path.relative_to(source).with_suffix("").parts), taken)
        files = {"image_file_name": f"{name}{path.suffix.lower()}", "mask_file_name": f"{name}_mask.png"}
        shutil.copyfile(path, folder / files["image_file_name"])
        write_atomically(folder / files["mask_file_name"], png(mask.astype(np.uint8) * 255))
        lines.append(json.dumps({"image_id": name, "patient": name, "dataset": dataset, **files}))
    write_atomically(folder / "metadata.jsonl", "".join(line + "\n" for line in lines).encode())
    return lines


class MirroredEnsemble:
    """Averages networks over a picture and its three mirror images, at four times the cost of all of them.

    Parameters
    ----------
    networks
        Functions as `Segmenter.network`, all of one look or all of two.
    """

    _MIRRORS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))  # axes that are flipped

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Return the vessel probability, (N, S, S) float32, of RGB, (N, 3, S, S) float32 in [0, 1]."""
        found = [flip(network(flip(rgb, axes)), axes) for network in self._networks for axes in self._MIRRORS]
        return np.mean(found, axis=0)

    def look_twice(self, rgb: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run networks of two looks, see `resegnet.engine.TorchNetwork.look_twice`."""
        found: list[list[np.ndarray]] = []
        for network in self._networks:
            assert isinstance(network, TwoLookNetwork)  # as the config says that takes `label` here
            for axes in self._MIRRORS:
                looks = network.look_twice(flip(rgb, axes), flip(context, axes))
                found.append([flip(part, axes) for part in looks])
        probability, anatomy = (np.mean(parts, axis=0) for parts in zip(*found, strict=True))
        return probability, anatomy


def flip(pictures: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Mirror pictures, (..., H, W), along some axes, in new memory."""
    return np.ascontiguousarray(np.flip(pictures, axes))
