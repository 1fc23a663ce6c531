"""The model card: the README.md of a published release, made from the release's own records."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import validate_repo_id

from resegnet.config import PLAIN, Config
from resegnet.hub import CONFIG_NAME, METRICS_NAME, TRAINING_NAME
from resegnet.releases.datasheets import SOURCES, Source
from resegnet.releases.records import (
    DISCLAIMER,
    NOT_FOR,
    as_list,
    as_number,
    as_object,
    dataset_title,
    escape_markdown,
    format_count,
    format_score,
    markdown_table,
    one_line,
    pseudo_labelled_datasets,
    read_record,
    teacher_releases,
    training_datasets,
    training_runs,
    unrecorded_parent,
    was_trained_on,
)
from resegnet.results.metrics import SCORES

TAGS = "retina fundus vessel-segmentation retinal-vessel-segmentation ophthalmology medical-imaging medical unet"

# The Hub's ids of scores, where they are not the records' own.
HUB_METRICS = {"auroc": "roc_auc", "mcc": "matthews_correlation"}
HUB_ID = r"[A-Za-z0-9][\w.-]*/[\w.-]+"
TABLE_SCORES = ("f1", "recall", "specificity", "precision", "auroc", "mcc", "cldice")


def model_card(
    folder: Path, repo_id: str, revision: str | None = None, pictures: Mapping[str, str] | None = None
) -> str:
    """The README.md of a release on the Hub; the same release gives the same text.

    Parameters
    ----------
    folder
        A release. Only its `config.json`, `training.json` and `metrics.json` are read, and every figure comes from
        them. What they do not hold is left out or shown as "-".
    repo_id
        Where it is published, such as `user/resegnet`.
    revision
        The tag or commit that the examples load; without one they load the newest.
    pictures
        Captions by path in the repository, of pictures published beside the card; see `resegnet.publishing.pictures`.

    Raises
    ------
    resegnet.config.ConfigError
        If `config.json` cannot be used.
    ValueError
        If another record is missing or is no JSON object, or `repo_id` is no id that the Hub accepts.
    """
    validate_repo_id(repo_id)
    config = Config.load(folder / CONFIG_NAME)
    training = read_record(folder / TRAINING_NAME)
    # Sets by name. In place of what is no report comes an empty one: the set is then shown, without figures.
    reports = {one_line(name): as_object(report) for name, report in read_record(folder / METRICS_NAME).items()}
    sections = [
        _introduction(training),
        _use(repo_id, revision),
        _pictures(pictures or {}),
        _results(reports, training, config),
        _limits(reports, config),
        _data(reports, training),
        _training(training),
        _network(config),
        _verify(repo_id, revision),
        _versions(reports, training),
        _citation(repo_id, revision),
    ]
    front_matter = _front_matter(repo_id.rpartition("/")[2], reports, training)
    return f"---\n{front_matter}\n---\n\n" + "\n\n".join(s for s in sections if s) + "\n"


def _terms(name: str) -> str:
    return escape_markdown(SOURCES[name].terms) if name in SOURCES else "not known to ReSegNet"


def _bound(training: Mapping[str, Any]) -> list[str]:
    """Sets that were trained on and whose terms may forbid some use: all but CC0 and CC BY."""
    free = {name for name, source in SOURCES.items() if re.search(r"\bCC(0| BY \d)", source.terms)}
    return [name for name in training_datasets(training) if name not in free]


def _per_set(reports: Mapping[str, dict], key: str) -> str:
    """What is recorded for the sets under `key`, in one sentence that names them only where they differ."""
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


def _front_matter(name: str, reports: Mapping[str, dict], training: Mapping[str, Any]) -> str:
    """YAML between the lines of dashes."""
    results = [
        EvalResult(
            task_type="image-segmentation",
            task_name="Retinal vessel segmentation",
            dataset_type=set_name,
            dataset_name=one_line(SOURCES[set_name].title) if set_name in SOURCES else set_name,
            dataset_split=_split(report),
            metric_type=HUB_METRICS.get(score, score),
            metric_name=f"{SCORES.get(score, score)}, pooled",
            metric_value=value,
        )
        for set_name, report in reports.items()
        for score, value in ((one_line(key), value) for key, value in as_object(report.get("pooled")).items())
        if as_number(value) is not None
    ]
    return ModelCardData(
        license="mit",
        library_name="resegnet",
        pipeline_tag="image-segmentation",
        tags=TAGS.split(),
        datasets=[x for x in as_list(training.get("hub_datasets")) if re.fullmatch(HUB_ID, str(x))] or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=name if results else None,
        eval_results=results or None,
    ).to_yaml()


def _split(report: Mapping[str, Any]) -> str:
    # `resegnet evaluate` notes the split; training scores `test` alone and does not.
    return one_line(report.get("split") or "test")


def _introduction(training: Mapping[str, Any]) -> str:
    lines = [
        f"""# ReSegNet: blood vessels in colour fundus photographs

ReSegNet is a neural network that marks the blood vessels in a colour photograph of the retina. For every pixel, at the
photograph's own size, it gives the probability that a vessel is there, and from that a mask of the vessels.

> **{DISCLAIMER}** No authority has approved it, and no clinical study has tested it."""
    ]
    bound = [f"{dataset_title(name)} (terms: {_terms(name)})" for name in _bound(training)]
    if bound:
        lines.append(
            f"> **Terms of the training data.** Trained on {', '.join(bound)}. These terms may bind you, as a "
            "user of the weights, beside the MIT licence. See *Data and terms* below."
        )
    return "\n>\n".join(lines)


def _use(repo_id: str, revision: str | None) -> str:
    where = json.dumps(repo_id)
    if revision is not None:
        where += f", revision={json.dumps(one_line(revision), ensure_ascii=False)}"
    return f"""## Use

The package is not on PyPI. In a copy of the ReSegNet repository (Python 3.11 or newer): `pip install .`. Then:

```python
from resegnet import Segmenter
segmenter = Segmenter.from_pretrained({where})
result = segmenter("eye.jpg")
```

`result.mask` and `result.probability` are arrays of the photograph's own size. `result.warnings` says what is wrong
with the photograph, if anything: read it. `result.save("out/", "eye")` writes mask, probability, overlay and numbers as
files. A plain CPU will do, and no picture leaves your machine."""


def _pictures(pictures: Mapping[str, str]) -> str:
    shown = [
        f"![{escape_markdown(Path(path).stem.replace('_', ' '))}](<{quote(path)}>)\n\nPicture {number}. {escape_markdown(caption)}"
        for number, (path, caption) in enumerate(pictures.items(), 1)
    ]
    return "\n\n".join(["## Pictures", *shown]) if shown else ""


def _results(reports: Mapping[str, dict], training: Mapping[str, Any], config: Config) -> str:
    if not reports:
        return "## Results\n\nThis release holds no scores. How well it finds vessels is not known."
    rows, observers = [], []
    for name, report in reports.items():
        pooled, mean, sd = (as_object(report.get(key)) for key in ("pooled", "mean", "sd"))
        spread = format_score(mean.get("f1")) + (
            f" ± {format_score(sd.get('f1'))}" if as_number(sd.get("f1")) is not None else ""
        )
        known = {True: "yes", False: "no", None: "-"}[was_trained_on(name, training)]
        figures = [format_score(pooled.get(score)) for score in TABLE_SCORES]
        about = [dataset_title(name), escape_markdown(_split(report)), format_count(report.get("count")), known]
        rows.append([*about, *figures, spread, format_score(report.get("ceiling"))])
        observer = as_object(report.get("second_observer"))
        if observer:
            for who, part in (("a second person", "pooled"), ("this model", "model")):
                figures = [format_score(as_object(observer.get(part)).get(score)) for score in TABLE_SCORES]
                observers.append([dataset_title(name), format_count(observer.get("count")), who, *figures])
    names = [SCORES[score] for score in TABLE_SCORES]
    header = ["set", "split", "pictures", "trained on this set", *names, "F1 per picture, mean ± SD", "ceiling"]
    parts = [
        "## Results",
        _reading(reports, training, config),
        markdown_table(header, rows),
        _overlap(reports, training),
    ]
    if observers:
        parts += [
            "How far two people agree: the references of a second person, scored against those of the first in the same "
            "way. Where the model scores higher, that does not make it better than a person: it may have learned the "
            "first person's manner of drawing, which the second does not share.",
            markdown_table(["set", "pictures", "who", *names], observers),
        ]
    protocol = _per_set(reports, "protocol")
    if protocol:
        parts.append(f"> Protocol, as recorded with the scores: {protocol}")
    return "\n\n".join(part for part in parts if part)


def _reading(reports: Mapping[str, dict], training: Mapping[str, Any], config: Config) -> str:
    # Releases from before this sentence was made for readers have a name of the record in it.
    fitted_on = str(training.get("threshold_fitted_on") or "").replace("validation_ids", "validation photographs")
    lines = [
        "Against references made by people. Scores count the pixels inside the field of view, at the photographs' own "
        "size, all pixels of a set pooled. One threshold turns probability into vessel or not.",
        "",
    ]
    for what, value in (
        ("Threshold", _per_set(reports, "threshold")),
        ("Threshold fitted on", fitted_on and escape_markdown(fitted_on)),
        ("Field of view taken", _per_set(reports, "field_of_view")),
    ):
        if value:
            lines.append(f"* {what}: {value}.")
    own_values = (
        ("threshold", "threshold", config.threshold),
        ("input size", "input_size_px", config.input_size),
        ("smallest input size", "smallest_input_size_px", config.smallest_input_size),
    )
    for what, key, own in own_values:
        if any(as_number(report.get(key)) not in (None, own) for report in reports.values()):
            lines.append(f"* **Some of these scores were taken at another {what} than this release has ({own}).**")
    lines += [
        "* F1 (Dice): agreement of the vessels found with the reference, 1 is perfect. Sensitivity: share of the traced "
        "vessel pixels that were found. Specificity: share of the other pixels that were left alone. Precision: share "
        "of the pixels called vessel that are traced. AUROC: over all thresholds. MCC: correlation, from -1 to 1. "
        "clDice: agreement of the centre lines.",
        "* Ceiling: the F1 of the reference itself after its way through the network's input size and back. No network "
        "at this input size can score much more.",
        "* Trained on this set: whether other photographs of the same set were trained on. A set marked `no` tells "
        "more about how the model does elsewhere.",
    ]
    if unrecorded_parent(training):
        lines.append("* The run went on from an earlier release. What else that was trained on is not in the record.")
    return "\n".join(lines)


def _overlap(reports: Mapping[str, dict], training: Mapping[str, Any]) -> str:
    """Whether a scored picture was trained on. Only within sets trained on: elsewhere the same id is another eye."""
    keys = ("train_ids", "validation_ids", "labelled_ids")
    used = {str(x) for run in training_runs(training) for key in keys for x in as_list(run.get(key))}
    pictures = [x for name in training_datasets(training) for x in as_list(reports.get(name, {}).get("pictures"))]
    if not used or not pictures:
        return ""
    twice = sum(str(as_object(picture).get("image_id")) in used for picture in pictures)
    if twice:
        return f"**Of the scored pictures, {twice} were used in training or validation as well.** Their scores flatter."
    return "By their recorded ids, none of the scored pictures was used in training or validation."


def _limits(reports: Mapping[str, dict], config: Config) -> str:
    missed, lowest = [], []
    for name, report in reports.items():
        recall = as_number(as_object(report.get("pooled")).get("recall"))
        if recall is not None:
            missed.append(f"{dataset_title(name)} {100 * (1 - recall):.1f} %")
        pictures = [as_object(picture) for picture in as_list(report.get("pictures"))]
        scored = [picture for picture in pictures if as_number(picture.get("f1")) is not None]
        if scored:
            worst = min(scored, key=lambda picture: picture["f1"])
            warned = sum(bool(picture.get("warnings")) for picture in pictures)
            figures = [format_score(worst.get(score)) for score in ("f1", "recall", "precision")]
            lowest.append(
                [
                    dataset_title(name),
                    escape_markdown(worst.get("image_id", "-")),
                    *figures,
                    f"{warned} of {len(pictures)}",
                ]
            )
    lines = [
        "## Limits and known failures",
        "",
        f"* Thin vessels are missed first. The field of view is scaled to a square of {config.input_sides} "
        "pixels, and what is thinner than a pixel there is lost.",
    ]
    if missed:
        lines.append(f"* Share of the traced vessel pixels that it misses: {', '.join(missed)}.")
    lines += [
        "* In dark, blurred and hazy photographs vessels may be lost, or come out too wide. Some of them get a "
        "warning, not all.",
        "* Dark spots, such as the macula or a bleeding, may be taken for vessels.",
        "* The mask of a picture that is no colour fundus photograph means nothing. Most such pictures get a warning.",
        "* Age, sex, origin and illness of the people photographed are not in the records. Whether it does equally "
        "well for all of them was not measured.",
        "* The references come from few people, who draw vessels differently. It learned their manner, and its scores "
        "measure that too.",
    ]
    if lowest:
        header = ["set", "picture of the lowest F1", "F1", "sensitivity", "precision", "pictures with a warning"]
        lines += ["", "The worst picture of each set:", "", markdown_table(header, lowest)]
    lines += [
        "",
        "## What it must not be used for",
        "",
        NOT_FOR,
        "* Identifying people. The vessels of a retina are as personal as a fingerprint: treat masks of patients' eyes "
        "as personal health data.",
    ]
    return "\n".join(lines)


def _data(reports: Mapping[str, dict], training: Mapping[str, Any]) -> str:
    used, by_models = training_datasets(training), pseudo_labelled_datasets(training)
    names = list(dict.fromkeys([*used, *reports]))
    rows = []
    for name in names:
        training_use = "training, on vessels that models marked" if name in by_models else "training"
        uses = [use for use, users in ((training_use, used), ("scores", reports)) if name in users]
        paper = _paper(SOURCES[name]) if name in SOURCES else "not known to ReSegNet"
        rows.append([dataset_title(name), ", ".join(uses), paper, _terms(name)])
    header = ["set", "used for", "paper", "terms of its publishers"]
    parts = ["## Data and terms", markdown_table(header, rows) if rows else "The data sets are not recorded."]
    ids = [len(as_list(training.get(key))) for key in ("train_ids", "validation_ids")]
    if any(ids):
        chosen = "none on record"
        if ids[1]:
            chosen = f"{ids[1]}; the epoch that was kept and the threshold were chosen on them"
        elif as_object(training.get("options")).get("validation_fraction") == 0:
            chosen = "none, the threshold is that of the release before, which kept some back"
        parts.append(
            f"Training photographs: {ids[0]}. Validation photographs: {chosen}. `training.json` names every one."
        )
    if by_models:
        marked = len(as_list(training.get("labelled_ids")))
        parts.append(
            f"In the photographs of {', '.join(map(dataset_title, by_models))}, {marked} in this run, nobody had traced "
            "vessels. Models had marked them: that teaches another camera, and the models' manner and mistakes too. No "
            "score and no threshold was taken from them."
        )
    parts.append(
        "The code of ReSegNet and these weights are given under the MIT licence. No photograph of the sets is in this "
        "repository."
    )
    for name in _bound(training):
        parts.append(
            f"**{dataset_title(name)}, terms: {_terms(name)}.** These weights were learned from this set. The MIT licence "
            "cannot lift its terms, and they may bind you as a user of the weights: the law on that is not settled. "
            "For any use that they do not allow, ask the publishers of the set or a lawyer, or train without it."
        )
    if unrecorded_parent(training):
        parts.append(
            f'Training went on from the weights of an earlier release, named "{escape_markdown(unrecorded_parent(training))}". Its data '
            "are not in this record. Their terms count too."
        )
    taught = teacher_releases(training)
    if taught:
        unknown = ", ".join(escape_markdown(name) for name, known in taught.items() if not known)
        more = f" The data of {unknown} are not in this record. Their terms count too." if unknown else ""
        parts.append(
            f"It learned from the answers of other releases too: {', '.join(map(escape_markdown, taught))}.{more}"
        )
    if any(_terms(name).startswith("CC BY") for name in names):
        parts.append("CC BY asks for credit: name the papers of those sets where you publish.")
    return "\n\n".join(parts)


def _paper(source: Source) -> str:
    """The paper with its DOI as a link."""
    authors, found, doi = source.paper.partition("doi:")
    return (
        f"{escape_markdown(authors)} [doi:{escape_markdown(doi)}](https://doi.org/{quote(doi)})"
        if found
        else escape_markdown(source.paper)
    )


def _training(training: Mapping[str, Any]) -> str:
    options, environment = as_object(training.get("options")), as_object(training.get("environment"))
    if not options:
        return "## Training\n\nHow this model was trained is not recorded."
    run, planned = as_number(training.get("epochs_run")), as_number(options.get("epochs"))
    per_epoch = as_number(options.get("steps_per_epoch"))
    f1 = as_number(training.get("validation_f1"))
    crops = [
        as_number(options.get("batch_size")),
        as_number(options.get("accumulate", 1)),
        as_number(environment.get("processes", 1)),
    ]
    facts = {
        "started from": _start(training),
        "epochs run": None if run is None else f"{run:,}" + ("" if planned is None else f" of at most {planned:,}"),
        "epoch that was kept": training.get("best_epoch"),
        "steps": None if run is None or per_epoch is None else f"{run * per_epoch:,}",
        "crops in a step": None if None in crops else math.prod(crops),
        "F1 on the validation photographs": None if f1 is None else format_score(f1),
        "device": environment.get("device") or options.get("device"),
        "threads": options.get("threads") or None,  # 0: torch's own choice
        "processor": environment.get("machine"),
    }
    listed = "\n".join(f"* {what}: {escape_markdown(value)}" for what, value in facts.items() if value is not None)
    more = (
        " What the earlier release cost comes on top, and is not in this record." if unrecorded_parent(training) else ""
    )
    return f"""## Training

{listed}

`training.json` holds every option of `train.py`, to train it again.

**What it cost the environment.** The record holds what stands above: steps, device and threads of this run. Energy,
hours and carbon were not measured.{more}"""


def _start(training: Mapping[str, Any]) -> str:
    if unrecorded_parent(training):
        return f'all weights of an earlier release, named "{unrecorded_parent(training)}"'
    first = training_runs(training)[-1]
    if first is not training:
        epochs = ", ".join(one_line(run.get("epochs_run", "-")) for run in training_runs(training)[1:])
        return f"the weights of earlier runs ({epochs} epochs), the first of them from {_start(first)}"
    weights = one_line(as_object(training.get("options")).get("encoder_weights"))
    known = {"none": "random weights", "imagenet": "an encoder with ImageNet weights", "None": "not recorded"}
    return known.get(weights, f'an encoder with the weights "{weights}"')


def _network(config: Config) -> str:
    channels = ", ".join(map(str, config.decoder_channels))
    body = f"of residual blocks, the finest level at full size; channels, coarse to fine: {channels}."
    loads = ""
    if config.encoder != PLAIN:
        stages = f"{config.encoder_depth} stages; decoder channels, coarse to fine: {channels}."
        body = f"with the encoder {escape_markdown(config.encoder)}, {stages}"
        loads = "It loads into `segmentation_models_pytorch` too: see the README of ReSegNet. "
    return f"""## The network

* A U-Net (Ronneberger et al. 2015, [doi:10.1007/978-3-319-24574-4\\_28](https://doi.org/10.1007/978-3-319-24574-4_28))
  {body}
* Input: a square of {config.input_sides} pixels, RGB. Output: one logit for each of them.
* Threshold on the probability: {config.threshold}.
* The weights are a safetensors file, with the convolution kernels as float16.

{loads}What `Segmenter` does around the network is yours to do where you take it alone, or the scores above do not hold:
find the field of view, scale it to the input size, normalise, take the sigmoid, scale back, call vessel what reaches
the threshold inside the field."""


def _verify(repo_id: str, revision: str | None) -> str:
    at = "" if revision is None else f" --revision {shlex.quote(one_line(revision))}"
    return f"""## Verify what you downloaded

```bash
hf download {repo_id}{at} --local-dir downloaded
python -m resegnet verify downloaded
```

This compares the SHA-256 of the files, loads the weights strictly, and compares the prediction for the drawn photograph
in `selftest/` with the one noted at release."""


def _versions(reports: Mapping[str, dict], training: Mapping[str, Any]) -> str:
    environment = {k: v for k, v in as_object(training.get("environment")).items() if v is not None}
    facts = {
        "Trained with": ", ".join(
            f"{escape_markdown(key)} {escape_markdown(value)}" for key, value in environment.items()
        ),
        "Scored with": _per_set(reports, "versions"),
        "SHA-256 of the training data": escape_markdown(training["data_sha256"]) if training.get("data_sha256") else "",
    }
    lines = [f"* {what}: {value}" for what, value in facts.items() if value]
    return "\n".join(["## Versions", "", *lines]) if lines else ""


def _citation(repo_id: str, revision: str | None) -> str:
    at = "" if revision is None else f"revision {re.sub(r'[^0-9A-Za-z./-]', '-', revision)}, "
    return f"""## Citation

Beside the papers of the network and of the data sets, above:

```bibtex
@misc{{resegnet,
  author = {{{{The ReSegNet authors}}}},
  title  = {{ReSegNet: blood vessels in colour fundus photographs}},
  note   = {{{at}https://huggingface.co/{repo_id}}}
}}
```"""
