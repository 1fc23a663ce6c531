"""Find the photographs of a cohort in files, folders, globs, tables, data sets and addresses; give each an own name."""

from __future__ import annotations

import glob
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from resegnet.cohort.entries import (
    SCALE_COLUMN,
    SCALES_UM,
    TABLE_SUFFIXES,
    Entry,
    join_parts,
    read_data_set,
    read_table,
)
from resegnet.cohort.photograph import Photograph, free_name
from resegnet.cohort.store import file_system, is_remote, reason
from resegnet.dicom import is_dicom
from resegnet.errors import DataError, first_line, short_repr
from resegnet.image import SUFFIXES

logger = logging.getLogger(__name__)

P = TypeVar("P", Path, PurePosixPath)

# Photographs of phones are not read, but count, so that each is a failure that says so.
_PHOTOGRAPHS = SUFFIXES | {".heic", ".heif"}
_ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".gz", ".7z", ".rar"})
# Folders of earlier results, if the first two lie side by side. They may lie among the photographs.
RESULTS = frozenset({"masks", "overlays", "probabilities", "kinds", "records"})


def list_photographs(inputs: Sequence[str], split: str | None = None) -> list[Photograph]:
    """List all photographs of a cohort, in an order and under names that depend on the inputs alone.

    Parameters
    ----------
    inputs
        Each is one of these:

        * a picture file; a file that is named twice counts once;
        * a folder, searched with all folders in it, in the order of the names. Hidden files and the results of an
          earlier run are left out, and archives and unreadable folders, which a warning names. Files without a suffix,
          or with a number as suffix, count if they begin as DICOM files do. If a folder holds a `metadata.csv`,
          `.jsonl` or `.parquet`, that table names its photographs; if it holds folders `image` and `mask`, only `image`
          counts;
        * a glob such as `photos/**/*.jpg`, also in quotation marks;
        * a table, `.csv`, `.tsv`, `.jsonl` or `.parquet`, with a column `image`: paths, relative to the table's
          folder, or addresses. `id` names the results, `um_per_px` gives the scale; all columns are copied into the
          table of results, those of a CSV as text;
        * a data set that `datasets` loads: a Hub id, a folder written by `save_to_disk`, Parquet with pictures in it;
        * an address that fsspec knows, such as `s3://bucket/photos/`, of a picture, a table, a folder or a glob.
    split
        Split of the data sets; None takes all splits.

    Raises
    ------
    DataError
        If an input is none of these, a table cannot be read, or two rows have the same `id`.
    """
    taken: dict[str, int] = {}
    ids: dict[str, str] = {}
    files: set[str] = set()
    photographs = []
    for text in inputs:
        for entry in _find(text, split):
            if not entry.columns and entry.row is None:  # a table may name a picture twice, other inputs may not
                path = entry.source if is_remote(entry.source) else os.path.abspath(entry.source)
                if path in files:
                    continue
                files.add(path)
            file = free_name(entry.id or entry.name, taken)
            scale, error = _read_scale(entry.columns.get(SCALE_COLUMN))
            identity = entry.id or file
            if identity in ids:
                raise DataError(
                    f"Two photographs have the id {identity!r}: {ids[identity]} and {entry.source}. "
                    "Expected an id of its own for each: make the column unique."
                )
            ids[identity] = entry.source
            photographs.append(
                Photograph(identity, file, entry.source, entry.columns, scale, entry.row, entry.error or error)
            )
    return photographs


def _find(text: str, split: str | None) -> Iterator[Entry]:
    if not text:  # Path("") is the working folder
        raise DataError("Got an empty name, expected photographs: is a variable of the shell not set?")
    if is_remote(text):
        yield from _find_remote(text)
        return
    path = Path(os.path.expanduser(text))  # `Path.expanduser` fails for a file that is called ~
    if path.is_dir():
        yield from read_data_set(str(path), split) if _is_data_set(path) else _search(path)
    elif path.suffix.lower() in TABLE_SUFFIXES and path.exists():
        yield from read_table(str(path), path.read_bytes, split)
    elif path.exists() or (path.suffix.lower() in _PHOTOGRAPHS and not glob.has_magic(text)):
        yield Entry(path.stem, str(path))
    elif glob.has_magic(text):
        yield from _glob(path)
    else:
        from resegnet.hub import is_hub_id

        if not is_hub_id(text) or path.parent.is_dir():
            raise DataError(
                f"There is no {text!r}. Expected a photograph, a folder, a glob, a table (.csv, .tsv, .jsonl, "
                ".parquet) with a column 'image', or a Hub data set (owner/name)."
            )
        yield from read_data_set(text, split)


def _glob(pattern: Path) -> Iterator[Entry]:
    parts = pattern.parts
    root = Path(*parts[: next(k for k, part in enumerate(parts) if glob.has_magic(part))])
    for match in sorted(map(Path, glob.glob(str(pattern), recursive=True)), key=lambda match: match.parts):
        if match.is_dir():
            if "**" not in parts:  # a pattern with ** matches the files in the folder too
                yield from _search(match, root)
        elif _is_photograph(match) and not _is_result(match, root, Path.is_dir):
            yield Entry(join_parts(match.relative_to(root)), str(match))


def _is_result(path: P, root: P | None, is_folder: Callable[[P], bool]) -> bool:
    """Return whether a file below `root` (None: anywhere) lies in a folder of results."""
    return any(
        folder.name in RESULTS and is_folder(folder.with_name("masks")) and is_folder(folder.with_name("records"))
        for folder in path.parents
        if folder != root and (root is None or folder.is_relative_to(root))
    )


def _search(folder: Path, root: Path | None = None) -> Iterator[Entry]:
    """Yield the photographs in a folder and its folders, named by their paths from `root` (default: the folder)."""
    for place, folders, names in os.walk(folder, onerror=_warn_of_folder):
        if {"masks", "records"} <= set(folders):  # as in `_is_result`, without another look at the disk
            folders[:] = set(folders) - RESULTS
        if {"image", "mask"} <= set(folders):
            folders[:] = ["image"]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        tables = [f"metadata{suffix}" for suffix in (".csv", ".jsonl", ".parquet") if f"metadata{suffix}" in names]
        if tables:
            path = Path(place, tables[0])
            yield from read_table(str(path), path.read_bytes)
            folders.clear()
            continue
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(place, name)
            if _is_photograph(path):
                yield Entry(join_parts(path.relative_to(root or folder)), str(path))
            elif path.suffix.lower() in _ARCHIVES:
                logger.warning("%s is an archive and is left out: unpack it to segment what is in it.", path)


def _warn_of_folder(error: OSError) -> None:
    """Warn of a folder that cannot be read: photographs may be missing from the cohort."""
    logger.warning("%s is left out, as it cannot be read (%s): check its permissions.", error.filename, reason(error))


def _is_photograph(path: Path) -> bool:
    """Return whether a file counts as a photograph: by its suffix, or by its content as DICOM without `.dcm`."""
    suffix = path.suffix.lower()
    if suffix in _PHOTOGRAPHS:
        return True
    if (suffix and not suffix[1:].isdigit()) or path.name == "DICOMDIR":  # that one lists files, and has no picture
        return False
    try:
        # Only regular files are opened, since opening a pipe could block for ever.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False


def _find_remote(address: str) -> Iterator[Entry]:
    suffix = PurePosixPath(address).suffix.lower()
    try:
        store, path = file_system(address)
        is_pattern = glob.has_magic(path)
        if suffix in TABLE_SUFFIXES:
            content = store.cat_file(path)
        elif is_pattern:
            before_pattern = path[: min(path.index(character) for character in "*?[" if character in path)]
            paths, root = sorted(store.glob(path)), before_pattern.rpartition("/")[0]
        elif suffix not in _PHOTOGRAPHS:
            paths, root = sorted(store.find(path)), path.rstrip("/")
    except Exception as error:  # each store raises errors of its own
        raise DataError(f"{address} cannot be read ({first_line(error)}); check address and access.") from error
    if suffix in TABLE_SUFFIXES:
        yield from read_table(address, lambda: content)
    elif suffix in _PHOTOGRAPHS and not is_pattern:
        yield Entry(PurePosixPath(path).stem, address)
    else:
        protocol = address.partition("://")[0]
        start = PurePosixPath(root) if root else None

        @cache
        def is_folder(folder: PurePosixPath) -> bool:
            path = str(folder)  # of an address, one slash is left of two
            return bool(store.isdir(path.replace(":/", "://", 1) if is_remote(paths[0]) else path))

        for found in paths:
            match = PurePosixPath(found)
            inside = match.relative_to(root) if root else match
            hidden = any(part.startswith(".") for part in inside.parts)
            if match.suffix.lower() in _PHOTOGRAPHS and not hidden and not _is_result(match, start, is_folder):
                # Most stores give paths without the protocol; that of web servers gives addresses.
                yield Entry(join_parts(inside), found if is_remote(found) else f"{protocol}://{found}")


def _is_data_set(folder: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`, or holds Parquet and no photographs."""
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return True
    parquet = next(folder.rglob("*.parquet"), None)
    return parquet is not None and next(_search(folder), None) is None


def _read_scale(value: Any) -> tuple[float | None, str]:
    """Return the number in a scale cell, None if it is empty; and the reason if it is no scale."""
    if value is None or str(value).strip() == "":
        return None, ""
    try:
        scale = float(value)
    except (TypeError, ValueError, OverflowError):
        scale = math.nan
    least, most = SCALES_UM
    if not least <= scale <= most:
        return None, f"um_per_px is {short_repr(value)}, expected {least:g} to {most:g} micrometres."
    return scale, ""
