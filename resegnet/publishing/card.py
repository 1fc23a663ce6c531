"""The model card: README.md of a published release. `card_template.md` holds its text, the records its figures."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from resegnet.config import PLAIN, TWO_LOOKS, Config
from resegnet.hub import CONFIG_NAME, HUB_ID, METRICS_NAME, TRAINING_NAME, check_repo_id
from resegnet.publishing.card_anatomy import anatomy_scores
from resegnet.publishing.card_data import training_and_test_data
from resegnet.publishing.card_scores import Record, Reports, measured_limits, per_dataset, scored_results, split_name
from resegnet.publishing.card_training import training_runs_table
from resegnet.releases.datasheets import SOURCES
from resegnet.releases.licence import Licence, weights_licence
from resegnet.releases.records import (
    DISCLAIMER,
    NOT_FOR,
    as_list,
    as_number,
    as_object,
    escape_markdown,
    one_line,
    read_record,
    vessel_reports,
)
from resegnet.results.metrics import SCORES
from resegnet.version import REPOSITORY_URL

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
    folder: Path,
    repo_id: str,
    revision: str | None = None,
    pictures: Mapping[str, str] | None = None,
    *,
    space_id: str | None = None,
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
    space_id
        Space that serves the release, such as `user/resegnet-demo`. The card links it, and without a public address of
        the repository tells how to install the package from it.

    Raises
    ------
    ConfigError
        If `config.json` cannot be used.
    ReleaseError
        If another record is missing or is not a JSON object.
    PublishError
        If the Hub would not accept `repo_id`.
    """
    check_repo_id(repo_id)
    config = Config.load(folder / CONFIG_NAME)
    training = read_record(folder / TRAINING_NAME)
    metrics = read_record(folder / METRICS_NAME)
    reports = vessel_reports(metrics)
    url = f"https://huggingface.co/{repo_id}"
    licence = weights_licence(training, url)
    template = resources.files(__package__).joinpath("card_template.md").read_text(encoding="utf-8")
    text = _TEMPLATES.from_string(template).render(
        card_data=_front_matter(repo_id.rpartition("/")[2], reports, training, licence),
        disclaimer=DISCLAIMER,
        not_for=NOT_FOR,
        use=_use(repo_id, revision, space_id),
        pictures=[_Picture.of(path, caption) for path, caption in (pictures or {}).items()],
        results=scored_results(reports, training, config),
        anatomy=anatomy_scores(metrics),
        limits=measured_limits(reports),
        data=training_and_test_data([one_line(name) for name in metrics], training, licence),
        training=training_runs_table(training),
        network=_network(config),
        versions=_versions(reports, training),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _front_matter(name: str, reports: Reports, training: Record, licence: Licence) -> str:
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
        license=licence.id,
        license_name=licence.name,
        license_link=licence.link,
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
    """Names and addresses in the card's examples."""

    load_arguments: str
    download_arguments: str
    citation_note: str
    space_id: str
    repository_url: str


def _use(repo_id: str, revision: str | None, space_id: str | None) -> _Use:
    load, download, citation = json.dumps(repo_id), repo_id, f"https://huggingface.co/{repo_id}"
    if revision is not None:
        load += f", revision={json.dumps(one_line(revision), ensure_ascii=False)}"
        download += f" --revision {shlex.quote(one_line(revision))}"
        citation = f"revision {re.sub(r'[^0-9A-Za-z./-]', '-', revision)}, {citation}"
    return _Use(load, download, citation, space_id or "", REPOSITORY_URL)


@dataclass(frozen=True)
class _Picture:
    alt: str
    path: str
    caption: str

    @classmethod
    def of(cls, path: str, caption: str) -> _Picture:
        return cls(escape_markdown(Path(path).stem.replace("_", " ")), quote(path), escape_markdown(caption))


@dataclass(frozen=True)
class _Network:
    encoder: str
    encoder_depth: int
    channels: str
    input_sides: str
    step: int  # the side of the input is a multiple of it
    smallest: int | None
    largest: int
    threshold: float
    context_size: int | None  # px, of two looks
    context_encoder: str
    context_channels: str


def _network(config: Config) -> _Network:
    return _Network(
        "" if config.encoder in (PLAIN, TWO_LOOKS) else escape_markdown(config.encoder),
        config.encoder_depth,
        ", ".join(map(str, config.decoder_channels)),
        config.input_sides,
        2**config.encoder_depth,
        config.smallest_input_size,
        config.input_size,
        config.threshold,
        config.context_size,
        escape_markdown(config.context_encoder or ""),
        ", ".join(map(str, config.context_channels)),
    )


def _versions(reports: Reports, training: Record) -> list[str]:
    environment = as_object(training.get("environment"))
    # Device and number of processes are in the table of the runs; notes are for readers of the record.
    left_out = ("device", "machine", "processes", "commit", "note")
    trained_with = [
        f"{escape_markdown(key)} {escape_markdown(value)}"
        for key, value in environment.items()
        if value is not None and key not in left_out
    ]
    commit, digest = environment.get("commit"), training.get("data_sha256")
    facts = {
        "Trained with": ", ".join(trained_with),
        "Commit of the ReSegNet code that trained it": escape_markdown(commit) if commit else "",
        "Scored with": per_dataset(reports, "versions"),
        "SHA-256 of the training data": escape_markdown(digest) if digest else "",
    }
    return [f"{name}: {value}" for name, value in facts.items() if value]
