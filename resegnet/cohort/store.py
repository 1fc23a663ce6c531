"""Files of a folder, or of any store that fsspec knows: `path` is a path or an address as `s3://bucket/eye.png`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from resegnet.cohort.listing import file_system, is_remote
from resegnet.io import atomic_writer, write_atomically


def join(out: str, name: str) -> str:
    """The address of a file `name` (relative, with /) of the folder or store `out`."""
    return f"{out.rstrip('/')}/{name}" if is_remote(out) else os.path.join(out, name)


def exists(path: str) -> bool:
    """True if there is such a file or folder."""
    if is_remote(path):
        store, inside = file_system(path)
        return store.exists(inside)
    return os.path.lexists(path)


def read(path: str) -> bytes:
    """The content of a file.

    Raises
    ------
    OSError
        If it is not there or cannot be read.
    """
    if is_remote(path):
        store, inside = file_system(path)
        return store.cat_file(inside)
    return Path(path).read_bytes()


def write(path: str, content: bytes) -> None:
    """Write a file whole or not at all."""
    if is_remote(path):
        store, inside = file_system(path)
        store.makedirs(inside.rpartition("/")[0], exist_ok=True)
        store.pipe_file(inside, content)
    else:
        write_atomically(Path(path), content)


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    if is_remote(path):
        store, inside = file_system(path)
        if store.exists(inside):
            store.rm_file(inside)
    else:
        Path(path).unlink(missing_ok=True)


def remove_all(pattern: str) -> None:
    """Remove the files that fit to a pattern in their last part, and their folder, if nothing else is in it."""
    folder, _, names = pattern.rpartition("/")
    if is_remote(pattern):
        store, inside = file_system(folder)
        for path in store.glob(f"{inside}/{names}"):
            store.rm_file(path)
        return
    for path in Path(folder).glob(names):
        path.unlink()
    with suppress(OSError):
        Path(folder).rmdir()


@contextmanager
def atomic_writer_at(path: str) -> Iterator[IO[bytes]]:
    """A file to be written piece by piece that appears when it is whole."""
    if is_remote(path):
        store, inside = file_system(path)
        store.makedirs(inside.rpartition("/")[0], exist_ok=True)
        # A store's own file would be whole for it wherever writing breaks off.
        with tempfile.TemporaryDirectory() as folder:
            here = os.path.join(folder, "whole")
            with open(here, "wb") as file:
                yield file
            store.put_file(here, inside)
        return
    with atomic_writer(path) as file:
        yield file
