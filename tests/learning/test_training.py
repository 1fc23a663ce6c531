"""Training feeds the network as prediction does, and a run leaves its record and a sound release."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support.synthetic import draw_fundus
from support.tiny_run import TINY, command, records

import train as train_script
from resegnet import Segmenter
from resegnet.config import Config
from resegnet.learning.augment import Place, cut_crops
from resegnet.learning.crops import WorkingSample
from resegnet.learning.data import load_vessels, read_sample
from resegnet.learning.folder import RunFolder
from resegnet.learning.options import PRESETS, TrainingOptions
from resegnet.learning.run import Run, averaging
from resegnet.learning.stress import STRESSES
from resegnet.learning.training import train
from resegnet.model import ReSegNet
from resegnet.releases.release import verify_release

pytestmark = pytest.mark.usefixtures("quick_releases")


def test_training_and_prediction_feed_the_network_the_same_bits(folder):
    seen = []

    def network(rgb):
        seen.append(rgb.copy())
        return rgb[:, 1]

    segmenter = Segmenter(network, Config(input_size=192))
    for row in load_vessels(folder, "train"):
        sample = read_sample(row)
        planes = WorkingSample.of(sample, Config(input_size=192)).planes()
        image = cut_crops([planes], [Place(96, 96, np.eye(2), flip=False)], 192)[0, :3]
        segmenter(row["image"]["bytes"] or row["image"]["path"])
        assert seen[-1].dtype == np.float32
        assert seen[-1][0].tobytes() == image.numpy().tobytes()


def test_a_teacher_counts_half_in_the_vessels_and_not_in_the_centrelines(folder):
    sample = read_sample(load_vessels(folder, "train")[0])
    alone = WorkingSample.of(sample, Config(input_size=192))
    taught = WorkingSample.of(sample, Config(input_size=192), np.full(sample.vessels.shape, 0.5, np.float32))
    inside = alone.field > 0
    expected = (alone.vessels[inside].astype(float) + 127.5) / 2
    assert np.abs(taught.vessels[inside] - expected).max() <= 1
    for name in ("pixels", "field", "centrelines"):
        assert np.array_equal(getattr(taught, name), getattr(alone, name))


@pytest.mark.slow
def test_a_plain_network_learns_from_teachers(capsys, folder, finished, tmp_path):
    line = command(folder, tmp_path / "plain")[2:]
    line[line.index("--encoder") + 1] = "plain"
    line[line.index("--epochs") + 1] = "1"
    line[line.index("--decoder-channels") + 2 : line.index("--decoder-channels") + 4] = ["16", "16"]
    assert train_script.main([*line, "--teacher", str(finished / "release"), str(finished / "release")]) == 0
    release = tmp_path / "plain" / "release"
    verify_release(release)
    record = json.loads((release / "training.json").read_text())
    assert record["options"]["teacher"] == ["whole", "whole"]  # the run's folder, for all releases are called `release`
    first = json.loads((finished / "release" / "training.json").read_text())
    digests = sorted([*first["train_sha256"], *first["validation_sha256"]])
    for teacher in record["teachers"]:
        assert (teacher["name"], teacher["trained_on"]) == ("whole", ["tiny"])
        assert sorted(teacher["sha256"]) == digests
    assert len(record["teachers"]) == 2
    assert Config.load(release / "config.json").threshold == pytest.approx(record["validation_f1"] / 2, abs=0.05)
    line[line.index("--encoder-weights") + 1] = "imagenet"
    assert train_script.main([*line[2:], "--out", str(tmp_path / "other")]) == 1
    assert "no such weights for the network plain" in capsys.readouterr().err
    line[line.index("--encoder-weights") + 1] = "none"
    assert train_script.main([*line[2:], "--out", str(tmp_path / "no"), "--teacher", str(tmp_path / "nobody")]) == 1
    assert "nobody" in capsys.readouterr().err
    config = Config.load(release / "config.json")
    assert not config.normalises
    ReSegNet(dataclasses.replace(config, mean=(0.5, 0.5, 0.5))).save_pretrained(tmp_path / "shifted")
    assert train_script.main([*line[2:], "--out", str(tmp_path / "no"), "--start-from", str(tmp_path / "shifted")]) == 1
    assert "normalises photographs by mean (0.5, 0.5, 0.5)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_tells_time_left_steps_and_scores(folder, tmp_path, caplog):
    options = TrainingOptions(dataset=(str(folder),), **(TINY | {"epochs": 3, "steps_per_epoch": 1}))
    with caplog.at_level(logging.INFO):
        train(options, tmp_path / "run")
    text = caplog.text
    words = [
        "epoch 1 of 3",
        "min of training left",
        "calibrating the weights",
        "scoring the 2 photographs of tiny, test",
    ]
    words += ["writing the release", "AUROC", "Lowest F1: eye10"]
    assert [word for word in words if word not in text] == []
    assert sorted(path.stem[-1] for path in (tmp_path / "run" / "previews").iterdir()) == ["1", "2", "3"]


@pytest.mark.slow
def test_a_run_leaves_its_record_and_a_sound_release(finished, folder):
    release = finished / "release"
    assert verify_release(release) < 1e-3
    training = json.loads((release / "training.json").read_text())
    metrics = json.loads((release / "metrics.json").read_text())
    config = json.loads((release / "config.json").read_text())
    assert "train_eyes" not in training  # biometric: only with --eye-fingerprints
    assert not set(training["train_ids"]) & set(training["validation_ids"])
    assert len(training["train_ids"]) + len(training["validation_ids"]) == 6
    assert metrics["tiny"]["count"] == 2
    table = metrics["tiny"]["stress"]
    assert [(row["stress"], row["count"]) for row in table] == [(stress.name, 1) for stress in STRESSES]
    # By the ONNX network, the others by torch.
    assert table[0]["f1"] == pytest.approx(metrics["tiny"]["pictures"][0]["f1"], abs=0.05)
    used = [*training["train_sha256"], *training["validation_sha256"]]
    assert [len(training[f"{use}_sha256"]) for use in ("train", "validation", "labelled")] == [
        len(training[f"{use}_ids"]) for use in ("train", "validation", "labelled")
    ]
    assert len({*used, *(picture["sha256"] for picture in metrics["tiny"]["pictures"])}) == 6 + 2
    assert training["options"]["dataset"] == ["tiny"]
    assert metrics["tiny"]["threshold"] == config["threshold"]
    lines = records(finished)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[-1]["loss"] < lines[0]["loss"]
    scores = [(line["validation_f1"] + line["validation_stress"]) / 2 for line in lines]
    assert scores[training["best_epoch"] - 1] == pytest.approx(max(scores), abs=1e-5)
    assert {path.name for path in (finished / "previews").iterdir()} == {
        f"epoch_000{epoch}.png" for epoch in (1, 2, 4, 5)
    }
    with Image.open(finished / "curves.png") as curves:
        assert curves.width > 1000
    result = Segmenter.from_pretrained(release)(draw_fundus(100, (220, 210)).image)
    assert result.mask.shape == (220, 210)


@pytest.mark.parametrize(("choose_by", "best"), [("f1", 3), ("f1-and-stress", 2)])
def test_the_best_epoch_is_that_of_the_highest_score(folder, monkeypatch, choose_by, best):
    scores = iter([(0.7, 0.5), (0.8, 0.75), (0.82, 0.6), (0.79, 0.7)])

    def score(*_, under_stress, **__):
        f1, stress = next(scores)
        return {"validation_f1": f1} | ({"validation_stress": stress} if under_stress else {})

    monkeypatch.setattr("resegnet.learning.run.score_validation", score)
    run = Run(TrainingOptions(dataset=(str(folder),), **TINY, choose_by=choose_by))
    for run.epoch in range(1, 5):
        run.validate([WorkingSample.of(read_sample(load_vessels(folder, "train")[0]), run.model.config)])
    assert run.best_epoch == best


def test_a_set_to_be_scored_is_looked_at_before_the_work(capsys, folder, tmp_path):
    options = ["--dataset", str(folder), "--out", str(tmp_path / "run"), "--input-size", "192", "--crop-size", "64"]
    options += ["--encoder-weights", "none", "--encoder", "resnet18"]
    assert train_script.main([*options, "--unseen", "nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err
    copy = tmp_path / "copy" / "test"
    shutil.copytree(folder / "train", copy)
    assert train_script.main([*options, "--unseen", str(copy.parent)]) == 1
    assert "the same photograph" in capsys.readouterr().err


def test_averaging_leaves_constants_alone_and_copies_counts():
    average = averaging(0.998)
    constant = torch.tensor([0.485, 0.229])
    kept, count = constant.clone(), torch.tensor(0)
    for step in range(5000):
        average([kept], [constant], step)
        average([count], [torch.tensor(step)], step)
    assert torch.equal(kept, constant)
    assert count == 4999


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "No data set"),
        (["--dataset", "nowhere", "--crop-size", "100"], "--crop-size is 100"),
        (["--dataset", "nowhere", "--schedule", "sometimes"], "cosine, plateau"),
        (["--dataset", "nowhere", "--epochs", "0"], "--epochs is 0"),
        (["--dataset", "nowhere"], "nowhere"),
        (["--dataset", "nowhere", "--encoder", "no_such_net"], "no_such_net"),
        (["--dataset", "nowhere", "--validation-fraction", "2"], "--validation-fraction is 2"),
        (["--dataset", "nowhere", "--learning-rate", "-1"], "--learning-rate is -1"),
        (["--dataset", "nowhere", "--seed", "-1"], "--seed is -1"),
        (["--dataset", "nowhere", "--device", "abacus"], "--device is abacus"),
        (["--dataset", "nowhere", "--input-size", "700"], "multiple of 32"),
        (["--dataset", "a/eyes", "b/eyes"], "one name"),
    ],
)
def test_unusable_options_are_explained(capsys, tmp_path, arguments, words):
    assert train_script.main([*arguments, "--out", str(tmp_path / "run")]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_the_plateau_schedule_halves_the_rate(folder, tmp_path):
    options = TrainingOptions(
        dataset=(str(folder),), **(TINY | {"epochs": 6, "steps_per_epoch": 1, "patience": 6}), schedule="plateau",
        learning_rate=1e-12,
    )  # fmt: skip
    train(options, tmp_path / "run")
    rates = [record["learning_rate"] for record in records(tmp_path / "run")]
    assert rates[0] == 1e-12
    assert rates[-1] == pytest.approx(0.5e-12)


@pytest.mark.slow
def test_accumulated_batches_make_one_step(finished, folder, tmp_path):
    train(
        TrainingOptions(dataset=(str(folder),), **TINY | {"epochs": 1, "batch_size": 1, "accumulate": 2}),
        tmp_path / "run",
    )
    state, whole = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (tmp_path / "run", finished))
    assert state["average"]["n_averaged"] == TINY["steps_per_epoch"]
    assert whole["average"]["n_averaged"] == TINY["steps_per_epoch"] * TINY["epochs"]


@pytest.mark.slow
def test_two_processes_train_one_network(capsys, folder, tmp_path):
    """With torchrun: one of them writes, and a resumed run is not another one."""
    changes = ["--epochs", "2"]
    line = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line += [*command(folder, tmp_path / "run")[1:], *changes]
    done = subprocess.run([sys.executable, *line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("release: ") == 1
    verify_release(tmp_path / "run" / "release")
    training = json.loads((tmp_path / "run" / "release" / "training.json").read_text())
    assert training["environment"]["processes"] == 2
    assert [record["epoch"] for record in records(tmp_path / "run")] == [1, 2]

    assert train_script.main([*command(folder, tmp_path / "run")[2:], "--epochs", "3", "--resume"]) == 1
    assert "2 processes started this run, but 1 resume it" in capsys.readouterr().err


def test_fewer_epochs_shorten_the_phases_of_a_preset(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(train_script, "train", lambda options, out, resume: seen.append(options))
    line = ["--preset", "bundled", "--dataset", "synthetic", "--out", str(tmp_path)]
    for epochs in range(1, PRESETS["bundled"]["epochs"] + 1):
        assert train_script.main([*line, "--epochs", str(epochs)]) == 0
        phases = seen[-1].context_epochs, seen[-1].detail_epochs
        assert sum(phases) < epochs
    assert phases == (PRESETS["bundled"]["context_epochs"], PRESETS["bundled"]["detail_epochs"])
    assert train_script.main([*line, "--epochs", "10", "--detail-epochs", "3"]) == 0
    assert (seen[-1].context_epochs, seen[-1].detail_epochs) == (4, 3)

    RunFolder(tmp_path).write_options(seen[-1])
    RunFolder(tmp_path).checkpoint.touch()
    assert train_script.main([*line, "--resume"]) == 0  # the preset named again
    assert seen[-1] == seen[-2]


def test_a_preset_gives_way_to_what_is_given(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(train_script, "train", lambda options, out, resume: seen.append(options))
    for preset, values in PRESETS.items():
        line = ["--preset", preset, "--dataset", "synthetic", "--out", str(tmp_path), "--epochs", "997"]
        assert train_script.main(line) == 0
        expected = values | {"epochs": 997}
        assert {name: getattr(seen[-1], name) for name in expected} == expected
