"""The model card: the README.md of a published release, made from the release's own records."""

from __future__ import annotations

import io
import json
import math
import re
import shlex
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import validate_repo_id
from PIL import Image

from resegnet.config import Config
from resegnet.hub import CONFIG_NAME, METRICS_NAME, TRAINING_NAME
from resegnet.image import read_image
from resegnet.release import ReleaseError
from resegnet.segmenter import Segmenter
from resegnet.sources import SOURCES, Source

TAGS = (
    "retina",
    "fundus",
    "vessel-segmentation",
    "retinal-vessel-segmentation",
    "ophthalmology",
    "medical",
    "medical-imaging",
    "unet",
    "pytorch",
)

# The recorded scores: their type in the model index (the Hub's id of a metric where it has one) and their name.
SCORES = {
    "f1": ("f1", "F1 (Dice)"),
    "recall": ("recall", "Sensitivity (recall)"),
    "specificity": ("specificity", "Specificity"),
    "precision": ("precision", "Precision"),
    "auroc": ("roc_auc", "AUROC"),
    "mcc": ("matthews_correlation", "MCC"),
    "cldice": ("cldice", "clDice"),
    "iou": ("iou", "IoU (Jaccard)"),
    "accuracy": ("accuracy", "Accuracy"),
}
TABLE_SCORES = ("f1", "recall", "specificity", "precision", "auroc", "mcc", "cldice")

# Of what `card_pictures` makes. The colours are those of `resegnet.results.render`.
CAPTIONS = {
    "pictures/photograph_and_vessels.jpg": (
        "A photograph of a healthy eye (Mikael Häggström, CC0), and in cyan what this model finds in it."
    ),
    "pictures/errors_on_a_drawn_eye.jpg": (
        "A drawn eye (CC0), of which every vessel is known, and where this model errs in it. White: vessel, found. "
        "Orange: vessel, missed. Blue: called a vessel, but is none. No patient: a drawing shows kinds of errors, not "
        "how frequent they are in real eyes."
    ),
    "pictures/failure_in_a_dark_photograph.jpg": (
        "A failure: the photograph of the healthy eye, darkened to 12 % of its brightness, and what this model finds "
        "in it now. Vessels that it finds in good light are lost. ReSegNet warns of such a photograph."
    ),
}
DARKENED = 0.12
PICTURE_WIDTH_PX = 1200
_GAP_PX = 8

# Of Markdown, of its tables and of HTML. The Hub sets formulas for "$" and for a doubled backslash before a bracket, so
# that these two are better not escaped by a backslash.
_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "`*_[]{}#|~"}
    | {"\\": "&#92;", "$": "&#36;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
)

_UNET = """@inproceedings{ronneberger2015unet,
  author    = {Ronneberger, Olaf and Fischer, Philipp and Brox, Thomas},
  title     = {U-Net: Convolutional Networks for Biomedical Image Segmentation},
  booktitle = {Medical Image Computing and Computer-Assisted Intervention},
  year      = {2015},
  doi       = {10.1007/978-3-319-24574-4_28}
}"""
_CLDICE = """@inproceedings{shit2021cldice,
  author    = {Shit, Suprosanna and others},
  title     = {clDice: a Novel Topology-Preserving Loss Function for Tubular Structure Segmentation},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2021},
  doi       = {10.1109/CVPR46437.2021.01629}
}"""
# By a pattern of the encoder's name. No entry for their many relatives, which have papers of their own.
_ENCODER_PAPERS = {
    r"(tu-)?resnet\d+": """@inproceedings{he2016resnet,
  author    = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  title     = {Deep Residual Learning for Image Recognition},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year      = {2016},
  doi       = {10.1109/CVPR.2016.90}
}""",
    r"(tu-|timm-)?(tf_)?efficientnet[-_](b\d|lite\d).*": """@inproceedings{tan2019efficientnet,
  author    = {Tan, Mingxing and Le, Quoc V.},
  title     = {EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks},
  booktitle = {International Conference on Machine Learning},
  year      = {2019},
  eprint    = {1905.11946},
  archiveprefix = {arXiv}
}""",
}


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
        Captions by path in the repository, of pictures published beside the card; see `card_pictures`, `CAPTIONS`.

    Raises
    ------
    ReleaseError
        If a record is missing or is no JSON object.
    resegnet.config.ConfigError
        If `config.json` cannot be used.
    ValueError
        If `repo_id` is no id that the Hub accepts.
    """
    validate_repo_id(repo_id)
    folder = Path(folder)
    config = Config.load(folder / CONFIG_NAME)
    training = _read_record(folder / TRAINING_NAME)
    # Sets by name. In place of what is no report comes an empty one: the set is then shown, without figures.
    metrics = _read_record(folder / METRICS_NAME)
    reports = {_plain(name): _object(report) for name, report in metrics.items()}
    name = repo_id.rpartition("/")[2]
    sections = [
        _introduction(training),
        _use(repo_id, revision),
        _pictures(pictures or {}),
        _results(reports, training, config),
        _limits(reports, config),
        _data(reports, training),
        _training(training),
        _network(config),
        _alone(config),
        _verify(repo_id, revision),
        _versions(reports, training),
        _citation(repo_id, revision, reports, training, config),
    ]
    return f"---\n{_front_matter(name, reports)}\n---\n\n" + "\n\n".join(s for s in sections if s) + "\n"


def card_pictures(segmenter: Segmenter, examples: Path) -> dict[str, bytes]:
    """Pictures for the card, made from free photographs: what a model finds, and how it fails.

    Parameters
    ----------
    segmenter
        With the model that is to be published.
    examples
        The folder `examples/` of the repository.

    Returns
    -------
    dict
        JPEG files by the paths in `CAPTIONS`, at most 1200 px wide.

    Raises
    ------
    resegnet.image.ImageError
        If a photograph is missing there or cannot be read.
    """
    examples = Path(examples)
    photograph = read_image(examples / "retina_cc0.jpg")
    dark = np.round(photograph * np.float32(DARKENED)).astype(np.uint8)
    drawn = segmenter(examples / "drawn_orange.jpg")
    errors = drawn.compare(examples / "drawn_orange_vessels.png").error_map()
    return {
        "pictures/photograph_and_vessels.jpg": _side_by_side(photograph, segmenter(photograph).overlay()),
        "pictures/errors_on_a_drawn_eye.jpg": _side_by_side(drawn.image, errors),
        "pictures/failure_in_a_dark_photograph.jpg": _side_by_side(dark, segmenter(dark).overlay()),
    }


def _side_by_side(left: np.ndarray, right: np.ndarray) -> bytes:
    """Two pictures (H, W, 3) uint8 of one size as a JPEG."""
    height, width = left.shape[:2]
    shown_width = min(width, (PICTURE_WIDTH_PX - _GAP_PX) // 2)
    shown_height = round(height * shown_width / width)
    sheet = Image.new("RGB", (2 * shown_width + _GAP_PX, shown_height), "white")
    for pixels, x in ((left, 0), (right, shown_width + _GAP_PX)):
        shown = Image.fromarray(pixels).resize((shown_width, shown_height), Image.Resampling.LANCZOS)
        sheet.paste(shown, (x, 0))
    file = io.BytesIO()
    # Full colour resolution: the vessels' colour is one or two pixels wide.
    sheet.save(file, "JPEG", quality=88, subsampling=0)
    return file.getvalue()


# -- the records ---------------------------------------------------------------------------------------------------
# They may come from anyone's training run, so that nothing in them is trusted: neither types nor text.


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReleaseError(f"{path}: cannot be read as JSON ({error}); a release has this record.") from error
    if not isinstance(record, dict):
        raise ReleaseError(f"{path}: holds a {type(record).__name__}, expected an object of named values.")
    return record


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> int | float | None:
    """A finite number, or None."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None


def _figure(value: Any) -> str:
    """A score with three decimals, or "-"."""
    number = _number(value)
    return "-" if number is None else f"{number:.3f}"


def _count(value: Any) -> str:
    number = _number(value)
    return "-" if number is None else f"{number:,}"


def _plain(value: Any) -> str:
    """Text in one line, without control and other invisible characters or half of a pair."""
    visible = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in str(value))
    return " ".join(visible.split()) or "unnamed"


def _text(value: Any) -> str:
    """Text that stands for itself in Markdown and in its tables. It must not begin a line: there "1." makes a list."""
    return _plain(value).translate(_ESCAPES)


def _title(name: str) -> str:
    return _text(SOURCES[name].title if name in SOURCES else name)


def _terms(name: str) -> str:
    return _text(SOURCES[name].terms) if name in SOURCES else "not known to ReSegNet"


def _bound(training: Mapping[str, Any]) -> list[str]:
    """Sets that were trained on and whose terms may forbid some use: all but CC0 and CC BY."""
    free = {name for name, source in SOURCES.items() if re.search(r"\bCC(0| BY \d)", source.terms)}
    return [name for name in _datasets(training) if name not in free]


def _datasets(training: Mapping[str, Any]) -> list[str]:
    """Names of the sets that were trained on."""
    return [_plain(name) for name in _list(_object(training.get("options")).get("dataset"))]


def _continues(training: Mapping[str, Any]) -> str:
    """Name of the release that the run went on from, or nothing."""
    start = _object(training.get("options")).get("start_from")
    return _plain(start) if start else ""


def _grouped(reports: Mapping[str, dict], key: str) -> dict[str, list[str]]:
    """The sets' titles by what is recorded for them under `key`; sets without are left out."""
    groups: dict[str, list[str]] = {}
    for name, report in reports.items():
        value = report.get(key)
        if isinstance(value, dict):
            value = ", ".join(f"{part} {version}" for part, version in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        if value not in (None, ""):
            groups.setdefault(_text(value), []).append(_title(name))
    return groups


def _per_set(groups: Mapping[str, list[str]], reports: Mapping[str, dict]) -> str:
    """What `_grouped` gave in one sentence; sets are named only where they differ."""
    if len(groups) == 1 and len(*groups.values()) == len(reports):
        return next(iter(groups))
    return "; ".join(f"{value} ({', '.join(titles)})" for value, titles in groups.items())


def _table(header: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# -- the sections --------------------------------------------------------------------------------------------------


def _front_matter(name: str, reports: Mapping[str, dict]) -> str:
    """YAML between the lines of dashes. No `datasets`: the records hold names of sets, not ids of the Hub."""
    results = [
        EvalResult(
            task_type="image-segmentation",
            task_name="Retinal vessel segmentation",
            dataset_type=set_name,
            dataset_name=_plain(SOURCES[set_name].title) if set_name in SOURCES else set_name,
            dataset_split=_split(report),
            metric_type=SCORES.get(score, (score, score))[0],
            metric_name=f"{SCORES.get(score, (score, score))[1]}, pooled",
            metric_value=value,
        )
        for set_name, report in reports.items()
        for score, value in ((_plain(key), value) for key, value in _object(report.get("pooled")).items())
        if _number(value) is not None
    ]
    return ModelCardData(
        license="mit",
        library_name="resegnet",
        pipeline_tag="image-segmentation",
        tags=list(TAGS),
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=name if results else None,
        eval_results=results or None,
    ).to_yaml()


def _split(report: Mapping[str, Any]) -> str:
    # `resegnet evaluate` notes the split; training scores `test` alone and does not.
    return _plain(report.get("split") or "test")


def _introduction(training: Mapping[str, Any]) -> str:
    lines = [
        """# ReSegNet: blood vessels in colour fundus photographs

ReSegNet is a neural network that marks the blood vessels in a colour photograph of the retina. For every pixel, at the
photograph's own size, it gives the probability that a vessel is there, and from that a mask of the vessels.

> **Research software, not a medical device.** No authority has approved it, and no clinical study has tested it. Do not
> use it for diagnosis, screening, treatment or any other decision about a patient."""
    ]
    bound = [f"{_title(name)} (terms: {_terms(name)})" for name in _bound(training)]
    if bound:
        lines.append(
            f"> **Terms of the training data.** Trained on {', '.join(bound)}. These terms may bind you, as a "
            "user of the weights, beside the MIT licence. See *Data and terms* below."
        )
    return "\n>\n".join(lines)


def _use(repo_id: str, revision: str | None) -> str:
    where = json.dumps(repo_id)
    if revision is not None:
        where += f", revision={json.dumps(_plain(revision), ensure_ascii=False)}"
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
    if not pictures:
        return ""
    shown = [
        f"![{_text(Path(path).stem.replace('_', ' '))}](<{quote(path)}>)\n\nPicture {number}. {_text(caption)}"
        for number, (path, caption) in enumerate(pictures.items(), 1)
    ]
    return "\n\n".join(["## Pictures", *shown])


def _results(reports: Mapping[str, dict], training: Mapping[str, Any], config: Config) -> str:
    if not reports:
        return "## Results\n\nThis release holds no scores. How well it finds vessels is not known."
    trained_on = _datasets(training)
    rows, observers = [], []
    for name, report in reports.items():
        pooled, mean, sd = (_object(report.get(key)) for key in ("pooled", "mean", "sd"))
        spread = _figure(mean.get("f1")) + (f" ± {_figure(sd.get('f1'))}" if _number(sd.get("f1")) is not None else "")
        seen = "-" if not trained_on else "yes" if name in trained_on else "no"
        figures = [_figure(pooled.get(score)) for score in TABLE_SCORES]
        about = [_title(name), _text(_split(report)), _count(report.get("count")), seen]
        rows.append([*about, *figures, spread, _figure(report.get("ceiling"))])
        observer = _object(report.get("second_observer"))
        if observer:
            for who, part in (("a second person", "pooled"), ("this model", "model")):
                figures = [_figure(_object(observer.get(part)).get(score)) for score in TABLE_SCORES]
                observers.append([_title(name), _count(observer.get("count")), who, *figures])
    names = tuple(SCORES[score][1] for score in TABLE_SCORES)
    header = ("set", "split", "pictures", "trained on this set", *names, "F1 per picture, mean ± SD", "ceiling")
    parts = ["## Results", _reading(reports, training, config), _table(header, rows), _overlap(reports, training)]
    if observers:
        parts += [
            "How far two people agree: the tracings of a second person, scored against those of the first in the same "
            "way. Where the model scores higher, that does not make it better than a person: it may have learned the "
            "first person's manner of drawing, which the second does not share.",
            _table(("set", "pictures", "who", *names), observers),
        ]
    parts += [f"> Protocol, as recorded with the scores: {protocol}" for protocol in _grouped(reports, "protocol")]
    return "\n\n".join(part for part in parts if part)


def _reading(reports: Mapping[str, dict], training: Mapping[str, Any], config: Config) -> str:
    lines = [
        "Against tracings made by people. Scores count the pixels inside the field of view, at the photographs' own "
        "size, all pixels of a set pooled. One threshold turns probability into vessel or not.",
        "",
    ]
    thresholds = _grouped(reports, "threshold")
    if thresholds:
        lines.append(f"* Threshold: {_per_set(thresholds, reports)}.")
    if training.get("threshold_fitted_on"):
        lines.append(f"* Threshold fitted on: {_text(training['threshold_fitted_on'])}.")
    fields = _grouped(reports, "field_of_view")
    if fields:
        lines.append(f"* Field of view taken: {_per_set(fields, reports)}.")
    for what, key, own in (
        ("threshold", "threshold", config.threshold),
        ("input size", "input_size_px", config.input_size),
    ):
        if any(_number(report.get(key)) not in (None, own) for report in reports.values()):
            lines.append(f"* **Some of these scores were taken at another {what} than this release has ({own}).**")
    lines += [
        "* F1 (Dice): agreement of the vessels found with the tracing, 1 is perfect. Sensitivity: share of the traced "
        "vessel pixels that were found. Specificity: share of the other pixels that were left alone. Precision: share "
        "of the pixels called vessel that are traced. AUROC: over all thresholds. MCC: correlation, from -1 to 1. "
        "clDice: agreement of the centre lines.",
        "* Ceiling: the F1 of the tracing itself after its way through the network's input size and back. No network "
        "at this input size can score much more.",
        "* Trained on this set: whether other photographs of the same set, and so of its camera, were trained on. A "
        "set marked `no` tells more about how the model does elsewhere.",
    ]
    if _continues(training):
        lines.append(
            "* The run went on from an earlier release. What that was trained on is not in the record, and not in the "
            "column."
        )
    return "\n".join(lines)


def _overlap(reports: Mapping[str, dict], training: Mapping[str, Any]) -> str:
    """Whether a scored picture was trained on. Only within sets trained on: elsewhere the same id is another eye."""
    used = {str(x) for key in ("train_ids", "validation_ids") for x in _list(training.get(key))}
    scored = [
        str(_object(picture).get("image_id"))
        for name in _datasets(training)
        for picture in _list(reports.get(name, {}).get("pictures"))
    ]
    if not used or not scored:
        return ""
    twice = sum(image_id in used for image_id in scored)
    if twice:
        return f"**Of the scored pictures, {twice} were used in training or validation as well.** Their scores flatter."
    return "By their recorded ids, none of the scored pictures was used in training or validation."


def _limits(reports: Mapping[str, dict], config: Config) -> str:
    missed = [
        f"{_title(name)} {100 * (1 - recall):.1f} %"
        for name, report in reports.items()
        if (recall := _number(_object(report.get("pooled")).get("recall"))) is not None
    ]
    lowest = []
    for name, report in reports.items():
        pictures = [_object(picture) for picture in _list(report.get("pictures"))]
        scored = [picture for picture in pictures if _number(picture.get("f1")) is not None]
        if scored:
            worst = min(scored, key=lambda picture: picture["f1"])
            warned = sum(bool(picture.get("warnings")) for picture in pictures)
            figures = [_figure(worst.get(score)) for score in ("f1", "recall", "precision")]
            lowest.append([_title(name), _text(worst.get("image_id", "-")), *figures, f"{warned} of {len(pictures)}"])
    lines = [
        "## Limits and known failures",
        "",
        f"* Thin vessels are missed first. The field of view is scaled to {config.input_size} x {config.input_size} "
        "pixels, and what is thinner than a pixel there is lost.",
    ]
    if missed:
        lines.append(f"* Share of the traced vessel pixels that it misses: {', '.join(missed)}.")
    lines += [
        "* In dark, blurred and hazy photographs vessels are lost, or come out too wide. Some of them get a warning, "
        "not all.",
        "* Dark spots, such as the macula or a bleeding, may be taken for vessels.",
        "* The mask of a picture that is no colour fundus photograph means nothing. Most such pictures get a warning.",
        "* Age, sex, origin and illness of the people photographed are not in the records. Whether it does equally "
        "well for all of them was not measured.",
        "* The tracings come from few people, who draw vessels differently. It learned their manner, and its scores "
        "measure that too.",
    ]
    if lowest:
        header = ("set", "picture of the lowest F1", "F1", "sensitivity", "precision", "pictures with a warning")
        lines += ["", "The worst picture of each set:", "", _table(header, lowest)]
    lines += [
        "",
        "## What it must not be used for",
        "",
        "* Diagnosis, screening, treatment, triage, or any other decision about a patient.",
        "* Scanning laser, fluorescein or OCT angiography pictures: it knows colour photographs only.",
        "* Arteries against veins, or calibres in micrometres: it says vessel or not.",
        "* Comparing vessel area or width between cameras or programs: how wide a vessel is drawn differs.",
        "* Identifying people. The vessels of a retina are as personal as a fingerprint: treat masks of patients' eyes "
        "as personal health data.",
    ]
    return "\n".join(lines)


def _data(reports: Mapping[str, dict], training: Mapping[str, Any]) -> str:
    trained_on = _datasets(training)
    names = list(dict.fromkeys([*trained_on, *reports]))
    rows = []
    for name in names:
        uses = [use for use, users in (("training", trained_on), ("scores", reports)) if name in users]
        paper = _paper(SOURCES[name]) if name in SOURCES else "not known to ReSegNet"
        rows.append([_title(name), ", ".join(uses), paper, _terms(name)])
    table = _table(("set", "used for", "paper", "terms of its publishers"), rows)
    parts = ["## Data and terms", table if rows else "The data sets are not recorded."]
    ids = [len(_list(training.get(key))) for key in ("train_ids", "validation_ids")]
    if any(ids):
        parts.append(
            f"Training photographs: {ids[0]}. Validation photographs: {ids[1]}; the epoch that was kept and the "
            "threshold were chosen on them. `training.json` names every one."
        )
    parts.append(
        "The code of ReSegNet and these weights are given under the MIT licence. No photograph of the sets is in this "
        "repository."
    )
    for name in _bound(training):
        parts.append(
            f"**{_title(name)}, terms: {_terms(name)}.** These weights were learned from this set. The MIT licence "
            "cannot lift its terms, and they may bind you as a user of the weights: the law on that is not settled. "
            "For any use that they do not allow, ask the publishers of the set or a lawyer, or train without it."
        )
    if _continues(training):
        parts.append(
            f'Training went on from the weights of an earlier release, named "{_text(_continues(training))}". Its data '
            "are not in this record. Their terms count too."
        )
    if any(_terms(name).startswith("CC BY") for name in names):
        parts.append("CC BY asks for credit: name the papers of those sets where you publish.")
    return "\n\n".join(parts)


def _paper(source: Source) -> str:
    """The paper with its DOI as a link."""
    authors, found, doi = source.paper.partition("doi:")
    return f"{_text(authors)} [doi:{_text(doi)}](https://doi.org/{quote(doi)})" if found else _text(source.paper)


def _training(training: Mapping[str, Any]) -> str:
    options, environment = _object(training.get("options")), _object(training.get("environment"))
    if not options:
        return "## Training\n\nHow this model was trained is not recorded."
    run, planned, per_epoch, crop = (
        _number(value)
        for value in (
            training.get("epochs_run"), options.get("epochs"), options.get("steps_per_epoch"), options.get("crop_size")
        )
    )  # fmt: skip
    facts = {
        "started from": _start(training),
        "epochs run": None if run is None else f"{run:,}" + ("" if planned is None else f" of at most {planned:,}"),
        "epoch that was kept": training.get("best_epoch"),
        "steps": None if run is None or per_epoch is None else f"{run * per_epoch:,}",
        "crops in a step": options.get("batch_size"),
        "side of a crop": None if crop is None else f"{crop} px",
        "F1 on the validation photographs": _figure(training.get("validation_f1")),
        "device": environment.get("device") or options.get("device"),
        "threads": options.get("threads") or None,  # 0: torch's own choice
        "processor": environment.get("machine"),
    }
    listed = "\n".join(f"* {what}: {_text(value)}" for what, value in facts.items() if value is not None)
    more = again = ""
    if _continues(training):
        more = " What the earlier release cost comes on top, and is not in this record."
        again = " The earlier release is needed as well."
    return f"""## Training

{listed}

**What it cost the environment.** The record holds what stands above: steps, device and threads of this run. Energy,
hours and carbon were not measured.{more}

**To train it again**, in a copy of the ReSegNet repository: the options as recorded. The names of data sets and weights
stand for folders and files; give the paths where yours lie. The photographs come from the publishers of the sets;
`python -m resegnet prepare --help` tells how to bring them into the form that is read here.{again}

```bash
{_command(options)}
```"""


def _start(training: Mapping[str, Any]) -> str:
    if _continues(training):
        return f'all weights of an earlier release, named "{_continues(training)}"'
    weights = _plain(_object(training.get("options")).get("encoder_weights"))
    known = {"none": "random weights", "imagenet": "an encoder with ImageNet weights", "None": "not recorded"}
    return known.get(weights, f'an encoder with the weights "{weights}"')


def _command(options: Mapping[str, Any]) -> str:
    parts = []
    for name, value in options.items():
        values = [_plain(x) for x in (value if isinstance(value, list) else [value]) if x not in (None, "")]
        if re.fullmatch(r"[a-z_]+", name) and values:
            parts.append(f"    --{name.replace('_', '-')} {shlex.join(values)}")
    return " \\\n".join(["python train.py --out runs/again", *parts])


def _network(config: Config) -> str:
    channels = ", ".join(map(str, config.decoder_channels))
    return f"""## The network

* A U-Net with the encoder {_text(config.encoder)}, {config.encoder_depth} stages.
* Decoder channels, coarse to fine: {channels}.
* Input: {config.input_size} x {config.input_size} pixels, RGB. Output: one logit for each of them.
* Threshold on the probability: {config.threshold}.
* The weights are a safetensors file, with the convolution kernels as float16. There is no pickle."""


def _alone(config: Config) -> str:
    mean, std = (", ".join(map(str, values)) for values in (config.mean, config.std))
    return f"""## The network without ReSegNet

The network is a U-Net of `segmentation_models_pytorch`. `Segmenter` does all of the following around it. Whoever takes
only the network has to do the same, or the scores above do not hold; `smp.from_pretrained` does none of it.

1. Find the field of view, and cut out the square round it.
2. Scale that square to {config.input_size} x {config.input_size} pixels, antialiased.
3. Normalise RGB in [0, 1] with mean ({mean}) and standard deviation ({std}). In ReSegNet the
   network does it itself.
4. Turn logits into probability, with the sigmoid.
5. Scale the probability back into the photograph's own frame.
6. Call vessel what reaches {config.threshold}, inside the field of view only."""


def _verify(repo_id: str, revision: str | None) -> str:
    at = "" if revision is None else f" --revision {shlex.quote(_plain(revision))}"
    return f"""## Verify what you downloaded

The release carries the SHA-256 of its files, a drawn photograph, and the probability that the model gave for it at
release. With ReSegNet installed:

```bash
hf download {repo_id}{at} --local-dir downloaded
python -m resegnet verify downloaded
```

This checks the hashes, loads the weights strictly and compares the prediction. It fails where that is off by more than
the tolerance in `selftest/expected.json`."""


def _versions(reports: Mapping[str, dict], training: Mapping[str, Any]) -> str:
    environment = _object(training.get("environment"))
    lines = []
    if environment:
        known = {key: environment[key] for key in environment if environment[key] is not None}
        lines.append("* Trained with: " + ", ".join(f"{_text(key)} {_text(value)}" for key, value in known.items()))
    scored = _grouped(reports, "versions")
    if scored:
        lines.append(f"* Scored with: {_per_set(scored, reports)}")
    if training.get("data_sha256"):
        lines.append(f"* SHA-256 of the training data: {_text(training['data_sha256'])}")
    return "\n".join(["## Versions", "", *lines]) if lines else ""


def _citation(
    repo_id: str, revision: str | None, reports: Mapping[str, dict], training: Mapping[str, Any], config: Config
) -> str:
    at = "" if revision is None else f"  note   = {{revision {re.sub(r'[^0-9A-Za-z./-]', '-', revision)}}},\n"
    entries = [
        "@misc{resegnet,\n"
        "  author = {{The ReSegNet authors}},\n"
        "  title  = {ReSegNet: blood vessels in colour fundus photographs},\n"
        f"{at}"
        f"  url    = {{https://huggingface.co/{repo_id}}}\n"
        "}",
        _UNET,
    ]
    entries += [entry for pattern, entry in _ENCODER_PAPERS.items() if re.fullmatch(pattern, config.encoder)]
    if any("cldice" in _object(report.get("pooled")) for report in reports.values()):
        entries.append(_CLDICE)
    for name in dict.fromkeys([*_datasets(training), *reports]):
        paper = re.fullmatch(r"(.+) et al\. (\d{4}), .*doi:(\S+)", SOURCES[name].paper) if name in SOURCES else None
        if paper:
            author, year, doi = paper.groups()
            title = SOURCES[name].title.replace("_", r"\_")  # as LaTeX wants it
            entries.append(
                f"@misc{{{name},\n  author = {{{author} and others}},\n  title  = {{The data set {title}}},\n"
                f"  year   = {{{year}}},\n  doi    = {{{doi}}}\n}}"
            )
    listed = "\n\n".join(entries)
    return f"## Citation\n\nThe software, the network, and the data sets that were used:\n\n```bibtex\n{listed}\n```"
