"""The endpoints that programs call: `/segment` and `/compare`."""

from __future__ import annotations

import json
from pathlib import Path

from resegnet.errors import ArgumentError, ImageError
from resegnet.io import png, safe_name
from resegnet.results import export
from resegnet.results.compare import compare
from resegnet.results.segmentation import Segmentation
from resegnet.web.downloads import export_numbers
from resegnet.web.messages import keep_file, user_error, without_folder
from resegnet.web.recent import RecentResults


class Endpoints:
    """Handlers of the endpoints. gradio shows their docstrings to programs and assistants, in Google's style."""

    def __init__(self, results: RecentResults) -> None:
        self._results = results

    def segment(self, photograph: str | None, threshold: float | None) -> tuple[str, str, str, dict[str, object]]:
        """Find the vessels in a colour fundus photograph.

        Args:
            photograph: JPEG, PNG, TIFF, BMP, WebP, PPM or GIF of 8 or 16 bit.
            threshold: from 0 to 1; pixels of this probability or more are vessel. The default is the fitted threshold.

        Returns:
            overlay: PNG of the photograph's size, the vessels coloured.
            mask: PNG of the photograph's size, 255 for vessel and 0 elsewhere.
            probability: 16-bit PNG of the photograph's size, the vessel probability times 65,535.
            numbers: threshold, measures, warnings, model and versions.
        """
        path = _required("photograph", photograph)
        result = self._segmentation(path, threshold)
        files = export.contents(result, safe_name(Path(path).stem))
        overlay, mask, probability = (
            keep_file(files[kind][1], files[kind][0]) for kind in ("overlay", "mask", "probability")
        )
        return overlay, mask, probability, json.loads(files["summary"][1])

    def compare(
        self, photograph: str | None, reference: str | None, threshold: float | None
    ) -> tuple[str, dict[str, object]]:
        """Score the vessels found in a fundus photograph against a person's manual segmentation (the reference).

        Args:
            photograph: JPEG, PNG, TIFF, BMP, WebP, PPM or GIF of 8 or 16 bit.
            reference: picture of the photograph's size, bright vessels on black; inverted and grey ones are understood.
            threshold: from 0 to 1; pixels of this probability or more are vessel. The default is the fitted threshold.

        Returns:
            error_map: PNG of the photograph's size; hits white, misses orange, false alarms blue.
            numbers: those of /segment, and under "comparison" the scores inside the field of view: f1 (Dice),
                sensitivity, specificity, precision, accuracy, auroc, mcc, cldice; and how the reference was read.
        """
        path, by_hand = _required("photograph", photograph), _required("reference", reference)
        result = self._segmentation(path, threshold)
        try:
            comparison = compare(result, by_hand)
        except ImageError as error:
            raise user_error(without_folder(error, by_hand)) from error
        error_map = keep_file(png(comparison.error_map()), f"{safe_name(Path(path).stem)}_errors.png")
        return error_map, export_numbers(result, comparison)

    def _segmentation(self, path: str, threshold: float | None) -> Segmentation:
        try:
            result = self._results(path)
            return result if threshold is None else result.at(threshold)
        except (ImageError, ArgumentError) as error:  # not a picture, or a threshold out of range
            raise user_error(without_folder(error, path)) from error


def _required(name: str, path: str | None) -> str:
    if path is None:
        raise user_error(f"No {name} came, expected a file: send one.")
    return path
