"""Work on one photograph of a cohort: read, segment, measure, write. Threads, a cluster and the page call it alike."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from PIL import Image

from resegnet.cohort import store
from resegnet.cohort.entries import SCALE_COLUMN, SCALES_UM
from resegnet.cohort.photograph import Photograph
from resegnet.engine import OnnxNetwork
from resegnet.errors import ArgumentError, ImageError, OutputError, ResegnetError
from resegnet.fov import bounding_box
from resegnet.hub import CONFIG_NAME, ONNX_NAME, WEIGHTS_NAME
from resegnet.io import without_nan
from resegnet.results.export import kinds_png, mask_png, probability_png
from resegnet.results.segmentation import Segmentation
from resegnet.segmenter import Segmenter
from resegnet.version import __version__

logger = logging.getLogger(__name__)

FILE_COLUMNS = ("mask", "overlay", "probability", "kinds")  # of the table: names of the files, of those that are made
# Folders of the results.
RECORDS, MASKS, OVERLAYS, PROBABILITIES, KINDS = "records", "masks", "overlays", "probabilities", "kinds"

# Overlays are for looking at: 1 MB for 8 megapixels, 7 MB as PNG. Full colour resolution, because the thinnest vessels
# are one pixel wide.
_JPEG_QUALITY, _JPEG_FULL_COLOUR = 90, 0

QUADRANTS = ("upper_left_", "upper_right_", "lower_left_", "lower_right_")  # starts of their measures' names
# What a record raises that is missing, damaged or another program's.
_UNUSABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)

_COUNTS = ("_area_px", "branch_points", "end_points", "segments", "_vessels")  # ends of the names of whole numbers
UNDEFINED = "undefined"  # column of the reasons why numbers are empty
SCALE_FROM = "scale_from"  # column that says which of these gave the scale


class ScaleFrom(StrEnum):
    """Where the scale of a photograph comes from."""

    TABLE = "table"  # the table that lists the photographs
    OPTION = "option"
    PHOTOGRAPH = "photograph"  # its DICOM file


Row = dict[str, Any]  # one row of the table of results: text, numbers and None by column


@dataclass(frozen=True)
class Outcome:
    """Result of one photograph: its row of the table, or the reason why there is none. Its fields fit into JSON."""

    row: Row | None = None
    error: str | None = None  # a sentence; None if there is a row
    kept: bool = False  # True if an earlier run left the row and the files


@dataclass(frozen=True)
class CohortOptions:
    """Options of a cohort: what to make of each photograph, and where.

    Attributes
    ----------
    out
        Folder, or an address that fsspec knows.
    threshold
        Probability from which a pixel is a vessel, [0, 1]; None takes the model's own.
    um_per_px
        Scale of the photographs whose table gives none, micrometres on the retina for a pixel; None if unknown.
    overlay, probability
        Whether to write these files beside the masks.
    quadrants
        Whether the table has the measures of the quadrants too.
    resume
        Keep results that are complete and come from the same photograph, model and options.

    Raises
    ------
    ArgumentError
        If `out` is empty, or a number is outside its range.
    """

    out: str
    threshold: float | None = None
    um_per_px: float | None = None
    overlay: bool = True
    probability: bool = False
    quadrants: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if not self.out:  # of an environment variable that is not set; it would stand for the working folder
            raise ArgumentError("The folder of the results is '', expected a folder or an address: name one.")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ArgumentError(f"threshold is {self.threshold}, expected a number from 0 to 1.")
        least, most = SCALES_UM
        if self.um_per_px is not None and not least <= self.um_per_px <= most:
            raise ArgumentError(f"um_per_px is {self.um_per_px}, expected {least:g} to {most:g} micrometres.")


class Work:
    """The work on one photograph. It depends on no other photograph, so any thread or machine can do it.

    Each file appears complete or not at all. The record in `records/` comes last; it holds the row of the table and the
    SHA-256 of each file. A photograph is done if its record fits the photograph and the options, and each file fits the
    record.

    Parameters
    ----------
    segmenter
        Segments every photograph.
    options
        What to make of each photograph, and where.
    """

    def __init__(self, segmenter: Segmenter, options: CohortOptions) -> None:
        self._segmenter = segmenter
        self._options = options
        threshold = segmenter.config.threshold if options.threshold is None else float(options.threshold)
        self._made_by = made_by(segmenter, threshold)

    def __call__(self, photograph: Photograph) -> Outcome:
        """Make the results of one photograph.

        A photograph that cannot be read or segmented gives an outcome with an error, whatever is wrong with it, so that
        the others are done.

        Raises
        ------
        OutputError
            If the results cannot be written.
        """
        try:
            content = photograph.read()
        except ImageError as error:  # it may be readable again tomorrow, so its earlier results stay
            return Outcome(error=_one_line(str(error)))
        try:
            expected = self._expected(photograph, content)
            row = self._find(photograph, expected) if self._options.resume else None
            if row is not None:
                return Outcome(row, kept=True)
            files, row = self._segment(photograph, content, expected)
            digests = {name: _sha256(content) for name, content in files.items()}
            # In ASCII, since a path may hold bytes that are no UTF-8.
            record = json.dumps({"row": row, "files": digests}, indent=2, allow_nan=False)
            files[self._names(photograph)[RECORDS]] = f"{record}\n".encode()
            outcome = Outcome(row)
        except Exception as error:  # for example too little memory for this photograph
            if not isinstance(error, ResegnetError):
                logger.debug("%s", photograph.source, exc_info=True)
            sentence = str(error) if isinstance(error, ResegnetError) else f"{type(error).__name__}: {error}"
            outcome, files = Outcome(error=_one_line(sentence)), {}
        try:
            if self._options.resume:  # files of an earlier run that are not made again would contradict the table
                for name in self._names(photograph).values():
                    if name not in files:
                        store.remove(store.join(self._options.out, name))
            for name, content in files.items():
                store.write(store.join(self._options.out, name), content)
        except OSError as error:
            raise OutputError(f"{self._options.out} cannot be written to ({store.reason(error)})") from error
        return outcome

    def _names(self, photograph: Photograph) -> dict[str, str]:
        """Return the file names that a photograph's results can have, by folder, the record first."""
        return {
            RECORDS: f"{RECORDS}/{photograph.file}.json",
            MASKS: f"{MASKS}/{photograph.file}.png",
            OVERLAYS: f"{OVERLAYS}/{photograph.file}.jpg",
            PROBABILITIES: f"{PROBABILITIES}/{photograph.file}.png",
            KINDS: f"{KINDS}/{photograph.file}.png",
        }

    def _files(self, photograph: Photograph) -> dict[str, str]:
        """Return the names of the files to make, by their column, see `FILE_COLUMNS`."""
        names = self._names(photograph)
        files = {"mask": names[MASKS]}
        if self._options.overlay:
            files["overlay"] = names[OVERLAYS]
        if self._options.probability:
            files["probability"] = names[PROBABILITIES]
        if self._segmenter.tells_anatomy:
            files["kinds"] = names[KINDS]
        return files

    def _expected(self, photograph: Photograph, content: bytes) -> Row:
        """Return the columns of a row that say how it was made."""
        scale = photograph.um_per_px or self._options.um_per_px
        origin = ScaleFrom.TABLE if photograph.um_per_px else ScaleFrom.OPTION
        return {
            "id": photograph.id,
            "source": photograph.source,
            **({} if scale is None else {SCALE_COLUMN: scale, SCALE_FROM: str(origin)}),
            **self._made_by,
            "photograph_sha256": _sha256(content),
            **self._files(photograph),
        }

    def _find(self, photograph: Photograph, expected: Row) -> Row | None:
        """Return the row of an earlier run, if all its files are there and it was made as expected."""
        try:
            record = json.loads(self._read(self._names(photograph)[RECORDS]))
            row, files = record["row"], record["files"]
            fits = (
                all(row.get(key) == value for key, value in expected.items())
                and isinstance(row.get("warning_codes"), str)
                and (SCALE_COLUMN in expected or row.get(SCALE_FROM) in (None, ScaleFrom.PHOTOGRAPH))
                and any(key.startswith(QUADRANTS) for key in row) == self._options.quadrants
                and set(files) == set(self._files(photograph).values())
                and all(_sha256(self._read(name)) == digest for name, digest in files.items())
            )
        except _UNUSABLE:
            return None
        return row if fits else None

    def _read(self, name: str) -> bytes:
        return store.read(store.join(self._options.out, name))

    def _segment(self, photograph: Photograph, content: bytes, expected: Row) -> tuple[dict[str, bytes], Row]:
        """Return the contents of the files to write, by name, and the row of the table."""
        stream = io.BytesIO(content)
        stream.name = photograph.source  # an ImageError names it
        result = self._segmenter(stream).at(expected["threshold"])
        names = self._files(photograph)
        files = {names["mask"]: mask_png(result)}
        if "overlay" in names:
            files[names["overlay"]] = _overlay_jpeg(result)
        if "probability" in names:
            files[names["probability"]] = probability_png(result)
        kinds = kinds_png(result)
        if kinds is not None:
            files[names["kinds"]] = kinds
        described = describe(result, expected.get(SCALE_COLUMN), quadrants=self._options.quadrants)
        return files, {"id": expected["id"], "source": expected["source"]} | described | expected


def made_by(segmenter: Segmenter, threshold: float) -> Row:
    """Return the columns of a row that say which model and program made it."""
    return {
        "threshold": threshold,
        "model": segmenter.model,
        "model_sha256": _model_digest(segmenter),
        "engine": type(segmenter.network).__name__.removesuffix("Network").lower(),
        "resegnet": __version__,
    }


def describe(result: Segmentation, um_per_px: float | None = None, quadrants: bool = False) -> Row:
    """Return the columns of a row that depend on the photograph.

    Parameters
    ----------
    result
        The photograph's segmentation.
    um_per_px
        Micrometres on the retina for a pixel, as given by the user. None takes that of the photograph's file.
    quadrants
        Whether to add the measures of the quadrants.

    Returns
    -------
    Row
        Size, field of view, warnings, measures and scale; where the result has anatomy, also the eye and the places of
        disc and fovea.
    """
    height, width = result.mask.shape
    measures = result.measure(um_per_px)
    scale = result.um_per_px if um_per_px is None else um_per_px
    origin = ScaleFrom.PHOTOGRAPH if um_per_px is None else ScaleFrom.OPTION
    shown = {key: value for key, value in measures.items() if quadrants or not key.startswith(QUADRANTS)}
    reasons = {measures.undefined[key] for key in shown if key in measures.undefined}
    return {
        "width": width,
        "height": height,
        **_field_box(result.fov),
        "warning_codes": " ".join(warning.code for warning in result.warnings),
        "warnings": " ".join(result.warnings),
        **(_places(result) if result.anatomy is not None else {}),
        **{
            key: int(value) if value is not None and is_count(key) else value
            for key, value in without_nan(shown).items()
        },
        **({} if result.anatomy is None else {UNDEFINED: " ".join(sorted(reasons))}),
        **({} if scale is None else {SCALE_COLUMN: scale, SCALE_FROM: str(origin)}),
    }


def is_count(column: str) -> bool:
    """Tell whether a column of measures holds whole numbers: pixels, points, segments or vessels."""
    return column.endswith(_COUNTS)


def _places(result: Segmentation) -> Row:
    """Return the columns of eye, disc and fovea, in px of the photograph; None for what was not found."""
    disc, fovea = result.disc, result.fovea
    disc_row, disc_column = (None, None) if disc is None else disc.centre
    fovea_row, fovea_column = (None, None) if fovea is None else fovea
    return {
        "eye": result.eye,
        "disc_row": disc_row,
        "disc_column": disc_column,
        "disc_diameter_px": None if disc is None else disc.diameter,
        "fovea_row": fovea_row,
        "fovea_column": fovea_column,
    }


def _overlay_jpeg(result: Segmentation) -> bytes:
    file = io.BytesIO()
    Image.fromarray(result.overlay()).save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=_JPEG_FULL_COLOUR)
    return file.getvalue()


def _field_box(fov: np.ndarray) -> dict[str, int]:
    """Return the bounding box of the field of view, (H, W) bool, in pixels of the photograph; zeros without one."""
    box = bounding_box(fov)
    return {"field_left": box.left, "field_top": box.top, "field_width": box.width, "field_height": box.height}


def _model_digest(segmenter: Segmenter) -> str:
    """Return the SHA-256 of the release's config and weights, which identifies a model whatever its name."""
    if segmenter.folder is None:
        return ""
    digest = hashlib.sha256()
    for name in (CONFIG_NAME, ONNX_NAME if isinstance(segmenter.network, OnnxNetwork) else WEIGHTS_NAME):
        digest.update((segmenter.folder / name).read_bytes())
    return digest.hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _one_line(text: str) -> str:
    return " ".join(text.split())
