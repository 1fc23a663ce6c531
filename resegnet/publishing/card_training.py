"""Training in the model card: a row for each run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resegnet.releases.records import (
    PARENTS,
    as_list,
    as_number,
    as_object,
    dataset_title,
    escape_markdown,
    format_count,
    format_score,
    markdown_table,
    one_line,
    parents_of,
    training_runs,
)

_WEIGHTS = {
    "none": "random weights",
    "imagenet": "an encoder trained on ImageNet (everyday photographs)",
    "None": "weights that are not recorded",
}


@dataclass(frozen=True)
class Training:
    """Values of the section on training, as Markdown."""

    runs: int
    table: str
    validation_f1: str
    noted_runs: str
    self_trained_runs: str
    learns_places: bool  # whether photographs with optic disc or fovea were learned from, too


def training_runs_table(training: Mapping[str, Any]) -> Training:
    """Collect the values of the card's section on training. Without recorded options, `runs` is 0."""
    runs = training_runs(training)[::-1]  # oldest first
    if not as_object(training.get("options")):
        return Training(0, "", "", "", "", False)
    numbers = {id(run): number for number, run in enumerate(runs, start=1)}
    rows = [[str(number), *_row(run), _start(run, numbers)] for number, run in enumerate(runs, start=1)]
    header = ["run", "data sets", "teachers", "training photographs", "validation photographs", "epochs", "steps"]
    f1 = as_number(training.get("validation_f1"))
    noted = [number for number, run in enumerate(runs, start=1) if as_object(run.get("environment")).get("note")]
    self_trained = [
        number for number, run in enumerate(runs, start=1) if as_object(run.get("options")).get("self_training")
    ]
    return Training(
        runs=len(runs),
        table=markdown_table([*header, "crops per step", "device", "started from"], rows),
        validation_f1="" if f1 is None else format_score(f1),
        noted_runs=_name_runs(noted),
        self_trained_runs=_name_runs(self_trained),
        learns_places=any(as_list(run.get("anatomy_train_ids")) for run in runs),
    )


def _row(run: Mapping[str, Any]) -> list[str]:
    options, environment = as_object(run.get("options")), as_object(run.get("environment"))
    names = [*map(one_line, as_list(options.get("dataset"))), *map(one_line, as_list(options.get("extra")))]
    epochs, steps = as_number(run.get("epochs_run")), as_number(options.get("steps_per_epoch"))
    factors = (options.get("batch_size"), options.get("accumulate", 1), environment.get("processes", 1))
    crops = [number for number in map(as_number, factors) if number is not None]
    device = environment.get("device") or options.get("device")
    return [
        ", ".join(map(dataset_title, names)) or "-",
        ", ".join(escape_markdown(name) for name in as_list(options.get("teacher"))) or "none",
        format_count(len(as_list(run.get("train_ids"))) or None),
        format_count(len(as_list(run.get("validation_ids")))),
        format_count(epochs),
        format_count(None if epochs is None or steps is None else epochs * steps),
        format_count(math.prod(crops) if len(crops) == len(factors) else None),
        escape_markdown(device) if device else "-",
    ]


def _start(run: Mapping[str, Any], numbers: Mapping[int, int]) -> str:
    """Return what a run started from, as Markdown; `numbers` has the number of each run in the table, by its id."""
    options = as_object(run.get("options"))
    parents, records = {}, parents_of(run)
    for entry, option in PARENTS.items():
        if entry in records:
            parents[option] = f"run {numbers[id(records[entry])]}"
        elif options.get(option):
            parents[option] = f'the earlier release "{escape_markdown(options[option])}"'
    weights = one_line(options.get("encoder_weights"))
    start = parents.get("start_from") or _WEIGHTS.get(weights, f'"{escape_markdown(weights)}", which others trained')
    return f"{start}; its detail branch from {parents['detail_from']}" if "detail_from" in parents else start


def _name_runs(numbers: Sequence[int]) -> str:
    return f"run{'s' if len(numbers) > 1 else ''} {_join([*map(str, numbers)])}" if numbers else ""


def _join(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
