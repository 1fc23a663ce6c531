"""The command `resegnet evaluate`: scores of a release on a data set, printed, written and kept in the release."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resegnet.errors import ArgumentError
from resegnet.io import json_bytes, safe_name, write_atomically
from resegnet.learning.anatomy import find_kinds
from resegnet.learning.anatomy_evaluation import (
    evaluate_places,
    format_anatomy,
    has_places,
    has_vessels,
    kinds_folder,
)
from resegnet.learning.data import load_vessels
from resegnet.learning.evaluation import evaluate_dataset, find_second_observer, format_table
from resegnet.learning.stress import format_stress_table, stress_table
from resegnet.releases.records import add_scores, check_split
from resegnet.results.agreement import format_agreement, numbers_csv
from resegnet.segmenter import Segmenter


def evaluate(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status.

    Raises
    ------
    ArgumentError
        If scores are to be saved in a release that is no folder of the caller's, or that has those of another split.
    resegnet.errors.ResegnetError, OSError
        For a release or data that cannot be used, and files that cannot be written.
    """
    if arguments.save and not os.path.isdir(os.path.expanduser(arguments.model or "")):
        raise ArgumentError(f"--save got --model {arguments.model}, expected the folder of a release: name one.")
    if arguments.save:
        check_split(Path(os.path.expanduser(arguments.model)), _name(arguments.dataset), arguments.split)
    for option in ("numbers", "json"):
        path = getattr(arguments, option)
        if path is not None and path.is_dir():
            raise ArgumentError(f"--{option} got the folder {path}, expected the name of a file to write.")
    if arguments.second_observer is not None and not Path(arguments.second_observer).is_dir():
        raise ArgumentError(
            f"--second-observer got {arguments.second_observer}, expected a folder with <image_id>.png: check the path."
        )
    segmenter = Segmenter.from_pretrained(arguments.model, revision=arguments.revision, engine=arguments.engine)
    if arguments.anatomy and not has_vessels(arguments.dataset):
        places = evaluate_places(segmenter, Path(arguments.dataset), arguments.split)
        _keep(arguments, {"model": segmenter.model, "places": places})
        print(format_anatomy(None, places))
        return 0
    with_places = arguments.anatomy and has_places(arguments.dataset)
    with_kinds = arguments.anatomy and (find_kinds(arguments.dataset) is not None or not with_places)
    kinds = kinds_folder(segmenter, arguments.dataset) if with_kinds else None
    photographs = load_vessels(arguments.dataset, arguments.split)
    report = evaluate_dataset(
        segmenter,
        photographs,
        second_observer=arguments.second_observer or find_second_observer(arguments.dataset),
        worst=arguments.worst,
        out=arguments.out or Path("errors") / safe_name(_name(arguments.dataset)),
        numbers=arguments.numbers is not None,
        kinds=kinds,
        kind_numbers=with_kinds,
    )
    if with_places:
        report["places"] = evaluate_places(segmenter, Path(arguments.dataset), arguments.split)
    # Files come first, since the output may be closed. A file that cannot be written loses no scores.
    errors = []
    if arguments.numbers is not None:
        errors += _try(_write, arguments.numbers, numbers_csv(report))
    errors += _try(_keep, arguments, report)
    print(format_table(report))
    if arguments.anatomy:
        print("", format_anatomy(report["kinds"], report.get("places")), sep="\n")
    if arguments.numbers is not None:
        print("", format_agreement(report), sep="\n")
    if arguments.stress:
        stress = stress_table(segmenter, photographs)
        errors += _try(_keep, arguments, {**report, "stress": stress})
        print("", format_stress_table(stress), sep="\n")
    for error in errors:
        raise error
    return 0


def _try(write: Callable[..., None], *arguments: Any) -> list[OSError]:
    """Write something, and return the error if that fails."""
    try:
        write(*arguments)
    except OSError as error:
        return [error]
    return []


def _name(source: str) -> str:
    """Return the last part of a path or Hub id; of `.`, the name of the folder."""
    return Path(os.path.abspath(source)).name


def _keep(arguments: argparse.Namespace, report: Mapping[str, Any]) -> None:
    """Write the report where the options say."""
    if arguments.save:
        # Scores that were not measured now stay as they were. Paths of error maps are private, and measurements of
        # photographs long.
        left_out = ("model", "error_maps", "numbers")
        scores = {key: value for key, value in report.items() if key not in left_out and value is not None}
        if scores.get("kinds"):
            scores["kinds"] = {key: value for key, value in scores["kinds"].items() if key not in left_out}
        folder = Path(os.path.expanduser(arguments.model))
        add_scores(folder, _name(arguments.dataset), {"split": arguments.split, **scores})
    if arguments.json is not None:
        source = {"source": arguments.dataset, "split": arguments.split}
        _write(arguments.json, json_bytes({**source, **report}))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
