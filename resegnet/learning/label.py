"""Photographs without references, labelled by models: training material of cameras that nobody has traced."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from resegnet.cohort.photograph import free_name
from resegnet.errors import DataError, ImageError
from resegnet.image import SUFFIXES, read_image
from resegnet.io import png
from resegnet.segmenter import Segmenter

logger = logging.getLogger(__name__)


def label(segmenters: Sequence[Segmenter], source: Path, destination: Path, limit: int | None = None) -> int:
    """Make an image folder of photographs and the vessels that an ensemble of models finds in them.

    The ensemble's probability is the mean over the models, each asked for the photograph and its three mirrorings
    (see `mirrored`), and its threshold the mean of theirs. Photographs with a warning are left out: a model that is
    unsure of the picture is no teacher. Pseudo-labels: Lee 2013, ICML Workshop on Challenges in Representation
    Learning.

    Parameters
    ----------
    segmenters
        One or more, of one working size.
    source
        Folder of photographs, searched wholly.
    destination
        Folder to make, in the form that `resegnet.learning.data.load_vessels` reads, with `train` alone. It appears
        only once it is whole.
    limit
        Largest number of photographs to label, chosen evenly over the sorted names; None labels all.

    Returns
    -------
    count
        Photographs labelled.

    Raises
    ------
    DataError
        If the source holds no photograph, or the destination something.
    """
    source, destination = Path(source), Path(destination)
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{source} holds no photograph. Give a folder of pictures.")
    if destination.exists():
        raise DataError(f"{destination} is there already. Remove it or name another folder.")
    if limit is not None and limit < len(paths):
        paths = [paths[index] for index in np.linspace(0, len(paths) - 1, limit).astype(int)]
    threshold = float(np.mean([segmenter.config.threshold for segmenter in segmenters]))
    networks = [mirrored(segmenter.network) for segmenter in segmenters]
    teacher = Segmenter(lambda rgb: np.mean([network(rgb) for network in networks], axis=0), segmenters[0].config)

    partial = destination.with_name(destination.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    (partial / "train").mkdir(parents=True)
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
        shutil.copyfile(path, partial / "train" / files["image_file_name"])
        (partial / "train" / files["mask_file_name"]).write_bytes(png(mask.astype(np.uint8) * 255))
        lines.append(json.dumps({"image_id": name, "patient": name, "dataset": destination.name, **files}))
    (partial / "train" / "metadata.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    partial.replace(destination)
    return len(lines)


def mirrored(network: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A network, (N, 3, S, S) to (N, S, S), averaged over a picture and its three mirrorings: dearer by four times."""

    def average(rgb: np.ndarray) -> np.ndarray:
        total = np.zeros((len(rgb), *rgb.shape[2:]), np.float32)
        for axes in ((), (-1,), (-2,), (-2, -1)):
            total += np.flip(network(np.ascontiguousarray(np.flip(rgb, axes))), axes)
        return total / 4

    return average
