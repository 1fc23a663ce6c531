"""What the page says of its model, from the records of the release."""

from __future__ import annotations

from typing import Any

from resegnet.hub import BUNDLED_RELEASES, METRICS_NAME, TRAINING_NAME
from resegnet.releases.datasheets import SOURCES
from resegnet.releases.records import (
    DISCLAIMER,
    NOT_FOR,
    SCORES,
    as_object,
    dataset_title,
    escape_markdown,
    format_count,
    format_score,
    markdown_table,
    one_line,
    read_record,
    training_datasets,
    was_trained_on,
)
from resegnet.segmenter import Segmenter
from resegnet.version import __version__

SHOWN = ("f1", "recall", "specificity", "auroc", "cldice")

USE = f"""
### What it is not for

**{DISCLAIMER}**

{NOT_FOR}

Known weaknesses: the thinnest vessels of large photographs, very dark photographs, and specks at bleedings and
exudates.

### Your photographs

They are worked on by the machine that serves this page and by no other. An upload and its results are deleted after
about an hour. The app keeps no record of visits or pictures; only an unexpected error is printed where it runs, which
may name a file. Nothing is used for training, and the app sends no statistics.

### Reading the picture

The slider moves the **probability threshold**: a pixel is called vessel where the model's probability reaches it. The
marked position was fitted on photographs that the model was not trained on. Comparisons count the pixels inside the
field of view, at the photograph's own size.

### The numbers

The download **Numbers** holds length, branching, calibre, tortuosity and fractal dimension too, of the field and of its
quadrants. They are in pixels, differ between cameras, programs and those who trace, and are no clinical measures:
compare photographs of one camera only, measured by one version of one program.
"""


def about(segmenter: Segmenter) -> str:
    """Markdown: which model runs, its scores, what it was trained on, what it must not be used for.

    Records that are missing or broken are left out: the model works without them.
    """
    config = segmenter.config
    parts = [
        "### The model that is running",
        f"**{escape_markdown(model_name(segmenter))}**: {escape_markdown(config.network)}, input a square of "
        f"{config.input_sides} px, fitted threshold {config.threshold:.4g}.",
    ]
    training, metrics = _record(segmenter, TRAINING_NAME), _record(segmenter, METRICS_NAME)
    if training_datasets(training):
        parts.append("Trained on " + "; ".join(map(_described, training_datasets(training))) + ".")
    parts.append(_scores(metrics, training) if metrics else "This model came without a record of its scores.")
    return "\n\n".join(parts) + "\n" + USE


def model_name(segmenter: Segmenter) -> str:
    """What to call the model on the page."""
    if segmenter.model in BUNDLED_RELEASES:
        return f"{segmenter.model} with ReSegNet {__version__}"
    return segmenter.model or "without a name"


def _record(segmenter: Segmenter, name: str) -> dict[str, Any]:
    try:
        return {} if segmenter.folder is None else read_record(segmenter.folder / name)
    except ValueError:
        return {}


def _described(name: str) -> str:
    source = SOURCES.get(name)
    return escape_markdown(name if source is None else f"{source.title} ({source.paper}; {source.terms})")


def _scores(metrics: dict[str, Any], training: dict[str, Any]) -> str:
    rows = []
    for name, report in ((one_line(name), as_object(report)) for name, report in metrics.items()):
        unseen = " (not trained on)" if was_trained_on(name, training) is False else ""
        pooled = as_object(report.get("pooled"))
        rows.append(
            [
                dataset_title(name) + unseen,
                format_count(report.get("count")),
                *(format_score(pooled.get(score)) for score in SHOWN),
            ]
        )
    protocol = "All pixels inside the field of view pooled, at the photographs' own size, at the one fitted threshold."
    return markdown_table(["test set", "photographs", *(SCORES[score] for score in SHOWN)], rows) + "\n\n" + protocol
