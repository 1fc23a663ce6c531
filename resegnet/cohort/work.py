"""A cohort: photographs in, masks, overlays and one table out; can be stopped at any time and gone on with.

`Work` does all that belongs to one photograph, and depends on no other; threads, a cluster and the page call it alike.
`segment_cohort` sees to the folder, the progress and, at the end, the table.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from resegnet.cohort import store
from resegnet.cohort.listing import SCALE_COLUMN, Photograph, is_remote
from resegnet.cohort.tables import FAILURES, PARQUET, SHARDS, TABLE, write_tables
from resegnet.cohort.threads import in_order
from resegnet.engine import OnnxNetwork
from resegnet.errors import ImageError, OutputError
from resegnet.hub import CONFIG_NAME, ONNX_NAME, WEIGHTS_NAME
from resegnet.io import json_bytes, without_nan
from resegnet.results.export import mask_png, probability_png, versions
from resegnet.results.segmentation import Segmentation
from resegnet.segmenter import Segmenter
from resegnet.version import __version__

RUN = "run.json"
FOLDERS = ("records", "masks", "overlays", "probabilities")
_BEGUN = f"{FOLDERS[0]}/.begun"  # in a store, where folders are names only; there until `run.json` is

# Overlays are to look at: 1 MB for 8 megapixels, as PNG 7 MB. The thinnest vessels are a pixel wide, hence full colour.
_JPEG = {"quality": 90, "subsampling": 0}


@dataclass(frozen=True)
class CohortOptions:
    """What is made of each photograph.

    `out` is a folder, or an address that fsspec knows. `threshold` None is the model's own. `um_per_px` is the
    photographs' scale, where their table gives none. `resume` leaves alone what is there, whole and made of the same
    photograph by the same model in the same way.
    """

    out: str
    threshold: float | None = None
    um_per_px: float | None = None
    overlay: bool = True
    probability: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}, expected a number from 0 to 1.")
        if self.um_per_px is not None and not 0 < self.um_per_px < math.inf:
            raise ValueError(f"um_per_px is {self.um_per_px}, expected a positive number of micrometres.")


class Work:
    """All that is done with one photograph, by any thread or machine: read, segment, measure, write.

    Its files appear whole or not at all, and its record last, in `records/`: the row of the table, and the SHA-256 of
    each file. A photograph counts as done if its record fits to it and to the options, and each file to the record.
    """

    def __init__(self, segmenter: Segmenter, options: CohortOptions) -> None:
        self._segmenter = segmenter
        self._options = options
        self._same = {
            "threshold": segmenter.config.threshold if options.threshold is None else float(options.threshold),
            "model": segmenter.model,
            "model_sha256": _model_digest(segmenter),
            "engine": type(segmenter.network).__name__.removesuffix("Network").lower(),
            "resegnet": __version__,
        }

    def __call__(self, photograph: Photograph) -> dict[str, Any]:
        """What became of a photograph.

        Returns
        -------
        outcome
            `{"row": {...}}`, a row of the table, with `"kept": True` if it was there already; `{"error": sentence}` if
            there is none; `{"stop": sentence}` if the results cannot be written.
        """
        try:
            content = photograph.read()
        except ImageError as error:  # it may be there again tomorrow: what was made of it stays
            return {"error": " ".join(str(error).split())}
        try:
            expected = self._expected(photograph, content)
            row = self._find(photograph, expected) if self._options.resume else None
            if row is not None:
                return {"row": row, "kept": True}
            files, row = self._segment(photograph, content, expected)
        except Exception as error:  # whatever is wrong with a photograph, the others go on
            sentence = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            outcome, files = {"error": " ".join(sentence.split())}, {}
        else:
            digests = {name: _sha256(content) for name, content in files.items()}
            record = json.dumps(
                {"row": row, "files": digests}, indent=2, allow_nan=False
            )  # ASCII: a path may be no UTF-8
            files[self._names(photograph)["record"]] = f"{record}\n".encode()
            outcome = {"row": row}
        try:
            if self._options.resume:  # what is not made anew would contradict the table
                for name in self._names(photograph).values():
                    if name not in files:
                        store.remove(store.join(self._options.out, name))
            for name, content in files.items():
                store.write(store.join(self._options.out, name), content)
        except Exception as error:  # of a disk an OSError, of a store on the network anything
            return {"stop": f"{self._options.out} cannot be written to ({_reason(error)})"}
        return outcome

    def _names(self, photograph: Photograph) -> dict[str, str]:
        """The photograph's possible files, the record first."""
        return {
            "record": f"records/{photograph.file}.json",
            "mask": f"masks/{photograph.file}.png",
            "overlay": f"overlays/{photograph.file}.jpg",
            "probability": f"probabilities/{photograph.file}.png",
        }

    def _files(self, photograph: Photograph) -> dict[str, str]:
        """Those that are to be made, but for the record."""
        wanted = {"mask": True, "overlay": self._options.overlay, "probability": self._options.probability}
        return {kind: name for kind, name in self._names(photograph).items() if wanted.get(kind)}

    def _expected(self, photograph: Photograph, content: bytes) -> dict[str, Any]:
        """What a row says of how it came about."""
        scale = photograph.um_per_px or self._options.um_per_px
        return {
            "id": photograph.id,
            "source": photograph.source,
            **({} if scale is None else {SCALE_COLUMN: scale}),
            **self._same,
            "photograph_sha256": _sha256(content),
            **self._files(photograph),
        }

    def _find(self, photograph: Photograph, expected: dict[str, Any]) -> dict[str, Any] | None:
        """The row of an earlier run, if all of it is there and fits."""
        try:
            record = json.loads(self._read(self._names(photograph)["record"]))
            row, files = record["row"], record["files"]
            fits = (
                all(row.get(key) == value for key, value in expected.items())
                and (SCALE_COLUMN in row) == (SCALE_COLUMN in expected)
                and set(files) == set(self._files(photograph).values())
                and all(
                    _sha256(store.read(store.join(self._options.out, name))) == digest for name, digest in files.items()
                )
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or not by us
            return None
        return row if fits else None

    def _read(self, name: str) -> bytes:
        return store.read(store.join(self._options.out, name))

    def _segment(
        self, photograph: Photograph, content: bytes, expected: dict[str, Any]
    ) -> tuple[dict[str, bytes], dict[str, Any]]:
        stream = io.BytesIO(content)
        stream.name = photograph.source  # for the sentence of an ImageError
        result = self._segmenter(stream).at(expected["threshold"])
        names = self._files(photograph)
        files = {names["mask"]: mask_png(result)}
        if "overlay" in names:
            files[names["overlay"]] = _overlay_jpeg(result)
        if "probability" in names:
            files[names["probability"]] = probability_png(result)
        height, width = result.mask.shape
        scale = {SCALE_COLUMN: expected[SCALE_COLUMN]} if SCALE_COLUMN in expected else {}
        row = {
            "id": expected["id"],
            "source": expected["source"],
            "width": width,
            "height": height,
            **_field(result.fov),
            "warnings": " ".join(result.warnings),
            **without_nan(result.measure(**scale)),
        }
        return files, row | expected


def by_threads(
    work: Work, photographs: Sequence[Photograph], workers: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Outcomes for `segment_cohort`, by threads of this process; see `resegnet.cohort.threads.in_order`."""
    return in_order(lambda number: work(photographs[number]), range(len(photographs)), workers)


def segment_cohort(
    photographs: Sequence[Photograph],
    options: CohortOptions,
    outcomes: Iterator[tuple[int, dict[str, Any]]],
    tell: Callable[[Photograph, dict[str, Any]], None] | None = None,
    shards: bool = False,
) -> dict[str, int]:
    """Wait for all outcomes, with a progress bar if standard error is a terminal, and write the tables.

    Parameters
    ----------
    photographs
        All of the cohort.
    options
        The same as those of the `Work`.
    outcomes
        Number of a photograph and what `Work` gave for it, in any order.
    tell
        Called with each photograph and its outcome.
    shards
        Write the Parquet table in files of 50,000 rows, `results/part-00000.parquet` and on, in place of one.

    Returns
    -------
    counts
        `done`, of them `kept` from an earlier run, and `failed`.

    Raises
    ------
    OutputError
        If the results cannot be written. What was done is in order, and can be gone on with.
    """
    counts = {"done": 0, "kept": 0, "failed": 0}
    try:
        for name in (TABLE, PARQUET, FAILURES, RUN):  # they would not fit to what changes from here on
            store.remove(store.join(options.out, name))
        store.remove_all(store.join(options.out, f"{SHARDS}/part-*.parquet"))
        with closing(outcomes), tempfile.TemporaryFile() as spool:
            places = array("q", [-1]) * len(photographs)
            with tqdm(total=len(photographs), unit="photograph", disable=None, smoothing=0.05) as bar:
                for number, outcome in outcomes:
                    if "stop" in outcome:
                        raise OutputError(outcome["stop"])
                    counts["failed" if "error" in outcome else "done"] += 1
                    counts["kept"] += options.resume and outcome.get("kept", False)
                    places[number] = spool.seek(0, os.SEEK_END)
                    spool.write(json.dumps(outcome).encode() + b"\n")
                    if tell is not None:
                        with bar.external_write_mode(file=sys.stdout):
                            tell(photographs[number], outcome)
                    bar.update()

            def stored() -> Iterator[tuple[Photograph, dict[str, Any]]]:
                for photograph, place in zip(photographs, places, strict=True):
                    spool.seek(place)
                    yield photograph, json.loads(spool.readline())

            write_tables(options.out, stored, shards)
            run = {
                "photographs": len(photographs),
                "failed": counts["failed"],
                "threshold": options.threshold,
                "um_per_px": options.um_per_px,
                "versions": versions(),
            }
            store.write(store.join(options.out, RUN), json_bytes(run))
            store.remove(store.join(options.out, _BEGUN))
    except (OutputError, BrokenPipeError):  # the second of `tell`: nobody reads on
        raise
    except OSError as error:
        raise OutputError(f"{options.out} cannot be written to ({_reason(error)})") from error
    return counts


def make_folder(options: CohortOptions) -> None:
    """Make the folder of the results.

    Raises
    ------
    ValueError
        If results are there and `options.resume` is not set; or if it is, and they are none of a cohort.
    OutputError
        If it cannot be made or written to.
    """
    out = options.out
    try:
        results = (*FOLDERS, TABLE, PARQUET, SHARDS, FAILURES, RUN)
        there = [name for name in results if store.exists(store.join(out, name))]
        if there and not options.resume:
            raise ValueError(
                f"{out} holds results already ({', '.join(there)}). Add --resume to go on with them, or name another "
                "folder."
            )
        # A name alone proves nothing: `masks` may be a person's references, `results` another program's.
        if there and not {FOLDERS[0], RUN} & set(there):
            raise ValueError(
                f"{out} holds {', '.join(there)}, but no {FOLDERS[0]}: this is not what an earlier run left here, and "
                "it would be written over. Name another folder."
            )
        if is_remote(out):
            store.write(store.join(out, _BEGUN), b"")
        else:
            kinds = {"records": True, "masks": True, "overlays": options.overlay, "probabilities": options.probability}
            for name in (name for name, wanted in kinds.items() if wanted):
                Path(out, name).mkdir(parents=True, exist_ok=True)
                for left in Path(out, name).glob(".*.tmp"):  # by a run that was killed
                    left.unlink()
    except OSError as error:
        raise OutputError(f"{out} cannot be written to ({_reason(error)})") from error


def _overlay_jpeg(result: Segmentation) -> bytes:
    file = io.BytesIO()
    Image.fromarray(result.overlay()).save(file, "JPEG", **_JPEG)
    return file.getvalue()


def _field(fov: np.ndarray) -> dict[str, int]:
    """The box round the field of view, in pixels of the photograph; all 0 without one."""
    rows, columns = np.flatnonzero(fov.any(axis=1)), np.flatnonzero(fov.any(axis=0))
    top, bottom = (rows[0], rows[-1] + 1) if rows.size else (0, 0)
    left, right = (columns[0], columns[-1] + 1) if columns.size else (0, 0)
    return {
        "field_left": int(left),
        "field_top": int(top),
        "field_width": int(right - left),
        "field_height": int(bottom - top),
    }


def _model_digest(segmenter: Segmenter) -> str:
    """SHA-256 of the release's config and weights, one after the other: which model it was, whatever it is called."""
    if segmenter.folder is None:
        return ""
    digest = hashlib.sha256()
    for name in (CONFIG_NAME, ONNX_NAME if isinstance(segmenter.network, OnnxNetwork) else WEIGHTS_NAME):
        digest.update((segmenter.folder / name).read_bytes())
    return digest.hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).strip().partition("\n")[0] or type(error).__name__
