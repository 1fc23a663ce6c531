"""One photograph of a cohort, and file names that are unique on every file system."""

from __future__ import annotations

import os
import threading
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resegnet.cohort.store import file_system, is_remote, reason
from resegnet.errors import ImageError
from resegnet.image import MAX_BYTES
from resegnet.io import safe_name

if TYPE_CHECKING:
    from datasets import Dataset

_LOADING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Photograph:
    """One photograph of a cohort, not yet read."""

    id: str  # names its results; unique in the cohort
    file: str  # start of its file names; unique also where upper and lower case are the same
    source: str  # a path, an address that fsspec knows, or data set, split and row in words
    columns: Mapping[str, Any] = field(default_factory=dict)  # copied into the table of results
    um_per_px: float | None = None
    row: tuple[str, str, int] | None = None  # data set, split and row number, if the picture lies in a data set
    error: str = ""  # reason why there is nothing to read

    def read(self) -> bytes:
        """Read the encoded picture.

        Raises
        ------
        ImageError
            If there is no picture, or it cannot be read.
        """
        if self.error:
            raise ImageError(self.error)
        try:
            if self.row is not None:
                data_set, split, number = self.row
                return _pictures(data_set, split)[number]["image"]["bytes"]
            if is_remote(self.source):
                store, path = file_system(self.source)
                return store.cat_file(path)
            if not os.path.isfile(self.source):  # opening a pipe could block for ever
                raise ImageError(
                    f"{self.source} does not exist or is not a file; expected a photograph: check the path."
                )
            if os.path.getsize(self.source) > MAX_BYTES:
                raise ImageError(f"{self.source} has more than {MAX_BYTES / 1e6:.0f} MB; expected a photograph.")
            return Path(self.source).read_bytes()
        except ImageError:
            raise
        except Exception as error:  # each store raises errors of its own
            raise ImageError(f"{self.source} cannot be read ({reason(error)}); check its permissions.") from error


def free_name(name: str, taken: dict[str, int]) -> str:
    """Return a safe file name that no earlier call with the same `taken` returned.

    Parameters
    ----------
    name
        Any text; see `resegnet.io.safe_name`.
    taken
        How often each name was asked for. The function updates it.
    """
    first = free = safe_name(name)
    while _key(free) in taken:
        taken[_key(first)] += 1
        ending = f"_{taken[_key(first)]}"
        # The name is cut before the number is added, else a long name would lose the number.
        free = safe_name(first.encode()[:120].decode(errors="ignore") + ending)
    taken[_key(free)] = 1
    return free


def _key(name: str) -> str:
    """Return the same text for names that some file system takes for one name."""
    return unicodedata.normalize("NFC", name.casefold())


def _pictures(data_set: str, split: str) -> Dataset:
    """Return the column `image` of a data set's split, with encoded pictures."""
    with _LOADING:  # the cache alone would let every thread load the data set that none has loaded yet
        return _load_pictures(data_set, split)


@cache
def _load_pictures(data_set: str, split: str) -> Dataset:
    from resegnet.dataset_source import PICTURE_CELL, load_splits

    return load_splits(data_set)[1][split].select_columns("image").cast_column("image", PICTURE_CELL)
