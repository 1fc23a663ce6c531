"""The model card: README.md of a published release. `card_template.md` holds its text, the records its figures."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import jinja2
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import validate_repo_id

from resegnet.config import PLAIN, TWO_LOOKS, Config
from resegnet.hub import CONFIG_NAME, HUB_ID, METRICS_NAME, TRAINING_NAME
from resegnet.publishing.card_scores import Record, Reports, measured_limits, per_dataset, scored_results, split_name
from resegnet.releases.datasheets import SOURCES, Source
from resegnet.releases.records import (
    DISCLAIMER,
    NOT_FOR,
    as_list,
    as_number,
    as_object,
    dataset_title,
    escape_markdown,
    format_score,
    markdown_table,
    one_line,
    pseudo_labelled_datasets,
    read_record,
    teacher_releases,
    training_datasets,
    training_runs,
    unrecorded_parent,
)
from resegnet.results.metrics import SCORES

TAGS = "retina fundus vessel-segmentation retinal-vessel-segmentation ophthalmology medical-imaging medical unet"

# Ids that the Hub uses for scores, where they differ from the names in the records.
HUB_METRICS = {"auroc": "roc_auc", "mcc": "matthews_correlation"}

_TEMPLATES = jinja2.Environment(
    autoescape=False,  # the values are escaped for Markdown, by `escape_markdown`
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def model_card(
    folder: Path, repo_id: str, revision: str | None = None, pictures: Mapping[str, str] | None = None
) -> str:
    """Write the README.md of a release on the Hub. The same release gives the same text.

    Parameters
    ----------
    folder
        The release. Only `config.json`, `training.json` and `metrics.json` are read, and every figure comes from them.
        Values that they lack are left out or shown as "-".
    repo_id
        Name on the Hub, such as `user/resegnet`.
    revision
        Tag or commit that the examples load. Without one they load the newest commit.
    pictures
        Captions of the pictures that are published with the card, by path in the repository (see
        `resegnet.publishing.pictures`).

    Raises
    ------
    ConfigError
        If `config.json` cannot be used.
    ReleaseError
        If another record is missing or is not a JSON object.
    huggingface_hub.errors.HFValidationError
        If the Hub does not accept `repo_id`.
    """
    validate_repo_id(repo_id)
    config = Config.load(folder / CONFIG_NAME)
    training = read_record(folder / TRAINING_NAME)
    # A report that is not an object becomes an empty one, so that its data set is shown without figures.
    reports = {one_line(name): as_object(report) for name, report in read_record(folder / METRICS_NAME).items()}
    template = resources.files(__package__).joinpath("card_template.md").read_text(encoding="utf-8")
    text = _TEMPLATES.from_string(template).render(
        card_data=_front_matter(repo_id.rpartition("/")[2], reports, training),
        disclaimer=DISCLAIMER,
        not_for=NOT_FOR,
        use=_use(repo_id, revision),
        pictures=[_Picture.of(path, caption) for path, caption in (pictures or {}).items()],
        results=scored_results(reports, training, config),
        limits=measured_limits(reports),
        data=_data(reports, training),
        training=_training(training),
        network=_network(config),
        versions=_versions(reports, training),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _front_matter(name: str, reports: Reports, training: Record) -> str:
    """Return the YAML at the top of the card: licence, tags, and every score without rounding."""
    results = [
        EvalResult(
            task_type="image-segmentation",
            task_name="Retinal vessel segmentation",
            dataset_type=dataset,
            dataset_name=one_line(SOURCES[dataset].title) if dataset in SOURCES else dataset,
            dataset_split=split_name(report),
            metric_type=HUB_METRICS.get(score, score),
            metric_name=f"{SCORES.get(score, score)}, pooled",
            metric_value=value,
        )
        for dataset, report in reports.items()
        for score, value in ((one_line(key), value) for key, value in as_object(report.get("pooled")).items())
        if as_number(value) is not None
    ]
    return ModelCardData(
        license="mit",
        library_name="resegnet",
        pipeline_tag="image-segmentation",
        tags=TAGS.split(),
        datasets=[name for name in as_list(training.get("hub_datasets")) if HUB_ID.fullmatch(str(name))] or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=name if results else None,
        eval_results=results or None,
    ).to_yaml()


@dataclass(frozen=True)
class _Use:
    """Names of the release in the card's examples."""

    load_arguments: str
    download_arguments: str
    citation_note: str


def _use(repo_id: str, revision: str | None) -> _Use:
    url = f"https://huggingface.co/{repo_id}"
    if revision is None:
        return _Use(json.dumps(repo_id), repo_id, url)
    return _Use(
        f"{json.dumps(repo_id)}, revision={json.dumps(one_line(revision), ensure_ascii=False)}",
        f"{repo_id} --revision {shlex.quote(one_line(revision))}",
        f"revision {re.sub(r'[^0-9A-Za-z./-]', '-', revision)}, {url}",
    )


@dataclass(frozen=True)
class _Picture:
    alt: str
    path: str
    caption: str

    @classmethod
    def of(cls, path: str, caption: str) -> _Picture:
        return cls(escape_markdown(Path(path).stem.replace("_", " ")), quote(path), escape_markdown(caption))


@dataclass(frozen=True)
class _Restricted:
    """A data set of the training whose terms may forbid some use of the weights."""

    title: str
    terms: str


@dataclass(frozen=True)
class _Data:
    table: str
    photographs: str
    pseudo_labelled: str
    pseudo_labels: int
    restricted: list[_Restricted]
    unrecorded_parent: str
    teachers: str
    unrecorded_teachers: str
    asks_for_credit: bool


def _data(reports: Reports, training: Record) -> _Data:
    used, pseudo_labelled = training_datasets(training), pseudo_labelled_datasets(training)
    names = list(dict.fromkeys([*used, *reports]))
    rows = []
    for name in names:
        training_use = "training, with vessel masks made by models" if name in pseudo_labelled else "training"
        uses = [use for use, users in ((training_use, used), ("scores", reports)) if name in users]
        paper = _paper(SOURCES[name]) if name in SOURCES else "not known to ReSegNet"
        rows.append([dataset_title(name), ", ".join(uses), paper, _terms(name)])
    teachers = teacher_releases(training)
    return _Data(
        table=markdown_table(["data set", "used for", "paper", "terms of its publishers"], rows) if rows else "",
        photographs=_photographs(training),
        pseudo_labelled=", ".join(map(dataset_title, pseudo_labelled)),
        pseudo_labels=len(as_list(training.get("labelled_ids"))),
        restricted=[_Restricted(dataset_title(name), _terms(name)) for name in used if not _is_free(name)],
        unrecorded_parent=escape_markdown(unrecorded_parent(training)) if unrecorded_parent(training) else "",
        teachers=", ".join(map(escape_markdown, teachers)),
        unrecorded_teachers=", ".join(escape_markdown(name) for name, recorded in teachers.items() if not recorded),
        asks_for_credit=any(_terms(name).startswith("CC BY") for name in names),
    )


def _photographs(training: Record) -> str:
    """Return a sentence on the numbers of photographs in the last run, or "" if the record names none."""
    trained, validated = (len(as_list(training.get(key))) for key in ("train_ids", "validation_ids"))
    if not trained and not validated:
        return ""
    if validated:
        validation = f"{validated} for validation, on which the best epoch and the threshold were chosen"
    elif as_object(training.get("options")).get("validation_fraction") == 0:
        validation = "none for validation; the threshold of the release before was kept"
    else:
        validation = "those for validation are not recorded"
    return f"Photographs in the last run: {trained} for training, {validation}. `training.json` lists their ids."


def _is_free(name: str) -> bool:
    """Return whether the terms of a data set, CC0 or CC BY, allow every use of the weights."""
    return name in SOURCES and bool(re.search(r"\bCC(0| BY \d)", SOURCES[name].terms))


def _terms(name: str) -> str:
    return escape_markdown(SOURCES[name].terms) if name in SOURCES else "not known to ReSegNet"


def _paper(source: Source) -> str:
    """Return the paper of a data set, with its DOI as a link."""
    authors, separator, doi = source.paper.partition("doi:")
    if not separator:
        return escape_markdown(source.paper)
    return f"{escape_markdown(authors)} [doi:{escape_markdown(doi)}](https://doi.org/{quote(doi)})"


@dataclass(frozen=True)
class _Training:
    facts: list[str]
    notes: list[str]


def _training(training: Record) -> _Training:
    options, environment = as_object(training.get("options")), as_object(training.get("environment"))
    if not options:
        return _Training([], [])
    epochs, planned = as_number(training.get("epochs_run")), as_number(options.get("epochs"))
    steps = as_number(options.get("steps_per_epoch"))
    f1 = as_number(training.get("validation_f1"))
    factors = (options.get("batch_size"), options.get("accumulate", 1), environment.get("processes", 1))
    crops = [number for number in map(as_number, factors) if number is not None]
    ran = None if epochs is None else f"{epochs:,}" + ("" if planned is None else f" of at most {planned:,}")
    if epochs == 0:
        ran = "0, the last run only fitted calibration and threshold"
    facts = {
        "started from": _start(training),
        "epochs run": ran,
        "best epoch": training.get("best_epoch"),
        "steps": None if epochs is None or steps is None else f"{epochs * steps:,}",
        "crops per step": math.prod(crops) if len(crops) == len(factors) else None,
        "F1 on the validation photographs": None if f1 is None else format_score(f1),
        "device": environment.get("device") or options.get("device"),
        "threads": options.get("threads") or None,  # 0 stands for torch's own choice
        "processor": environment.get("machine"),
    }
    notes = [as_object(run.get("environment")).get("note") for run in training_runs(training)]
    return _Training(
        [f"{name}: {escape_markdown(value)}" for name, value in facts.items() if value is not None],
        [escape_markdown(note) for note in dict.fromkeys(note for note in notes if note and isinstance(note, str))],
    )


def _start(training: Record) -> str:
    if unrecorded_parent(training):
        return f'the weights of an earlier release, named "{unrecorded_parent(training)}"'
    earlier = training_runs(training)[1:]
    if earlier:
        epochs = ", ".join(one_line(run.get("epochs_run", "-")) for run in earlier)
        count = f"{len(earlier)} earlier run{'s' if len(earlier) > 1 else ''}"
        return f"the weights of {count} (epochs, newest first: {epochs}); the first started from {_start(earlier[-1])}"
    weights = one_line(as_object(training.get("options")).get("encoder_weights"))
    known = {"none": "random weights", "imagenet": "an encoder with ImageNet weights", "None": "weights not recorded"}
    return known.get(weights, f'an encoder with the weights "{weights}"')


@dataclass(frozen=True)
class _Network:
    encoder: str
    encoder_depth: int
    channels: str
    input_sides: str
    threshold: float
    context_size: int | None  # px, of two looks
    context_channels: str


def _network(config: Config) -> _Network:
    return _Network(
        "" if config.encoder in (PLAIN, TWO_LOOKS) else escape_markdown(config.encoder),
        config.encoder_depth,
        ", ".join(map(str, config.decoder_channels)),
        config.input_sides,
        config.threshold,
        config.context_size,
        ", ".join(map(str, config.context_channels)),
    )


def _versions(reports: Reports, training: Record) -> list[str]:
    environment = as_object(training.get("environment"))
    trained_with = [f"{escape_markdown(key)} {escape_markdown(x)}" for key, x in environment.items() if x is not None]
    digest = training.get("data_sha256")
    facts = {
        "Trained with": ", ".join(trained_with),
        "Scored with": per_dataset(reports, "versions"),
        "SHA-256 of the training data": escape_markdown(digest) if digest else "",
    }
    return [f"{name}: {value}" for name, value in facts.items() if value]
