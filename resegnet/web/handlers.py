"""What happens on the page: photographs and references in, what the browser draws and files out."""

from __future__ import annotations

import atexit
import hashlib
import json
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image

from resegnet.errors import ImageError
from resegnet.results import export
from resegnet.results.compare import Comparison, compare
from resegnet.results.segmentation import Segmentation
from resegnet.segmenter import Segmenter
from resegnet.web.levels import pack, probability_levels, slider_stops

KEEP_S = 3600  # how long a photograph and its results are kept, on disk and in memory
RECENT_BYTES = 1_000_000_000  # of results in memory; one of 8 megapixels takes 65 MB

# For the screen only; what is saved is PNG. Colour is kept at full resolution, since the thinnest vessels are a
# pixel wide. A photograph of 3504 x 2336: 0.8 MB in 0.04 s, as PNG 9 MB in 1 s.
JPEG = {"quality": 85, "subsampling": 0}

FILES = 20  # of a session that it may still ask for
GONE = "The photograph was deleted after an hour; open it again."


class RecentResults:
    """The segmentations of the last photographs by file, so that files and numbers need no second forward pass.

    Bounded in time and in memory: a result goes `keep_s` after it was made, or earlier if it is the longest unused
    one and there are too many; it is made again if it is asked for again.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        keep_s: float = KEEP_S,
        limit_bytes: int = RECENT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._segmenter = segmenter
        self._keep_s = keep_s
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._results: OrderedDict[str, tuple[float, Segmentation]] = OrderedDict()  # with the time it was made at
        self._lock = threading.Lock()  # gradio runs handlers in threads
        self.turn = threading.Lock()  # two forward passes at once would take twice as long, and twice the memory
        # The process waits for a forward pass under way: torch crashes if the interpreter ends beneath it.
        atexit.register(self.turn.acquire, timeout=60)
        self._sweeper: threading.Timer | None = None

    def __call__(self, path: str) -> Segmentation:
        """The segmentation of the photograph in file `path`, at the model's own threshold.

        Raises
        ------
        ImageError
            If the file is gone or no picture.
        """
        result = self._find(path)
        if result is None:
            with self.turn:
                result = self._find(path)  # whoever was before us may have asked for the same
                if result is None:
                    result = self._segmenter(path)
                    self._add(path, result)
        return result

    def forget(self, path: str) -> None:
        """Drop the segmentation of `path`, if it is there."""
        with self._lock:
            self._results.pop(path, None)

    def sweep(self) -> None:
        """Drop what is older than `keep_s`."""
        with self._lock:
            oldest_kept = self._clock() - self._keep_s
            for path in [path for path, (made, _) in self._results.items() if made <= oldest_kept]:
                del self._results[path]
            self._sweeper = None
            self._sweep_later()

    def _find(self, path: str) -> Segmentation | None:
        with self._lock:
            if path not in self._results:
                return None
            self._results.move_to_end(path)
            return self._results[path][1]

    def _add(self, path: str, result: Segmentation) -> None:
        with self._lock:
            self._results[path] = (self._clock(), result)
            while len(self._results) > 1 and self._size_bytes() > self._limit_bytes:
                self._results.popitem(last=False)
            self._sweep_later()

    def _size_bytes(self) -> int:
        return sum(r.image.nbytes + r.probability.nbytes + r.fov.nbytes for _, r in self._results.values())

    def _sweep_later(self) -> None:
        if self._sweeper is None and self._results:
            oldest = min(made for made, _ in self._results.values())
            self._sweeper = threading.Timer(max(0.1, oldest + self._keep_s - self._clock()), self.sweep)
            self._sweeper.daemon = True
            self._sweeper.start()


class Handlers:
    """What happens on the page. Files are written to gradio's folder, which it serves and empties in time."""

    def __init__(self, segmenter: Segmenter, examples: Iterable[Path], keep_s: float = KEEP_S) -> None:
        self.results = RecentResults(segmenter, keep_s)
        self.stops = slider_stops(segmenter.config.threshold)
        self._fitted = self.stops.index(segmenter.config.threshold)
        self._examples = [str(path) for path in examples]
        self._ready: dict[str, _Drawn] = {}  # of the examples

    def prepare_examples(self) -> None:
        """Segment the examples ahead of the first visitor, whom one click then shows a finished result."""
        for path in self._examples:
            if path not in self._ready:
                self._ready[path] = self._draw(path)

    def show(self, path: str, files: list[str], settings: dict | None) -> tuple[dict, list[str]]:
        """Open a photograph.

        Parameters
        ----------
        path
            Its file.
        files
            Those that the session opened so far; `settings` may name no other.
        settings
            What the browser knows, see `settings` of `viewer.js`.

        Returns
        -------
        answer, files
            What `viewer.js` draws, or the sentence that it shows.
        """
        try:
            drawn = self._ready.get(path) or self._draw(path)
        except ImageError as error:
            return _answer(settings, error=str(error)), files
        before = settings.get("photo") if isinstance(settings, dict) else None
        if before in files and before not in (path, *self._examples):  # examples stay: others look at them too
            self.results.forget(before)
        return _answer(settings, **self._shown(drawn, path)), _added(files, path)

    def show_example(self, files: list[str], settings: dict | None, event: gr.EventData) -> tuple[dict, list[str]]:
        """Open the example of the number that the event brings; gives what `show` gives."""
        index = event._data.get("index") if isinstance(event._data, dict) else None
        if not isinstance(index, int) or not 0 <= index < len(self._examples):
            return _answer(settings, error=f"There is no example {index!r}; choose one of those shown."), files
        return self.show(self._examples[index], files, settings)

    def show_reference(self, reference: str, files: list[str], settings: dict | None) -> tuple[dict, list[str]]:
        """Lay a person's reference beside the photograph on the page.

        Returns
        -------
        answer, files
            As `show`, with the reference's own pixels and counts.
        """
        result = self._result(files, settings)
        try:
            comparison = compare(result, reference)
        except ImageError as error:
            return _answer(settings, reference={"error": str(error)}), files
        vessels = comparison.reference & result.fov
        levels = probability_levels(result, self.stops)
        scores = export.without_nan(comparison.scores())
        sent = {
            "file": reference,
            "name": Path(reference).name,
            "pixels": _served(pack(vessels.astype(np.uint8)), "reference.bin"),
            "notes": list(comparison.notes),
            "counts": _counts(levels[vessels], self.stops),
            "auroc": scores["auroc"],
            "cldice": {"threshold": result.threshold, "value": scores["cldice"]},
        }
        return _answer(settings, reference=sent), _added(files, reference)

    def refine(self, files: list[str], settings: dict | None) -> dict:
        """What the browser cannot count by itself at its threshold: clDice."""
        result, comparison = self._on_page(files, settings)
        if comparison is None:
            return {}
        return {"threshold": result.threshold, "value": export.without_nan(comparison.scores())["cldice"]}

    def save(self, files: list[str], settings: dict | None) -> str:
        """Write the file that `settings["what"]` names, as the page shows it; "all" is a ZIP of them."""
        result, comparison = self._on_page(files, settings)
        name = export.safe_name(Path(settings["photo"]).stem)
        look = {"color": _color(settings), "opacity": _number(settings, "opacity")}
        at = f"_{result.threshold:.4g}"
        match settings.get("what"):
            case "mask":
                file = f"{name}_mask{at}.png", export.mask_png(result)
            case "probability":
                file = f"{name}_probability.png", export.probability_png(result)
            case "overlay":
                file = f"{name}_overlay{at}.png", export.overlay_png(result, **look)
            case "numbers":
                file = f"{name}_numbers{at}.json", export.json_bytes(_numbers(result, comparison))
            case "errors" if comparison is not None:
                file = f"{name}_errors{at}.png", export.png(comparison.error_map())
            case "all":
                contents = export.contents(result, name, **look)
                contents["summary"] = (f"{name}_numbers.json", export.json_bytes(_numbers(result, comparison)))
                if comparison is not None:
                    contents["errors"] = (f"{name}_errors.png", export.png(comparison.error_map()))
                file = f"{name}_resegnet{at}.zip", export.archive(contents.values())
            case other:
                raise _refusal(f"There is no file {other!r} to save.")
        return _keep(file[1], file[0])

    def segment(self, photograph: str | None, threshold: float | None) -> tuple[str, str, str, dict]:
        """Find the vessels of a colour fundus photograph.

        Args:
            photograph: JPEG, PNG, TIFF, BMP, WebP, PPM or GIF of 8 or 16 bit.
            threshold: from 0 to 1; pixels of this probability or more are vessel. If not given, the model's own.

        Returns:
            overlay: PNG of the photograph's size, the vessels coloured.
            mask: PNG of the photograph's size, 255 for vessel and 0 for none.
            probability: 16-bit PNG of the photograph's size, the vessel probability times 65,535.
            numbers: threshold, measures, warnings, model and versions.
        """
        result = self._asked(photograph, threshold)
        files = export.contents(result, export.safe_name(Path(photograph).stem))
        kept = [_keep(files[kind][1], files[kind][0]) for kind in ("overlay", "mask", "probability")]
        return *kept, json.loads(files["summary"][1])

    def compare(self, photograph: str | None, reference: str | None, threshold: float | None) -> tuple[str, dict]:
        """Score the vessels that are found in a fundus photograph against a person's reference of it.

        Args:
            photograph: JPEG, PNG, TIFF, BMP, WebP, PPM or GIF of 8 or 16 bit.
            reference: picture of the photograph's size, vessels bright on black; an inverted or grey one is understood.
            threshold: from 0 to 1; pixels of this probability or more are vessel. If not given, the model's own.

        Returns:
            error_map: PNG of the photograph's size; hits white, misses orange, false alarms blue.
            numbers: those of /segment, and under "comparison" the scores inside the field of view: f1 (Dice),
                sensitivity, specificity, precision, accuracy, auroc, mcc, cldice; and how the reference was read.
        """
        if reference is None:
            raise _refusal("No reference came; expected a file: name one.")
        result = self._asked(photograph, threshold)
        comparison = self._comparison(result, reference)
        name = export.safe_name(Path(photograph).stem)
        error_map = _keep(export.png(comparison.error_map()), f"{name}_errors.png")
        return error_map, _numbers(result, comparison)

    def _draw(self, path: str) -> _Drawn:
        result = self.results(path)
        jpeg = BytesIO()
        Image.fromarray(result.image).save(jpeg, "JPEG", **JPEG)
        levels = probability_levels(result, self.stops)
        return _Drawn(
            photograph=jpeg.getvalue(),
            levels=pack(levels),
            counts=_counts(levels[result.fov], self.stops),
            size=result.image.shape[:2],
            warnings=list(result.warnings),
        )

    def _shown(self, drawn: _Drawn, path: str) -> dict[str, Any]:
        height, width = drawn.size
        return {
            "photo": path,
            "name": Path(path).name,
            "height": height,
            "width": width,
            "photograph": _served(drawn.photograph, "photograph.jpg"),
            "levels": _served(drawn.levels, "levels.bin"),
            "counts": drawn.counts,
            "stops": self.stops,
            "fitted": self._fitted,
            "warnings": drawn.warnings,
        }

    def _result(self, files: list[str], settings: dict | None) -> Segmentation:
        """The segmentation of the photograph on the page."""
        path = settings.get("photo") if isinstance(settings, dict) else None
        try:
            if path in files:
                return self.results(path)
        except ImageError:  # its file was deleted
            pass
        raise _refusal(GONE)

    def _on_page(self, files: list[str], settings: dict | None) -> tuple[Segmentation, Comparison | None]:
        """What the page shows: the photograph's segmentation at its threshold, and the comparison if there is one."""
        result = self._result(files, settings).at(_number(settings, "threshold"))
        reference = settings.get("reference")
        if reference is None:
            return result, None
        if reference not in files:
            raise _refusal(GONE)
        return result, self._comparison(result, reference)

    def _asked(self, photograph: str | None, threshold: float | None) -> Segmentation:
        """What a program asks for."""
        if photograph is None:
            raise _refusal("No photograph came; expected a file: name one.")
        try:
            result = self.results(photograph)
            return result if threshold is None else result.at(threshold)
        except ValueError as error:  # an ImageError, or a threshold out of range
            raise _refusal(str(error)) from error

    def _comparison(self, result: Segmentation, reference: str) -> Comparison:
        try:
            return compare(result, reference)
        except ImageError as error:
            raise _refusal(str(error)) from error


@dataclass(frozen=True)
class _Drawn:
    """What the browser needs of a photograph, encoded."""

    photograph: bytes  # JPEG
    levels: bytes  # packed
    counts: list[int]
    size: tuple[int, int]  # (H, W)
    warnings: list[str]


def _added(files: list[str], path: str) -> list[str]:
    return [*files, path][-FILES:]


def _answer(settings: dict | None, **content: Any) -> dict:
    """With the number of the request, by which the browser knows an answer that it no longer waits for."""
    return {"request": settings.get("request") if isinstance(settings, dict) else None, **content}


def _counts(levels: np.ndarray, stops: list[float]) -> list[int]:
    """Pixels whose probability reaches stop k but not k + 1, for each k."""
    return np.bincount(levels, minlength=len(stops) + 1)[1:].tolist()


def _numbers(result: Segmentation, comparison: Comparison | None) -> dict:
    numbers = export.summary(result)
    if comparison is not None:
        numbers["comparison"] = export.without_nan(comparison.scores()) | {"notes": list(comparison.notes)}
    return numbers


def _number(settings: dict, key: str) -> float:
    """A number in [0, 1] from the browser, which may send anything."""
    value = settings.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and 0 <= value <= 1):
        raise _refusal(f"The {key} is {value!r}, expected a number from 0 to 1.")
    return float(value)


def _color(settings: dict) -> tuple[int, int, int]:
    value = settings.get("color")
    if not isinstance(value, str) or not re.fullmatch("#[0-9a-fA-F]{6}", value):
        raise _refusal(f"The colour is {value!r}, expected one like #00dcff.")
    return tuple(bytes.fromhex(value[1:]))


def _refusal(sentence: str) -> gr.Error:
    return gr.Error(sentence, print_exception=False)


def _keep(content: bytes, name: str) -> str:
    """Write a file for a visitor; by an address that only who has the content could tell."""
    path = Path(get_upload_folder(), hashlib.sha256(content).hexdigest(), name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # gradio's own way leaves half a file on a full disk, and takes it for a whole one the next time.
        export.write_atomically(path, content)
    except OSError as error:
        raise gr.Error("The page has no room for files just now; try again later.") from error
    return str(path)


def _served(content: bytes, name: str) -> dict:
    """A file for the browser; gradio adds its address."""
    return gr.FileData(path=_keep(content, name), orig_name=name).model_dump()
