"""Write the tables of a cohort, CSV and Parquet, row by row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resegnet.cohort import store
from resegnet.cohort.entries import ID_COLUMNS, SCALE_COLUMN
from resegnet.cohort.photograph import Photograph
from resegnet.cohort.work import UNDEFINED, Outcome, is_count

if TYPE_CHECKING:
    import pyarrow as pa

TABLE, PARQUET, SHARDS, FAILURES = "results.csv", "results.parquet", "results", "failures.csv"

_CHUNK_ROWS = 10_000  # rows of the table that are in memory at a time
_SHARD_ROWS = 50_000
_INTEGERS = ("width", "height", "field_left", "field_top", "field_width", "field_height")
_TEXTS = ("eye", "warning_codes", "warnings", UNDEFINED)  # also where all of them are empty
_FIRST = ("id", "source")  # before the columns of the cohort's own table
# Code points that UTF-8 cannot hold, such as half of an emoji in a JSON file that was cut. U+DC80 to U+DCFF are not
# among them: they stand for bytes of a file name, which go into the CSV as they are.
_LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")

Stored = Callable[[], Iterable[tuple[Photograph, Outcome]]]


@dataclass
class _Columns:
    """Columns of the table: those that `Work` gives and those of the table that lists the photographs."""

    made: dict[str, None] = field(default_factory=dict)  # a set that keeps the order
    texts: set[str] = field(default_factory=set)  # columns of `made` with text in them
    given: dict[str, list[Any]] = field(default_factory=dict)  # values of all rows by name
    done: int = 0
    failed: int = 0

    @classmethod
    def collect(cls, stored: Stored) -> _Columns:
        """Go through all outcomes once."""
        columns = cls()
        for photograph, outcome in stored():
            columns.failed += outcome.row is None
            if outcome.row is None:
                continue
            columns.made |= dict.fromkeys(outcome.row)
            columns.texts |= {key for key, value in outcome.row.items() if isinstance(value, str)}
            for name, value in photograph.columns.items():
                # A column that only a later table has is None in the rows before.
                columns.given.setdefault(name, [None] * columns.done).append(value)
            columns.done += 1
            for values in columns.given.values():
                values += [None] * (columns.done - len(values))
        return columns

    def titles(self) -> dict[str, str]:
        """Return a title for each given column; one that `Work` writes too gets `_given` at its end."""
        titles: dict[str, str] = {}
        for name in self.given:
            if name in (SCALE_COLUMN, *ID_COLUMNS[:1]):  # `Work` takes these over
                continue
            title = name
            while title in self.made or title in titles.values() or (title != name and title in self.given):
                title += "_given"
            titles[name] = title
        return titles


def write_tables(out: str, stored: Stored, shards: bool = False) -> None:
    """Write `results.csv`, `results.parquet` (or its shards) and, if a photograph failed, `failures.csv`.

    Parameters
    ----------
    out
        Folder or address.
    stored
        Called once for every pass over all photographs and their outcomes, in the order of the table.
    shards
        See `resegnet.cohort.run.segment_cohort`.
    """
    columns = _Columns.collect(stored)
    titles = columns.titles()
    first = [key for key in _FIRST if key in columns.made]
    rest = [key for key in columns.made if key not in first]
    header = [*first, *titles.values(), *rest]

    def rows() -> Iterator[list[Any]]:
        for photograph, outcome in stored():
            if (row := outcome.row) is not None:
                given = (photograph.columns.get(name) for name in titles)
                yield [*map(row.get, first), *given, *map(row.get, rest)]

    if columns.failed:
        failures = ([p.id, p.source, outcome.error] for p, outcome in stored() if outcome.row is None)
        _write_csv(store.join(out, FAILURES), ["id", "source", "error"], failures)
    if columns.done:
        _write_csv(store.join(out, TABLE), header, rows())
        given = {titles[name]: columns.given[name] for name in titles}
        schema = _find_schema(header, given, columns.texts)
        if not shards:
            _write_parquet(store.join(out, PARQUET), schema, rows())
            return
        if not store.is_remote(out):
            Path(out, SHARDS).mkdir(exist_ok=True)
        left = rows()
        for number, row in enumerate(left):
            shard = chain([row], islice(left, _SHARD_ROWS - 1))
            _write_parquet(store.join(out, f"{SHARDS}/part-{number:05d}.parquet"), schema, shard)


def _write_csv(path: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with store.open_atomically(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        for row in chain([header], rows):
            writer.writerow(["" if value is None else _LONE_SURROGATES.sub("\ufffd", str(value)) for value in row])
        text.detach()


def _find_schema(header: Sequence[str], given: Mapping[str, list[Any]], texts: set[str]) -> pa.Schema:
    """Return the types of the columns; `given` are those of the cohort's own table, with all their values."""
    import pyarrow as pa

    def find_type(name: str) -> pa.DataType:
        if name in given:
            try:
                found = pa.array(given[name]).type
                return pa.string() if pa.types.is_null(found) or not _is_writable(found) else found
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
                # mixed types, integers beyond 64 bits, or text that UTF-8 cannot hold
                return pa.string()
        if name in texts or name in _TEXTS:
            return pa.string()
        return pa.int64() if name in _INTEGERS or is_count(name) else pa.float64()

    return pa.schema([(name, find_type(name)) for name in header])


def _is_writable(kind: pa.DataType) -> bool:
    """Tell whether a Parquet file can hold a type: not objects without a key, alone or in lists."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_is_writable(kind.field(at).type) for at in range(kind.num_fields))
    return not pa.types.is_list(kind) or _is_writable(kind.value_type)


def _write_parquet(path: str, schema: pa.Schema, rows: Iterator[Sequence[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def to_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        if pa.types.is_string(kind):
            values = [None if value is None else _valid_text(str(value)) for value in values]
        return pa.array(values, kind)

    with store.open_atomically(path) as file, pq.ParquetWriter(file, schema) as writer:
        while chunk := list(islice(rows, _CHUNK_ROWS)):
            columns = zip(zip(*chunk, strict=True), schema.types, strict=True)
            writer.write_table(pa.Table.from_arrays([to_array(*column) for column in columns], schema=schema))


def _valid_text(text: str) -> str:
    """Return text that UTF-8 can hold; a file name may consist of any bytes."""
    return _LONE_SURROGATES.sub("\ufffd", text).encode(errors="surrogateescape").decode(errors="replace")
