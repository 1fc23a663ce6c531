"""The page's Batch tab: photographs or ZIP files in, a table that fills as they are done, one ZIP of results out."""

from __future__ import annotations

import base64
import io
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from resegnet.cohort.photograph import Photograph
from resegnet.cohort.run import make_folder
from resegnet.cohort.tables import FAILURES, PARQUET, TABLE, write_tables
from resegnet.cohort.work import FILE_COLUMNS, CohortOptions, Outcome, Work
from resegnet.errors import OutputError, ResegnetError
from resegnet.web.messages import user_error
from resegnet.web.models import Models
from resegnet.web.recent import RecentResults
from resegnet.web.uploads import MAX_BYTES_EACH, MAX_PHOTOGRAPHS, list_uploads

# Measures in the table, with their titles, and digits after the point; see `resegnet.results.measure`.
COLUMNS = {
    "skeleton_length_px": ("Length, px", 0),
    "calibre_mean_px": ("Calibre, px", 2),
    "tortuosity": ("Tortuosity", 3),
    "fractal_d0": ("Fractal dimension", 3),
}


def _head(title: str, kind: str) -> str:
    return f"<th class='{kind}'><button type='button'>{title}</button></th>"


TABLE_HEAD = (
    "<table><thead><tr><td></td>"
    + _head("Photograph", "text")
    + _head("Size", "number")
    + _head("Vessel density", "number")
    + "".join(_head(title, "number more") for title, _ in COLUMNS.values())
    + "<th>Notes</th></tr></thead><tbody>"
)
NO_ROOM = "The server has no room left for results; try fewer photographs."
THRESHOLD_STEP = 0.0001  # of the slider
EMPTY = (
    f"<p>Up to {MAX_PHOTOGRAPHS} photographs, or ZIP files of them, {MAX_BYTES_EACH // 1_000_000} MB at a time: add "
    "the next ones with <b>Choose more files</b>. Each photograph gets a row here as soon as it is done. "
    "Masks, overlays and a table of all numbers can be downloaded as one ZIP.</p>"
)

# The tab shows: the batch, the table, the progress, and changes of the buttons to start, cancel and save.
Shown = tuple["Batch | None", str, str, dict[str, Any], dict[str, Any], dict[str, Any]]


@dataclass
class Batch:
    """A visitor's photographs and their outcomes so far."""

    folder: Path
    photographs: list[Photograph]
    model: str  # its name
    outcomes: list[Outcome] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    running: bool = True
    table: str = TABLE_HEAD  # grows only at its end, so that gradio sends only what is new


class Batches:
    """Handlers of the tab. Each photograph waits for its turn among those of all visitors."""

    def __init__(self, results: RecentResults) -> None:
        self._models = results.models
        self._turn = results.turn

    def run(
        self, files: list[str] | None, threshold: float | None, probability: bool, model: str | None = None
    ) -> Iterator[Shown]:
        """Segment the uploaded photographs.

        Parameters
        ----------
        files
            Photographs and ZIP files.
        threshold
            In [0, 1]. None takes the fitted threshold.
        probability
            Whether to save the probability maps too.
        model
            Name of the model; None or "" takes the one that the page was started with.

        Yields
        ------
        Shown
            At the start and after each photograph.

        Raises
        ------
        gradio.exceptions.Error
            If no photograph came, the threshold is out of range, the model is not offered or cannot be loaded, or the
            disk is full.
        """
        batch, work = self._begin(files, threshold, probability, model or None)
        yield _shown(batch)
        for photograph in batch.photographs:
            try:
                with self._turn:  # for one photograph only, so that other visitors come between
                    outcome = work(photograph)
            except OutputError as error:
                raise user_error(NO_ROOM) from error
            batch.outcomes.append(outcome)
            batch.table += _row(batch, photograph, outcome)
            batch.running = not batch.cancelled and len(batch.outcomes) < len(batch.photographs)
            yield _shown(batch)
            if not batch.running:
                return

    def cancel(self, batch: Batch | None) -> Shown:
        """End a batch after the current photograph. The results so far stay and can be saved."""
        if batch is not None:
            batch.cancelled = True
        return _shown(batch)

    def failed(self, batch: Batch | None) -> Shown:
        """Return what the tab shows after a batch was refused or broke off."""
        if batch is not None:
            batch.running = False
        return _shown(batch)

    def wait(self) -> tuple[str, dict[str, Any]]:
        """Return what the tab shows until a batch begins: few run at a time."""
        return "<p role='status'>Waiting for the server.</p>", gr.update(interactive=False)

    def save(self, batch: Batch | None) -> str:
        """Write a ZIP of the results so far: masks, overlays and tables.

        Raises
        ------
        gradio.exceptions.Error
            If there are no results, if they were deleted, or if the disk is full.
        """
        done = [] if batch is None else list(zip(batch.photographs, batch.outcomes, strict=False))
        if batch is None or not done:
            raise user_error("There are no results to save yet; start a batch first.")
        path = _new_folder("zip-") / "resegnet_batch.zip"
        try:
            write_tables(str(batch.folder), lambda: done)
            # Not all that is in the folder: the batch may go on, and files of the next photograph come and go.
            rows = [outcome.row for _, outcome in done if outcome.row]
            names = [row[column] for row in rows for column in FILE_COLUMNS if column in row]
            names += [name for name in (TABLE, PARQUET, FAILURES) if (batch.folder / name).exists()]
            with zipfile.ZipFile(path, "w") as archive:  # stored, because pictures are compressed already
                for name in sorted(names):
                    archive.write(batch.folder / name, name)
        except OSError as error:
            path.unlink(missing_ok=True)
            deleted = isinstance(error, FileNotFoundError)
            sentence = "The results were deleted after an hour; run the batch again." if deleted else NO_ROOM
            raise user_error(sentence) from error
        return str(path)

    def _begin(
        self, files: list[str] | None, threshold: float | None, probability: bool, model: str | None
    ) -> tuple[Batch, Work]:
        if not files:
            raise user_error("No photographs were received; choose some, or a ZIP of them.")
        segmenter = self._models(model)
        try:
            photographs = list_uploads(files)
            folder = _new_folder("batch-")
            options = CohortOptions(str(folder), threshold=threshold, probability=probability)
            make_folder(options)
        except OutputError as error:  # its message names a folder of the server
            raise user_error(NO_ROOM) from error
        except ResegnetError as error:
            raise user_error(str(error)) from error
        return Batch(folder, photographs, self._models.name(model)), Work(segmenter, options)


def _new_folder(prefix: str) -> Path:
    """Make a folder whose files gradio serves and `resegnet.web.files.sweep` deletes."""
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=get_upload_folder()))
    except OSError as error:
        raise user_error(NO_ROOM) from error


def threshold_hint(models: Models, model: str | None) -> str:
    """Return the sentence beside the threshold."""
    return f"Lower: more and fainter vessels. Recommended: {models.threshold(model):.4g}."


def follow_model(models: Models, model: str | None, threshold: float) -> tuple[dict[str, Any], str]:
    """Return what the tab shows of the model that is chosen on the other tab.

    Parameters
    ----------
    model
        Its name.
    threshold
        On the tab. One that is the fitted one of another model becomes that of this one.

    Returns
    -------
    update, line
        Of the threshold, and a line that names the model, HTML.
    """
    name = models.name(model or None)
    fitted = [models.threshold(other["name"]) for other in models.offered]
    follows = any(abs(threshold - value) < THRESHOLD_STEP for value in fitted)
    update = gr.update(value=models.threshold(name) if follows else threshold, info=threshold_hint(models, name))
    return update, f"<p>Model: <b>{escape(name)}</b>, chosen on the tab Segment.</p>"


def _shown(batch: Batch | None) -> Shown:
    running, cancelled = (batch is not None and batch.running), (batch is not None and batch.cancelled)
    start = gr.update(interactive=not running)
    cancel = gr.update(interactive=running and not cancelled)
    save = gr.update(interactive=batch is not None and len(batch.outcomes) > 0)
    if batch is None:
        return None, EMPTY, "", start, cancel, save
    done, total = len(batch.outcomes), len(batch.photographs)
    bar = f"<progress max='{total}' value='{done}' aria-label='Photographs done'></progress>"
    # A screen reader would speak after each photograph: it is told of the start, each tenth part and the end.
    tenth = not batch.running or done == 0 or 10 * done // total > 10 * (done - 1) // total
    role = " role='status'" if tenth else ""
    progress = f"{bar}<p{role}>{_progress_sentence(batch)}</p>"
    return batch, batch.table, progress, start, cancel, save


def _progress_sentence(batch: Batch) -> str:
    running, done, total = batch.running, len(batch.outcomes), len(batch.photographs)
    sentence = f"{done} of {total} photograph{'s' if total > 1 else ''} done"
    failed = sum(outcome.error is not None for outcome in batch.outcomes)
    if failed:
        sentence += f", {failed} of them could not be read"
    if batch.cancelled and running:
        sentence += "; stopping after the current one"
    elif batch.cancelled and done < total:
        sentence += "; cancelled"
    elif running and done and not batch.cancelled:
        left_s = (time.monotonic() - batch.began) / done * (total - done)
        sentence += f"; about {left_s:.0f} s left" if left_s < 90 else f"; about {left_s / 60:.0f} min left"
    return sentence + "."


def _row(batch: Batch, photograph: Photograph, outcome: Outcome) -> str:
    """Return the table row of one photograph, as HTML."""
    row = outcome.row
    if row is None:
        empty = "<td></td>" * 2 + "<td class='more'></td>" * len(COLUMNS)
        name = f"<td class='name'>{escape(photograph.source)}</td>"
        return f"<tr class='failed'><td></td>{name}{empty}<td class='notes'>{escape(outcome.error or '')}</td></tr>"
    file = io.BytesIO()
    with Image.open(batch.folder / row["overlay"]) as overlay:
        overlay.draft("RGB", (160, 160))
        overlay.thumbnail((96, 96))
        overlay.save(file, "JPEG", quality=80)
    picture = f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'>"
    number = len(batch.outcomes) - 1
    opener = f"<button type='button' data-row='{number}' title='Open'>{escape(photograph.source)}</button>"
    share = row["vessel_density"]
    size = _cell(row["width"] * row["height"], f"{row['width']} x {row['height']}")
    numbers = [
        _cell(row[key], "none" if row[key] is None else f"{row[key]:,.{digits}f}", " more")
        for key, (_, digits) in COLUMNS.items()
    ]
    return (
        f"<tr><td>{picture}</td><td class='name' data-value='{escape(photograph.source, quote=True)}'>{opener}</td>"
        f"{size}{_cell(share, 'none' if share is None else f'{share:.1%}')}{''.join(numbers)}"
        f"<td class='notes'>{escape(row['warnings'])}</td></tr>"
    )


def _cell(value: float | None, text: str, kind: str = "") -> str:
    return f"<td class='number{kind}' data-value='{'' if value is None else value}'>{text}</td>"
