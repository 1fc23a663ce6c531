"""What the page says of its model, from the records of the release."""

from __future__ import annotations

import json
from typing import Any

from resegnet import Segmenter, __version__
from resegnet.sources import SOURCES

SCORES = {
    "f1": "F1 (Dice)",
    "recall": "Sensitivity",
    "specificity": "Specificity",
    "auroc": "AUROC",
    "cldice": "clDice",
}

USE = """
### What it is not for

* **Diagnosis, screening or any decision about a patient.** This is research software, not a medical device.
* Scanning laser, fluorescein or OCT angiography pictures: it learned from colour photographs only.
* Telling arteries from veins, or calibres in micrometres: it says vessel or not.
* Comparing vessel area between cameras or programs: how wide a vessel is drawn differs between them.

Known weaknesses: the thinnest vessels of large photographs, very dark photographs, and specks at bleedings and
exudates.

### Your photographs

They are worked on by the machine that serves this page and by no other. An upload and its results are deleted after
about an hour. Nothing is logged, nothing is used for training, no statistics are sent anywhere.

### Reading the picture

The slider moves the **probability threshold**: a pixel is called vessel where the model's probability reaches it. The
marked position was fitted on photographs that the model was not trained on. Comparisons count the pixels inside the
field of view, at the photograph's own size.
"""


def about(segmenter: Segmenter) -> str:
    """Markdown: which model runs, its scores, what it was trained on, what it must not be used for."""
    config = segmenter.config
    text = [
        "### The model that is running",
        f"**{model_name(segmenter)}**: U-Net, encoder `{config.encoder}`, input {config.input_size} x "
        f"{config.input_size} px, fitted threshold {config.threshold:.4g}.",
    ]
    training, metrics = _record(segmenter, "training.json"), _record(segmenter, "metrics.json")
    trained_on = training.get("options", {}).get("dataset", [])
    if trained_on:
        text.append("Trained on " + "; ".join(map(_described, trained_on)) + ".")
    if metrics:
        text.append(_table(metrics, trained_on))
    else:
        text.append("This model came without a record of its scores.")
    return "\n\n".join(text) + "\n" + USE


def model_name(segmenter: Segmenter) -> str:
    """What to call the model on the page."""
    if segmenter.model == "bundled":
        return f"bundled with ReSegNet {__version__}"
    return segmenter.model or "without a name"


def _record(segmenter: Segmenter, name: str) -> dict[str, Any]:
    """A record of the release; empty if it has none."""
    if segmenter.folder is None or not (segmenter.folder / name).is_file():
        return {}
    return json.loads((segmenter.folder / name).read_text(encoding="utf-8"))


def _described(name: str) -> str:
    source = SOURCES.get(name)
    return name if source is None else f"{source.title} ({source.paper}; {source.terms})"


def _table(metrics: dict[str, Any], trained_on: list[str]) -> str:
    rows = [
        "| test set | photographs | " + " | ".join(SCORES.values()) + " |",
        "|---" * (len(SCORES) + 2) + "|",
    ]
    for name, report in metrics.items():
        title = SOURCES[name].title if name in SOURCES else name
        seen = "" if name in trained_on else " (unseen camera)"
        values = [report["pooled"][score] for score in SCORES]
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        rows.append(f"| {title}{seen} | {report['count']} | " + " | ".join(cells) + " |")
    protocol = "All pixels inside the field of view pooled, at the photographs' own size, at the one fitted threshold."
    return "\n".join(rows) + "\n\n" + protocol
