"""The model card: every figure is that of the records."""

from __future__ import annotations

import re

import numpy as np
import pytest
from huggingface_hub import ModelCard, metadata_load
from support.cards import HRF, RECORDS, TITLES, changed, rows

from resegnet.publishing.card import HUB_METRICS
from resegnet.publishing.card_scores import PEER_F1, TABLE_SCORES
from resegnet.results.metrics import SCORES


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
    assert shown in card(**changed(record, *path, to=value))


def test_scores_by_illness_are_those_of_the_record(bundled, card):
    for end, title in (("_h", "healthy"), ("_g", "glaucoma"), ("_dr", "diabetic retinopathy")):
        scores = [one["f1"] for one in RECORDS["metrics"]["hrf"]["pictures"] if one["image_id"].endswith(end)]
        assert len(scores) == 10
        assert f"| {title} | 10 | {np.mean(scores):.3f} | {min(scores):.3f} |" in bundled
    assert "By the illness" not in card(metrics={"drive": RECORDS["metrics"]["drive"]})


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


def test_a_score_of_another_name_is_in_the_index(card):
    text = card(metrics={"other": {"pooled": {"hausdorff_px": 3.5}}})
    (result,) = ModelCard(text).data.eval_results
    assert (result.dataset_type, result.metric_type, result.metric_value) == ("other", "hausdorff_px", 3.5)


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


def test_a_release_of_another_encoder(bundled, card):
    config = RECORDS["config"] | {"encoder": "resnet34", "decoder_channels": [256, 128, 64, 32, 16], "input_size": 768}
    text = card(config=config)
    assert ModelCard(text).data.eval_results == ModelCard(bundled).data.eval_results
    assert "encoder resnet34" in text
    assert "a square of 768 pixels" in text and "another input size" in text
    assert "`docs/python.md` in the repository of ReSegNet.\n\nIf you use" in text
