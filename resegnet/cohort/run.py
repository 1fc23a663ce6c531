"""Segment a whole cohort: the folder of the results, the progress bar, the tables at the end."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from tqdm import tqdm

from resegnet.cohort import store
from resegnet.cohort.photograph import Photograph
from resegnet.cohort.tables import FAILURES, PARQUET, SHARDS, TABLE, write_tables
from resegnet.cohort.threads import in_order
from resegnet.cohort.work import (
    KINDS,
    MASKS,
    OVERLAYS,
    PROBABILITIES,
    RECORDS,
    SCALE_FROM,
    CohortOptions,
    Outcome,
    ScaleFrom,
    Work,
)
from resegnet.errors import ArgumentError, OutputError, ResegnetError
from resegnet.io import TEMPORARY_FILES, json_bytes, read_json
from resegnet.results.export import versions

RUN = "run.json"
# Marks a store, in which folders are no more than parts of names, until `run.json` is written.
_BEGUN = f"{RECORDS}/.begun"


# Sizes of photographs that share a scale differ by less: two sizes of one camera do not, two crops of one size do.
_LIKE = 1.25


@dataclass
class Counts:
    """Counts of the photographs of a run.

    Attributes
    ----------
    done, kept, failed
        Photographs that are done, those of them that an earlier run left, and those that failed.
    warned
        Photographs with warnings.
    warnings
        Photographs with each warning, by its code.
    sides_px
        Least and greatest longer side of the photographs whose scale comes from `CohortOptions.um_per_px`.
    made_by
        The model, its SHA-256, the engine, and whether there are kinds of vessels, as of the photographs that are done.
    """

    done: int = 0
    kept: int = 0
    failed: int = 0
    warned: int = 0
    warnings: Counter[str] = field(default_factory=Counter)
    sides_px: tuple[int, int] | None = None
    made_by: dict[str, str | bool] = field(default_factory=dict)

    def add(self, outcome: Outcome, resumed: bool) -> None:
        """Count one photograph."""
        row = outcome.row
        if row is None:
            self.failed += 1
            return
        self.done += 1
        self.kept += resumed and outcome.kept
        self.made_by = {name: row[name] for name in ("model", "model_sha256", "engine")} | {"anatomy": "kinds" in row}
        codes = row["warning_codes"].split()
        self.warned += bool(codes)
        self.warnings.update(codes)
        if row.get(SCALE_FROM) == ScaleFrom.OPTION:
            side = max(row["width"], row["height"])
            least, greatest = self.sides_px or (side, side)
            self.sides_px = min(least, side), max(greatest, side)

    @property
    def is_scale_doubtful(self) -> bool:
        """Whether photographs of very different size share one scale."""
        return self.sides_px is not None and self.sides_px[1] > _LIKE * self.sides_px[0]


def by_threads(
    work: Work, photographs: Sequence[Photograph], workers: int | None = None
) -> Generator[tuple[int, Outcome], None, None]:
    """Yield the number and the outcome of each photograph, in order, by threads of this process.

    See `resegnet.cohort.threads.in_order`.
    """
    return in_order(lambda number: work(photographs[number]), range(len(photographs)), workers)


def segment_cohort(
    photographs: Sequence[Photograph],
    options: CohortOptions,
    outcomes: Generator[tuple[int, Outcome], None, None],
    tell: Callable[[Photograph, Outcome], None] | None = None,
    shards: bool = False,
) -> Counts:
    """Wait for all outcomes, with a progress bar if standard error is a terminal, and write the tables.

    Parameters
    ----------
    photographs
        All photographs of the cohort.
    options
        The options of the `Work`. `run.json` tells its threshold.
    outcomes
        Number and outcome of each photograph, in any order; see `by_threads` and `resegnet.cohort.cluster.on_ray`.
    tell
        Called with each photograph and its outcome.
    shards
        Write the Parquet table in files of 50,000 rows, `results/part-00000.parquet` and so on, instead of one.

    Raises
    ------
    OutputError
        If the results cannot be written. What was done stays valid, and a later run can resume.
    """
    counts = Counts()
    try:
        for name in (TABLE, PARQUET, FAILURES, RUN):  # tables of an earlier run would not fit the files that change now
            store.remove(store.join(options.out, name))
        store.remove_matching(store.join(options.out, f"{SHARDS}/part-*.parquet"))
        with closing(outcomes), tempfile.TemporaryFile() as file:
            spool = _Spool(photographs, file)
            with tqdm(total=len(photographs), unit="photograph", disable=None, smoothing=0.05) as bar:
                for number, outcome in outcomes:
                    counts.add(outcome, options.resume)
                    spool.add(number, outcome)
                    if tell is not None:
                        with bar.external_write_mode(file=sys.stdout):
                            tell(photographs[number], outcome)
                    bar.update()
            write_tables(options.out, spool.outcomes, shards)
        run = {
            "photographs": len(photographs),
            "failed": counts.failed,
            "with_warnings": counts.warned,
            "warnings": {code: counts.warnings[code] for code in sorted(counts.warnings)},
            **counts.made_by,
            "threshold": options.threshold,
            "um_per_px": options.um_per_px,
            "overlay": options.overlay,
            "probability": options.probability,
            "quadrants": options.quadrants,
            "versions": versions(),
        }
        store.write(store.join(options.out, RUN), json_bytes(run))
        store.remove(store.join(options.out, _BEGUN))
    except (ResegnetError, BrokenPipeError):  # BrokenPipeError comes from `tell`, for example when piped to head
        raise
    except OSError as error:
        raise OutputError(f"{options.out} cannot be written to ({store.reason(error)})") from error
    return counts


class _Spool:
    """Outcomes in a file, since a cohort may have millions; added in any order, read in that of the cohort."""

    def __init__(self, photographs: Sequence[Photograph], file: IO[bytes]) -> None:
        self._photographs = photographs
        self._file = file
        self._places = array("q", [-1]) * len(photographs)  # of the outcomes in the file, by number of the photograph

    def add(self, number: int, outcome: Outcome) -> None:
        """Add the outcome of a photograph."""
        self._places[number] = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(asdict(outcome)).encode() + b"\n")

    def outcomes(self) -> Iterator[tuple[Photograph, Outcome]]:
        """Yield every photograph and its outcome."""
        for photograph, place in zip(self._photographs, self._places, strict=True):
            self._file.seek(place)
            yield photograph, Outcome(**json.loads(self._file.readline()))


def make_folder(options: CohortOptions) -> None:
    """Make the folder of the results.

    Raises
    ------
    ArgumentError
        If it holds results and `options.resume` is False, unless every photograph failed; or if `resume` is True and
        they are not those of a cohort.
    OutputError
        If it cannot be made or written to.
    """
    out = options.out
    try:
        results = (RECORDS, MASKS, OVERLAYS, PROBABILITIES, KINDS, TABLE, PARQUET, SHARDS, FAILURES, RUN)
        present = [name for name in results if store.exists(store.join(out, name))]
        if present and not options.resume and not _all_failed(out):
            raise ArgumentError(
                f"{out} already holds results ({', '.join(present)}). Add --resume to keep and complete them, or name "
                "another folder."
            )
        # A name alone proves nothing: `masks` may hold a person's references, `results` another program's files.
        if present and not {RECORDS, RUN} & set(present):
            raise ArgumentError(
                f"{out} holds {', '.join(present)} but no {RECORDS}, so no earlier run made them; they would be "
                "overwritten. Name another folder."
            )
        if store.is_remote(out):
            store.write(store.join(out, _BEGUN), b"")
            return
        wanted = {RECORDS: True, MASKS: True, OVERLAYS: options.overlay, PROBABILITIES: options.probability}
        wanted[KINDS] = Path(out, KINDS).is_dir()  # made with the first file, if the model tells kinds
        for name in (name for name, is_wanted in wanted.items() if is_wanted):
            Path(out, name).mkdir(parents=True, exist_ok=True)
            for rest in Path(out, name).glob(TEMPORARY_FILES):  # left by a run that was killed
                rest.unlink()
    except OSError as error:
        raise OutputError(f"{out} cannot be written to ({store.reason(error)})") from error


def _all_failed(out: str) -> bool:
    """Return whether a run ended in this local folder, and no photograph has a result."""
    if store.is_remote(out) or any(Path(out, RECORDS).glob("*")):  # a photograph that failed keeps its earlier result
        return False
    try:
        run = read_json(Path(out, RUN))
        return run["failed"] == run["photographs"] and not store.exists(store.join(out, TABLE))
    except (OSError, ValueError, KeyError, TypeError):  # no run has ended, or the file is another program's
        return False
