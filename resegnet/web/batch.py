"""The page's batch tab: many photographs or ZIP files in, a table that fills as they are done, a ZIP of it all out."""

from __future__ import annotations

import base64
import io
import re
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import IO, Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from resegnet.cohort.photograph import Photograph, free_name
from resegnet.cohort.run import make_folder
from resegnet.cohort.tables import write_tables
from resegnet.cohort.work import CohortOptions, Outcome, Work
from resegnet.errors import ImageError, OutputError
from resegnet.segmenter import Segmenter
from resegnet.web.handlers import RecentResults

# Of a batch. A ZIP may claim anything of what is in it: only what comes out is counted.
MOST_PHOTOGRAPHS = 200
MOST_BYTES = 2_000_000_000
MOST_BYTES_EACH = 200_000_000  # as of an upload
MOST_RATIO = 100  # of unpacked to packed; photographs reach 10, and only where they were stored without compression
MOST_DIRECTORY_BYTES = 1_000_000  # of the list at a ZIP's end, which is read at once: some 10,000 files

HEAD = (
    "<table><thead><tr><th></th><th>Photograph</th><th class='number'>Size</th><th class='number'>Vessels in the field"
    "</th><th>Notes</th></tr></thead><tbody>"
)
EMPTY = (
    f"<p>Up to {MOST_PHOTOGRAPHS} photographs, or ZIP files of them. Each becomes a line here as soon as it is done; "
    "masks, overlays and a table of all numbers come as one ZIP.</p>"
)


@dataclass
class Batch:
    """What came of a visitor's photographs so far."""

    folder: Path
    photographs: list[Photograph]
    outcomes: list[Outcome] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    lines: str = HEAD  # grows only at its end, so that gradio sends what is new and no more


@dataclass
class _Allowance:
    bytes_left: int = MOST_BYTES


@dataclass(frozen=True, slots=True)
class _Upload(Photograph):
    """A photograph that was sent, by itself or in a ZIP."""

    path: str = ""
    entry: zipfile.ZipInfo | None = None
    allowance: _Allowance = field(default_factory=_Allowance)

    def read(self) -> bytes:
        """The encoded picture; see `Photograph.read`."""
        if self.error:
            raise ImageError(self.error)
        try:
            if self.entry is None:
                return Path(self.path).read_bytes()
            return _unpack(self.path, self.entry, self.allowance)
        except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            reason = getattr(error, "strerror", None) or "damaged, or with a password"
            raise ImageError(f"'{self.source}' cannot be read ({reason}); send it again.") from error


class Batches:
    """What happens on the tab. Each photograph waits for its turn among those of all visitors."""

    def __init__(self, segmenter: Segmenter, results: RecentResults) -> None:
        self._segmenter = segmenter
        self._turn = results.turn

    def run(self, files: list[str] | None, threshold: float | None, probability: bool) -> Iterator[tuple[Any, ...]]:
        """Segment what was sent.

        Parameters
        ----------
        files
            Photographs and ZIP files.
        threshold
            From 0 to 1; None is the model's own.
        probability
            Whether the probabilities are wanted too.

        Yields
        ------
        batch, lines, progress, start, cancel, save
            After each photograph; the last three are the buttons.
        """
        if not files:
            raise gr.Error("No photographs came; choose some, or a ZIP of them.", print_exception=False)
        try:
            photographs = list_uploads(files)
            folder = Path(tempfile.mkdtemp(prefix="batch-", dir=get_upload_folder()))
            options = CohortOptions(str(folder), threshold=threshold, probability=probability)
            work = Work(self._segmenter, options)
            make_folder(options)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        batch = Batch(folder, photographs)
        yield _shown(batch, running=True)
        for photograph in photographs:
            try:
                with self._turn:  # of one photograph, so that others come between
                    outcome = work(photograph)
            except OutputError as error:
                raise gr.Error(
                    "The server has no room left for results; try fewer photographs.", print_exception=False
                ) from error
            batch.outcomes.append(outcome)
            batch.lines += _line(batch, photograph, outcome)
            over = batch.cancelled or len(batch.outcomes) == len(photographs)
            yield _shown(batch, running=not over)
            if over:
                return

    def cancel(self, batch: Batch | None) -> tuple[Any, ...]:
        """End a batch after the photograph under way; what is done stays, and can be saved."""
        if batch is not None:
            batch.cancelled = True
        return _shown(batch, running=True)

    def failed(self, batch: Batch | None) -> tuple[Any, ...]:
        """What the tab shows where a batch was refused or broke off."""
        return _shown(batch, running=False)

    def save(self, batch: Batch | None) -> str:
        """A ZIP of what is done so far: masks, overlays, the table."""
        done = [] if batch is None else list(zip(batch.photographs, batch.outcomes, strict=False))
        if not done:
            raise gr.Error("There is nothing to save yet.", print_exception=False)
        if not all((batch.folder / outcome.row["mask"]).exists() for _, outcome in done if outcome.row):
            raise gr.Error("The results were deleted after an hour; run the batch again.", print_exception=False)
        write_tables(str(batch.folder), lambda: done)
        path = Path(tempfile.mkdtemp(prefix="zip-", dir=get_upload_folder())) / "resegnet_batch.zip"
        with zipfile.ZipFile(path, "w") as archive:  # stored: pictures are compressed already
            for file in sorted(batch.folder.rglob("*")):
                name = file.relative_to(batch.folder).as_posix()
                if file.is_file() and not name.startswith("records/"):
                    archive.write(file, name)
        return str(path)


def list_uploads(files: list[str]) -> list[Photograph]:
    """The photographs among files that were sent, those in ZIP files too, each under a name of its own.

    Raises
    ------
    ValueError
        If there are none or too many.
    """
    allowance, taken, photographs = _Allowance(), {}, []

    def add(name: str, path: str, entry: zipfile.ZipInfo | None = None, error: str = "") -> None:
        parts = [part for part in re.split(r"[/\\]+", name) if part not in ("", ".", "..")] or ["photograph"]
        file = free_name("_".join([*parts[:-1], Path(parts[-1]).stem]), taken)
        source = "/".join(parts)
        photographs.append(_Upload(file, file, source, error=error, path=path, entry=entry, allowance=allowance))
        if len(photographs) > MOST_PHOTOGRAPHS:
            raise ValueError(
                f"These are more than {MOST_PHOTOGRAPHS} photographs, the most that the page takes at a time. Send "
                "fewer, or use the command line: python -m resegnet segment."
            )

    for path in files:
        with open(path, "rb") as file:
            if file.read(4) not in (b"PK\3\4", b"PK\5\6"):
                add(Path(path).name, path)
                continue
        try:
            entries = _entries(path)
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
            add(Path(path).name, path, error="This is no ZIP that can be read, or one of far too many files.")
            continue
        for entry in entries:
            add(entry.filename, path, entry)
    if not photographs:
        raise ValueError("There is no photograph in what was sent.")
    return photographs


def _entries(path: str) -> list[zipfile.ZipInfo]:
    """The files in a ZIP but those that systems hide in it."""
    with open(path, "rb") as file, zipfile.ZipFile(_Bounded(file)) as archive:
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
        raise ImageError(f"'{entry.filename}' is packed in a rare way; expected an ordinary ZIP: make it again.")
    most = min(MOST_BYTES_EACH, MOST_RATIO * entry.compress_size + 1_000_000, allowance.bytes_left)
    content = io.BytesIO()
    with open(path, "rb") as file, zipfile.ZipFile(_Bounded(file)) as archive, archive.open(entry) as stream:
        while piece := stream.read(1 << 18):
            allowance.bytes_left -= len(piece)
            if content.tell() + len(piece) > most:
                raise ImageError(f"'{entry.filename}' unpacks to more than a photograph would; send it by itself.")
            content.write(piece)
    return content.getvalue()


class _Bounded:
    """A file of which nobody reads much at once, as `zipfile` does with a list of any claimed length."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(MOST_DIRECTORY_BYTES + 1 if size < 0 else min(size, MOST_DIRECTORY_BYTES + 1))
        if len(content) > MOST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("more than anybody needs at once")
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _shown(batch: Batch | None, running: bool) -> tuple[Any, ...]:
    done = 0 if batch is None else len(batch.outcomes)
    buttons = (
        gr.update(interactive=not running),
        gr.update(interactive=running and not (batch is not None and batch.cancelled)),
        gr.update(interactive=done > 0),
    )
    if batch is None:
        return None, EMPTY, "", *buttons
    total = len(batch.photographs)
    failed = sum(outcome.row is None for outcome in batch.outcomes)
    said = f"{done} of {total} photograph{'s' if total > 1 else ''} done"
    if failed:
        said += f", {failed} of them could not be read"
    if batch.cancelled:
        said += "; stopping after the one under way" if running else "; cancelled" if done < total else ""
    elif running and done:
        left_s = (time.monotonic() - batch.began) / done * (total - done)
        said += f"; about {left_s:.0f} s left" if left_s < 90 else f"; about {left_s / 60:.0f} min left"
    bar = f"<progress max='{total}' value='{done}' aria-label='Photographs done'></progress>"
    return batch, batch.lines, f"{bar}<p role='status'>{said}.</p>", *buttons


def _line(batch: Batch, photograph: Photograph, outcome: Outcome) -> str:
    name = f"<td class='name'>{escape(photograph.source)}</td>"
    row = outcome.row
    if row is None:
        return f"<tr class='failed'><td></td>{name}<td></td><td></td><td>{escape(outcome.error or '')}</td></tr>"
    file = io.BytesIO()
    with Image.open(batch.folder / row["overlay"]) as overlay:
        overlay.draft("RGB", (160, 160))
        overlay.thumbnail((96, 96))
        overlay.save(file, "JPEG", quality=80)
    picture = f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'>"
    share = "none" if row["vessel_density"] is None else f"{row['vessel_density']:.1%}"
    return (
        f"<tr><td>{picture}</td>{name}<td class='number'>{row['width']} x {row['height']}</td>"
        f"<td class='number'>{share}</td><td>{escape(row['warnings'])}</td></tr>"
    )
