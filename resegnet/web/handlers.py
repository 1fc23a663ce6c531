"""Handlers of the viewer's events: photographs and references in, pictures for the browser and files out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np

from resegnet.errors import ImageError
from resegnet.io import safe_name, without_nan
from resegnet.results.compare import Comparison, compare
from resegnet.results.segmentation import Segmentation
from resegnet.web.batch import Batch
from resegnet.web.downloads import OnPage, download
from resegnet.web.encoded import Encoded, encode
from resegnet.web.files import KEEP_S
from resegnet.web.layers import pack_calibres
from resegnet.web.levels import count_levels, pack, probability_levels, slider_stops
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
from resegnet.web.models import Models
from resegnet.web.numbers import TOO_MUCH_VESSEL, Measured, shown_measures
from resegnet.web.recent import RecentResults
from resegnet.web.visits import Visits

NO_FILE = "No file was received; open it again."
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
    models
        They segment the photographs.
    examples
        Files of the example photographs.

    Attributes
    ----------
    results : RecentResults
        The segmentations in memory.
    """

    def __init__(self, models: Models, examples: Iterable[Path]) -> None:
        self.results = RecentResults(models)
        self._models = models
        self._visits = Visits(KEEP_S)
        self._examples = [str(path) for path in examples]
        self._truths = {path: truth for path in self._examples if (truth := known_truth(path)) is not None}
        self._prepared: dict[tuple[str, str], Encoded] = {}  # by file and model; examples only

    def prepare_examples(self) -> None:
        """Segment the example photographs, so that the first click on one shows a finished result."""
        model = self._models.name(None)
        for path in self._examples:
            if (path, model) not in self._prepared:
                self._prepared[path, model] = self._encode(path, model)

    def show(self, path: str | None, files: list[str], settings: object) -> tuple[Answer, list[str]]:
        """Open a photograph.

        Parameters
        ----------
        path
            File of the photograph. None, which only another program than `viewer.js` sends, gives a sentence.
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
        return (answer(checked, {"error": NO_FILE}), files) if path is None else self._show(path, files, checked)

    def _show(
        self, path: str, files: list[str], checked: Settings, model: str | None = None
    ) -> tuple[Answer, list[str]]:
        """Open a photograph, with the model that the page names unless another is given."""
        try:
            encoded = self._encoded(path, checked.model if model is None else model)
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
        files = self._known(files, Settings(settings))
        if not isinstance(path, str) or path not in files or not Path(path).is_file():
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
        if path is None or path not in self._known(files, checked) or not Path(path).is_file():
            return answer(checked, {"error": GONE})
        try:
            return answer(checked, self._shown(self._encoded(path, checked.model), path))
        except ImageError:  # the file was deleted; it could be read before
            return answer(checked, {"error": GONE})

    def show_row(
        self, batch: Batch | None, files: list[str], settings: object, event: gr.EventData
    ) -> tuple[Answer, list[str]]:
        """Open a photograph of the Batch tab, whose row comes with the event, at threshold and model of the batch."""
        row = event._data.get("row") if isinstance(event._data, dict) else None
        checked = Settings(settings)
        if batch is None or not isinstance(row, int) or not 0 <= row < len(batch.outcomes):
            return answer(checked, {"error": f"The row is {row!r}, expected the number of one of the table."}), files
        photograph = batch.photographs[row]
        try:
            path = keep_file(photograph.read(), safe_name(Path(photograph.source).name))
        except ImageError:
            return answer(checked, {"error": GONE}), files
        shown, files = self._show(path, files, checked, batch.model)
        return shown | {"start": (batch.outcomes[row].row or {}).get("threshold")}, files

    def show_anew(self, files: list[str], settings: object) -> tuple[Answer, list[str]]:
        """Segment the photograph on the page with the model that was chosen, and compare it with the same reference.

        Returns the same as `show`, with `reference` as in `show_reference` if there is one.
        """
        checked = Settings(settings)
        if checked.photo is None or checked.photo not in files:
            return answer(checked, {"error": GONE}), files
        shown, files = self._show(checked.photo, files, checked)
        reference = checked.reference
        if reference is None or reference not in files or "error" in shown:
            return shown, files
        compared, files = self.show_reference(reference, files, settings)
        return shown | ({} if "error" in compared["reference"] else compared), files

    def restore(self, files: list[str], settings: object) -> tuple[Answer, list[str]]:
        """Take up the visit of a tab that was loaded again, and open its last photograph if it was open.

        Returns the same as `show`; the answer says so if no photograph is left.
        """
        checked = Settings(settings)
        known = self._known([], checked)
        if not known:
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

    def show_reference(self, reference: str | None, files: list[str], settings: object) -> tuple[Answer, list[str]]:
        """Compare the photograph on the page with a reference.

        Parameters
        ----------
        reference
            File of the reference. None, which only another program than `viewer.js` sends, gives a sentence.
        files, settings
            See `show`.

        Returns
        -------
        answer, files
            The reference's pixels, counts and scores for `viewer.js`, or the sentence that it shows; and the files of
            the session.
        """
        checked = Settings(settings)
        if reference is None:
            return answer(checked, {"reference": {"error": NO_FILE}}), files
        result = self._segmentation(files, checked)
        try:
            comparison = compare(result, reference)
        except ImageError as error:
            return answer(checked, {"reference": {"error": without_folder(error, reference)}}), files
        vessels = comparison.reference & result.fov
        stops = slider_stops(result.threshold)
        levels = probability_levels(result, stops)
        scores = without_nan(comparison.scores())
        auroc = scores["auroc"]
        shown: ShownReference = {
            "file": reference,
            "name": Path(reference).name,
            "pixels": serve_file(pack(vessels.astype(np.uint8)), "reference.bin"),
            "notes": list(comparison.notes),
            "doubt": IMPLAUSIBLE.format(auroc=auroc) if auroc is not None and auroc < MIN_PLAUSIBLE_AUROC else None,
            "counts": count_levels(levels[vessels], stops),
            "auroc": auroc,
            "cldice": {"threshold": result.threshold, "value": scores["cldice"]},
        }
        return answer(checked, {"reference": shown}), _added(files, reference)

    def refine(self, files: list[str], settings: object) -> ClDice | None:
        """Compute clDice, the one score that the browser cannot count itself. None if there is no reference."""
        checked = Settings(settings)
        if checked.photo is None:  # it was closed meanwhile
            return None
        result, comparison = self._on_page(files, checked)
        if comparison is None:
            return None
        return {"threshold": result.threshold, "value": without_nan(comparison.scores())["cldice"]}

    def measure(self, files: list[str], settings: object) -> Measured:
        """Measure the vessels on the page. The page asks by itself, so a deleted photograph gives a quiet sentence."""
        checked = Settings(settings)
        answer: Measured = {
            "photo": checked.photo,
            "threshold": None if checked.photo is None else checked.threshold,
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
        if checked.um_per_px != result.um_per_px:  # the visitor changed or cleared the scale of the file
            result = replace(result, um_per_px=None)
        page = OnPage(
            result,
            comparison,
            checked.photo,
            self._models(checked.model),
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

    def _known(self, files: list[str], settings: Settings) -> list[str]:
        """Return the files that a session may refer to: of one that was loaded again those of its visit, if left."""
        return files or [file for file in self._visits.find(settings.visit) if Path(file).is_file()]

    def _encoded(self, path: str, model: str | None) -> Encoded:
        return self._prepared.get((path, self._models.name(model))) or self._encode(path, model)

    def _encode(self, path: str, model: str | None) -> Encoded:
        return encode(self.results(path, model), self._models.name(model))

    def _shown(self, encoded: Encoded, path: str) -> ShownPhotograph:
        return {
            "photo": path,
            "name": Path(path).name,
            "height": encoded.height,
            "width": encoded.width,
            "photograph": serve_file(encoded.photograph, "photograph.jpg"),
            "levels": serve_file(encoded.levels, "levels.bin"),
            "counts": encoded.counts,
            "stops": encoded.stops,
            "fitted": encoded.fitted,
            "model": encoded.model,
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
            return self.results(path, settings.model)
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


def known_truth(example: str) -> str | None:
    """Return the file of an example's exact vessels, `NAME_vessels.png` beside it; None if there is none."""
    truth = Path(example).with_name(f"{Path(example).stem}_vessels.png")
    return str(truth) if truth.is_file() else None


def _added(files: list[str], path: str) -> list[str]:
    return [*(file for file in files if file != path), path][-MAX_FILES:]
