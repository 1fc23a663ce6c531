"""Which photographs a cohort holds: files, folders, globs, tables, data sets, each under a name of its own."""

from __future__ import annotations

import csv
import glob
import io
import json
import math
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from resegnet.errors import ImageError, first_line
from resegnet.image import MAX_BYTES, SUFFIXES
from resegnet.io import safe_name

TABLES = frozenset({".csv", ".tsv", ".jsonl", ".parquet"})
IMAGE_COLUMNS = ("image", "image_file_name", "file_name")  # the last two are those of an image folder's metadata
ID_COLUMNS = ("id", "image_id")
SCALE_COLUMN = "um_per_px"

# Folders of earlier results, which lie where they were asked for, perhaps among the photographs.
RESULTS = frozenset({"masks", "overlays", "probabilities", "records"})


@dataclass(frozen=True, slots=True)
class Photograph:
    """One photograph of a cohort, not yet read."""

    id: str  # of the results; no other photograph of the cohort has it
    file: str  # what its files are called; unique also where upper and lower case are the same
    source: str  # a path, an address that fsspec knows, or data set, split and row
    columns: Mapping[str, Any] = field(default_factory=dict)  # carried along
    um_per_px: float | None = None
    row: tuple[str, str, int] | None = None  # data set, split and number, where the picture lies in a data set
    error: str = ""  # why there is nothing to read

    def read(self) -> bytes:
        """The encoded picture.

        Raises
        ------
        ImageError
            If there is none, or it cannot be had.
        """
        if self.error:
            raise ImageError(self.error)
        try:
            if self.row is not None:
                source, split, number = self.row
                return _pictures(source, split)[number]["image"]["bytes"]
            if is_remote(self.source):
                store, path = file_system(self.source)
                return store.cat_file(path)
            if not os.path.isfile(self.source):  # opening a pipe could wait for ever
                raise ImageError(
                    f"{self.source} does not exist or is not a file; expected a photograph: check the path."
                )
            if os.path.getsize(self.source) > MAX_BYTES:
                raise ImageError(f"{self.source} has more than {MAX_BYTES / 1e6:.0f} MB; expected a photograph.")
            return Path(self.source).read_bytes()
        except ImageError:
            raise
        except Exception as error:  # each store has errors of its own
            reason = getattr(error, "strerror", None) or first_line(error)
            raise ImageError(f"{self.source} cannot be read ({reason}); check its permissions.") from error


@dataclass(frozen=True, slots=True)
class _Found:
    name: str  # wished for, not yet unique
    source: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""  # given by a table
    row: tuple[str, str, int] | None = None
    error: str = ""


def list_photographs(inputs: Sequence[str], split: str | None = None) -> list[Photograph]:
    """All photographs of a cohort, in an order and under names that depend on the inputs alone.

    Parameters
    ----------
    inputs
        Each one of these:

        * a picture file; the same one twice counts once;
        * a folder, searched with all folders in it, in the order of the names. Hidden files and the results of an
          earlier run are left out. Where a folder holds a `metadata.csv`, `.jsonl` or `.parquet`, that table names
          its photographs; where it holds folders `image` and `mask`, only `image` counts;
        * a glob such as `photos/**/*.jpg`, also in quotation marks;
        * a table, `.csv`, `.tsv`, `.jsonl` or `.parquet`, with a column `image`: paths, relative to the table's
          folder, or addresses. `id` names the results, `um_per_px` scales them; all columns are carried along, those
          of a CSV as text;
        * a data set that `datasets` loads: a Hub id, a folder written by `save_to_disk`, Parquet with pictures in it;
        * an address that fsspec knows, such as `s3://bucket/photos/`, of a picture, a table, a folder or a glob.
    split
        Of data sets; None takes all.

    Raises
    ------
    ValueError
        If an input is none of these, a table cannot be read, or two rows have the same `id`.
    """
    taken: dict[str, int] = {}
    ids: dict[str, str] = {}
    files: set[str] = set()
    photographs = []
    for text in inputs:
        for found in _find(text, split):
            if not found.columns and found.row is None:  # not of a table, which may name a picture twice
                path = found.source if is_remote(found.source) else os.path.abspath(found.source)
                if path in files:
                    continue
                files.add(path)
            file = free_name(found.id or found.name, taken)
            error, scale = found.error, None
            try:
                scale = _scale(found.columns.get(SCALE_COLUMN))
            except ValueError as wrong:
                error = error or str(wrong)
            identity = found.id or file
            if identity in ids:
                raise ValueError(
                    f"Two photographs have the id {identity!r}: {ids[identity]} and {found.source}. "
                    "Expected an id of its own for each: make the column unique."
                )
            ids[identity] = found.source
            photographs.append(Photograph(identity, file, found.source, found.columns, scale, found.row, error))
    return photographs


def is_remote(path: str) -> bool:
    """Whether a path is an address for fsspec."""
    return "://" in path


def _find(text: str, split: str | None) -> Iterator[_Found]:
    if is_remote(text):
        yield from _find_remote(text)
        return
    path = Path(os.path.expanduser(text))  # not that of `Path`, which fails for a file that is called ~
    if path.is_dir():
        if _is_data_set(path):
            yield from _of_data_set(str(path), split)
        else:
            yield from _of_folder(path)
    elif path.suffix.lower() in TABLES and path.exists():
        yield from _of_table(str(path), path.read_bytes, split)
    elif path.exists() or (path.suffix.lower() in SUFFIXES and not glob.has_magic(text)):
        yield _Found(path.stem, str(path))
    elif glob.has_magic(text):
        parts = path.parts
        root = Path(*parts[: next(k for k, part in enumerate(parts) if glob.has_magic(part))])
        for match in sorted(map(Path, glob.glob(str(path), recursive=True)), key=lambda match: match.parts):
            if match.is_dir():
                if "**" not in parts:  # which finds what is in them too
                    yield from _of_folder(match, root)
            elif match.suffix.lower() in SUFFIXES and not RESULTS.intersection(match.relative_to(root).parts[:-1]):
                yield _Found(_joined(match.relative_to(root)), str(match))
    else:
        from resegnet.hub import is_hub_id

        if not is_hub_id(text) or path.parent.is_dir():
            raise ValueError(
                f"There is no {text!r}. Expected a photograph, a folder, a glob, a table (.csv, .parquet) with a "
                "column 'image', or a Hub data set (owner/name)."
            )
        yield from _of_data_set(text, split)


def _of_folder(folder: Path, root: Path | None = None) -> Iterator[_Found]:
    for place, folders, names in os.walk(folder):
        if {"masks", "records"} <= set(folders):
            folders[:] = set(folders) - RESULTS
        if {"image", "mask"} <= set(folders):
            folders[:] = ["image"]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        tables = [f"metadata{suffix}" for suffix in (".csv", ".jsonl", ".parquet") if f"metadata{suffix}" in names]
        if tables:
            path = Path(place, tables[0])
            yield from _of_table(str(path), path.read_bytes, None)
            folders.clear()
            continue
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield _Found(_joined(path.relative_to(root or folder)), str(path))


def _find_remote(address: str) -> Iterator[_Found]:
    suffix = PurePosixPath(address).suffix.lower()
    try:
        store, path = file_system(address)
        if suffix in TABLES:
            content = store.cat_file(path)
        elif glob.has_magic(path):
            paths, root = sorted(store.glob(path)), path[: glob.magic_check.search(path).start()].rpartition("/")[0]
        elif suffix not in SUFFIXES:
            paths, root = sorted(store.find(path)), path.rstrip("/")
    except Exception as error:  # each store has errors of its own
        raise ValueError(f"{address} cannot be read ({first_line(error)}); check address and access.") from error
    if suffix in TABLES:
        yield from _of_table(address, lambda: content, None)
    elif suffix in SUFFIXES and not glob.has_magic(path):
        yield _Found(PurePosixPath(path).stem, address)
    else:
        protocol = address.partition("://")[0]
        for match in map(PurePosixPath, paths):
            inside = match.relative_to(root) if root else match
            hidden = any(part.startswith(".") for part in inside.parts)
            if match.suffix.lower() in SUFFIXES and not hidden and not RESULTS.intersection(inside.parts[:-1]):
                yield _Found(_joined(inside), f"{protocol}://{match}")


def _of_table(table: str, read: Callable[[], bytes], split: str | None) -> Iterator[_Found]:
    suffix = PurePosixPath(table).suffix.lower()
    try:
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            file = pq.ParquetFile(io.BytesIO(read()) if is_remote(table) else table)
            names = file.schema_arrow.names
            image = next((name for name in IMAGE_COLUMNS if name in names), None)
            if image is not None and str(file.schema_arrow.field(image).type).startswith("struct"):
                file.close()
                yield from _of_data_set(table, split)
                return
            rows = file.read().to_pylist()
            file.close()
        elif suffix == ".jsonl":
            rows = [json.loads(line) for line in read().decode("utf-8-sig").splitlines() if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a line is no JSON object")
            names = list(dict.fromkeys(name for row in rows for name in row))
        else:
            text = read().decode("utf-8-sig")
            header = text.partition("\n")[0]
            delimiter = "\t" if suffix == ".tsv" else max(",;\t", key=header.count)  # a semicolon is Excel's in Europe
            reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", restval=None)
            rows, names = list(reader), [name for name in reader.fieldnames or [] if name]  # pandas' index has none
    except (OSError, ValueError, AttributeError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read ({first_line(error)}); expected a table in UTF-8.") from error
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    if image is None:
        raise ValueError(f"{table} has no column 'image'; it has: {', '.join(names) or 'none'}.")
    id_column = next((name for name in ID_COLUMNS if name in names), None)
    for number, row in enumerate(rows, start=1):
        row.pop("", None)
        columns = {name: row.get(name) for name in names}
        cell = str(columns[image] or "").strip()
        given = columns.get(id_column) if id_column else None
        given = "" if given is None else str(given).strip()
        if not cell:
            yield _Found(
                f"row_{number}", f"{table}, row {number}", columns, given, error="The row names no photograph."
            )
            continue
        parts = PurePosixPath(cell).parts
        name = PurePosixPath(cell).stem if os.path.isabs(cell) or is_remote(cell) else _joined(PurePosixPath(*parts))
        yield _Found(name, _beside(table, cell), columns, given)


def _of_data_set(source: str, split: str | None) -> Iterator[_Found]:
    import pyarrow.compute as pc

    from resegnet.dataset_source import PICTURE_CELL, load_splits

    _, splits = load_splits(source)
    if split is not None and split not in splits:
        raise ValueError(f"{source} has no split '{split}'; it has: {', '.join(sorted(splits))}.")
    for key, part in splits.items():
        if split not in (None, key):
            continue
        if "image" not in part.column_names:
            raise ValueError(f"{source} has no column 'image'; it has: {', '.join(part.column_names)}.")
        pictures = part.select_columns("image").cast_column("image", PICTURE_CELL)
        cells = pictures.with_format("arrow")[:]["image"] if len(part) else None
        if cells is None:
            continue
        # Masks and the like, and the pictures' bytes, are not carried along.
        texts = [
            name
            for name, feature in part.features.items()
            if name != "image" and not hasattr(feature, "decode_example") and not isinstance(feature, dict)
        ]
        rows = part.select_columns(texts).to_list() if texts else [{}] * len(part)
        paths = pc.struct_field(cells, "path").to_pylist()
        inside = pc.is_valid(pc.struct_field(cells, "bytes")).to_pylist()
        for number, (row, path, embedded) in enumerate(zip(rows, paths, inside, strict=True)):
            given = next((str(row[name]) for name in ID_COLUMNS if row.get(name) not in (None, "")), "")
            name = Path(path).stem if path else f"{key}_{number:06d}"
            if embedded:
                yield _Found(name, f"{source}, {key}, row {number}", row, given, (source, key, number))
            elif path:
                yield _Found(name, path, row, given)
            else:
                yield _Found(name, f"{source}, {key}, row {number}", row, given, error="The row holds no photograph.")


@cache
def _pictures(source: str, split: str) -> Any:
    """The photographs of a data set, encoded."""
    from resegnet.dataset_source import PICTURE_CELL, load_splits

    return load_splits(source)[1][split].select_columns("image").cast_column("image", PICTURE_CELL)


def _is_data_set(folder: Path) -> bool:
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return True
    parquet = next(folder.rglob("*.parquet"), None)
    return parquet is not None and next(_of_folder(folder), None) is None


def file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, by fsspec, and the path in it."""
    from fsspec.core import url_to_fs

    return url_to_fs(address)


def _scale(value: Any) -> float | None:
    if value is None or str(value).strip() == "":
        return None
    try:
        scale = float(value)
    except (TypeError, ValueError):
        scale = math.nan
    if not 0 < scale < math.inf:
        raise ValueError(f"um_per_px is {value!r}, expected a positive number of micrometres.")
    return scale


def _beside(table: str, cell: str) -> str:
    if is_remote(cell) or os.path.isabs(cell):
        return cell
    if is_remote(table):
        return table.rpartition("/")[0] + "/" + cell
    return os.path.join(os.path.dirname(table), cell)


def _joined(path: Path | PurePosixPath) -> str:
    """A relative path as one name: patient_7/left.jpg is patient_7_left."""
    return "_".join(part for part in path.with_suffix("").parts if part not in (".", ".."))


def free_name(name: str, taken: dict[str, int]) -> str:
    """`name` as a file name, numbered where one before it has it already; `taken` counts those."""
    first = free = safe_name(name)
    while _key(free) in taken:
        taken[_key(first)] += 1
        ending = f"_{taken[_key(first)]}"
        # Cut before the number, which must not be what a long name loses.
        free = safe_name(first.encode()[:120].decode(errors="ignore") + ending)
    taken[_key(free)] = 1
    return free


def _key(name: str) -> str:
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name.casefold())
