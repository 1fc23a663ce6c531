"""Handlers of the viewer's events: photographs and references in, pictures for the browser and files out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from resegnet.errors import ImageError
from resegnet.io import safe_name, without_nan
from resegnet.results.compare import Comparison, compare
from resegnet.results.segmentation import Segmentation
from resegnet.segmenter import Segmenter
from resegnet.web.batch import Batch
from resegnet.web.downloads import OnPage, download
from resegnet.web.files import KEEP_S
from resegnet.web.layers import Shapes, find_shapes, pack_calibres
from resegnet.web.levels import pack, probability_levels, slider_stops
from resegnet.web.messages import (
    Answer,
    ClDice,
    Settings,
    ShownPhotograph,
    ShownReference,
    answer,
    keep_file,
    serve_file,
    user_error,
    without_folder,
)
from resegnet.web.numbers import TOO_MUCH_VESSEL, Measured, shown_measures
from resegnet.web.recent import RecentResults
from resegnet.web.visits import Visits

# For the screen only; downloads are PNG. Colour is kept at full resolution, because the thinnest vessels are one pixel
# wide. A photograph of 3504 x 2336 px takes 0.8 MB and 0.04 s; as PNG it would take 9 MB and 1 s.
JPEG_QUALITY, JPEG_SUBSAMPLING = 85, 0

MAX_FILES = 20  # that a session may refer to, the newest ones
GONE = (
    "The photograph is no longer on the server, which deletes photographs after an hour and when it restarts; open it "
    "again."
)

# AUROC of 0.969 and more for the manual segmentations of DRIVE, CHASE_DB1 and LES-AV, 0.60 and less for the same ones
# turned or flipped.
MIN_PLAUSIBLE_AUROC = 0.7
IMPLAUSIBLE = (
    "The manual segmentation fits the vessels found hardly better than chance (AUROC {auroc:.2f}). Does it belong to "
    "this photograph, and is it neither turned nor flipped?"
)


class Handlers:
    """Handlers of the viewer's events. They write files to gradio's folder, which gradio serves.

    Parameters
    ----------
    segmenter
        Segments the photographs.
    examples
        Files of the example photographs.
    keep_s
        How long a result is kept in memory, in seconds.

    Attributes
    ----------
    results : RecentResults
        The segmentations in memory.
    """

    def __init__(self, segmenter: Segmenter, examples: Iterable[Path], keep_s: float = KEEP_S) -> None:
        self.results = RecentResults(segmenter, keep_s)
        self._segmenter = segmenter
        self._visits = Visits(keep_s)
        self._stops = slider_stops(segmenter.config.threshold)
        self._fitted = self._stops.index(segmenter.config.threshold)
        self._examples = [str(path) for path in examples]
        self._truths = {path: truth for path in self._examples if (truth := known_truth(path)) is not None}
        self._prepared: dict[str, _Encoded] = {}  # examples only

    def prepare_examples(self) -> None:
        """Segment the example photographs, so that the first click on one shows a finished result."""
        for path in self._examples:
            if path not in self._prepared:
                self._prepared[path] = self._encode(path)

    def show(self, path: str, files: list[str], settings: object) -> tuple[Answer, list[str]]:
        """Open a photograph.

        Parameters
        ----------
        path
            File of the photograph.
        files
            Files that the session opened so far. `settings` may refer to no others.
        settings
            See `Settings`.

        Returns
        -------
        answer, files
            The photograph for `viewer.js`, or the sentence that it shows; and the files of the session.
        """
        checked = Settings(settings)
        try:
            encoded = self._prepared.get(path) or self._encode(path)
        except ImageError as error:
            return answer(checked, {"error": without_folder(error, path)}), files
        before = checked.photo
        # Examples are kept, since other visitors look at them too.
        if before is not None and before in files and before not in (path, *self._examples):
            self.results.forget(before)
        files = _added(files, path)
        self._visits.keep(checked.visit, files)
        return answer(checked, self._shown(encoded, path)), files

    def show_example(self, files: list[str], settings: object, event: gr.EventData) -> tuple[Answer, list[str]]:
        """Open the example whose number comes with the event. Returns the same as `show`."""
        index = event._data.get("index") if isinstance(event._data, dict) else None
        if not isinstance(index, int) or not 0 <= index < len(self._examples):
            sentence = f"The example is {index!r}, expected the number of one; choose an example on the page."
            return answer(Settings(settings), {"error": sentence}), files
        return self.show(self._examples[index], files, settings)

    def show_again(self, files: list[str], settings: object, event: gr.EventData) -> tuple[Answer, list[str]]:
        """Open a photograph that the session opened before; it comes with the event. Returns the same as `show`."""
        path = event._data.get("photo") if isinstance(event._data, dict) else None
        if not isinstance(path, str) or path not in files:
            return answer(Settings(settings), {"error": GONE}), files
        return self.show(path, files, settings)

    def show_beside(self, files: list[str], settings: object) -> Answer:
        """Send a photograph that the session opened before, to be shown beside the one on the page.

        Parameters
        ----------
        files
            See `show`.
        settings
            See `Settings`; `photo` is the photograph to send.
        """
        checked = Settings(settings)
        path = checked.photo
        if path is None or path not in files:
            return answer(checked, {"error": GONE})
        try:
            return answer(checked, self._shown(self._prepared.get(path) or self._encode(path), path))
        except ImageError:  # the file was deleted; it could be read before
            return answer(checked, {"error": GONE})

    def show_row(
        self, batch: Batch | None, files: list[str], settings: object, event: gr.EventData
    ) -> tuple[Answer, list[str]]:
        """Open a photograph of the Batch tab, whose row comes with the event, at the threshold of the batch."""
        row = event._data.get("row") if isinstance(event._data, dict) else None
        checked = Settings(settings)
        if batch is None or not isinstance(row, int) or not 0 <= row < len(batch.outcomes):
            return answer(checked, {"error": f"The row is {row!r}, expected the number of one of the table."}), files
        photograph = batch.photographs[row]
        try:
            path = keep_file(photograph.read(), safe_name(Path(photograph.source).name))
        except ImageError:
            return answer(checked, {"error": GONE}), files
        shown, files = self.show(path, files, settings)
        return shown | {"start": (batch.outcomes[row].row or {}).get("threshold")}, files

    def restore(self, files: list[str], settings: object) -> tuple[Answer, list[str]]:
        """Take up the visit of a tab that was loaded again, and open its last photograph if it was open.

        Returns the same as `show`; the answer says so if no photograph is left.
        """
        checked = Settings(settings)
        known = self._visits.find(checked.visit)
        if not known or not Path(known[-1]).is_file():
            return answer(checked, {"nothing": True}), files
        if not checked.reopen:
            return answer(checked, {"kept": True}), known
        return self.show(known[-1], known, settings)

    def show_truth(self, files: list[str], settings: object) -> tuple[Answer, list[str]]:
        """Compare the example on the page with its known truth. Returns the same as `show_reference`."""
        truth = self._truths.get(Settings(settings).photo or "")
        if truth is None:
            raise user_error("The truth is known of the synthetic examples only; open one of them.")
        return self.show_reference(truth, files, settings)

    def show_reference(self, reference: str, files: list[str], settings: object) -> tuple[Answer, list[str]]:
        """Compare the photograph on the page with a reference.

        Parameters
        ----------
        reference
            File of the reference.
        files, settings
            See `show`.

        Returns
        -------
        answer, files
            The reference's pixels, counts and scores for `viewer.js`, or the sentence that it shows; and the files of
            the session.
        """
        checked = Settings(settings)
        result = self._segmentation(files, checked)
        try:
            comparison = compare(result, reference)
        except ImageError as error:
            return answer(checked, {"reference": {"error": without_folder(error, reference)}}), files
        vessels = comparison.reference & result.fov
        levels = probability_levels(result, self._stops)
        scores = without_nan(comparison.scores())
        auroc = scores["auroc"]
        shown: ShownReference = {
            "file": reference,
            "name": Path(reference).name,
            "pixels": serve_file(pack(vessels.astype(np.uint8)), "reference.bin"),
            "notes": list(comparison.notes),
            "doubt": IMPLAUSIBLE.format(auroc=auroc) if auroc is not None and auroc < MIN_PLAUSIBLE_AUROC else None,
            "counts": _counts(levels[vessels], self._stops),
            "auroc": auroc,
            "cldice": {"threshold": result.threshold, "value": scores["cldice"]},
        }
        return answer(checked, {"reference": shown}), _added(files, reference)

    def refine(self, files: list[str], settings: object) -> ClDice | None:
        """Compute clDice, the one score that the browser cannot count itself. None if there is no reference."""
        result, comparison = self._on_page(files, Settings(settings))
        if comparison is None:
            return None
        return {"threshold": result.threshold, "value": without_nan(comparison.scores())["cldice"]}

    def measure(self, files: list[str], settings: object) -> Measured:
        """Measure the vessels on the page. The page asks by itself, so a deleted photograph gives a quiet sentence."""
        checked = Settings(settings)
        answer: Measured = {
            "photo": checked.photo,
            "threshold": checked.threshold,
            "measures": None,
            "reason": None,
            "reasons": {},
            "kinds": None,
            "calibres": None,
        }
        try:
            result = self._segmentation(files, checked).at(checked.threshold)
        except gr.Error as error:
            answer["reason"] = error.message
            return answer
        numbers = shown_measures(result)
        if numbers is None:
            answer["reason"] = TOO_MUCH_VESSEL
            return answer
        answer["measures"], answer["reasons"] = numbers.values, numbers.reasons
        if "kinds" in checked.needs and result.kinds is not None:
            answer["kinds"] = serve_file(pack(result.kinds), "kinds.bin")
        if "calibres" in checked.needs:
            answer["calibres"] = serve_file(pack_calibres(result), "calibres.bin")
        return answer

    def save(self, files: list[str], settings: object) -> str:
        """Write the file of the kind `settings["what"]` with what the page shows; "all" is a ZIP of all kinds.

        Raises
        ------
        gradio.exceptions.Error
            If the photograph was deleted, or for settings that `viewer.js` would not send.
        """
        checked = Settings(settings)
        result, comparison = self._on_page(files, checked)
        assert checked.photo is not None
        page = OnPage(
            result,
            comparison,
            checked.photo,
            self._segmenter,
            color=checked.color,
            opacity=checked.opacity,
            um_per_px=checked.um_per_px,
            safe_kinds=checked.safe_kinds,
        )
        try:
            made = download(checked.what, page)
        except OSError as error:
            raise user_error(GONE) from error
        if made is None:
            raise user_error(f"The file to save is {checked.what!r}, expected one that the page offers.")
        name, content = made
        return keep_file(content, name)

    def _encode(self, path: str) -> _Encoded:
        result = self.results(path)
        jpeg = BytesIO()
        Image.fromarray(result.image).save(jpeg, "JPEG", quality=JPEG_QUALITY, subsampling=JPEG_SUBSAMPLING)
        levels = probability_levels(result, self._stops)
        height, width = result.image.shape[:2]
        return _Encoded(
            photograph=jpeg.getvalue(),
            levels=pack(levels),
            counts=_counts(levels[result.fov], self._stops),
            height=height,
            width=width,
            um_per_px=result.um_per_px,
            warnings=list(result.warnings),
            has_kinds=result.anatomy is not None,
            shapes=find_shapes(result),
        )

    def _shown(self, encoded: _Encoded, path: str) -> ShownPhotograph:
        return {
            "photo": path,
            "name": Path(path).name,
            "height": encoded.height,
            "width": encoded.width,
            "photograph": serve_file(encoded.photograph, "photograph.jpg"),
            "levels": serve_file(encoded.levels, "levels.bin"),
            "counts": encoded.counts,
            "stops": self._stops,
            "fitted": self._fitted,
            "start": None,
            "um_per_px": encoded.um_per_px,
            "warnings": encoded.warnings,
            "has_truth": path in self._truths,
            "has_kinds": encoded.has_kinds,
            "shapes": encoded.shapes,
        }

    def _segmentation(self, files: list[str], settings: Settings) -> Segmentation:
        """Return the segmentation of the photograph on the page, at the fitted threshold."""
        path = settings.photo
        if path is None or path not in files:
            raise user_error(GONE)
        try:
            return self.results(path)
        except ImageError as error:  # the file was deleted; it could be read before
            raise user_error(GONE) from error

    def _on_page(self, files: list[str], settings: Settings) -> tuple[Segmentation, Comparison | None]:
        """Return the segmentation at the page's threshold, and the comparison if the page shows a reference."""
        result = self._segmentation(files, settings).at(settings.threshold)
        reference = settings.reference
        if reference is None:
            return result, None
        if reference not in files:
            raise user_error(GONE)
        try:
            return result, compare(result, reference)
        except ImageError as error:
            raise user_error(without_folder(error, reference)) from error


@dataclass(frozen=True)
class _Encoded:
    """A segmented photograph, encoded for the browser."""

    photograph: bytes  # JPEG
    levels: bytes  # packed
    counts: list[int]
    height: int  # px
    width: int
    um_per_px: float | None
    warnings: list[str]
    has_kinds: bool
    shapes: Shapes


def known_truth(example: str) -> str | None:
    """Return the file of an example's exact vessels, `NAME_vessels.png` beside it; None if there is none."""
    truth = Path(example).with_name(f"{Path(example).stem}_vessels.png")
    return str(truth) if truth.is_file() else None


def _added(files: list[str], path: str) -> list[str]:
    return [*(file for file in files if file != path), path][-MAX_FILES:]


def _counts(levels: np.ndarray, stops: list[float]) -> list[int]:
    """Count, for each stop, the pixels whose probability reaches it but not the next stop."""
    counts: list[int] = np.bincount(levels, minlength=len(stops) + 1)[1:].tolist()
    return counts
