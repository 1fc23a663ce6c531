"""The records of a release, `training.json` and `metrics.json`, and the wording that card and page share.

The records may come from a stranger's training run. Neither the types nor the texts in them are trusted.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from resegnet.errors import ArgumentError, ReleaseError, first_line
from resegnet.hub import METRICS_NAME
from resegnet.io import json_bytes, read_json, write_atomically
from resegnet.releases.datasheets import ARTERY_VEIN_SOURCES, SOURCES

DISCLAIMER = "Research software, not a medical device: not for diagnosis or treatment."

NOT_FOR = """* Diagnosis, screening, treatment, triage, or any other decision about a patient.
* Pictures of other kinds: scanning laser ophthalmoscopy, fluorescein angiography, OCT angiography.
* Measurements in micrometres, unless the scale of the camera is known.
* Comparing vessel area or calibre between cameras, or with the output of other programs."""

# Uses of photographs, as in the keys `train_ids` and `train_sha256`. The last two are for optic disc and fovea.
_VESSEL_USES = ("train", "validation", "labelled")
_USES = (*_VESSEL_USES, "anatomy_train", "anatomy_validation")

# Characters with a meaning in Markdown, in its tables or in HTML. The Hub reads "$" and a backslash before a bracket as
# the start of a formula even behind another backslash, so these two become HTML entities.
_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "`*_[]{}#|~"}
    | {"\\": "&#92;", "$": "&#36;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
)


def read_record(path: Path) -> dict[str, Any]:
    """Read `training.json` or `metrics.json` of a release.

    Raises
    ------
    ReleaseError
        If the file is missing, cannot be read, or does not hold a JSON object.
    """
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise ReleaseError(
            f"{path} cannot be read as JSON ({first_line(error)}): write or download the release again."
        ) from error
    if not isinstance(record, dict):
        raise ReleaseError(
            f"{path} holds a {type(record).__name__}, expected a JSON object: write or download the release again."
        )
    return record


def add_scores(folder: Path, name: str, scores: Mapping[str, Any]) -> None:
    """Add scores to `metrics.json` of a release, under the name of the data set. Those with other keys are kept.

    Raises
    ------
    ReleaseError
        If the folder has no readable `metrics.json`.
    OSError
        If it cannot be written.
    """
    path = folder / METRICS_NAME
    metrics = read_record(path)
    write_atomically(path, json_bytes(metrics | {name: as_object(metrics.get(name)) | dict(scores)}))


def check_split(folder: Path, name: str, split: str) -> None:
    """Check that `add_scores` would not mix two splits of a data set under one name.

    Raises
    ------
    ArgumentError
        If the release has scores of another split.
    ReleaseError
        If the folder has no readable `metrics.json`.
    """
    kept = as_object(read_record(folder / METRICS_NAME).get(name))
    if kept and kept.get("split", "test") != split:
        raise ArgumentError(
            f"--save: {folder} has the scores of {name}, {one_line(kept.get('split', 'test'))}; those of {split} would "
            "be mixed with them. Leave --save out, and write a report with --json FILE."
        )


def as_object(value: Any) -> dict[str, Any]:
    """Return the value if it is a JSON object, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return the value if it is a list, otherwise an empty one."""
    return value if isinstance(value, list) else []


def as_number(value: Any) -> int | float | None:
    """Return the value if it is a finite number that fits a float, otherwise None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= sys.float_info.max else None


def format_score(value: Any) -> str:
    """Return a score with three decimals, or "-" if the value is not a finite number."""
    number = as_number(value)
    return "-" if number is None else f"{number:.3f}"


def format_count(value: Any) -> str:
    """Return a number with commas between the thousands, or "-" if the value is not a finite number."""
    number = as_number(value)
    return "-" if number is None else f"{number:,}"


def one_line(value: Any) -> str:
    """Return the value as text on one line, without control characters, other invisible ones and lone surrogates."""
    visible = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in str(value))
    return " ".join(visible.split()) or "unnamed"


def escape_markdown(value: Any) -> str:
    """Return the value as one line that Markdown shows as it is, in tables too.

    Do not put the result at the start of a line: Markdown would turn a leading "1." into a list.
    """
    return one_line(value).translate(_ESCAPES)


def dataset_title(name: str) -> str:
    """Return the title of a data set, escaped for Markdown."""
    return escape_markdown(SOURCES[name].title if name in SOURCES else name)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table. The cells must be escaped already."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def vessel_reports(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the reports of `metrics.json` by data set, without those of optic disc and fovea alone.

    A report that is not an object becomes an empty one, so that its data set is shown without figures.
    """
    reports = {one_line(name): as_object(report) for name, report in metrics.items()}
    return {name: report for name, report in reports.items() if report.get("pooled") or not report.get("places")}


# Entries of a record that hold that of a parent release, and the option that names it.
PARENTS = {"earlier": "start_from", "detail_earlier": "detail_from"}


def training_runs(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List the record of the last training run, then those of the runs that its weights came from, parents later."""
    found = [training]
    for run in found:  # which grows here
        found.extend(parents_of(run).values())
    return found


def parents_of(run: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the records of the parent releases that a run has, by their keys in `PARENTS`."""
    return {entry: record for entry in PARENTS if (record := as_object(run.get(entry)))}


def training_datasets(training: Mapping[str, Any]) -> list[str]:
    """List the data sets that the weights were trained on.

    Those with disc or fovea, with arteries and veins, with vessel masks by models, and those of teachers are included.
    """
    from_teachers = [
        one_line(name)
        for run in training_runs(training)
        for teacher in _teachers(run)
        for name in as_list(teacher.get("trained_on"))
    ]
    names = [
        *vessel_datasets(training),
        *artery_vein_datasets(training),
        *anatomy_datasets(training),
        *pseudo_labelled_datasets(training),
        *from_teachers,
    ]
    return list(dict.fromkeys(names))


def vessel_datasets(training: Mapping[str, Any]) -> list[str]:
    """List the data sets that vessels were learned from as people segmented them."""
    return list(dict.fromkeys(_option_names(training, "dataset")))


def anatomy_datasets(training: Mapping[str, Any]) -> list[str]:
    """List the data sets that optic disc and fovea were learned from."""
    return list(dict.fromkeys(_option_names(training, "anatomy")))


def artery_vein_datasets(training: Mapping[str, Any]) -> list[str]:
    """List the data sets that arteries and veins were learned from: labels that others published, or the set itself."""
    labelled = [one_line(name) for run in training_runs(training) for name in as_list(run.get("artery_vein_datasets"))]
    return list(dict.fromkeys(ARTERY_VEIN_SOURCES.get(name, name) for name in labelled))


def pseudo_labelled_datasets(training: Mapping[str, Any]) -> list[str]:
    """List the data sets whose vessel masks were made by models, not by people."""
    return list(dict.fromkeys(_option_names(training, "extra")))


def teacher_releases(training: Mapping[str, Any]) -> dict[str, bool]:
    """Map the name of each teacher release to whether the record lists the teacher's own training data.

    Models that labelled photographs, whose vessel masks were learned from, are teachers too.
    """
    found: dict[str, bool] = {}
    for run in training_runs(training):
        for teacher in _teachers(run):
            name = one_line(teacher.get("name"))
            known = bool(as_list(teacher.get("trained_on"))) and teacher.get("trained_on_complete") is not False
            found[name] = found.get(name, True) and known  # two teachers may share a name
    return found


def _teachers(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the records of the models that a run learned from, as `teacher_record` makes them."""
    recorded = [as_object(teacher) for teacher in as_list(run.get("teachers"))]
    # Records of early versions hold the names of teachers only, and nothing of the models that labelled photographs.
    names_only = as_list(_options(run).get("teacher"))[len(recorded) :]
    labellers = [as_object(labeller) for labeller in as_list(run.get("labelled_by"))]
    if as_list(run.get("labelled_ids")) and "labelled_by" not in run:
        labellers = [unknown_teacher(one_line(name)) for name in as_list(_options(run).get("extra"))]
    return [*recorded, *({"name": name} for name in names_only), *labellers]


def teacher_record(name: str, training: Mapping[str, Any], commit: str | None = None) -> dict[str, Any]:
    """Return what the record of a run says of a release that it learned from.

    Parameters
    ----------
    name
        Name of the release, without its path.
    training
        Its `training.json`, empty if it has none.
    commit
        Its commit on the Hub, if it comes from there.
    """
    record: dict[str, Any] = {"name": name, "trained_on": training_datasets(training)}
    if unrecorded_parent(training) or not all(teacher_releases(training).values()):
        record["trained_on_complete"] = False
    if commit:
        record["commit"] = commit
    digests, complete = training_digests(training)
    if complete:
        record["sha256"] = sorted(digests)
    return record


def unknown_teacher(dataset: str) -> dict[str, Any]:
    """Return the record of the models that labelled a data set, if nothing is known of them."""
    return {"name": f"unknown models that labelled {dataset}", "trained_on": []}


def release_name(source: str) -> str:
    """Return the last part of a path or Hub id. For the folder `release` of a run, the name of the run's folder."""
    parent = Path(source).resolve().parent
    is_run = Path(source).name == "release" and (parent / "options.json").exists()
    return parent.name if is_run else Path(source).name or source


def _option_names(training: Mapping[str, Any], option: str) -> list[str]:
    return [one_line(name) for run in training_runs(training) for name in as_list(_options(run).get(option))]


def _options(run: Mapping[str, Any]) -> dict[str, Any]:
    return as_object(run.get("options"))


def unrecorded_parent(training: Mapping[str, Any]) -> str:
    """Return the name of a release that training started from if that release's own record is missing, else ""."""
    for run in training_runs(training):
        for entry, option in PARENTS.items():
            if _options(run).get(option) and entry not in parents_of(run):
                return one_line(_options(run)[option])
    return ""


def published_weights(training: Mapping[str, Any]) -> list[str]:
    """List the weights of an encoder, published by others, that runs without a parent release started from."""
    names = [
        one_line(_options(run).get("encoder_weights"))
        for run in training_runs(training)
        if "earlier" not in parents_of(run)
    ]
    return [name for name in dict.fromkeys(names) if name not in ("None", "", "none")]


def training_digests(training: Mapping[str, Any]) -> tuple[set[str], bool]:
    """Collect the SHA-256 of the photographs that the weights were trained or validated on, teachers' included.

    Returns
    -------
    digests : set[str]
        SHA-256 of the pixels, see `resegnet.learning.samples.photograph_sha256`. Records of early versions hold none.
    complete : bool
        Whether the record has that of every photograph.
    """
    runs = training_runs(training)
    digests = {str(digest) for run in runs for use in _USES for digest in as_list(run.get(f"{use}_sha256"))}
    complete = bool(digests) and not unrecorded_parent(training) and all(map(_has_digests, runs))
    teachers = [as_list(teacher.get("sha256")) for run in runs for teacher in _teachers(run)]
    digests.update(str(digest) for teacher in teachers for digest in teacher)
    return digests, complete and all(teachers)


def used_ids(training: Mapping[str, Any]) -> set[str]:
    """Collect the `image_id`s of the photographs that the weights were trained or validated on."""
    return {str(name) for run in training_runs(training) for use in _USES for name in as_list(run.get(f"{use}_ids"))}


def _has_digests(run: Mapping[str, Any], uses: Sequence[str] = _USES) -> bool:
    """Return whether a run records the SHA-256 of all its photographs of some uses."""
    return bool(as_list(run.get("train_sha256"))) and all(
        len(as_list(run.get(f"{use}_sha256"))) == len(as_list(run.get(f"{use}_ids"))) for use in uses
    )


def was_trained_on(name: str, training: Mapping[str, Any]) -> bool | None:
    """Return whether the model was trained on a data set, or None if the records do not tell."""
    datasets = training_datasets(training)
    if name in datasets:
        return True
    complete = datasets and not unrecorded_parent(training) and all(teacher_releases(training).values())
    return False if complete else None


def threshold_origin(training: Mapping[str, Any]) -> str:
    """Return one sentence that says where the threshold was fitted, and whether the model was trained there too.

    Parameters
    ----------
    training
        Content of `training.json`.

    Notes
    -----
    A run without validation photographs (`--validation-fraction 0`) keeps the threshold of the release that it started
    from, though it may train on the photographs that this threshold was fitted on.
    """
    runs = training_runs(training)
    fitting = next((index for index, run in enumerate(runs) if as_list(run.get("validation_ids"))), None)
    if fitting is None or any(_options(run).get("validation_fraction") != 0 for run in runs[:fitting]):
        return "The records do not name the photographs that the threshold was fitted on."
    # Two data sets may number their photographs alike, so ids are compared only where a record has no SHA-256.
    kind: Literal["sha256", "ids"] = "sha256" if all(_has_digests(run, _VESSEL_USES) for run in runs) else "ids"
    fitted_on = {str(name) for name in as_list(runs[fitting][f"validation_{kind}"])}
    before, later = (len(fitted_on & photographs_trained_on(part, kind)) for part in (runs[fitting:], runs[:fitting]))
    photographs = f"{len(fitted_on)} validation photograph{'s' if len(fitted_on) > 1 else ''}"
    start = f"The threshold was fitted on {photographs}"
    if before:
        return f"{start}; the model had already been trained on {before} of them."
    if later:
        share = "" if later == len(fitted_on) else f"{later} of "
        return f"{start} before the model was trained on {share}them, and was not changed afterwards."
    if unrecorded_parent(training) or not all(as_list(run.get("train_ids")) for run in runs):
        return f"{start}; the records do not tell whether the model was trained on them."
    return f"{start} that the model was not trained on."


def photographs_trained_on(runs: Sequence[Mapping[str, Any]], kind: Literal["sha256", "ids"]) -> set[str]:
    """Collect the recorded SHA-256, or ids, of the photographs that runs were trained on.

    Ids leave out the photographs with optic disc and fovea: they are of other folders, which may count from 1 as well.
    """
    uses = ("train", "labelled", "anatomy_train") if kind == "sha256" else ("train", "labelled")
    return {str(name) for run in runs for use in uses for name in as_list(run.get(f"{use}_{kind}"))}
