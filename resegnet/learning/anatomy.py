"""Labels of arteries and veins, optic disc and fovea, for a network of two looks."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image

from resegnet.config import Config
from resegnet.errors import DataError
from resegnet.image import read_image
from resegnet.io import json_lines, read_arrays, write_atomically
from resegnet.learning.samples import encoded, folder_beside, photograph_sha256
from resegnet.results.anatomy import ARTERY, VEIN
from resegnet.segmenter import prepare_context, prepare_input
from resegnet.version import __version__

logger = logging.getLogger(__name__)

# Photographs of one eye at one sitting correlate up to 0.99 as thumbnails, copies of one photograph above 0.995.
SAME_PHOTOGRAPH = 0.995


@dataclass(frozen=True)
class AnatomySample:
    """A photograph scaled to the context, with what is known of its disc and fovea.

    `planes` is (4, C, C) uint8: red, green, blue, field; or (5, C, C) with the mask of the disc. The centres are (2,)
    float, row and column, px of the context; None where unknown. `kinds` is (2, C, C) uint8, arteries and veins that a
    model told, or None. `sha256` is that of the photograph, see `photograph_sha256`. `in_training` is True if vessels
    are learned from a copy of it.
    """

    planes: np.ndarray
    disc_centre: np.ndarray | None
    fovea_centre: np.ndarray | None
    image_id: str
    kinds: np.ndarray | None = None
    sha256: str = ""
    in_training: bool = False


def find_kinds(source: str | os.PathLike[str]) -> Path | None:
    """Return the folder `artery_vein` inside a data set's folder or beside it, or None."""
    return folder_beside(source, "artery_vein")


def read_kinds(path: Path, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Read masks of arteries and of veins, (H, W) bool, from a picture of classes; class 3, a crossing, is in both.

    Raises
    ------
    DataError
        If it cannot be read, or is of another size.
    """
    classes = _read_plane(path, shape, None, "a picture of the classes 0 to 3")
    return np.isin(classes, (ARTERY, ARTERY | VEIN)), np.isin(classes, (VEIN, ARTERY | VEIN))


def read_disc(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask of an optic disc, (H, W) bool, True where the picture is brighter than 127.

    Raises
    ------
    DataError
        If it cannot be read, or is of another size.
    """
    return _read_plane(path, shape, "L", "a mask of the disc") > 127


def _read_plane(path: Path, shape: tuple[int, ...], mode: str | None, expected: str) -> np.ndarray:
    """Read a picture of this shape, in its own mode or as `mode` of Pillow; `expected` says what it should show."""
    try:
        with Image.open(path) as picture:
            values = np.asarray(picture if mode is None else picture.convert(mode))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); expected {expected}.") from error
    if values.shape != shape:
        raise DataError(f"{path}: its shape {values.shape} differs from the photograph's, {shape}.")
    return values


def load_anatomy(
    sources: Sequence[str],
    config: Config,
    cache: Path,
    scored: Sequence[Dataset] = (),
    trained_on: Sequence[Dataset] = (),
) -> list[AnatomySample]:
    """Load photographs with known disc or fovea, of the `train` splits of image folders.

    A folder's `metadata.jsonl` names a `disc_file_name` for a photograph, or its `centres.csv` has the columns
    `image_id`, `disc_x`, `disc_y`, `fovea_x`, `fovea_y`, px. A photograph of which `scored` or a `test` split of these
    folders holds a copy, in other bytes too, is left out; so is a second copy. All of it is kept in the folder `cache`.

    Parameters
    ----------
    sources
        The image folders.
    config
        Sizes of the network.
    cache
        Folder to keep the photographs in.
    scored
        Rows of `load_vessels` that are validated on or scored.
    trained_on
        Rows of `load_vessels` that are trained on: copies of them are marked `in_training`.

    Raises
    ------
    DataError
        If a folder holds none, a file cannot be read, or a disc is of another size than its photograph.
    """
    path = cache / f"anatomy_{_digest(sources, config, (scored, trained_on))}.npz"
    if (cached := _load(path)) is not None:
        return cached
    samples: list[AnatomySample] = []
    known = [_thumbnail(image) for source in sources for _, image, _ in photographs_of(Path(source), "test")]
    known += _thumbnails(scored)
    trained = _thumbnails(trained_on)
    copies = 0
    for source in sources:
        centres = read_centres(Path(source))
        found = 0
        for image_id, image, disc_path in photographs_of(Path(source), "train"):
            found += 1
            thumbnail = _thumbnail(image)
            if _is_copy(thumbnail, known):
                copies += 1
                continue
            known.append(thumbnail)
            sample = _sample(image_id, image, disc_path, centres.get(image_id), config)
            in_training = _is_copy(thumbnail, trained)
            samples.append(replace(sample, sha256=photograph_sha256(image), in_training=in_training))
        if not found:
            raise DataError(f"{source} holds no photographs in train/; expected an image folder with metadata.jsonl.")
    if copies:
        logger.info(
            "left out %d photographs with disc or fovea that are copies of others, or of photographs to validate on or "
            "score", copies,
        )  # fmt: skip
    samples = [sample for sample in samples if len(sample.planes) == 5 or _has_centre(sample)]
    _save(samples, path)
    return samples


def split_anatomy(
    samples: Sequence[AnatomySample], fraction: float, seed: int
) -> tuple[list[AnatomySample], list[AnatomySample]]:
    """Split about a fraction of the photographs off; which ones depends on the seed and each one's id alone.

    A photograph from which vessels are learned stays in training: scores on it would be optimistic.

    Parameters
    ----------
    samples
        Photographs to split.
    fraction
        Share to hold back for validation, [0, 1].
    seed
        Any whole number.

    Returns
    -------
    train, validation
        Both in the order of the given photographs.
    """
    train: list[AnatomySample] = []
    validation: list[AnatomySample] = []
    for sample in samples:
        digest = hashlib.sha256(f"{seed}\nanatomy\n{sample.image_id}".encode()).digest()
        chosen = int.from_bytes(digest[:4]) < fraction * 2**32 and not sample.in_training
        (validation if chosen else train).append(sample)
    return train, validation


def _has_centre(sample: AnatomySample) -> bool:
    return sample.disc_centre is not None or sample.fovea_centre is not None


def _digest(sources: Sequence[str], config: Config, compared: Sequence[Sequence[Dataset]]) -> str:
    """Return the SHA-256 of the lists in the folders, of the sizes, and of the photographs that they are compared with.

    The folders' own pictures are not read.
    """
    sizes = (config.input_size, config.smallest_input_size, config.context_size, __version__)
    digest = hashlib.sha256(repr(sizes).encode())
    for source in sources:
        for path in sorted([*Path(source).glob("*/metadata.jsonl"), *Path(source).glob("centres.csv")]):
            digest.update(path.read_bytes())
    for part in compared:
        pictures = [hashlib.sha256(encoded(cell)).hexdigest() for cell in _pictures(part)]
        digest.update(repr(pictures).encode())
    return digest.hexdigest()


def _save(samples: Sequence[AnatomySample], path: Path) -> None:
    """Write samples to one file, for `_load`."""
    unknown = np.full(2, np.nan)
    centres = [
        [unknown if centre is None else centre for centre in (sample.disc_centre, sample.fovea_centre)]
        for sample in samples
    ]
    side = samples[0].planes.shape[-1] if samples else 0
    discs = [sample.planes[4:] for sample in samples if len(sample.planes) == 5]
    content = io.BytesIO()
    np.savez(
        content,
        planes=np.array([sample.planes[:4] for sample in samples], np.uint8).reshape(-1, 4, side, side),
        discs=np.array(discs, np.uint8).reshape(-1, 1, side, side),
        with_disc=np.array([len(sample.planes) == 5 for sample in samples], bool),
        centres=np.array(centres).reshape(-1, 2, 2),
        ids=np.array([sample.image_id for sample in samples], str),
        sha256=np.array([sample.sha256 for sample in samples], str),
        in_training=np.array([sample.in_training for sample in samples], bool),
    )
    write_atomically(path, content.getvalue())


def _load(path: Path) -> list[AnatomySample] | None:
    """Read a file that `_save` wrote. None if it is absent or damaged."""
    arrays = read_arrays(path)
    if arrays is None:
        return None
    discs = iter(arrays["discs"])
    names = ("planes", "with_disc", "centres", "ids", "sha256", "in_training")
    rows = zip(*(arrays[name] for name in names), strict=True)
    return [
        AnatomySample(
            np.concatenate([planes, next(discs)]) if with_disc else planes,
            None if np.isnan(centres[0]).any() else centres[0],
            None if np.isnan(centres[1]).any() else centres[1],
            str(image_id),
            sha256=str(sha256),
            in_training=bool(in_training),
        )
        for planes, with_disc, centres, image_id, sha256, in_training in rows
    ]


def photographs_of(
    source: Path, split: str, only: Collection[str] | None = None
) -> Iterator[tuple[str, np.ndarray, Path | None]]:
    """Yield id, picture and disc file of each photograph of a split, or of those in `only`; none without that split.

    Raises
    ------
    DataError
        If the list of the split, or a photograph, cannot be read.
    """
    path = source / split / "metadata.jsonl"
    if not path.is_file():
        return
    try:
        for row in json_lines(path.read_bytes()):
            name = row.get("image_file_name") or row["file_name"]
            disc = path.parent / row["disc_file_name"] if row.get("disc_file_name") else None
            image_id = str(row.get("image_id") or Path(name).stem)
            if only is None or image_id in only:
                yield image_id, read_image(path.parent / name), disc
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be used ({error!r}); expected a line of JSON for each photograph.") from error


def read_centres(source: Path) -> dict[str, dict[str, float]]:
    """Return `disc_x`, `disc_y`, `fovea_x` and `fovea_y` by id, px, nan where unknown, from the folder's `centres.csv`.

    Raises
    ------
    DataError
        If the file cannot be read, or lacks a column.
    """
    path = source / "centres.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {
                row["image_id"]: {
                    name: float(row[name] or "nan") for name in ("disc_x", "disc_y", "fovea_x", "fovea_y")
                }
                for row in csv.DictReader(file)
            }
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be used ({error!r}); expected image_id, disc_x, disc_y, ...") from error


def _sample(
    image_id: str, image: np.ndarray, disc_path: Path | None, centres: dict[str, float] | None, config: Config
) -> AnatomySample:
    _, fov, geometry = prepare_input(image, config)
    context = prepare_context(image, geometry, config)
    assert context is not None
    assert config.context_size is not None
    geometry = geometry.with_input_size(config.context_size)
    masks = [fov.mask]
    if disc_path is not None:
        masks.append(read_disc(disc_path, image.shape[:2]))
    scaled = [np.round(geometry.to_input(mask) * 255).astype(np.uint8) for mask in masks]
    top, left, side = geometry.box

    def centre(name: str) -> np.ndarray | None:
        if centres is None or not (math.isfinite(centres[f"{name}_x"]) and math.isfinite(centres[f"{name}_y"])):
            return None
        position = np.array([centres[f"{name}_y"] - top, centres[f"{name}_x"] - left])
        return position * geometry.input_size / side

    return AnatomySample(np.stack([*context.transpose(2, 0, 1), *scaled]), centre("disc"), centre("fovea"), image_id)


def _pictures(parts: Sequence[Dataset]) -> Iterator[dict[str, Any]]:
    for rows in parts:
        for row in rows.select_columns("image"):
            yield row["image"]


def _thumbnails(parts: Sequence[Dataset]) -> list[np.ndarray]:
    return [_thumbnail(read_image(encoded(cell))) for cell in _pictures(parts)]


def _is_copy(thumbnail: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    return any(float(thumbnail @ other) > SAME_PHOTOGRAPH for other in others)


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """(4800,) float32 of length 1 and mean 0, by which copies of a photograph are known."""
    small = np.asarray(Image.fromarray(image).resize((40, 40), Image.Resampling.BOX), np.float32).ravel()
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)
