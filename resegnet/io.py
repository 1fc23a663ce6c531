"""Files: written atomically, encoded as PNG or JSON, read without trust, named safely."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

# Deflate without its search for repeats: photographs have none beyond runs. Measured on 3504 x 2336 px (one busy core):
# overlay 1.4 s and 6.9 MB, against 1.4 s and 8.7 MB at zlib level 1, and 8 s and 7.4 MB at Pillow's default level 6;
# probability 0.6 s and 5.4 MB, against 1.1 s and 5.7 MB; mask 0.15 s and 0.1 MB, against 0.3 s and 0.1 MB at level 6.
_FAST_PNG = {"compress_level": 1, "compress_type": zlib.Z_RLE}

TEMPORARY_FILES = f".{'[0-9a-f]' * 32}.tmp"  # glob of the names that `atomic_writer` gives
_MAX_NAME_BYTES = 150  # common file systems allow 255; this leaves room for suffixes
_MAX_JSON_BYTES = 10_000_000  # the JSON files of a release are far smaller; the bundled metrics.json has 57 kB
_WINDOWS_DEVICES = {
    "CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))
}  # fmt: skip


def png(pixels: np.ndarray, **options: int) -> bytes:
    """Encode an array as PNG.

    Parameters
    ----------
    pixels
        (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB.
    options
        Options of Pillow's PNG writer. They replace the default, which favours speed over size.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **(options or _FAST_PNG))
    return file.getvalue()


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """Encode as indented UTF-8 JSON that ends in a line feed.

    Raises
    ------
    ValueError
        If a number is nan or infinite, which JSON cannot hold; see `without_nan`.
    """
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        errors="backslashreplace"  # a path may hold bytes that are no UTF-8
    )


def without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    """Replace nan by None, so that the numbers can be written as JSON."""
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def read_json(path: str | Path) -> Any:
    """Read a JSON file that may come from a stranger.

    Raises
    ------
    OSError
        If the path is not a regular file (reading a pipe or a device could block for ever) or cannot be read.
    ValueError
        If the content is not JSON, repeats a key in an object, is larger than 10 MB, or is nested too deeply.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError("it is no regular file")
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(f"it has more than {_MAX_JSON_BYTES / 1e6:.0f} MB")
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):  # parsers differ in which of the two values they keep
        raise ValueError("a name stands twice in an object")
    return values


def json_lines(content: bytes) -> list[Any]:
    """Parse JSON lines in UTF-8, with or without a byte order mark; blank lines do not count.

    Raises
    ------
    ValueError
        If a line is not JSON, or nested too deeply, or the content not UTF-8.
    """
    # A line feed alone ends a line: `str.splitlines` would cut a name that holds U+2028.
    try:
        return [json.loads(line) for line in content.decode("utf-8-sig").split("\n") if line.strip()]
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read all arrays of an .npz file, by name. None if it is missing, empty, cut or altered."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:  # given a path, numpy leaves a damaged file open
            return dict(arrays)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        return None


def safe_name(name: str) -> str:
    r"""Turn any text into the start of a file name that is valid on every system and stays in its folder.

    Separators, characters that Windows forbids, control characters and unpaired surrogates become "_". Dots and spaces
    at both ends are removed, and the name is cut to 150 bytes of UTF-8. An empty result becomes "photograph". A name
    that Windows reserves for a device, such as CON, gets a leading "_".
    """
    characters = ["_" if c in '/\\:*?"<>|' or unicodedata.category(c)[0] == "C" else c for c in name]
    short = "".join(characters).strip(". ").encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    short = short.rstrip(". ") or "photograph"
    return f"_{short}" if short.partition(".")[0].upper() in _WINDOWS_DEVICES else short


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that `path` holds either the old or the new content, even if the process is killed.

    Raises
    ------
    OSError
        If the file cannot be written; the error names the file.
    """
    with atomic_writer(path) as file:
        file.write(content)


@contextmanager
def atomic_writer(path: str | os.PathLike[str], *, sync: bool = False) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` for writing, and rename it to `path` when the block ends without an error.

    Parameters
    ----------
    path
        File to create or replace.
    sync
        Flush the content to the disk before the rename, so that it also survives a power failure.

    Raises
    ------
    OSError
        If the file cannot be written; the error names the file.
    """
    path = Path(path)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        try:
            with temporary.open("wb") as file:
                yield file
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:  # for a full disk it names no file, otherwise the temporary one
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Create a temporary folder beside `path`, and rename it to `path` when the block ends without an error.

    A folder that `path` already names is replaced only then. If the block fails, the temporary folder is removed; one
    that a killed process left is removed first.

    Raises
    ------
    OSError
        If the folder cannot be created or renamed.
    """
    path = Path(os.path.abspath(path))
    # Hidden, and of a name that nobody else gives: both are removed.
    partial, old = (path.with_name(f".{path.name}.resegnet-{part}") for part in ("partial", "old"))
    if old.exists() and not path.exists():  # a process was killed between the two renames
        old.replace(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        path.replace(old)  # deleting in place would leave half a folder visible for a while
    partial.replace(path)
    shutil.rmtree(old, ignore_errors=True)
