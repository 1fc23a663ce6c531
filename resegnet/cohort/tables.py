"""The tables of a cohort, CSV and Parquet, written row by row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from resegnet.cohort import store
from resegnet.cohort.listing import ID_COLUMNS, SCALE_COLUMN, Photograph, is_remote

TABLE, PARQUET, SHARDS, FAILURES = "results.csv", "results.parquet", "results", "failures.csv"

_CHUNK_ROWS = 10_000  # of the table that are in memory at a time
_SHARD_ROWS = 50_000
_WHOLE_NUMBERS = ("width", "height", "field_left", "field_top", "field_width", "field_height")


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
    titles: dict[str, str] = {}
    for name in carried:
        if name not in (SCALE_COLUMN, *ID_COLUMNS[:1]):
            title = name
            while title in keys or title in titles.values() or (title != name and title in carried):
                title += "_given"
            titles[name] = title
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
        _write_csv(store.join(out, FAILURES), ["id", "source", "error"], failures)
    if done:
        _write_csv(store.join(out, TABLE), header, rows())
        _write_parquet(out, header, rows(), {titles[name]: carried[name] for name in titles}, texts, shards)


def _write_csv(path: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with store.atomic_writer_at(path) as file:
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
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # tables that do not agree; beyond 64 bits
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
            store.atomic_writer_at(
                store.join(out, f"{SHARDS}/part-{number:05d}.parquet" if shards else PARQUET)
            ) as file,
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
