"""The text of the About tab, from the records of the release."""

from __future__ import annotations

import re
from typing import Any

from resegnet.hub import BUNDLED_RELEASES, METRICS_NAME, TRAINING_NAME
from resegnet.releases.datasheets import SOURCES
from resegnet.releases.records import (
    DISCLAIMER,
    NOT_FOR,
    as_object,
    dataset_title,
    escape_markdown,
    format_count,
    format_score,
    markdown_table,
    threshold_origin,
    training_datasets,
    vessel_reports,
    was_trained_on,
)
from resegnet.results.metrics import SCORES
from resegnet.version import __version__
from resegnet.web.models import Described, own_record

# The scores on the page, each with one line that explains it.
SHOWN = {
    "f1": "overlap of found and manually segmented vessels; 1 is perfect",
    "recall": "share of the manually segmented vessel pixels that were found",
    "specificity": "share of the background pixels that were left out",
    "auroc": "how well the probability ranks vessel above background at all thresholds; 0.5 is chance",
    "cldice": "overlap of the centrelines, so that thin vessels count as much as thick ones",
}

LIMITS = f"""### What it is not for

**{DISCLAIMER}**

{NOT_FOR}

### Known failures

* Exudates can come out as short vessels or, in the macula, as a lattice of thick ones.
* Haemorrhages can come out as short, thick vessels.
* In large, soft photographs thin vessels are missed.
* The thinnest vessels of large photographs, and vessels in very dark photographs, are often missed.

### Your photographs

Only the machine that serves this page works on them. An upload and its results are deleted after about an hour. The
app keeps no record of visits or pictures; an unexpected error is printed where the app runs, and that message may
contain the name of a file. Nothing is used for training, and the app sends no statistics.

### Reading the picture

The slider moves the **probability threshold**: a pixel counts as vessel if the model's probability reaches it. The mark
below the slider is the fitted threshold. A comparison counts the pixels inside the field of view, at the photograph's
own size.

### The numbers

The download **Numbers** also holds length, branching, calibre, tortuosity and fractal dimension, of the field of view
and of its quadrants, in pixels. They differ between cameras, programs and annotators, and are not clinical measures:
compare photographs of one camera only, measured by one version of one program.
"""


def about(*models: Described) -> str:
    """Return Markdown: each model, its scores, its training data; and the limits.

    Records that are missing or broken are left out, because a model works without them.
    """
    parts = ["### The models" if len(models) > 1 else "### The model"]
    for model in models:
        parts += _about_model(model, "####" if len(models) > 1 else "###")
    return "\n\n".join([*parts, LIMITS])


def _about_model(model: Described, heading: str) -> list[str]:
    config = model.config
    training, metrics = own_record(model, TRAINING_NAME), own_record(model, METRICS_NAME)
    parts = [
        f"**{escape_markdown(model_name(model))}**: {escape_markdown(config.network)}, input a square of "
        f"{config.input_sides} px, fitted threshold {config.threshold:.4g}."
    ]
    if training:
        parts.append(threshold_origin(training))
    parts.append(_scores(metrics, training) if metrics else "This model came without a record of its scores.")
    if training_datasets(training):
        rows = [_dataset_row(name) for name in training_datasets(training)]
        parts += [f"{heading} Trained on", markdown_table(["data set", "paper", "terms"], rows)]
    return parts


def model_name(model: Described) -> str:
    """Return the name of a model for visitors."""
    if model.model in BUNDLED_RELEASES:
        return f"{model.model} with ReSegNet {__version__}"
    return model.model or "without a name"


def _dataset_row(name: str) -> list[str]:
    source = SOURCES.get(name)
    if source is None:
        return [escape_markdown(name), "-", "-"]
    title = f"[{escape_markdown(source.title)}]({source.url})" if source.url else escape_markdown(source.title)
    paper = re.sub(r"doi:(\S+)", r"[doi:\1](https://doi.org/\1)", source.paper)
    return [title, paper, escape_markdown(source.terms)]


def _scores(metrics: dict[str, Any], training: dict[str, Any]) -> str:
    rows = []
    for name, report in vessel_reports(metrics).items():
        unseen = " (not trained on)" if was_trained_on(name, training) is False else ""
        pooled = as_object(report.get("pooled"))
        scores = [format_score(pooled.get(score)) for score in SHOWN]
        rows.append([dataset_title(name) + unseen, format_count(report.get("count")), *scores])
    protocol = "All pixels inside the field of view pooled, at the photographs' own size, at the fitted threshold."
    meanings = "\n".join(f"* {SCORES[score]}: {meaning}." for score, meaning in SHOWN.items())
    header = ["test set", "photographs", *(SCORES[score] for score in SHOWN)]
    return "\n\n".join([markdown_table(header, rows), protocol, meanings])
