"""Scores in the model card: the tables of results, how they were measured, and the limits that they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resegnet.config import Config
from resegnet.releases.records import (
    as_list,
    as_number,
    as_object,
    dataset_title,
    escape_markdown,
    format_count,
    format_score,
    markdown_table,
    one_line,
    threshold_origin,
    training_datasets,
    training_runs,
    unrecorded_parent,
    was_trained_on,
)
from resegnet.results.metrics import SCORES

TABLE_SCORES = ("f1", "recall", "specificity", "precision", "auroc", "mcc", "cldice")

Record = Mapping[str, Any]
Reports = Mapping[str, Record]  # content of metrics.json: a report by name of the data set


@dataclass(frozen=True)
class Difference:
    """A setting with which some scores were measured, and which this release has otherwise."""

    what: str
    own: float | None


@dataclass(frozen=True)
class Results:
    """Values of the section on results, as Markdown."""

    table: str
    observers_table: str
    thresholds: str
    threshold_origin: str
    fields_of_view: str
    differences: list[Difference]
    unrecorded_parent: bool
    reused: int  # scored photographs that were also used for training or validation
    separate: bool  # whether the ids show that no scored photograph was
    protocol: str


def scored_results(reports: Reports, training: Record, config: Config) -> Results:
    """Collect the values of the card's section on results."""
    settings = (
        ("threshold", "threshold", config.threshold),
        ("input size", "input_size_px", config.input_size),
        ("smallest input size", "smallest_input_size_px", config.smallest_input_size),
    )
    reused, separate = _reused(reports, training)
    return Results(
        table=_scores_table(reports, training),
        observers_table=_observers_table(reports),
        thresholds=per_dataset(reports, "threshold"),
        threshold_origin=threshold_origin(training),
        fields_of_view=per_dataset(reports, "field_of_view"),
        differences=[
            Difference(what, own)
            for what, key, own in settings
            if any(as_number(report.get(key)) not in (None, own) for report in reports.values())
        ],
        unrecorded_parent=bool(unrecorded_parent(training)),
        reused=reused,
        separate=separate,
        protocol=per_dataset(reports, "protocol"),
    )


def _scores_table(reports: Reports, training: Record) -> str:
    rows = []
    for name, report in reports.items():
        pooled, mean, sd = (as_object(report.get(key)) for key in ("pooled", "mean", "sd"))
        spread = "" if as_number(sd.get("f1")) is None else f" ± {format_score(sd['f1'])}"
        rows.append(
            [
                dataset_title(name),
                escape_markdown(split_name(report)),
                format_count(report.get("count")),
                {True: "yes", False: "no", None: "-"}[was_trained_on(name, training)],
                *_scores(pooled),
                format_score(mean.get("f1")) + spread,
                format_score(report.get("ceiling")),
            ]
        )
    header = ["data set", "split", "photographs", "trained on this set", *(SCORES[score] for score in TABLE_SCORES)]
    return markdown_table([*header, "F1 per photograph, mean ± SD", "ceiling"], rows) if rows else ""


def _observers_table(reports: Reports) -> str:
    rows = [
        [dataset_title(name), format_count(observer.get("count")), who, *_scores(as_object(observer.get(part)))]
        for name, observer in ((name, as_object(report.get("second_observer"))) for name, report in reports.items())
        if observer
        for who, part in (("a second person", "pooled"), ("this model", "model"))
    ]
    header = ["data set", "photographs", "who", *(SCORES[score] for score in TABLE_SCORES)]
    return markdown_table(header, rows) if rows else ""


def _scores(values: Record) -> list[str]:
    return [format_score(values.get(score)) for score in TABLE_SCORES]


def per_dataset(reports: Reports, key: str) -> str:
    """Join the values that the reports hold under `key`; the data sets are named only if their values differ."""
    groups: dict[str, list[str]] = {}
    for name, report in reports.items():
        value = report.get(key)
        if isinstance(value, dict):
            value = ", ".join(f"{part} {version}" for part, version in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        if value not in (None, ""):
            groups.setdefault(escape_markdown(value), []).append(dataset_title(name))
    if len(groups) == 1 and len(*groups.values()) == len(reports):
        return next(iter(groups))
    return "; ".join(f"{value} ({', '.join(titles)})" for value, titles in groups.items())


def _reused(reports: Reports, training: Record) -> tuple[int, bool]:
    """Count the scored photographs that were also used for training or validation, and say if none was for certain.

    Only data sets that were trained on are compared: in another data set the same id is another photograph.
    """
    keys = ("train_ids", "validation_ids", "labelled_ids")
    used = {str(name) for run in training_runs(training) for key in keys for name in as_list(run.get(key))}
    scored = [x for name in training_datasets(training) for x in as_list(reports.get(name, {}).get("pictures"))]
    count = sum(str(as_object(photograph).get("image_id")) in used for photograph in scored)
    return count, bool(used and scored) and not count


@dataclass(frozen=True)
class Limits:
    """Values of the section on limits, as Markdown."""

    missed: str
    worst_table: str


def measured_limits(reports: Reports) -> Limits:
    """Collect the values of the card's section on limits."""
    missed, worst_rows = [], []
    for name, report in reports.items():
        recall = as_number(as_object(report.get("pooled")).get("recall"))
        if recall is not None:
            missed.append(f"{dataset_title(name)} {100 * (1 - recall):.1f} %")
        photographs = [as_object(photograph) for photograph in as_list(report.get("pictures"))]
        scored = [photograph for photograph in photographs if as_number(photograph.get("f1")) is not None]
        if scored:
            worst = min(scored, key=lambda photograph: photograph["f1"])
            warned = sum(bool(photograph.get("warnings")) for photograph in photographs)
            scores = [format_score(worst.get(score)) for score in ("f1", "recall", "precision")]
            image_id = escape_markdown(worst.get("image_id", "-"))
            worst_rows.append([dataset_title(name), image_id, *scores, f"{warned} of {len(photographs)}"])
    header = ["data set", "photograph", "F1", "sensitivity", "precision", "photographs with a warning"]
    return Limits(", ".join(missed), markdown_table(header, worst_rows) if worst_rows else "")


def split_name(report: Record) -> str:
    """Return the split that a report was measured on."""
    # `resegnet evaluate` records the split. Training always scores `test`, and does not record it.
    return one_line(report.get("split") or "test")
