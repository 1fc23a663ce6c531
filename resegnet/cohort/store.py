"""Files in a folder or in any store that fsspec knows. A path is a local one or an address like `s3://bucket/eye.png`.

What cannot be read or written raises an OSError. Stores raise errors of their own, or an ImportError where the package
that reaches them is not installed; here each becomes an OSError with the same words.
"""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from resegnet.errors import first_line
from resegnet.io import atomic_writer, write_atomically


def is_remote(path: str) -> bool:
    """Return whether a path is an address for fsspec."""
    return "://" in path


def file_system(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the path in it."""
    from fsspec.core import url_to_fs

    return url_to_fs(address)


def join(out: str, name: str) -> str:
    """Return the path of the file `name` (relative, with /) in the folder or store `out`."""
    return f"{out.rstrip('/')}/{name}" if is_remote(out) else os.path.join(out, name)


@contextmanager
def _file_system(address: str) -> Iterator[tuple[Any, str]]:
    """Give the file system of an address and the path in it; an error of the store becomes an OSError."""
    try:
        yield file_system(address)
    except (OSError, TypeError, AttributeError, NameError):  # all but the first are defects, which show their traceback
        raise
    except Exception as error:
        raise OSError(first_line(error)) from error


def exists(path: str) -> bool:
    """Return whether there is a file or folder at a path."""
    if is_remote(path):
        with _file_system(path) as (store, inside):
            return store.exists(inside)
    return os.path.lexists(path)


def read(path: str) -> bytes:
    """Read a file.

    Raises
    ------
    OSError
        If it does not exist or cannot be read.
    """
    if is_remote(path):
        with _file_system(path) as (store, inside):
            return store.cat_file(inside)
    return Path(path).read_bytes()


def write(path: str, content: bytes) -> None:
    """Write a file completely or not at all."""
    if is_remote(path):
        with _file_system(path) as (store, inside):
            store.makedirs(inside.rpartition("/")[0], exist_ok=True)
            store.pipe_file(inside, content)
    else:
        Path(path).parent.mkdir(exist_ok=True)
        write_atomically(Path(path), content)


@contextmanager
def open_atomically(path: str) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under its name when the block ends without an error."""
    if is_remote(path):
        # A file opened in the store itself would appear also if the block ends with an error, cut where it ended.
        with tempfile.TemporaryDirectory() as folder:
            local = os.path.join(folder, "content")
            with open(local, "wb") as file:
                yield file
            with _file_system(path) as (store, inside):
                store.makedirs(inside.rpartition("/")[0], exist_ok=True)
                store.put_file(local, inside)
        return
    with atomic_writer(path) as file:
        yield file


def remove(path: str) -> None:
    """Remove a file, if it exists."""
    if is_remote(path):
        with _file_system(path) as (store, inside):
            if store.exists(inside):
                store.rm_file(inside)
    else:
        Path(path).unlink(missing_ok=True)


def remove_matching(pattern: str) -> None:
    """Remove the files that match a glob in the last part of `pattern`, and their folder if it is empty then."""
    folder, _, names = pattern.rpartition("/")
    if is_remote(pattern):
        with _file_system(folder) as (store, inside):
            for path in store.glob(f"{glob.escape(inside)}/{names}"):
                store.rm_file(path)
        return
    for path in Path(folder).glob(names):
        path.unlink()
    with suppress(OSError):
        Path(folder).rmdir()


def reason(error: BaseException) -> str:
    """Return the operating system's words for an error, or the first line of its message."""
    return getattr(error, "strerror", None) or first_line(error)
