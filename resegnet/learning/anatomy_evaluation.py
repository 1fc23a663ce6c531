"""Scores of arteries and veins, optic disc, fovea and eye, in the photograph's own frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from tqdm import tqdm

from resegnet.errors import ArgumentError, DataError
from resegnet.hub import TRAINING_NAME
from resegnet.learning.anatomy import find_kinds, photographs_of, read_centres, read_disc, read_kinds
from resegnet.learning.anatomy_scores import DISC_DIAMETER
from resegnet.releases.records import as_list, read_record, training_runs
from resegnet.results.agreement import COMPARED_KINDS, compare_numbers, format_rows
from resegnet.results.anatomy import ARTERY, VEIN, Place, disc_of, tell_eye
from resegnet.results.measure import measure_anatomy
from resegnet.results.measures import Measures
from resegnet.results.segmentation import Segmentation
from resegnet.segmenter import Segmenter

HELD_BACK = "validation"  # the split of photographs of `train` that the training of the model held back

KINDS_PROTOCOL = (
    "Artery F1 and vein F1 count the pixels inside the field of view, of all photographs together, of the arteries and "
    "of the veins found against those of the reference. A reference pixel of class 3 (both) counts for both kinds, and "
    "so does one that ReSegNet calls both. Accuracy and confusion count only pixels that are found as vessel and have "
    "one kind in the reference, class 1 or 2; to call such a pixel both is wrong. Numbers of both are "
    "measured with the disc and the fovea that ReSegNet found, since these references have none."
)
PLACES_PROTOCOL = (
    "Disc Dice is the mean over the photographs, 0 where no disc was found. Distances are in diameters of the "
    f"reference's disc, where only its centre is known in {DISC_DIAMETER} sides of the square round the field. A place "
    "that was not found is not within half a diameter. Eyes count where the reference has disc and fovea and both were "
    "found; one that was not told is wrong."
)


@dataclass
class KindScores:
    """Counts of arteries and veins over photographs.

    Attributes
    ----------
    hits, found, traced
        (2,) int, artery and vein: pixels of this kind in both, in the mask found, in the reference.
    confusion
        (2, 3) int: a row for each kind of the reference, artery and vein, and a column for each that was told: artery,
        vein, both.
    pictures
        Id and scores of each photograph.
    found_numbers, traced_numbers
        Measures of the kinds found and of the reference, where they were asked for.
    """

    hits: np.ndarray = field(default_factory=lambda: np.zeros(2, int))
    found: np.ndarray = field(default_factory=lambda: np.zeros(2, int))
    traced: np.ndarray = field(default_factory=lambda: np.zeros(2, int))
    confusion: np.ndarray = field(default_factory=lambda: np.zeros((2, 3), int))
    pictures: list[dict[str, Any]] = field(default_factory=list)
    found_numbers: list[Measures] = field(default_factory=list)
    traced_numbers: list[Measures] = field(default_factory=list)

    def add(self, image_id: str, kinds: np.ndarray, reference: tuple[np.ndarray, np.ndarray], fov: np.ndarray) -> None:
        """Count one photograph.

        Parameters
        ----------
        image_id
            Its name in the report.
        kinds
            (H, W) uint8, as `resegnet.Segmentation.kinds`.
        reference
            Arteries and veins, (H, W) bool each; crossings are in both.
        fov
            (H, W) bool, the field that counts.
        """
        one = KindScores()
        for place, (bit, traced) in enumerate(zip((ARTERY, VEIN), reference, strict=True)):
            told = (kinds & bit != 0) & fov
            one.hits[place] = np.count_nonzero(told & traced)
            one.found[place] = np.count_nonzero(told)
            one.traced[place] = np.count_nonzero(traced & fov)
            single = traced & ~reference[1 - place] & fov
            one.confusion[place] = np.bincount(kinds[single], minlength=4)[1:4]
        for name in ("hits", "found", "traced", "confusion"):
            setattr(self, name, getattr(self, name) + getattr(one, name))
        self.pictures.append({"image_id": image_id, **one.scores()})

    def scores(self) -> dict[str, float]:
        """Return `artery_f1`, `vein_f1` and `accuracy`, [0, 1]; nan where nothing was found nor traced."""
        artery, vein = (
            float(2 * hits / total) if total else math.nan
            for hits, total in zip(self.hits, self.found + self.traced, strict=True)
        )
        total = int(self.confusion.sum())
        right = int(self.confusion[0, 0] + self.confusion[1, 1])
        return {"artery_f1": artery, "vein_f1": vein, "accuracy": right / total if total else math.nan}

    def report(self) -> dict[str, Any] | None:
        """Return pooled scores, confusion, agreement of the numbers, and each photograph; None without photographs."""
        if not self.pictures:
            return None
        numbers = None
        if self.found_numbers:
            agreement = compare_numbers(self.found_numbers, self.traced_numbers, COMPARED_KINDS)
            numbers = {"found": self.found_numbers, "traced": self.traced_numbers, "agreement": agreement}
        columns = ("artery", "vein", "both")
        confusion = {
            row: dict(zip(columns, map(int, counts), strict=True))
            for row, counts in zip(columns, self.confusion, strict=False)
        }
        return {
            "count": len(self.pictures),
            **self.scores(),
            "confusion": confusion,
            "numbers": numbers,
            "pictures": self.pictures,
            "protocol": KINDS_PROTOCOL,
        }


class PlaceRow(TypedDict):
    """Scores of one photograph; None where the reference says nothing. A distance is infinite if nothing was found."""

    image_id: str
    disc_dice: float | None
    disc_distance: float | None
    fovea_distance: float | None
    eye_right: bool | None


def score_kinds(
    scores: KindScores, image_id: str, segmentation: Segmentation, folder: Path, fov: np.ndarray, numbers: bool = False
) -> None:
    """Add one photograph to `scores` if the folder has a reference of its kinds, `<image_id>.png`.

    With `numbers`, the kinds found and those of the reference are measured too.

    Raises
    ------
    DataError
        If the reference cannot be read, or is of another size.
    """
    path = folder / f"{image_id}.png"
    if not path.is_file() or segmentation.kinds is None:
        return
    reference = read_kinds(path, fov.shape)
    scores.add(image_id, segmentation.kinds, reference, fov)
    if not numbers:
        return
    told = segmentation.kinds & ARTERY != 0, segmentation.kinds & VEIN != 0
    for rows, (arteries, veins) in ((scores.found_numbers, told), (scores.traced_numbers, reference)):
        rows.append(measure_anatomy(arteries, veins, fov, segmentation.disc, segmentation.fovea))


def kinds_folder(segmenter: Segmenter, source: str) -> Path:
    """Return the folder with the references of arteries and veins of a data set.

    Raises
    ------
    ArgumentError
        If the model tells no anatomy.
    DataError
        If the data set has no such folder.
    """
    check_tells_anatomy(segmenter)
    folder = find_kinds(source)
    if folder is None:
        raise DataError(
            f"{source} has no references of arteries and veins, expected a folder artery_vein in it or beside it with "
            "<image_id>.png: leave out --anatomy, or add them."
        )
    return folder


def has_vessels(source: str) -> bool:
    """Return False for an image folder that has references of disc or fovea only."""
    lines = _first_lines(source)
    return not lines or any("mask_file_name" in line for line in lines)


def has_places(source: str) -> bool:
    """Return True for an image folder that has references of disc or fovea."""
    return any("disc_file_name" in line for line in _first_lines(source)) or (Path(source) / "centres.csv").is_file()


def _first_lines(source: str) -> list[str]:
    """Return the first line of each list of an image folder."""
    folders = Path(source).glob("*/metadata.jsonl") if Path(source).is_dir() else ()
    return [line for path in folders for line in path.read_text(encoding="utf-8").splitlines()[:1]]


def evaluate_places(segmenter: Segmenter, source: Path, split: str) -> dict[str, Any]:
    """Score optic disc, fovea and eye on an image folder with masks of the disc or `centres.csv`.

    Parameters
    ----------
    segmenter
        Of two looks.
    source
        The folder, see `resegnet.learning.anatomy.load_anatomy`.
    split
        `train`, `test`, or `HELD_BACK`: the photographs of `train` that the training of the model held back, as its
        `training.json` lists them.

    Returns
    -------
    report
        Ready for JSON, see `summarise_places`.

    Raises
    ------
    ArgumentError
        If the model tells no anatomy.
    DataError
        If the split has no reference of disc or fovea, a file cannot be read, or the record of the model lists no
        photograph that was held back.
    """
    check_tells_anatomy(segmenter)
    centres = read_centres(source)
    only = held_back_ids(segmenter) if split == HELD_BACK else None
    rows = []
    photographs = photographs_of(source, "train" if split == HELD_BACK else split, only)
    for image_id, image, disc_path in tqdm(photographs, desc="disc and fovea", unit="picture", disable=None):
        known = centres.get(image_id, {})
        traced = None if disc_path is None else read_disc(disc_path, image.shape[:2])
        disc, fovea = (_place(known, name) for name in ("disc", "fovea"))
        if traced is not None or disc is not None or fovea is not None:
            rows.append(score_places(image_id, segmenter(image), traced, disc, fovea))
    if not rows:
        raise DataError(
            f"{source} has no photographs with disc or fovea in the split {split}; expected a metadata.jsonl with "
            "disc_file_name, or centres.csv: choose another folder or split."
        )
    return summarise_places(rows)


def score_places(
    image_id: str, result: Segmentation, traced: np.ndarray | None, disc: Place | None, fovea: Place | None
) -> PlaceRow:
    """Score one photograph by the traced mask of the disc, (H, W) bool, and the centres of disc and fovea, px."""
    assert result.anatomy is not None
    diameter = DISC_DIAMETER * result.anatomy.geometry.box[2]
    whole = None if traced is None else disc_of(traced)
    if whole is not None:
        disc, diameter = whole.centre, whole.diameter
    found = result.disc
    told_all = found is not None and result.fovea is not None
    eye = tell_eye(disc, fovea, diameter)
    dice = None
    if traced is not None:
        hits = 0 if found is None else int(np.count_nonzero(found.mask & traced))
        total = int(np.count_nonzero(traced)) + (0 if found is None else int(np.count_nonzero(found.mask)))
        dice = 2 * hits / total if total else None
    return {
        "image_id": image_id,
        "disc_dice": dice,
        "disc_distance": _distance(disc, None if found is None else found.centre, diameter),
        "fovea_distance": _distance(fovea, result.fovea, diameter),
        "eye_right": None if eye is None or not told_all else result.eye == eye,
    }


def summarise_places(rows: list[PlaceRow]) -> dict[str, Any]:
    """Return the scores over all photographs.

    `disc_dice` is the mean; `disc_median` and `fovea_median` are median distances in disc diameters, `disc_near` and
    `fovea_near` the shares within half of one, `eye_right` the share of the eyes told right. Each has a number of
    photographs, `..._count`. None for what no reference tells.
    """
    report: dict[str, Any] = {"count": len(rows)}
    dice = [row["disc_dice"] for row in rows if row["disc_dice"] is not None]
    report |= {"disc_dice_count": len(dice), "disc_dice": float(np.mean(dice)) if dice else None}
    for name in ("disc", "fovea"):
        every = (row["disc_distance"] if name == "disc" else row["fovea_distance"] for row in rows)
        distances = [distance for distance in every if distance is not None]
        median = float(np.median(distances)) if distances else math.nan
        report |= {
            f"{name}_count": len(distances),
            f"{name}_found": sum(map(math.isfinite, distances)),
            f"{name}_median": median if math.isfinite(median) else None,
            f"{name}_near": float(np.mean([one <= 0.5 for one in distances])) if distances else None,
        }
    eyes = [row["eye_right"] for row in rows if row["eye_right"] is not None]
    report |= {"eye_count": len(eyes), "eye_right": float(np.mean(eyes)) if eyes else None}
    pictures = [
        {key: None if isinstance(value, float) and math.isinf(value) else value for key, value in row.items()}
        for row in rows
    ]
    return report | {"pictures": pictures, "protocol": PLACES_PROTOCOL}


def format_anatomy(kinds: Mapping[str, Any] | None, places: Mapping[str, Any] | None) -> str:
    """Format reports of `KindScores.report` and `evaluate_places` as plain text for a terminal."""
    lines = []
    if kinds is not None:
        lines += [
            f"Arteries and veins, {kinds['count']} photographs: artery F1 {_number(kinds['artery_f1'])}, vein F1 "
            f"{_number(kinds['vein_f1'])}, accuracy on vessel pixels found {_number(kinds['accuracy'])}"
        ]
        for traced, told in kinds["confusion"].items():
            total = max(sum(told.values()), 1)
            shares = ", ".join(f"{name} {count / total:.1%}" for name, count in told.items())
            lines.append(f"  {traced} in the reference, predicted as: {shares}")
        if kinds["numbers"] is not None:
            what = "Numbers of the kinds found against those of the references"
            lines.append(format_rows(what, kinds["numbers"]["agreement"]))
    if places is not None:
        lines.append(f"Optic disc and fovea, {places['count']} photographs:")
        if places["disc_dice"] is not None:
            lines.append(f"  disc Dice {_number(places['disc_dice'])} ({places['disc_dice_count']} photographs)")
        for name in ("disc", "fovea"):
            if places[f"{name}_near"] is not None:
                lines.append(
                    f"  {name}: found {places[f'{name}_found']} of {places[f'{name}_count']}, within half a disc "
                    f"diameter {places[f'{name}_near']:.1%}, median distance {_number(places[f'{name}_median'])} "
                    "disc diameters"
                )
        if places["eye_right"] is not None:
            lines.append(
                f"  eye told right: {places['eye_right']:.1%} of {places['eye_count']} with disc and fovea found"
            )
    return "\n".join(lines)


def check_tells_anatomy(segmenter: Segmenter) -> None:
    """Raise an ArgumentError if the segmenter tells no anatomy."""
    if not segmenter.tells_anatomy:
        raise ArgumentError(
            f"{segmenter.model or 'The model'} finds vessels only, expected one that tells arteries, veins, disc and "
            "fovea: choose a model of two looks, or leave out --anatomy."
        )


def held_back_ids(segmenter: Segmenter) -> set[str]:
    """Return the ids of the photographs with disc or fovea that the training of a release held back.

    Raises
    ------
    DataError
        If the record of the release lists none.
    ReleaseError
        If the record cannot be read.
    """
    record: Mapping[str, Any] = {}
    if segmenter.folder is not None and (segmenter.folder / TRAINING_NAME).is_file():
        record = read_record(segmenter.folder / TRAINING_NAME)
    ids = set(map(str, as_list(record.get("anatomy_validation_ids"))))
    for earlier in training_runs(record)[1:]:  # a release that this one was fine-tuned from may have learned from them
        ids -= set(map(str, as_list(earlier.get("anatomy_train_ids"))))
    if not ids:
        raise DataError(
            f"The record of {segmenter.model or 'the model'} lists no photographs with disc or fovea that its training "
            f"held back; expected some for the split {HELD_BACK}: choose another split or model."
        )
    return ids


def _place(known: Mapping[str, float], name: str) -> Place | None:
    row, column = known.get(f"{name}_y", math.nan), known.get(f"{name}_x", math.nan)
    return (row, column) if math.isfinite(row) and math.isfinite(column) else None


def _distance(known: Place | None, found: Place | None, diameter: float) -> float | None:
    """Return the distance in disc diameters, infinite if nothing was found, None if the reference is unknown."""
    if known is None:
        return None
    return math.inf if found is None else math.dist(known, found) / diameter


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"
