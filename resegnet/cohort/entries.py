"""Photographs named by tables (CSV, TSV, JSON lines, Parquet) and by data sets that `datasets` loads."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from resegnet.cohort.store import is_remote
from resegnet.errors import DataError, first_line, require
from resegnet.io import json_lines

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".parquet"})
IMAGE_COLUMNS = ("image", "image_file_name", "file_name")  # the last two are those of an image folder's metadata
ID_COLUMNS = ("id", "image_id")
SCALE_COLUMN = "um_per_px"
SCALES_UM = (1e-3, 1e3)  # least and greatest that is accepted; areas of any photograph stay finite


@dataclass(frozen=True, slots=True)
class Entry:
    """One photograph that an input names, before it gets an id that is unique in the cohort."""

    name: str  # wanted start of its file names
    source: str  # a path, an address, or data set, split and row in words
    columns: Mapping[str, Any] = field(default_factory=dict)  # of its row in a table
    id: str = ""  # given by a table
    row: tuple[str, str, int] | None = None  # data set, split and row number, if the picture lies in a data set
    error: str = ""  # reason why there is nothing to read


def read_table(table: str, read: Callable[[], bytes], split: str | None = None) -> Iterator[Entry]:
    """Yield the photographs that the rows of a table name.

    Parameters
    ----------
    table
        Path or address.
    read
        Returns the table's content.
    split
        Passed on to `read_data_set` if the table is a Parquet file with pictures in it.

    Raises
    ------
    DataError
        If the table cannot be read or has no column of photographs.
    """
    suffix = PurePosixPath(table).suffix.lower()
    try:
        if suffix == ".parquet":
            if _holds_pictures(table, read):
                yield from read_data_set(table, split)
                return
            names, rows = _read_parquet(table, read)
        elif suffix == ".jsonl":
            names, rows = _read_json_lines(read())
        else:
            names, rows = _read_csv(read(), "\t" if suffix == ".tsv" else None)
    except (OSError, ValueError, OverflowError, AttributeError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{table} cannot be read ({first_line(error)}); expected a table in UTF-8.") from error
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    if image is None:
        raise DataError(f"{table} has no column 'image'; it has: {', '.join(names) or 'none'}.")
    id_column = next((name for name in ID_COLUMNS if name in names), None)
    for number, row in enumerate(rows, start=1):
        columns = {name: row.get(name) for name in names}
        cell = str(columns[image] or "").strip()
        given = columns.get(id_column) if id_column else None
        given = "" if given is None else str(given).strip()
        if not cell:
            error_text = "The row names no photograph."
            yield Entry(f"row_{number}", f"{table}, row {number}", columns, given, error=error_text)
            continue
        path = PurePosixPath(cell)
        name = path.stem if os.path.isabs(cell) or is_remote(cell) else join_parts(path)
        yield Entry(name, _beside(table, cell), columns, given)


def read_data_set(source: str, split: str | None) -> Iterator[Entry]:
    """Yield the photographs of a data set that `datasets` loads; `split` None takes all splits.

    Raises
    ------
    DataError
        If the data set cannot be loaded, or has no such split or no column `image`.
    MissingExtraError
        If `datasets` is not installed.
    """
    require("datasets", f"reading {source} as a data set")
    import pyarrow.compute as pc

    from resegnet.dataset_source import PICTURE_CELL, load_splits

    _, splits = load_splits(source)
    if split is not None and split not in splits:
        raise DataError(f"{source} has no split '{split}'; it has: {', '.join(sorted(splits))}.")
    for key, part in splits.items():
        if split not in (None, key):
            continue
        if "image" not in part.column_names:
            raise DataError(f"{source} has no column 'image'; it has: {', '.join(part.column_names)}.")
        if not len(part):
            continue
        pictures = part.select_columns("image").cast_column("image", PICTURE_CELL)
        cells = pictures.with_format("arrow")[:]["image"]
        # Other pictures, such as masks, are not copied into the table of results.
        texts = [
            name
            for name, feature in part.features.items()
            if name != "image" and not hasattr(feature, "decode_example") and not isinstance(feature, dict)
        ]
        rows = part.select_columns(texts).to_list() if texts else [{}] * len(part)
        paths = pc.struct_field(cells, "path").to_pylist()
        embedded = pc.is_valid(pc.struct_field(cells, "bytes")).to_pylist()
        for number, (row, path, has_bytes) in enumerate(zip(rows, paths, embedded, strict=True)):
            given = next((str(row[name]) for name in ID_COLUMNS if row.get(name) not in (None, "")), "")
            name = Path(path).stem if path else f"{key}_{number:06d}"
            place = f"{source}, {key}, row {number}"
            if has_bytes:
                yield Entry(name, place, row, given, (source, key, number))
            elif path:
                yield Entry(name, path, row, given)
            else:
                yield Entry(name, place, row, given, error="The row holds no photograph.")


def join_parts(path: Path | PurePosixPath) -> str:
    """Join the parts of a relative path to one name: patient_7/left.jpg becomes patient_7_left."""
    path = path.with_suffix("") if path.name else path  # "." has no name
    return "_".join(part for part in path.parts if part not in (".", ".."))


def _holds_pictures(table: str, read: Callable[[], bytes]) -> bool:
    """Return whether the image column of a Parquet file holds encoded pictures and not paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(_parquet_file(table, read))
    name = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    return name is not None and pa.types.is_struct(schema.field(name).type)


def _read_parquet(table: str, read: Callable[[], bytes]) -> tuple[list[str], list[dict[str, Any]]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(_parquet_file(table, read)) as file:  # `read_table` would take folders for partitions
        return file.schema_arrow.names, file.read().to_pylist()


def _parquet_file(table: str, read: Callable[[], bytes]) -> str | io.BytesIO:
    return io.BytesIO(read()) if is_remote(table) else table


def _read_json_lines(content: bytes) -> tuple[list[str], list[dict[str, Any]]]:
    rows = json_lines(content)
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no JSON object")
    return list(dict.fromkeys(name for row in rows for name in row)), rows


def _read_csv(content: bytes, delimiter: str | None) -> tuple[list[str], list[dict[str, Any]]]:
    """Read a CSV with all values as text: 007 stays 007."""
    text = content.decode("utf-8-sig")
    header = text.partition("\n")[0]
    delimiter = delimiter or max(",;\t", key=header.count)  # Excel writes semicolons in much of Europe
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", restval=None)
    rows = list(reader)
    return [name for name in reader.fieldnames or [] if name], rows  # the index column of pandas has no name


def _beside(table: str, cell: str) -> str:
    """Return a path in a table, relative to the table's folder unless it is absolute or an address."""
    if is_remote(cell) or os.path.isabs(cell):
        return cell
    if is_remote(table):
        return table.rpartition("/")[0] + "/" + cell
    return os.path.join(os.path.dirname(table), cell)
