"""Messages between `viewer.js` and the server, and the files that a visitor may download."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import gradio as gr
from gradio.utils import get_upload_folder

from resegnet.io import write_atomically
from resegnet.web.layers import Shapes

MAX_UM_PER_PX = 1000  # at 1 mm, an eye would be some 20 px wide


class Settings:
    """The state of `viewer.js` that comes with each request. A browser may send anything, so each value is checked.

    Parameters
    ----------
    values
        JSON value as it came; see `settings` in `viewer.js`. Anything but an object counts as an empty one.
    """

    def __init__(self, values: object) -> None:
        self._values: Mapping[str, object] = values if isinstance(values, dict) else {}

    @property
    def request(self) -> object:
        """The number of the request, which the answer repeats; `viewer.js` ignores answers to earlier requests."""
        return self._values.get("request")

    @property
    def photo(self) -> str | None:
        """The file of the photograph on the page, None if there is none."""
        return self._text("photo")

    @property
    def reference(self) -> str | None:
        """The file of the reference beside it, None if there is none."""
        return self._text("reference")

    @property
    def visit(self) -> str | None:
        """The secret that a tab of the browser keeps, so that a reload finds its photographs again."""
        value = self._text("visit")
        return value if value is not None and re.fullmatch("[0-9a-f]{32}", value) else None

    @property
    def reopen(self) -> bool:
        """Whether a tab that is loaded again showed a photograph."""
        return self._values.get("reopen") is True

    @property
    def model(self) -> str | None:
        """The name of the chosen model, None where there is no choice."""
        return self._text("model") or None

    @property
    def what(self) -> str | None:
        """The kind of file to save."""
        return self._text("what")

    @property
    def threshold(self) -> float:
        """The chosen threshold in [0, 1]."""
        return self._number("threshold")

    @property
    def opacity(self) -> float:
        """The opacity of the overlay in [0, 1]."""
        return self._number("opacity")

    @property
    def needs(self) -> frozenset[str]:
        """Layers of the page that depend on the threshold: "kinds", "calibres"; the measures always do."""
        value = self._values.get("needs")
        return frozenset(str(item) for item in value) if isinstance(value, list) else frozenset()

    @property
    def safe_kinds(self) -> bool:
        """Whether arteries and veins have colours that colour-blind people tell apart."""
        return self._values.get("safe_kinds") is True

    @property
    def um_per_px(self) -> float | None:
        """Micrometres on the retina for a pixel, None if unknown."""
        value = self._values.get("um_per_px")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_UM_PER_PX:
            raise user_error(f"The scale is {value!r}, expected micrometres per pixel, up to {MAX_UM_PER_PX}.")
        return float(value)

    @property
    def color(self) -> tuple[int, int, int]:
        """The colour of the overlay, RGB in [0, 255]."""
        value = self._values.get("color")
        if not isinstance(value, str) or not re.fullmatch("#[0-9a-fA-F]{6}", value):
            raise user_error(f"The colour is {value!r}, expected one like #00dcff.")
        red, green, blue = bytes.fromhex(value[1:])
        return red, green, blue

    def _text(self, key: str) -> str | None:
        value = self._values.get(key)
        return None if value is None else str(value)

    def _number(self, key: str) -> float:
        value = self._values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise user_error(f"The {key} is {value!r}, expected a number from 0 to 1.")
        return float(value)


class ServedFile(TypedDict):
    """A file as gradio sends it to the browser; gradio fills in `url`."""

    path: str
    url: str | None
    size: int | None
    orig_name: str | None
    mime_type: str | None
    is_stream: bool
    meta: dict[str, Any]


class ClDice(TypedDict):
    """A score that only the server computes, and the threshold that it belongs to."""

    threshold: float
    value: float | None


class ShownPhotograph(TypedDict):
    """A photograph as `viewer.js` draws it. Levels and stops are explained in `levels.py`."""

    photo: str  # file on the server
    name: str
    height: int
    width: int
    photograph: ServedFile  # JPEG
    levels: ServedFile
    counts: list[int]  # pixels of each level
    stops: list[float]
    fitted: int  # number of the fitted threshold in `stops`
    model: str  # name of the model that found the vessels
    start: float | None  # threshold to begin with, None for the fitted one
    um_per_px: float | None  # of the file
    warnings: list[str]
    has_truth: bool  # whether it is an example whose vessels are known
    has_kinds: bool  # whether arteries and veins are told apart
    shapes: Shapes


class ShownReference(TypedDict):
    """A reference as `viewer.js` draws it."""

    file: str
    name: str
    pixels: ServedFile
    notes: list[str]
    doubt: str | None  # a question to the visitor, if the reference does not seem to be of this photograph
    counts: list[int]  # pixels of the reference's vessels at each level
    auroc: float | None
    cldice: ClDice


Answer = dict[str, Any]  # `request`, with the keys of `ShownPhotograph`, `reference` or `error`


def answer(settings: Settings, content: Mapping[str, object]) -> Answer:
    """Build an answer to a request of `viewer.js`."""
    return {"request": settings.request, **content}


def user_error(sentence: str) -> gr.Error:
    """Build an error that the page shows as one sentence, without a traceback in the log."""
    return gr.Error(sentence, print_exception=False)


def without_folder(error: Exception, path: str) -> str:
    """Return the sentence of an error about an uploaded file, without the file's folder on the server."""
    return str(error).replace(os.path.join(os.path.dirname(path), ""), "")


def keep_file(content: bytes, name: str) -> str:
    """Write a file for a visitor, at a path that only the content gives away.

    Returns
    -------
    str
        Path inside gradio's folder, which gradio serves.

    Raises
    ------
    gradio.exceptions.Error
        If the disk has no room.
    """
    path = Path(get_upload_folder(), hashlib.sha256(content).hexdigest(), name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # gradio's own function leaves half a file on a full disk and takes it for a complete one the next time.
        write_atomically(path, content)
    except OSError as error:
        raise gr.Error("The server has no room for files at the moment; try again later.") from error
    return str(path)


def serve_file(content: bytes, name: str) -> ServedFile:
    """Write a file for `viewer.js`; gradio adds its address."""
    return cast(ServedFile, gr.FileData(path=keep_file(content, name), orig_name=name).model_dump())
