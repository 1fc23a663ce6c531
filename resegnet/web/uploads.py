"""The photographs among uploaded files and in uploaded ZIP files, which come from strangers."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from resegnet.cohort.photograph import Photograph, free_name
from resegnet.errors import DataError, ImageError

# Limits of one batch. A ZIP may claim anything about its contents, so only the bytes that come out are counted.
MAX_PHOTOGRAPHS = 200
MAX_BYTES = 2_000_000_000
MAX_BYTES_EACH = 200_000_000  # the same as the limit of an upload
MAX_RATIO = 100  # unpacked to packed; photographs reach 10, and only if they were stored without compression
MAX_DIRECTORY_BYTES = 1_000_000  # of the directory at the end of a ZIP, which is read at once: about 10,000 files


@dataclass
class _Allowance:
    bytes_left: int = MAX_BYTES


@dataclass(frozen=True, slots=True)
class _Upload(Photograph):
    """An uploaded photograph, by itself or in a ZIP."""

    path: str = ""
    entry: zipfile.ZipInfo | None = None
    allowance: _Allowance = field(default_factory=_Allowance)

    def read(self) -> bytes:
        """Return the encoded picture; see `Photograph.read`."""
        if self.error:
            raise ImageError(self.error)
        try:
            if self.entry is None:
                return Path(self.path).read_bytes()
            return _unpack(self.path, self.entry, self.allowance)
        except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            reason = getattr(error, "strerror", None) or "damaged, or protected by a password"
            raise ImageError(f"'{self.source}' cannot be read ({reason}); send it again.") from error


def list_uploads(files: Sequence[str]) -> list[Photograph]:
    """List the photographs among uploaded files, those in ZIP files included, each under a unique name.

    Raises
    ------
    DataError
        If there are none, or more than `MAX_PHOTOGRAPHS`.
    """
    allowance = _Allowance()
    taken: dict[str, int] = {}
    photographs: list[Photograph] = []

    def add(name: str, path: str, entry: zipfile.ZipInfo | None = None, error: str = "") -> None:
        parts = [part for part in re.split(r"[/\\]+", name) if part not in ("", ".", "..")] or ["photograph"]
        file = free_name("_".join([*parts[:-1], Path(parts[-1]).stem]), taken)
        source = "/".join(parts if entry is None else [Path(path).name, *parts])  # tells it from the same file alone
        photographs.append(_Upload(file, file, source, error=error, path=path, entry=entry, allowance=allowance))
        if len(photographs) > MAX_PHOTOGRAPHS:
            raise DataError(
                f"More than {MAX_PHOTOGRAPHS} photographs came, the most that the page takes at a time. Send fewer, or "
                "use the command line: python -m resegnet segment."
            )

    for path in files:
        try:
            with open(path, "rb") as file:
                if file.read(4) not in (b"PK\3\4", b"PK\5\6"):
                    add(Path(path).name, path)
                    continue
            entries = _entries(path)
        except FileNotFoundError:
            add(Path(path).name, path, error="This file was deleted after an hour; choose it again.")
            continue
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):  # what zipfile raises for a broken one
            add(Path(path).name, path, error="This ZIP cannot be read, or it holds far too many files; pack it again.")
            continue
        for entry in entries:
            add(entry.filename, path, entry)
    if not photographs:
        raise DataError("No photograph came, expected one or more: the ZIP is empty.")
    return photographs


def _entries(path: str) -> list[zipfile.ZipInfo]:
    """List the files in a ZIP, without those that operating systems hide in it."""
    with open(path, "rb") as file, zipfile.ZipFile(_BoundedFile(file)) as archive:
        entries = archive.infolist()
    return [
        entry
        for entry in entries
        if not entry.is_dir()
        and not any(part.startswith(".") and part not in (".", "..") for part in re.split(r"[/\\]+", entry.filename))
        and not entry.filename.startswith("__MACOSX/")
    ]


def _unpack(path: str, entry: zipfile.ZipInfo, allowance: _Allowance) -> bytes:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ImageError(
            f"'{entry.filename}' is packed by a rare method; expected a ZIP with the usual deflate method: pack it "
            "again."
        )
    most = min(MAX_BYTES_EACH, MAX_RATIO * entry.compress_size + 1_000_000, allowance.bytes_left)
    content = io.BytesIO()
    with open(path, "rb") as file, zipfile.ZipFile(_BoundedFile(file)) as archive, archive.open(entry) as stream:
        while piece := stream.read(1 << 18):
            allowance.bytes_left -= len(piece)
            if content.tell() + len(piece) > most:
                raise ImageError(f"'{entry.filename}' unpacks to more than a photograph would; send it by itself.")
            content.write(piece)
    return content.getvalue()


class _BoundedFile:
    """A file that returns few bytes at a time: `zipfile` reads a directory of any claimed length at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(MAX_DIRECTORY_BYTES + 1 if size < 0 else min(size, MAX_DIRECTORY_BYTES + 1))
        if len(content) > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("the directory is too large")
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
