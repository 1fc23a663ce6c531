"""Photographs without references, labelled by models: training data for cameras without manual segmentations."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from resegnet.cohort.photograph import free_name
from resegnet.dicom import is_dicom
from resegnet.engine import Network, TwoLookNetwork
from resegnet.errors import DataError, ImageError, ReleaseError
from resegnet.hub import TRAINING_NAME
from resegnet.image import SUFFIXES
from resegnet.io import atomic_folder, png, read_json, write_atomically
from resegnet.releases.records import as_list, read_record, release_name, teacher_record, unknown_teacher
from resegnet.segmenter import Segmenter

LABELLED_BY_NAME = "labelled_by.json"  # of a folder that `label` makes: the releases that drew its vessel masks

logger = logging.getLogger(__name__)


def label(
    segmenters: Sequence[Segmenter], source: Path, destination: Path, limit: int | None = None
) -> tuple[int, int]:
    """Make a data set of photographs and the vessel masks that an ensemble of models finds in them.

    The ensemble's probability is the mean over the models, each applied to the photograph and its mirror images (see
    `MirroredNetwork`). Its threshold is the mean of the models' thresholds. Photographs with a warning are left out,
    because the models are unreliable on them. Pseudo-labels: Lee 2013, ICML Workshop on Challenges in Representation
    Learning.

    Photographs are copied byte by byte, but DICOM files, which say whose eye they show, become PNG. `labelled_by.json`
    names the models and what they learned from, for the record and the licence of a network that learns from the masks.

    Parameters
    ----------
    segmenters
        One or more models, of one look or of two, of any working sizes.
    source
        Folder of photographs, searched with all folders below it.
    destination
        Folder to make, an image folder for `resegnet.learning.data.load_vessels` with the split `train` only. It
        appears when it is complete.
    limit
        Largest number of photographs to label, chosen evenly over the sorted names; None labels all.

    Returns
    -------
    labelled, left_out
        Numbers of photographs.

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
        raise DataError(f"{source} holds no photograph. Give a folder of photographs.")
    if destination.exists():
        raise DataError(f"{destination} exists already. Remove it or name another folder.")
    if limit is not None and limit < len(paths):
        paths = [paths[index] for index in np.linspace(0, len(paths) - 1, limit).astype(int)]
    threshold = float(np.mean([segmenter.config.threshold for segmenter in segmenters]))
    mirrored = [Segmenter(MirroredNetwork(segmenter.network), segmenter.config) for segmenter in segmenters]
    records = [_record_of(segmenter) for segmenter in segmenters]

    with atomic_folder(destination) as folder:
        lines = _write_labelled(mirrored, threshold, source, paths, folder / "train", destination.name)
        if not lines:
            raise DataError(f"None of the {len(paths)} photographs in {source} can be labelled: see the lines above.")
        write_atomically(folder / LABELLED_BY_NAME, (json.dumps(records, indent=2) + "\n").encode())
    return len(lines), len(paths) - len(lines)


def read_labelled_by(source: str) -> list[dict[str, Any]]:
    """Return the records of the models that labelled an image folder, as `teacher_record` makes them.

    A source without `labelled_by.json` was labelled by something unknown, of which one record is returned.

    Raises
    ------
    DataError
        If the file cannot be read, or holds something else.
    """
    if source == "synthetic":  # the drawing knows its vessels
        return []
    folder = Path(os.path.expanduser(source))
    path = folder / LABELLED_BY_NAME
    if not path.is_file():
        return [unknown_teacher(folder.name or source)]
    try:
        records = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); label the photographs again.") from error
    if not as_list(records) or not all(isinstance(record, dict) and record.get("name") for record in records):
        raise DataError(f"{path}: expected a list of the models that labelled the photographs; label them again.")
    return records


def _record_of(segmenter: Segmenter) -> dict[str, Any]:
    """Return name and training data of a model; without paths, because the records of training runs are published."""
    try:
        training = read_record(segmenter.folder / TRAINING_NAME) if segmenter.folder else {}
    except ReleaseError:  # its training data are not known
        training = {}
    return teacher_record(release_name(segmenter.model) or "a model without a name", training)


def _write_labelled(
    segmenters: Sequence[Segmenter],
    threshold: float,
    source: Path,
    paths: Sequence[Path],
    folder: Path,
    dataset: str,
) -> list[str]:
    """Write the photographs that can be labelled, their masks and `metadata.jsonl`, and return its lines."""
    folder.mkdir()
    lines: list[str] = []
    taken: dict[str, int] = {}
    for path in tqdm(paths, desc="labelling", unit="picture", disable=None):
        try:
            results = [segmenter(path) for segmenter in segmenters]
        except ImageError as error:
            logger.warning("%s", error)
            continue
        mask = (np.mean([result.probability for result in results], axis=0) >= threshold) & results[0].fov
        warnings = dict.fromkeys(warning for result in results for warning in result.warnings)
        if warnings or not mask.any():
            logger.warning("%s is left out: %s", path, " ".join(warnings) or "no vessels found.")
            continue
        name = free_name("_".join(path.relative_to(source).with_suffix("").parts), taken)
        content, suffix = path.read_bytes(), path.suffix.lower()
        if is_dicom(content):
            content, suffix = png(results[0].image), ".png"
        files = {"image_file_name": f"{name}{suffix}", "mask_file_name": f"{name}_mask.png"}
        write_atomically(folder / files["image_file_name"], content)
        write_atomically(folder / files["mask_file_name"], png(mask.astype(np.uint8) * 255))
        lines.append(json.dumps({"image_id": name, "patient": name, "dataset": dataset, **files}))
    write_atomically(folder / "metadata.jsonl", "".join(line + "\n" for line in lines).encode())
    return lines


class MirroredNetwork:
    """Averages a network over a picture and its three mirror images, at four times the cost.

    Parameters
    ----------
    network
        As `Segmenter.network`, of one look or of two.
    """

    _MIRRORS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))  # axes that are flipped

    def __init__(self, network: Network) -> None:
        self._network = network

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Return the vessel probability, (N, S, S) float32, of RGB, (N, 3, S, S) float32 in [0, 1]."""
        return np.mean([flip(self._network(flip(rgb, axes)), axes) for axes in self._MIRRORS], axis=0)

    def look_twice(self, rgb: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run a network of two looks, see `resegnet.engine.TorchNetwork.look_twice`."""
        assert isinstance(self._network, TwoLookNetwork)  # as its config says
        found = [
            [flip(part, axes) for part in self._network.look_twice(flip(rgb, axes), flip(context, axes))]
            for axes in self._MIRRORS
        ]
        probability, anatomy = (np.mean(parts, axis=0) for parts in zip(*found, strict=True))
        return probability, anatomy


def flip(pictures: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Mirror pictures, (..., H, W), along some axes, in new memory."""
    return np.ascontiguousarray(np.flip(pictures, axes))
