"""What a model's card and page say of it alike: its purpose, the names of its scores, the records of its release.

The records may come from anyone's training run, so that nothing in them is trusted: neither types nor text.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resegnet.io import read_json
from resegnet.releases.datasheets import SOURCES

DISCLAIMER = "Research software, not a medical device: not for diagnosis or treatment."

NOT_FOR = """* Diagnosis, screening, treatment, triage, or any other decision about a patient.
* Scanning laser, fluorescein or OCT angiography pictures: it knows colour photographs only.
* Arteries against veins: it says vessel or not. Micrometres, unless the camera's scale is known.
* Comparing vessel area or width between cameras or programs: how wide a vessel is drawn differs."""

# Names of the recorded scores.
SCORES = {
    "f1": "F1 (Dice)",
    "recall": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "auroc": "AUROC",
    "mcc": "MCC",
    "cldice": "clDice",
    "iou": "IoU (Jaccard)",
    "accuracy": "Accuracy",
}

# Of Markdown, of its tables and of HTML. The Hub sets formulas for "$" and for a doubled backslash before a bracket, so
# that these two are better not escaped by a backslash.
_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "`*_[]{}#|~"}
    | {"\\": "&#92;", "$": "&#36;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
)


def read_record(path: Path) -> dict[str, Any]:
    """`training.json` or `metrics.json` of a release.

    Raises
    ------
    ValueError
        If it is missing or no JSON object.
    """
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}): write or download the release again.") from error
    if not isinstance(record, dict):
        raise ValueError(
            f"{path} holds a {type(record).__name__}, expected an object of named values: write or download the "
            "release again."
        )
    return record


def as_object(value: Any) -> dict[str, Any]:
    """The value, or an empty object in place of anything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The value, or an empty list in place of anything else."""
    return value if isinstance(value, list) else []


def as_number(value: Any) -> int | float | None:
    """The value if it is a finite number that a float can hold, else None."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return value if good else None


def figure(value: Any) -> str:
    """A score with three decimals, or "-"."""
    number = as_number(value)
    return "-" if number is None else f"{number:.3f}"


def count(value: Any) -> str:
    """A number of things, or "-"."""
    number = as_number(value)
    return "-" if number is None else f"{number:,}"


def plain(value: Any) -> str:
    """Text in one line, without control and other invisible characters or half of a pair."""
    visible = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in str(value))
    return " ".join(visible.split()) or "unnamed"


def text(value: Any) -> str:
    """Text that stands for itself in Markdown and in its tables. It must not begin a line: there "1." makes a list."""
    return plain(value).translate(_ESCAPES)


def title(name: str) -> str:
    """What a data set is called, for Markdown."""
    return text(SOURCES[name].title if name in SOURCES else name)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def runs(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The record of the run, then those of the runs that its weights came from, as far as they are known."""
    found = [training]
    while found[-1].get("earlier"):
        found.append(as_object(found[-1]["earlier"]))
    return found


def trained_on(training: Mapping[str, Any]) -> list[str]:
    """Names of the sets that the weights were trained on: those with `labelled` vessels, and teachers' too."""
    of_teachers = [
        plain(name)
        for run in runs(training)
        for teacher in as_list(run.get("teachers"))
        for name in as_list(as_object(teacher).get("trained_on"))
    ]
    return list(dict.fromkeys([*_named(training, "dataset"), *labelled(training), *of_teachers]))


def teachers(training: Mapping[str, Any]) -> dict[str, bool]:
    """Names of the releases whose answers were learned, and whether their own data are on record."""
    found: dict[str, bool] = {}
    for run in runs(training):
        noted = [as_object(teacher) for teacher in as_list(run.get("teachers"))]
        noted += [{"name": name} for name in as_list(as_object(run.get("options")).get("teacher"))[len(noted) :]]
        for teacher in noted:  # two may go by one name
            name = plain(teacher.get("name"))
            found[name] = found.get(name, True) and bool(as_list(teacher.get("trained_on")))
    return found


def labelled(training: Mapping[str, Any]) -> list[str]:
    """Names of the sets whose vessels models had marked, not people."""
    return list(dict.fromkeys(_named(training, "extra")))


def _named(training: Mapping[str, Any], option: str) -> list[str]:
    return [plain(name) for run in runs(training) for name in as_list(as_object(run.get("options")).get(option))]


def continues(training: Mapping[str, Any]) -> str:
    """Name of the release that the run went on from and that nothing is known of, or nothing."""
    start = as_object(runs(training)[-1].get("options")).get("start_from")
    return plain(start) if start else ""


def seen(name: str, training: Mapping[str, Any]) -> bool | None:
    """Whether the model was trained on a set; None where that is not known, as what an earlier release had seen."""
    if name in trained_on(training):
        return True
    known = trained_on(training) and not continues(training) and all(teachers(training).values())
    return False if known else None
