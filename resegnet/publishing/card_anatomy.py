"""Scores of arteries, veins, optic disc and fovea in the model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resegnet.publishing.card_scores import split_name
from resegnet.releases.records import (
    as_object,
    dataset_title,
    escape_markdown,
    format_count,
    format_score,
    markdown_table,
    one_line,
)

_PLACES = {
    "disc_dice": "Dice of the optic disc",
    "disc_near": "disc within half a diameter",
    "fovea_near": "fovea within half a disc diameter",
    "eye_right": "left or right eye told right",
}


@dataclass(frozen=True)
class Anatomy:
    """Tables of scores, as Markdown; "" without scores."""

    kinds_table: str
    places_table: str


def anatomy_scores(metrics: Mapping[str, Any]) -> Anatomy:
    """Collect what `metrics.json` has of arteries, veins, optic disc and fovea."""
    kinds_rows, places_rows = [], []
    for key, value in metrics.items():
        report = as_object(value)
        name = [dataset_title(one_line(key)), escape_markdown(split_name(report))]
        kinds, places = as_object(report.get("kinds")), as_object(report.get("places"))
        if kinds:
            scores = [format_score(kinds.get(score)) for score in ("artery_f1", "vein_f1", "accuracy")]
            kinds_rows.append([*name, format_count(kinds.get("count")), *scores])
        if places:
            scores = [format_score(places.get(score)) for score in _PLACES]
            places_rows.append([*name, format_count(places.get("count")), *scores])
    header = ["data set", "split", "photographs"]
    kinds_header = [*header, "F1 of arteries", "F1 of veins", "accuracy"]
    return Anatomy(
        markdown_table(kinds_header, kinds_rows) if kinds_rows else "",
        markdown_table([*header, *_PLACES.values()], places_rows) if places_rows else "",
    )
