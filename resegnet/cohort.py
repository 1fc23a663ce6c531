"""A cohort: photographs in, masks, overlays and one table out; can be stopped at any time and gone on with.

`Work` does all that belongs to one photograph, and depends on no other; threads, a cluster and the page call it alike.
`segment_cohort` sees to the folder, the progress and, at the end, the table.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import shutil
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from tqdm import tqdm

import resegnet
from resegnet.batch import in_order
from resegnet.engine import OnnxNetwork
from resegnet.hub import CONFIG_NAME, ONNX_NAME, WEIGHTS_NAME
from resegnet.listing import ID_COLUMNS, SCALE_COLUMN, Photograph, file_system, is_remote
from resegnet.results.export import json_bytes, mask_png, probability_png, versions, without_nan, write_atomically
from resegnet.segmenter import Segmentation, Segmenter

TABLE, PARQUET, SHARDS, FAILURES, RUN = "results.csv", "results.parquet", "results", "failures.csv", "run.json"
FOLDERS = ("records", "masks", "overlays", "probabilities")

# Overlays are to look at: 1 MB for 8 megapixels, as PNG 7 MB. The thinnest vessels are a pixel wide, hence full colour.
_JPEG = {"quality": 90, "subsampling": 0}

_CHUNK_ROWS = 10_000  # of the table that are in memory at a time
_SHARD_ROWS = 50_000
_WHOLE_NUMBERS = ("width", "height", "field_left", "field_top", "field_width", "field_height")


class OutputError(OSError):
    """The results cannot be written; the message says what to do."""


@dataclass(frozen=True)
class Options:
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

    def __init__(self, segmenter: Segmenter, options: Options) -> None:
        self._segmenter = segmenter
        self._options = options
        self._same = {
            "threshold": segmenter.config.threshold if options.threshold is None else float(options.threshold),
            "model": segmenter.model,
            "model_sha256": _model_digest(segmenter),
            "engine": type(segmenter.network).__name__.removesuffix("Network").lower(),
            "resegnet": resegnet.__version__,
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
            if "error" in outcome:
                for name in self._names(photograph).values():  # of a photograph that could be read once
                    _remove(_join(self._options.out, name))
            for name, content in files.items():
                _write(_join(self._options.out, name), content)
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
            record = json.loads(_read(_join(self._options.out, self._names(photograph)["record"])))
            row, files = record["row"], record["files"]
            fits = (
                all(row.get(key) == value for key, value in expected.items())
                and (SCALE_COLUMN in row) == (SCALE_COLUMN in expected)
                and set(files) == set(self._files(photograph).values())
                and all(_sha256(_read(_join(self._options.out, name))) == digest for name, digest in files.items())
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or not by us
            return None
        return row if fits else None

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
    """Outcomes for `segment_cohort`, by threads of this process; see `resegnet.batch.in_order`."""
    return in_order(lambda number: work(photographs[number]), range(len(photographs)), workers)


def segment_cohort(
    photographs: Sequence[Photograph],
    options: Options,
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
        for name in (TABLE, PARQUET, SHARDS, FAILURES, RUN):  # they would not fit to what changes from here on
            _remove(_join(options.out, name))
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
            _write(_join(options.out, RUN), json_bytes(run))
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{options.out} cannot be written to ({_reason(error)})") from error
    return counts


def make_folder(options: Options) -> None:
    """Make the folder of the results.

    Raises
    ------
    ValueError
        If results are there and `options.resume` is not set.
    OutputError
        If it cannot be made or written to.
    """
    out = options.out
    try:
        if not options.resume:
            there = [name for name in (*FOLDERS, TABLE, PARQUET, SHARDS, FAILURES, RUN) if _exists(_join(out, name))]
            if there:
                raise ValueError(
                    f"{out} holds results already ({', '.join(there)}). Add --resume to go on with them, or name "
                    "another folder."
                )
        if not is_remote(out):
            kinds = {"records": True, "masks": True, "overlays": options.overlay, "probabilities": options.probability}
            for name in (name for name, wanted in kinds.items() if wanted):
                Path(out, name).mkdir(parents=True, exist_ok=True)
                for left in Path(out, name).glob(".*.tmp"):  # by a run that was killed
                    left.unlink()
    except OSError as error:
        raise OutputError(f"{out} cannot be written to ({_reason(error)})") from error


def write_tables(
    out: str, stored: Callable[[], Iterable[tuple[Photograph, dict[str, Any]]]], shards: bool = False
) -> None:
    """Write `results.csv`, `results.parquet` (or its shards) and, if need be, `failures.csv`.

    Parameters
    ----------
    out
        Folder or address.
    stored
        Called once for every walk over all photographs and their outcomes, in the order of the table.
    shards
        As for `segment_cohort`.
    """
    keys: dict[str, None] = {}
    texts: set[str] = set()
    carried: dict[str, list[Any]] = {}
    failed = done = 0
    for photograph, outcome in stored():
        failed += "error" in outcome
        if "row" in outcome:
            keys |= dict.fromkeys(outcome["row"])
            texts |= {key for key, value in outcome["row"].items() if isinstance(value, str)}
            for name, value in photograph.columns.items():
                # From the first row on, also where a column comes with a later table only.
                carried.setdefault(name, [None] * done).append(value)
            done += 1
            for values in carried.values():
                values += [None] * (done - len(values))
    titles = {
        name: f"{name}_given" if name in keys else name
        for name in carried
        if name not in (SCALE_COLUMN, *ID_COLUMNS[:1])
    }
    first = [key for key in ("id", "source") if key in keys]
    header = [*first, *titles.values(), *(key for key in keys if key not in first)]

    def rows() -> Iterator[list[Any]]:
        for photograph, outcome in stored():
            if row := outcome.get("row"):
                given = [photograph.columns.get(name) for name in titles]
                yield [
                    *(row.get(key) for key in first),
                    *given,
                    *(row.get(k) for k in header[len(first) + len(given) :]),
                ]

    if failed:
        failures = ([p.id, p.source, outcome["error"]] for p, outcome in stored() if "error" in outcome)
        _write_csv(_join(out, FAILURES), ["id", "source", "error"], failures)
    if done:
        _write_csv(_join(out, TABLE), header, rows())
        _write_parquet(out, header, rows(), {titles[name]: carried[name] for name in titles}, texts, shards)


def _write_csv(path: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with _whole(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        text.detach()


def _write_parquet(
    out: str,
    header: Sequence[str],
    rows: Iterator[Sequence[Any]],
    carried: dict[str, list[Any]],
    texts: set[str],
    shards: bool,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def kind(name: str) -> pa.DataType:
        if name in carried:
            try:
                found = pa.array(carried[name]).type
                return pa.string() if pa.types.is_null(found) else found
            except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several tables, which do not agree
                return pa.string()
        return pa.string() if name in texts else pa.int64() if name in _WHOLE_NUMBERS else pa.float64()

    schema = pa.schema([(name, kind(name)) for name in header])

    def column(values: Sequence[Any], of: pa.DataType) -> pa.Array:
        if pa.types.is_string(of):
            values = [None if value is None else _sound(str(value)) for value in values]
        return pa.array(values, of)

    if shards and not is_remote(out):
        Path(out, SHARDS).mkdir(exist_ok=True)
    number = 0
    while True:
        part = islice(rows, _SHARD_ROWS) if shards else rows
        chunk = list(islice(part, _CHUNK_ROWS))
        if not chunk and number:
            break
        with (
            _whole(_join(out, f"{SHARDS}/part-{number:05d}.parquet" if shards else PARQUET)) as file,
            pq.ParquetWriter(file, schema) as writer,
        ):
            while chunk:
                columns = zip(zip(*chunk, strict=True), schema.types, strict=True)
                writer.write_table(pa.Table.from_arrays([column(*values) for values in columns], schema=schema))
                chunk = list(islice(part, _CHUNK_ROWS))
        number += 1
        if not shards:
            break


def _sound(text: str) -> str:
    """Text that UTF-8 can hold; a file name may be of any bytes."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


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


# Files of a folder, or of any store that fsspec knows.


def _join(out: str, name: str) -> str:
    return f"{out.rstrip('/')}/{name}" if is_remote(out) else os.path.join(out, name)


def _exists(path: str) -> bool:
    if is_remote(path):
        store, inside = file_system(path)
        return store.exists(inside)
    return os.path.lexists(path)


def _read(path: str) -> bytes:
    if is_remote(path):
        store, inside = file_system(path)
        return store.cat_file(inside)
    return Path(path).read_bytes()


def _write(path: str, content: bytes) -> None:
    if is_remote(path):
        store, inside = file_system(path)
        store.makedirs(store._parent(inside), exist_ok=True)
        store.pipe_file(inside, content)
    else:
        write_atomically(Path(path), content)


def _remove(path: str) -> None:
    if is_remote(path):
        store, inside = file_system(path)
        if store.exists(inside):
            store.rm(inside, recursive=True)
    elif os.path.isdir(path):
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


@contextmanager
def _whole(path: str) -> Iterator[IO[bytes]]:
    """A file to be written piece by piece that appears when it is whole."""
    if is_remote(path):
        store, inside = file_system(path)
        store.makedirs(store._parent(inside), exist_ok=True)
        with store.open(inside, "wb") as file:
            yield file
        return
    temporary = f"{path}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).strip().partition("\n")[0] or type(error).__name__
