"""The model card: every figure is that of the records, no text in them breaks it, and the Hub client accepts it."""

from __future__ import annotations

import copy
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard, metadata_load
from PIL import Image
from support.stand_in import stored_record, stored_records

from resegnet import Config, ConfigError, ImageError, Segmenter, read_image
from resegnet.__main__ import build_parser
from resegnet.errors import ReleaseError
from resegnet.hub import BUNDLED_RELEASES
from resegnet.publishing.card import HUB_METRICS, model_card
from resegnet.publishing.card_scores import PEER_F1, TABLE_SCORES
from resegnet.publishing.pictures import PICTURE_WIDTH_PX, card_pictures
from resegnet.releases.datasheets import SOURCES
from resegnet.releases.records import threshold_origin, training_runs
from resegnet.results.metrics import SCORES
from resegnet.results.render import ERROR_COLORS

EXAMPLES = Path(__file__).parents[2] / "examples"
RECORDS = stored_records()
HRF = RECORDS["metrics"]["hrf"]
TITLES = {"drive": "DRIVE", "chase_db1": r"CHASE\_DB1", "hrf": "HRF", "les_av": "LES-AV"}
HOSTILE = (
    'a|b\n---\n# <script>alert("x")</script> [l](http://x) `c` **d** $e$ \\(f\\) & {{g}}: - !!h\r\u2028\u202e\ud800 '
)

PICTURE = HOSTILE.replace("\ud800", "") + ".jpg"  # a path in the repository, which is UTF-8


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundled")
    for name, record in RECORDS.items():
        (folder / f"{name}.json").write_text(json.dumps(record))
    return model_card(folder, "someone/resegnet", "v1.0.0")


@pytest.fixture
def card(tmp_path):
    """Return a function that writes the card of the bundled records, or of others in their place."""

    def render(repo_id="someone/resegnet", revision="v1.0.0", pictures=None, space_id=None, **records):
        for name, record in (RECORDS | records).items():
            (tmp_path / f"{name}.json").write_text(record if isinstance(record, str) else json.dumps(record))
        return model_card(tmp_path, repo_id, revision, pictures, space_id=space_id)

    return render


def changed(record: str, *path: str | int, to: object) -> dict:
    """Copy a bundled record, with one value replaced."""
    values = copy.deepcopy(RECORDS[record])
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return {record: values}


def rows(text: str, header: str) -> list[list[str]]:
    """Return the cells of the table whose header begins with `header`, header first. Escaped bars divide no cells."""
    start = text.index(f"\n| {header}") + 1
    table = text[start : text.index("\n\n", start)].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table if "| ---" not in line]


def code(text: str, language: str, part: str) -> str:
    (block,) = [x for x in re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if part in x]
    return block


def test_the_results_are_those_of_the_record(card):
    header, *table = rows(card(), "data set | split")
    assert [row[0] for row in table] == list(TITLES.values())
    for row, report in zip(table, RECORDS["metrics"].values(), strict=True):
        assert len(row) == len(header)
        assert row[1:3] == ["test", str(report["count"])]
        assert row[4:11] == [f"{report['pooled'][score]:.3f}" for score in TABLE_SCORES]
        assert row[11] == f"{report['mean']['f1']:.3f} ± {report['sd']['f1']:.3f}"
        assert row[12] == f"{report['ceiling']:.3f}"
    assert [row[3] for row in table] == ["yes", "yes", "yes", "no"]
    assert header[4:11] == [SCORES[score] for score in TABLE_SCORES]
    # Training that started from a release without a record may have used any data set.
    _, *table = rows(card(**changed("training", "options", "start_from", to="another")), "data set | split")
    assert [row[3] for row in table] == ["yes", "yes", "yes", "-"]


def test_the_second_observer_is_that_of_the_record(card):
    _, *table = rows(card(), "data set | photographs")
    observers = {name: r["second_observer"] for name, r in RECORDS["metrics"].items() if r["second_observer"]}
    expected = [
        [TITLES[name], str(observer["count"]), who]
        + ["-" if observer[part][score] is None else f"{observer[part][score]:.3f}" for score in TABLE_SCORES]
        for name, observer in observers.items()
        for who, part in (("a second person", "pooled"), ("this model", "model"))
    ]
    assert table == expected


def test_the_worst_pictures_are_those_of_the_record(card):
    _, *table = rows(card(), "data set | photograph |")
    for row, report in zip(table, RECORDS["metrics"].values(), strict=True):
        worst = sorted(report["pictures"], key=lambda picture: picture["f1"])[0]
        assert row[1].replace("\\", "") == worst["image_id"]
        assert row[2:5] == [f"{worst[score]:.3f}" for score in ("f1", "recall", "precision")]
    missed = {name: f"{100 - 100 * report['pooled']['recall']:.1f} %" for name, report in RECORDS["metrics"].items()}
    assert f"misses: {', '.join(f'{TITLES[name]} {share}' for name, share in missed.items())}." in card()


@pytest.mark.parametrize(
    ("record", "path", "value", "shown"),
    [
        *[("metrics", ("hrf", "pooled", score), 0.123456789, "0.123456789") for score in SCORES],
        *[("metrics", ("hrf", "pooled", score), 0.123456789, "| 0.123 |") for score in TABLE_SCORES],
        *[("metrics", ("drive", "second_observer", "pooled", s), 0.123, "| 0.123 |") for s in TABLE_SCORES],
        *[("metrics", ("drive", "second_observer", "model", s), 0.123, "| 0.123 |") for s in TABLE_SCORES],
        ("metrics", ("drive", "second_observer", "count"), 17, "| DRIVE | 17 | a second person |"),
        ("metrics", ("hrf", "pooled", "recall"), 0.9012, "HRF 9.9 %"),
        ("metrics", ("hrf", "mean", "f1"), 0.123, f"0.123 ± {HRF['sd']['f1']:.3f}"),
        ("metrics", ("hrf", "sd", "f1"), 0.123, f"{HRF['mean']['f1']:.3f} ± 0.123"),
        ("metrics", ("hrf", "ceiling"), 0.123, "| 0.123 |"),
        ("metrics", ("hrf", "count"), 4321, "| HRF | test | 4,321 |"),
        ("metrics", ("hrf", "split"), "validation", "| HRF | validation |"),
        ("metrics", ("hrf", "protocol"), "Some other way.", "Some other way."),
        ("metrics", ("hrf", "threshold"), 0.4, "0.4 (HRF)"),
        (
            "metrics",
            ("hrf", "threshold"),
            0.4,
            f"another threshold than this release has ({RECORDS['config']['threshold']})",
        ),
        (
            "metrics",
            ("hrf", "input_size_px"),
            4096,
            f"another input size than this release has ({RECORDS['config']['input_size']})",
        ),
        ("metrics", ("hrf", "smallest_input_size_px"), 64, "another smallest input size than this release has (None)"),
        ("metrics", ("hrf", "field_of_view"), ["found"], "the data set's (DRIVE, CHASE\\_DB1, LES-AV); found (HRF)"),
        ("metrics", ("hrf", "versions", "torch"), "9.9.9", "torch 9.9.9"),
        ("metrics", ("hrf", "pictures", 0, "f1"), 0.0123, "| HRF | hrf\\_06\\_h | 0.012 |"),
        ("metrics", ("hrf", "pictures", 0, "warnings"), ["blurred"], "| 1 of 30 |"),
        ("training", ("epochs_run",), 77, "| 77 | 30,800 |"),
        ("training", ("validation_f1",), 0.12345, "* F1 on the validation photographs of the last run: 0.123.\n"),
        ("training", ("train_ids",), ["drive_28"], "the model had already been trained on 1 of them."),
        ("training", ("train_ids",), ["a"], "| none | 1 | 9 |"),
        ("training", ("validation_ids",), ["a", "b"], "| none | 46 | 2 |"),
        ("training", ("validation_ids",), ["a", "b"], "The threshold was fitted on 2 validation photographs"),
        ("training", ("validation_ids",), [], "| none | 46 | 0 |"),
        ("training", ("environment", "note"), "by hand", "It also has a note on run 1."),
        ("training", ("data_sha256",), "abc", "SHA-256 of the training data: abc"),
        ("training", ("environment", "device"), "cuda:7", "| cuda:7 |"),
        ("training", ("environment", "commit"), "c0ffee", "Commit of the ReSegNet code that trained it: c0ffee"),
        ("training", ("options", "batch_size"), 44, "| 44 | cpu |"),
        (
            "training",
            ("options", "encoder_weights"),
            "imagenet",
            "| an encoder trained on ImageNet (everyday",
        ),
        ("training", ("options", "encoder_weights"), "a.pth", "trained and published (a.pth). Their terms are not in"),
        ("config", ("threshold",), 0.125, "* Threshold on the probability: 0.125."),
        ("config", ("input_size",), 640, "Input: RGB from 0 to 1, a square of 640 pixels"),
        ("config", ("input_size",), 640, "S is 640."),
        ("config", ("smallest_input_size",), 640, "S is a multiple of 32 from 640 to 1664"),
        ("config", ("decoder_channels",), [90, 80, 70, 60, 50], "coarse to fine: 90, 80, 70, 60, 50."),
    ],
)
def test_a_changed_record_changes_the_card(bundled, card, record, path, value, shown):
    assert shown not in bundled
    few = {} if record == "metrics" else {"metrics": {"drive": {}}}  # the long front matter would be slow
    assert shown in card(**few | changed(record, *path, to=value))


def test_the_stress_table_is_that_of_the_record(card):
    metrics = {name: report | {"stress": None} for name, report in RECORDS["metrics"].items()}
    assert "Where it stops working" not in card(metrics=metrics)
    table = [
        {"stress": "as it is", "count": 20, "f1": 0.8231, "recall": 0.8294, "worst_f1": 0.798},
        {"stress": "enlarged | 3 times", "count": 19, "f1": 0.7, "recall": None, "worst_f1": "x"},
        {"stress": "too large", "count": 0, "f1": None, "recall": None, "worst_f1": None},
    ]
    metrics["drive"]["stress"], metrics["chase_db1"]["stress"], metrics["hrf"]["stress"] = table, table[:1], [3, None]
    text = card(metrics=metrics)
    assert rows(text, "the photographs") == [
        ["the photographs", "DRIVE (20)", r"CHASE\_DB1 (20)"],
        ["as it is", "0.823, 0.829, 0.798", "0.823, 0.829, 0.798"],
        [r"enlarged \| 3 times", "0.700, -, -", "-"],
    ]


def test_scores_of_the_anatomy_are_those_of_the_record(card):
    kinds = {"count": 20, "artery_f1": 0.7211, "vein_f1": 0.786, "accuracy": None, "pictures": [{"image_id": "a"}]}
    places = {"count": 27, "disc_dice": 0.9, "disc_near": 1.0, "fovea_near": "x", "eye_right": 0.5}
    metrics = {"drive": RECORDS["metrics"]["drive"] | {"kinds": kinds}, "idrid_disc": {"places": places}, "odd": {}}
    text = card(metrics=metrics)
    assert [row[0] for row in rows(text, "data set | split | photographs | trained on this set")[1:]] == [
        "DRIVE",
        "odd",
    ]
    (row,) = rows(text, "data set | split | photographs | F1 of arteries")[1:]
    assert row == ["DRIVE", "test", "20", "0.721", "0.786", "-"]
    (row,) = rows(text, "data set | split | photographs | Dice of the optic disc")[1:]
    assert row == ["IDRiD (masks of the optic disc)", "test", "27", "0.900", "1.000", "-", "0.500"]
    assert "| IDRiD (masks of the optic disc) | scores |" in text
    without = card(metrics={"drive": RECORDS["metrics"]["drive"] | {"kinds": None, "places": [3]}})
    assert "F1 of arteries" not in without and "Dice of the optic disc" not in without


def test_the_front_matter_holds_every_score_exactly(card, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(card(), encoding="utf-8")
    data = metadata_load(path)
    fixed = {key: data[key] for key in ("license", "library_name", "pipeline_tag")}
    assert fixed == {"license": "other", "library_name": "resegnet", "pipeline_tag": "image-segmentation"}
    assert {"retina", "fundus", "vessel-segmentation", "medical"} <= set(data["tags"])
    assert "f1" in data["metrics"]
    assert "datasets" not in data and "base_model" not in data  # this record holds no ids of the Hub
    results = ModelCard(path.read_text()).data.eval_results
    types = {HUB_METRICS.get(score, score): score for score in SCORES}
    found = {(r.dataset_type, types[r.metric_type]): r.metric_value for r in results}
    expected = {(name, s): v for name, report in RECORDS["metrics"].items() for s, v in report["pooled"].items()}
    assert found == expected and len(results) == len(expected) == 4 * len(SCORES)
    assert {(r.task_type, r.dataset_split) for r in results} == {("image-segmentation", "test")}
    assert {r.dataset_name for r in results} == {"DRIVE", "CHASE_DB1", "HRF", "LES-AV"}
    assert ModelCard(path.read_text()).data.model_name == "resegnet"


def test_data_sets_of_the_hub_are_in_the_front_matter(card):
    text = card(**changed("training", "hub_datasets", to=["someone/chase", "/home/me/eyes", HOSTILE, 3, None]))
    assert ModelCard(text).data.datasets == ["someone/chase"]


def test_no_name_of_a_record_is_in_the_text(bundled):
    prose = re.sub(r"`[^`]*`", "", bundled.replace("\\", ""))
    for name in ("validation_ids", "train_ids", "threshold_fitted_on", "hub_datasets"):
        assert name not in prose


def test_the_hub_client_keeps_the_card_as_it_is(card, tmp_path):
    path = tmp_path / "README.md"
    ModelCard(card()).save(path)
    assert metadata_load(path) == ModelCard(card()).data.to_dict()
    assert ModelCard.load(path).text.strip() == card().split("\n---\n", 1)[1].strip()


def test_the_same_records_give_the_same_card(bundled, card):
    assert card() == bundled


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf"), "0.8", True])
def test_a_missing_score_is_a_dash_and_not_in_the_index(card, nothing):
    text = card(**changed("metrics", "hrf", "pooled", "f1", to=nothing))
    row = next(row for row in rows(text, "data set | split") if row[0] == "HRF")
    assert row[4] == "-"
    assert row[5] == f"{RECORDS['metrics']['hrf']['pooled']['recall']:.3f}"
    results = ModelCard(text).data.eval_results
    assert len(results) == 4 * len(SCORES) - 1
    assert ("hrf", "f1") not in {(r.dataset_type, r.metric_type) for r in results}
    assert not re.search(r"\b(nan|inf|None|null)\b", text)


def test_a_release_without_records_gets_a_card(card):
    text = card(metrics={}, training={})
    data = ModelCard(text).data.to_dict()
    assert "model-index" not in data and "metrics" not in data and "model_name" not in data
    assert "has no recorded scores" in text and "How this model was trained is not recorded" in text
    assert not re.search(r"\b(nan|None|null|unnamed)\b", text)


@pytest.mark.parametrize("report", [{"f1": 0.5}, {}, None, 3, "x", [1], {"pooled": [1], "pictures": [1, None]}])
def test_a_set_without_a_report_is_shown_without_figures(card, report):
    text = card(metrics={"other": report}, training={"made": "here"})
    (row,) = rows(text, "data set | split")[1:]
    assert row == ["other", "test", *["-"] * 11]
    assert "model-index" not in ModelCard(text).data.to_dict()


@pytest.mark.parametrize("value", [None, 3, "x", [None], {"x": [{}]}])
@pytest.mark.parametrize("key", ["options", "environment", "train_ids", "epochs_run", "best_epoch", "validation_f1"])
def test_a_training_record_of_odd_types_gives_a_card(card, key, value):
    assert "# ReSegNet" in card(metrics={"drive": {}}, **changed("training", key, to=value))


def test_a_score_of_another_name_is_in_the_index(card):
    text = card(metrics={"other": {"pooled": {"hausdorff_px": 3.5}}})
    (result,) = ModelCard(text).data.eval_results
    assert (result.dataset_type, result.metric_type, result.metric_value) == ("other", "hausdorff_px", 3.5)


def hostile_records() -> dict:
    stress = [{"stress": HOSTILE, "count": HOSTILE, "f1": 0.5, "recall": HOSTILE}, HOSTILE]
    metrics = {
        HOSTILE: RECORDS["metrics"]["drive"]
        | {"protocol": HOSTILE, "field_of_view": [HOSTILE], "split": HOSTILE, "stress": stress},
        "- !!python/object:os.system": RECORDS["metrics"]["hrf"] | {"versions": {HOSTILE: HOSTILE}},
        "null": {"pooled": {HOSTILE: 0.5}, "pictures": [{"image_id": HOSTILE, "f1": 0.5, "warnings": [HOSTILE]}]},
        "": {"pooled": {"f1": 0.25}},
    }
    options = RECORDS["training"]["options"] | {
        "dataset": [HOSTILE, "```\nrm -rf /", "$(reboot)"],
        "start_from": HOSTILE,
        "encoder_weights": HOSTILE,
        HOSTILE: HOSTILE,
    }
    training = {"options": options, "threshold_fitted_on": HOSTILE, "environment": {HOSTILE: HOSTILE}}
    training |= {"hub_datasets": [HOSTILE], "data_sha256": HOSTILE, "best_epoch": HOSTILE, "train_ids": [HOSTILE]}
    earlier = {"options": {"dataset": HOSTILE, "extra": [HOSTILE], "start_from": HOSTILE}, "epochs_run": HOSTILE}
    return {"metrics": metrics, "training": training | {"earlier": earlier}}  # a hostile config is refused


def test_hostile_names_stay_text(card, tmp_path):
    text = card(pictures={PICTURE: HOSTILE}, revision=HOSTILE, **hostile_records())
    (tmp_path / "README.md").write_text(text, encoding="utf-8")  # a lone surrogate could not be written
    results = ModelCard(text).data.eval_results
    sound = " ".join(HOSTILE.translate(dict.fromkeys(map(ord, "\n\r\u2028\u202e\ud800"), " ")).split())
    assert {r.dataset_type for r in results} == {sound, "- !!python/object:os.system", "null", "unnamed"}
    assert {r.metric_value for r in results if r.dataset_type == sound} == set(
        RECORDS["metrics"]["drive"]["pooled"].values()
    )
    body = text.split("\n---\n", 1)[1]
    prose = re.sub(r"^```.*?^```", "", body, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"<script|(?<!\\)\]\(http://x|\$|\\\\", prose)
    assert body.count("\n```") == text.count("\n```") == card().count("\n```")
    for start in ("data set | split", "data set | photographs", "data set | photograph |", "data set | used for"):
        header, *table = rows(text, start)
        assert table and all(len(row) == len(header) for row in table)
    assert not re.search(r"[\r\u2028\u202e\ud800]", text)
    headings = [line for line in body.splitlines() if line.startswith("#")]
    assert headings == [line for line in card(pictures={"a": "b"}).splitlines() if line.startswith("#")]


def test_hostile_names_come_out_as_text_in_html(card):
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    records = hostile_records()
    text = card(pictures={PICTURE: HOSTILE}, **records)
    html = markdown.render(text.split("\n---\n", 1)[1])
    tags = set(re.findall(r"<([a-z0-9]+)", html))
    plain = markdown.render(card(pictures={"pictures/a.jpg": "b"}).split("\n---\n", 1)[1])
    assert tags <= set(re.findall(r"<([a-z0-9]+)", plain))
    assert set(re.findall(r'href="([^"]*)"', html)) <= set(re.findall(r'href="([^"]*)"', plain))
    shown = re.sub(r"\s+", " ", HOSTILE.translate(dict.fromkeys(map(ord, "\u202e\ud800"), " "))).strip()
    for raw, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        shown = shown.replace(raw, entity)
    assert f"<td>{shown}</td>" in html  # the reader sees the text of the record


@pytest.mark.parametrize("revision", ["v1.0.0", None])
def test_the_example_loads_the_published_revision(card, monkeypatch, revision):
    asked = []

    def load(*arguments, **options):
        asked.append((arguments, options))
        return lambda photograph: photograph

    monkeypatch.setattr(Segmenter, "from_pretrained", load)
    example = code(card(revision=revision), "python", "from_pretrained")
    assert len(list(filter(None, example.splitlines()))) == 3
    exec(example, {})
    assert asked == [(("someone/resegnet",), {} if revision is None else {"revision": revision})]


def test_the_commands_to_verify_exist(card):
    lines = code(card(), "bash", "verify").splitlines()
    assert lines[0] == "hf download someone/resegnet --revision v1.0.0 --local-dir downloaded"
    assert "--revision" not in code(card(revision=None), "bash", "verify")
    assert build_parser().parse_args(lines[1].split()[3:]).folder == Path("downloaded")


def test_the_terms_of_the_training_data_are_told(card):
    text = card()
    assert "**DRIVE, terms: research and education only, no redistribution.**" in text
    assert text.index("Trained on DRIVE (terms: research and education only, no redistribution)") < text.index("## Use")
    free = card(**changed("training", "options", "dataset", to=["chase_db1", "hrf", "synthetic"]))
    assert "may bind you" not in free and "| DRIVE | scores |" in free and "CC BY\nrequires credit" in free
    unknown = card(**changed("training", "options", "dataset", to=["my_clinic"]))
    assert r"**my\_clinic, terms: not known to ReSegNet.**" in unknown


@pytest.mark.parametrize(
    ("datasets", "licence"),
    [
        (["drive", "hrf"], ("other", "drive-terms", "https://drive.grand-challenge.org")),
        (["stare", "drive"], ("other", "stare-terms-and-drive-terms", "#data-and-terms")),
        (["my_clinic"], ("other", "terms-not-known", "#data-and-terms")),
        (["drive", "my_clinic"], ("other", "drive-terms-and-terms-not-known", "#data-and-terms")),
        (["chase_db1", "hrf", "synthetic"], ("cc-by-4.0", None, None)),
        (["synthetic"], ("mit", None, None)),
        ([], ("other", "terms-not-known", "#data-and-terms")),
    ],
)
def test_the_licence_is_that_of_the_training_data(card, datasets, licence):
    text = card(metrics={}, **changed("training", "options", "dataset", to=datasets))
    data = ModelCard(text).data.to_dict()
    found = [data.get(key) for key in ("license", "license_name", "license_link")]
    assert [value and value.removeprefix("https://huggingface.co/someone/resegnet") for value in found] == [*licence]
    said = {
        "mit": "and these weights are published under the MIT licence.",
        "cc-by-4.0": "these weights under\n[CC BY 4.0]",
        "other": "puts no terms of its own on these weights",
    }
    assert [name for name, words in said.items() if words in text] == [licence[0]]


def test_a_model_of_all_sets_names_the_terms_and_the_purpose_of_each(card):
    training = copy.deepcopy(RECORDS["training"]) | {"artery_vein_datasets": ["drive", "hrf", "my_clinic"]}
    training["options"] |= {
        "dataset": ["drive", "chase_db1", "hrf", "dr_hagis", "aria", "orvs"],
        "anatomy": ["idrid_disc", "idrid_unlabelled"],
    }
    text = card(training=training)
    data = ModelCard(text).data.to_dict()
    names = ["drive", "dr-hagis", "aria", "orvs", "rite", "hrf-av"]
    assert data["license"] == "other"
    assert data["license_name"] == "-and-".join([*(f"{name}-terms" for name in names), "terms-not-known"])
    header, *table = rows(text, "data set | used for")
    uses = {row[0].replace("\\", ""): dict(zip(header, row, strict=True)) for row in table}
    expected = {
        "DRIVE": "training, scores",
        "ARIA": "training",
        "LES-AV": "scores",
        "RITE (arteries and veins of DRIVE)": "training of arteries and veins",
        "my_clinic": "training of arteries and veins",
        "IDRiD (masks of the optic disc)": "training of optic disc and fovea",
        "IDRiD (centres of disc and fovea)": "training of optic disc and fovea",
    }
    assert {name: uses[name]["used for"] for name in expected} == expected
    for name in ("dr_hagis", "aria", "orvs", "rite", "hrf_av", "idrid_disc"):
        about, row = SOURCES[name], uses[SOURCES[name].title]
        assert about.terms in row["terms of its publishers"] and about.camera == row["camera"]
        assert f"https://doi.org/{about.paper.split('doi:')[1]}" in row["paper"]
    told = re.sub(r"\s+", " ", text)
    assert "* ORVS: The manual segmentations leave out most fine vessels" in told
    assert "* ARIA: The lines of the manual segmentations are broad" in told
    same_terms = ", ".join(SOURCES[name].title for name in ("dr_hagis", "aria", "orvs", "rite", "hrf_av"))
    assert f"* **{same_terms}, terms: {SOURCES['aria'].terms}.**" in told
    assert f"Trained on DRIVE (terms: {SOURCES['drive'].terms}), {same_terms} (terms: {SOURCES['aria'].terms})" in told
    assert "* DR-HAGIS, ARIA, ORVS: The persons are not named" in told


def test_the_licence_counts_what_the_weights_learned_from_earlier_and_from_teachers(card):
    def licence(**changes):
        training = copy.deepcopy(RECORDS["training"]) | changes
        training["options"] |= {
            "dataset": ["hrf"],
            "start_from": "a",
            "teacher": ["b"] if "teachers" in changes else [],
        }
        return ModelCard(card(metrics={}, training=training)).data.to_dict().get("license_name", "free")

    earlier = {"options": {"dataset": ["drive"], "start_from": ""}}
    assert licence(earlier=earlier) == "drive-terms"
    assert licence(earlier={}) == "terms-not-known"
    earlier["options"]["dataset"] = ["hrf"]
    assert licence(earlier=earlier) == "free"
    assert licence(earlier=earlier, teachers=[{"name": "b", "trained_on": ["stare"]}]) == "stare-terms"
    assert licence(earlier=earlier, teachers=[{"name": "b", "trained_on": []}]) == "terms-not-known"


@pytest.mark.parametrize(("name", "licence"), [("bundled", "other"), ("bundled-cc-by", "cc-by-4.0")])
def test_the_licences_of_the_bundled_releases(name, licence):
    text = model_card(BUNDLED_RELEASES[name], "someone/resegnet")
    assert ModelCard(text).data.license == licence
    assert "no scored photograph was used for training or validation" in text.lower()
    assert "were also used" not in text


def test_photographs_of_teachers_may_be_unlisted(card):
    unlisted = "They do not list the photographs of the teachers"
    assert unlisted not in card()
    assert unlisted in card(training=stored_record("training_of_six_runs"))


def with_digests(train: list[str], scored: list[str], **training: object) -> dict:
    """Return records of a set that numbers both splits from 0, with the given SHA-256 of the photographs."""
    pictures = [{"image_id": str(number), "f1": 0.5, "sha256": digest} for number, digest in enumerate(scored)]
    record = {"options": {"dataset": ["eyes"]}, "train_ids": [*map(str, range(len(train)))], "train_sha256": train}
    return {"training": record | training, "metrics": {"eyes": {"count": len(scored), "pictures": pictures}}}


def test_a_reused_photograph_is_known_by_its_content_not_by_its_id(card):
    reused, separate = "scored photographs were also used", "No scored photograph was used for training"
    honest = card(**with_digests(["a", "b"], ["c", "d"]))
    assert separate in honest and reused not in honest
    assert f"**2 of the {reused}" in card(**with_digests(["a", "b"], ["b", "c", "a"]))
    other_run = with_digests(["a"], ["c"], earlier=with_digests(["c"], [])["training"])
    assert f"**1 of the {reused}" in card(**other_run)
    teacher = {"options": {"dataset": ["eyes"], "teacher": ["t"]}, "teachers": [{"name": "t", "sha256": ["d", "e"]}]}
    assert f"**1 of the {reused}" in card(**with_digests(["a"], ["c", "d"], **teacher))
    teacher["teachers"][0].pop("sha256")
    for unknown in (
        with_digests(["a"], ["c"], **teacher),
        with_digests(["a"], ["c"], validation_ids=["7"]),
        with_digests(["a"], ["c"], earlier={"options": {"dataset": ["eyes"]}}),
        with_digests(["a"], [""]),
        with_digests([], ["c"], train_ids=["0"]),  # the same id, and no SHA-256: it tells nothing
    ):
        text = card(**unknown)
        assert reused not in text and separate not in text and "By their names" not in text
    assert "By their names, no scored" in card(**with_digests([], ["c"], train_ids=["1"]))


def test_the_card_tells_how_to_install(card, monkeypatch):
    assert "Ask the publisher of this page for the code" in card() and "/spaces/" not in card()
    space = card(space_id="someone/demo")
    assert "[someone/demo](https://huggingface.co/spaces/someone/demo)" in space
    assert (
        "hf download someone/demo --repo-type space --local-dir resegnet-space\npip install ./resegnet-space" in space
    )
    monkeypatch.setattr("resegnet.publishing.card.REPOSITORY_URL", "https://example.org/resegnet")
    for space_id in (None, "someone/demo"):
        text = card(space_id=space_id)
        assert 'pip install "resegnet @ git+https://example.org/resegnet"' in text
        assert "Ask the publisher" not in text and "resegnet-space" not in text
        assert ("someone/demo" in text) == (space_id is not None)


def test_the_comparison_is_with_the_official_test_photographs(card):
    header, *table = rows(card(), "data set | this model trained")
    metrics = RECORDS["metrics"]
    expected = [
        [TITLES[name], "yes", f"{metrics[name]['mean']['f1']:.3f}", f"{PEER_F1[name][1]:.3f}"]
        for name in ("drive", "chase_db1", "hrf")
    ]
    assert [row[:4] for row in table] == expected and header[3] == "LW-Net"
    assert "LW-Net" not in card(metrics={"drive": metrics["drive"] | {"count": 19}, "les_av": metrics["les_av"]})
    assert "LW-Net" not in card(metrics={"drive": metrics["drive"] | {"split": "validation"}})


def test_an_earlier_release_is_named(card):
    assert "earlier release" in card(**changed("training", "options", "start_from", to="another"))
    assert "earlier release" not in card()


def test_a_release_of_another_encoder(bundled, card):
    config = RECORDS["config"] | {"encoder": "resnet34", "decoder_channels": [256, 128, 64, 32, 16], "input_size": 768}
    text = card(config=config)
    assert ModelCard(text).data.eval_results == ModelCard(bundled).data.eval_results
    assert "encoder resnet34" in text
    assert "a square of 768 pixels" in text and "another input size" in text
    assert "`docs/python.md` in the repository of ReSegNet.\n\nIf you use" in text


def test_pictures_are_shown_by_their_captions(card):
    assert "## Pictures" not in card()
    text = card(pictures={"pictures/an eye.jpg": "What it finds."})
    assert "![an eye](<pictures/an%20eye.jpg>)\n\nPicture 1. What it finds." in text


def test_card_pictures_show_the_photograph_and_the_answer():
    config = Config(input_size=256)
    # Calls dark green pixels vessel, which gives hits, misses and false alarms.
    segmenter = Segmenter(lambda rgb: (rgb[:, 1] < 0.25).astype(np.float32), config)
    pictures, captions = card_pictures(segmenter, EXAMPLES)
    assert pictures.keys() == captions.keys()
    sheets = {name: np.asarray(Image.open(io.BytesIO(content))) for name, content in pictures.items()}
    for content, sheet in zip(pictures.values(), sheets.values(), strict=True):
        assert content.startswith(b"\xff\xd8") and len(content) < 500_000
        assert 1000 < sheet.shape[1] <= PICTURE_WIDTH_PX
        assert (sheet[:, sheet.shape[1] // 2] > 200).all()  # the gap between the two pictures
    errors = sheets["pictures/errors_on_a_synthetic_photograph.jpg"].astype(int)
    for color in ERROR_COLORS.values():
        assert (np.abs(errors - color).max(axis=2) < 40).sum() > 50
    left = sheets["pictures/photograph_and_vessels.jpg"][:, :500].mean()
    dark = sheets["pictures/dark_photograph.jpg"][:, :500].mean()
    assert dark == pytest.approx(0.12 * left, rel=0.1)


@pytest.mark.parametrize(
    ("network", "share"), [(lambda rgb: rgb[:, 1] >= 0, "100%"), (lambda rgb: rgb[:, 1] > 0.3, "0%")]
)
def test_captions_tell_what_was_found_in_the_dark(network, share):
    segmenter = Segmenter(lambda rgb: network(rgb).astype(np.float32), Config(input_size=256))
    _, captions = card_pictures(segmenter, EXAMPLES)
    dark = captions["pictures/dark_photograph.jpg"]
    assert "darkened to 12% of" in dark and f"The model finds {share} of the vessel pixels" in dark
    photograph = read_image(EXAMPLES / "retina_cc0.jpg")
    warnings = segmenter(np.round(photograph * 0.12).astype(np.uint8)).warnings
    assert warnings and all(warning in dark for warning in warnings)
    scores = segmenter(EXAMPLES / "synthetic_orange.jpg").compare(EXAMPLES / "synthetic_orange_vessels.png").scores()
    assert f"Sensitivity {scores['sensitivity']:.3f}" in captions["pictures/errors_on_a_synthetic_photograph.jpg"]


def test_pictures_need_the_free_photographs(tmp_path):
    with pytest.raises(ImageError, match="retina_cc0"):
        card_pictures(Segmenter(lambda rgb: rgb[:, 1], Config(input_size=64)), tmp_path)


@pytest.mark.parametrize("name", ["training", "metrics"])
@pytest.mark.parametrize("content", [None, "[]", "{", "[" * 100_000])
def test_a_missing_or_broken_record_is_named(card, tmp_path, name, content):
    card()
    path = tmp_path / f"{name}.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ReleaseError, match=f"{name}.json"):
        model_card(tmp_path, "someone/resegnet")


def test_an_impossible_config_is_refused(card):
    with pytest.raises(ConfigError, match="input_size"):
        card(config=RECORDS["config"] | {"input_size": 7})


@pytest.mark.parametrize("repo_id", ["", "a/b/c", "a b", "user/name\n", "../x"])
def test_an_impossible_repository_is_refused(card, repo_id):
    with pytest.raises(ValueError, match=r"[Rr]epo"):
        card(repo_id=repo_id)


def test_the_card_of_a_release_of_six_runs_tells_them(card):
    told = card(training=stored_record("training_of_six_runs"))
    assert "| IDRiD | training, with vessel masks made by models |" in told
    assert "Training was 6 runs:" in told
    assert "It also has a note on runs 1 and 2." in told and "driver outside" not in told
    header, *runs = rows(told, "run | data sets")
    assert len(runs) == 6 and all(len(row) == len(header) for row in runs)
    assert [row[3:6] for row in runs[-2:]] == [["46", "9", "18"], ["55", "0", "8"]]
    assert "* The threshold was fitted on 9 validation photographs before the model was trained on them" in told


@pytest.mark.parametrize("name", BUNDLED_RELEASES)
def test_the_card_of_a_bundled_release_tells_its_runs_sizes_and_network(name):
    told = model_card(BUNDLED_RELEASES[name], "someone/resegnet", "v1.0.0")
    training = json.loads((BUNDLED_RELEASES[name] / "training.json").read_text())
    header, *runs = rows(told, "run | data sets")
    assert len(runs) == len(training_runs(training)) and all(len(row) == len(header) for row in runs)
    config = Config.load(BUNDLED_RELEASES[name] / "config.json")
    assert f"a square of {config.smallest_input_size} to {config.input_size} pixels" in told
    assert "one logit per pixel" not in told and "A U-Net" in told
    own = config.encoder in ("plain", "two-looks")
    assert ("of residual blocks" in told) == own and ("`segmentation_models_pytorch`" in told) != own
    assert ("It does not tell arteries from veins" in told) == (config.context_size is None)
    assert threshold_origin(training) in told


def test_earlier_runs_and_vessels_marked_by_models_are_told(card):
    first = RECORDS["training"]
    second = copy.deepcopy(first) | {"earlier": first, "labelled_ids": ["idrid_001", "idrid_002"], "epochs_run": 9}
    second["options"] |= {"dataset": ["hrf"], "extra": ["idrid"], "start_from": "first"}
    told = card(training=second)
    assert "| IDRiD | training, with vessel masks made by models |" in told
    assert "| DRIVE | training, scores |" in told  # the earlier run was trained on it
    assert "No person segmented the photographs of IDRiD (2\nof them were used)." in told
    assert "Training was 2 runs:" in told
    table = [(row[5], row[-1]) for row in rows(told, "run | data sets")[1:]]
    assert table == [(str(first["epochs_run"]), "random weights"), ("9", "run 1")]
    assert "an earlier release" not in told

    unknown = copy.deepcopy(second) | {"earlier": {}}
    assert 'Training started from the weights of an earlier release, named "first"' in card(training=unknown)


def test_the_training_data_of_teachers_count_too(card):
    training = copy.deepcopy(RECORDS["training"]) | {"earlier": {}}
    training["options"] |= {"dataset": ["hrf"], "teacher": ["ours", "theirs"], "start_from": ""}
    training["teachers"] = [{"name": "ours", "trained_on": ["drive"]}, {"name": "theirs", "trained_on": ["chase_db1"]}]

    def trained(training: dict) -> list[str]:
        _, *table = rows(card(training=training), "data set | split")
        return [row[3] for row in table]

    assert trained(training) == ["yes", "yes", "yes", "no"]
    told = card(training=training)
    assert "on the predictions of other models, its teachers: ours, theirs." in told
    assert "The training data of theirs are not in this record." not in told
    assert "**DRIVE, terms: research and education only, no redistribution.**" in told
    training["teachers"][1]["trained_on"] = []
    assert trained(training) == ["yes", "-", "yes", "-"]
    assert "The training data of theirs are not in this record." in card(training=training)
    training["teachers"][0]["name"] = "theirs"
    assert trained(training) == ["yes", "-", "yes", "-"]
    del training["teachers"]
    assert trained(training) == ["-", "-", "yes", "-"]
