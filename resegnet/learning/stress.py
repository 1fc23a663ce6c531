"""Stress table: how scores fall when photographs are enlarged, softened, darkened, compressed or discoloured."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from resegnet.errors import DataError
from resegnet.fov import find_fov
from resegnet.image import MAX_PIXELS
from resegnet.learning.samples import encoded, read_sample
from resegnet.segmenter import Segmenter

# Width of the Gaussian that gives a pixel's surroundings, as a share of the field's diameter. A main vessel takes up
# about 1/80 of the diameter, so its contrast is cut with that of the finest one.
_SURROUNDINGS = 0.05

# Training scores only photographs up to this size under stress: a larger one takes minutes, and once enlarged three
# times most are beyond `MAX_PIXELS`.
SMALL_PIXELS = 1_500_000


@dataclass(frozen=True)
class Stress:
    """One way in which a photograph can be worse than those that a model was trained on.

    The changes are made in the order of the fields.
    """

    name: str
    enlarged: float = 1.0  # factor, cubic
    softened: float = 0.0  # standard deviation of a Gaussian, as a share of the field's diameter
    contrast: float = 1.0  # factor on the difference of each pixel from its surroundings
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factors on red, green and blue
    jpeg_quality: int | None = None  # quality of Pillow's JPEG encoder


STRESSES = (
    Stress("as it is"),
    Stress("enlarged 1.5 times", enlarged=1.5),
    Stress("enlarged 2 times", enlarged=2.0),
    Stress("enlarged 3 times", enlarged=3.0),
    Stress("softened by 0.15 %", softened=0.0015),
    Stress("softened by 0.3 %", softened=0.003),
    Stress("enlarged 3 times, softened by 0.3 %", enlarged=3.0, softened=0.003),
    Stress("contrast cut to 0.45", contrast=0.45),
    Stress("darkened to 0.3", gain=(0.3, 0.3, 0.3)),
    Stress("JPEG of quality 30", jpeg_quality=30),
    Stress("colour cast", gain=(0.75, 1.0, 1.6)),
)


def apply_stress(image: np.ndarray, stress: Stress) -> np.ndarray:
    """Return a degraded copy of a photograph.

    Parameters
    ----------
    image
        (H, W, 3) uint8, RGB.
    stress
        What to do to it.

    Returns
    -------
    degraded
        (h, w, 3) uint8, RGB, with h and w the rounded products of H and W with `stress.enlarged`.
    """
    if stress.enlarged != 1:
        image = np.asarray(Image.fromarray(image).resize(_enlarged_size(image, stress), Image.Resampling.BICUBIC))
    if stress.softened or stress.contrast != 1:
        columns = np.flatnonzero(find_fov(image).any(axis=0))
        diameter = columns[-1] - columns[0] + 1 if columns.size else image.shape[1]
        pixels = image.astype(np.float32)
        if stress.softened:
            pixels = _blurred(pixels, stress.softened * diameter)
        if stress.contrast != 1:
            surroundings = _blurred(pixels, _SURROUNDINGS * diameter)
            pixels = surroundings + stress.contrast * (pixels - surroundings)
        image = _as_uint8(pixels)
    if stress.gain != (1, 1, 1):
        image = _as_uint8(image * np.asarray(stress.gain, np.float32))
    if stress.jpeg_quality is not None:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=stress.jpeg_quality)
        image = np.asarray(Image.open(file))
    return image


def stress_table(
    segmenter: Segmenter, dataset: Dataset, stresses: Sequence[Stress] = STRESSES, *, progress: bool = True
) -> list[dict[str, Any]]:
    """Score a segmenter on a data set under each stress, at one threshold.

    Pixels are counted as in `resegnet.learning.evaluation.evaluate_dataset`: inside the field of view, at the size of
    the photograph as it was: the probability of an enlarged photograph is scaled back before the threshold.

    Parameters
    ----------
    segmenter
        With its threshold.
    dataset
        From `resegnet.learning.data.load_vessels`.
    stresses
        Rows of the table.
    progress
        Show a bar on stderr.

    Returns
    -------
    rows
        One for each stress: `stress` (name), `count` (photographs scored), `left_out` (photographs that would be larger
        than `resegnet.image.MAX_PIXELS` once enlarged), `f1` and `recall` pooled over all pixels, `worst_f1` and
        `worst_image_id` of the photograph with the lowest F1. Scores are in [0, 1], and None where nothing was scored.

    Raises
    ------
    resegnet.errors.DataError
        If the data set is empty.
    """
    if not len(dataset):
        raise DataError("The data set holds no photograph. Choose a split that does.")
    counts: dict[str, list[_Counts]] = {stress.name: [] for stress in stresses}
    for index in tqdm(range(len(dataset)), desc="stress", unit="photograph", disable=None if progress else True):
        sample = read_sample(dataset[index])
        for stress in stresses:
            width, height = _enlarged_size(sample.image, stress)
            if width * height <= MAX_PIXELS:
                pixels = count_under_stress(segmenter, sample.image, sample.vessels, sample.fov, stress)
                counts[stress.name].append(_Counts(sample.image_id, *pixels))
    return [_row(name, rows, len(dataset)) for name, rows in counts.items()]


def count_under_stress(
    segmenter: Segmenter, image: np.ndarray, vessels: np.ndarray, field: np.ndarray | None, stress: Stress
) -> tuple[int, int, int]:
    """Count the vessel pixels of a degraded photograph, at the size that it had before.

    Parameters
    ----------
    segmenter
        With its threshold.
    image
        (H, W, 3) uint8, RGB, not degraded yet.
    vessels
        Reference, (H, W) bool.
    field
        Field of view to count in, (H, W) bool; None for the one that is found in the degraded photograph.
    stress
        What to do to the photograph.

    Returns
    -------
    hits, found, traced
        Pixels inside the field that are vessel in both, in the mask found, in the reference.
    """
    result = segmenter(apply_stress(image, stress))
    probability = _resized(result.probability * result.fov, vessels.shape)
    inside = _resized(result.fov, vessels.shape) >= 0.5 if field is None else field
    found, traced = (probability >= result.threshold) & inside, vessels & inside
    return tuple(int(np.count_nonzero(mask)) for mask in (found & traced, found, traced))  # type: ignore[return-value]


def small_photographs(dataset: Dataset, limit: int) -> Dataset:
    """Return up to `limit` rows whose photographs have at most `SMALL_PIXELS` pixels, spread evenly over the data set.

    An unreadable photograph counts as small, so that scoring reports it.
    """
    small = [index for index, cell in enumerate(dataset.select_columns("image")) if _is_small(cell["image"])]
    places = np.linspace(0, len(small) - 1, min(limit, len(small))).astype(int)
    return dataset.select([small[place] for place in places])


def _is_small(cell: Mapping[str, Any]) -> bool:
    try:
        with Image.open(io.BytesIO(encoded(cell))) as picture:
            return picture.width * picture.height <= SMALL_PIXELS
    except OSError:
        return True


def format_stress_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay the rows of `stress_table` out as plain text for a terminal."""
    width = max(len(row["stress"]) for row in rows)
    lines = [f"{'':<{width}} {'F1':>7} {'sensitivity':>11} {'lowest':>7}  photograph with the lowest F1"]
    for row in rows:
        columns = {"f1": 7, "recall": 11, "worst_f1": 7}
        scores = (f"{'-' if row[key] is None else format(row[key], '.4f'):>{size}}" for key, size in columns.items())
        note = f" ({row['left_out']} too large once enlarged)" if row["left_out"] else ""
        lines.append(f"{row['stress']:<{width}} {' '.join(scores)}  {row['worst_image_id'] or '-'}{note}")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Counts:
    """Pixels of one degraded photograph inside its field of view."""

    image_id: str
    hits: int  # vessel in mask and reference
    found: int  # vessel in the mask
    vessels: int  # vessel in the reference


def _row(name: str, pictures: Sequence[_Counts], total: int) -> dict[str, Any]:
    hits, found, vessels = (sum(getattr(picture, key) for picture in pictures) for key in ("hits", "found", "vessels"))
    scored = [
        (score, each.image_id) for each in pictures if (score := _f1(each.hits, each.found, each.vessels)) is not None
    ]
    worst_f1, worst_image_id = min(scored, default=(None, None))
    return {
        "stress": name,
        "count": len(pictures),
        "left_out": total - len(pictures),
        "f1": _f1(hits, found, vessels),
        "recall": hits / vessels if vessels else None,
        "worst_f1": worst_f1,
        "worst_image_id": worst_image_id,
    }


def _f1(hits: int, found: int, vessels: int) -> float | None:
    return 2 * hits / (found + vessels) if found + vessels else None


def _enlarged_size(image: np.ndarray, stress: Stress) -> tuple[int, int]:
    """Width and height, as Pillow takes them."""
    height, width = image.shape[:2]
    return round(width * stress.enlarged), round(height * stress.enlarged)


def _resized(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Scale (h, w) float32 or bool to `shape` (H, W), bilinear and antialiased; float32."""
    plane = plane.astype(np.float32)
    if plane.shape == shape:
        return plane
    return np.asarray(Image.fromarray(plane).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def _blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Blur (H, W, 3) float32 by a Gaussian; a wide one on a reduced copy, which gives the same in far less time."""
    step = max(1, math.floor(sigma / 8))
    height, width = pixels.shape[:2]
    layers = []
    for channel in range(3):
        layer = Image.fromarray(np.ascontiguousarray(pixels[..., channel]))
        small = np.asarray(layer.resize((-(-width // step), -(-height // step)), Image.Resampling.BOX))
        smooth = Image.fromarray(ndimage.gaussian_filter(small, sigma / step, truncate=3))
        layers.append(np.asarray(smooth.resize((width, height), Image.Resampling.BICUBIC)))
    return np.stack(layers, axis=-1)


def _as_uint8(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)
