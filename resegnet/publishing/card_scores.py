"""Scores in the model card: the tables of results, how they were measured, and the limits that they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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
    teacher_releases,
    threshold_origin,
    training_datasets,
    training_digests,
    training_runs,
    unrecorded_parent,
    used_ids,
    was_trained_on,
)
from resegnet.results.metrics import SCORES

TABLE_SCORES = ("f1", "recall", "specificity", "precision", "auroc", "mcc", "cldice")

# Number of the official test photographs, and their mean F1 by LW-Net (Galdran et al. 2022) as measured by Idiap
# (bob.ip.binseg, doc/results/baselines/vessel.rst).
PEER_F1 = {"drive": (20, 0.828), "chase_db1": (8, 0.820), "hrf": (30, 0.814)}

# The ends of HRF's names: Budai et al. 2013, doi:10.1155/2013/154860.
_ILLNESSES_OF_HRF = {"_h": "healthy", "_g": "glaucoma", "_dr": "diabetic retinopathy"}

_YES_OR_NO = {True: "yes", False: "no", None: "-"}

Record = Mapping[str, Any]
Reports = Mapping[str, Record]  # content of metrics.json: a report by name of the data set


@dataclass(frozen=True)
class Difference:
    """A setting with which some scores were measured, and which this release has otherwise."""

    what: str
    own: float | None


# The evidence that no scored photograph was used for training or validation: pixels; ids; ids, and the pixels of some
# of the photographs that were used; or nothing.
Separation = Literal["pixels", "ids", "ids and some pixels", ""]


@dataclass(frozen=True)
class Results:
    """Values of the section on results, as Markdown."""

    table: str
    observers_table: str
    peers_table: str
    thresholds: str
    threshold_origin: str
    fields_of_view: str
    differences: list[Difference]
    unrecorded_parent: bool
    reused: int  # scored photographs whose pixels were also used for training or validation
    separate_by: Separation
    teachers_unlisted: bool  # whether teachers learned from photographs that the records do not list
    protocol: str


def scored_results(reports: Reports, training: Record, config: Config) -> Results:
    """Collect the values of the card's section on results."""
    settings = (
        ("threshold", "threshold", config.threshold),
        ("input size", "input_size_px", config.input_size),
        ("smallest input size", "smallest_input_size_px", config.smallest_input_size),
    )
    reused, separate_by = _reused(reports, training)
    return Results(
        table=_scores_table(reports, training),
        observers_table=_observers_table(reports),
        peers_table=_peers_table(reports, training),
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
        separate_by=separate_by,
        teachers_unlisted=separate_by not in ("pixels", "") and bool(teacher_releases(training)),
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
                _YES_OR_NO[was_trained_on(name, training)],
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


def _peers_table(reports: Reports, training: Record) -> str:
    """Return the mean F1 of this model and of LW-Net on the official test photographs that the reports cover."""
    rows = []
    for name, report in reports.items():
        count, peer = PEER_F1.get(name, (0, 0.0))
        own = as_number(as_object(report.get("mean")).get("f1"))
        if own is not None and report.get("count") == count and split_name(report) == "test":
            person = as_object(as_object(report.get("second_observer")).get("mean")).get("f1")
            trained = _YES_OR_NO[was_trained_on(name, training)]
            rows.append([dataset_title(name), trained, *map(format_score, (own, peer, person))])
    header = ["data set", "this model trained on this set", "this model", "LW-Net", "a second person"]
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


def _reused(reports: Reports, training: Record) -> tuple[int, Separation]:
    """Count the scored photographs that were also used for training or validation, and say what shows that none was.

    Equal ids show nothing, because many data sets number the photographs of each split from the same number. Different
    ids show that two photographs of the same data set are not the same.
    """
    scored = {name: list(map(as_object, as_list(report.get("pictures")))) for name, report in reports.items()}
    photographs = [photograph for part in scored.values() for photograph in part]
    digests, complete = training_digests(training)
    reused = sum(str(photograph.get("sha256")) in digests for photograph in photographs)
    if reused or not photographs:
        return reused, ""
    scored_have_digests = all(photograph.get("sha256") for photograph in photographs)
    if complete and scored_have_digests:
        return 0, "pixels"
    if unrecorded_parent(training) or not all(as_list(run.get("train_ids")) for run in training_runs(training)):
        return 0, ""
    ids = {
        str(photograph.get("image_id")) for name in training_datasets(training) for photograph in scored.get(name, [])
    }
    if not ids or ids & used_ids(training):
        return 0, ""
    return 0, "ids and some pixels" if digests and scored_have_digests else "ids"


@dataclass(frozen=True)
class Limits:
    """Values of the section on limits, as Markdown."""

    missed: str
    worst_table: str
    illness_table: str
    stress_table: str


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
    worst_table = markdown_table(header, worst_rows) if worst_rows else ""
    return Limits(", ".join(missed), worst_table, _illness_table(reports), _stress_table(reports))


def _illness_table(reports: Reports) -> str:
    """Return the mean and the lowest F1 of HRF's photographs by illness; empty if there is none of one of them."""
    photographs = [as_object(photograph) for photograph in as_list(as_object(reports.get("hrf")).get("pictures"))]
    rows = []
    for end, illness in _ILLNESSES_OF_HRF.items():
        those = [one for one in photographs if str(one.get("image_id")).endswith(end)]
        scores = [f1 for f1 in (as_number(one.get("f1")) for one in those) if f1 is not None]
        if not scores:
            return ""
        rows.append([illness, str(len(scores)), format_score(sum(scores) / len(scores)), format_score(min(scores))])
    return markdown_table(["the eye", "photographs", "mean F1", "lowest F1"], rows)


def _stress_table(reports: Reports) -> str:
    """Return F1, sensitivity and the lowest F1 of a photograph, by kind of degradation and data set."""
    columns: dict[str, dict[str, str]] = {}
    counts: dict[str, str] = {}
    for name, report in reports.items():
        for row in map(as_object, as_list(report.get("stress"))):
            if as_number(row.get("f1")) is not None:
                scores = (format_score(row.get(key)) for key in ("f1", "recall", "worst_f1"))
                columns.setdefault(name, {})[escape_markdown(row.get("stress", "-"))] = ", ".join(scores)
                counts.setdefault(name, format_count(row.get("count")))  # of the first row, where none is too large
    kinds = dict.fromkeys(kind for column in columns.values() for kind in column)
    header = ["the photographs", *(f"{dataset_title(name)} ({counts[name]})" for name in columns)]
    rows = [[kind, *(column.get(kind, "-") for column in columns.values())] for kind in kinds]
    return markdown_table(header, rows) if rows else ""


def split_name(report: Record) -> str:
    """Return the split that a report was measured on."""
    # `resegnet evaluate` records the split. Training always scores `test`, and does not record it.
    return one_line(report.get("split") or "test")
