"""Training feeds the network as prediction does, and an interrupted run ends like an uninterrupted one."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import math
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import ndimage
from support.synthetic import draw_fundus

import train as train_script
from resegnet import Segmenter
from resegnet.config import Config
from resegnet.errors import TrainingError
from resegnet.learning.augment import Camera, Place, augment, compress_jpeg, cut_crops, draw_camera, draw_place
from resegnet.learning.crops import Crops, WorkingSample, identity_collate
from resegnet.learning.data import Sample, load_vessels, read_sample
from resegnet.learning.losses import bce_dice_loss, centreline_loss
from resegnet.learning.options import PRESETS, TrainingOptions
from resegnet.learning.run import Run, averaging
from resegnet.learning.start import load_encoder_weights
from resegnet.learning.stress import STRESSES
from resegnet.learning.training import train
from resegnet.model import ReSegNet
from resegnet.releases.release import verify_release

pytestmark = pytest.mark.usefixtures("quick_releases")

TINY = {
    "encoder": "resnet18",
    "encoder_weights": "none",
    "encoder_depth": 3,
    "decoder_channels": (16, 8, 8),
    "input_size": 192,
    "smallest_input_size": 96,
    "crop_size": 64,
    "steps_per_epoch": 6,
    "epochs": 5,
    "patience": 5,
    "preview_every": 2,
    "stress_photographs": 1,
    "threads": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small image folder of synthetic photographs: six in `train`, two in `test`."""
    root = tmp_path_factory.mktemp("data") / "tiny"
    for split, seeds in (("train", range(6)), ("test", range(100, 102))):
        (root / split).mkdir(parents=True)
        lines = []
        for seed in seeds:
            eye = draw_fundus(seed, (150, 140) if seed % 5 == 2 else (220, 210))  # of two cameras
            names = {part: f"eye{seed}_{part}.png" for part in ("image", "mask", "fov")}
            for part, pixels in zip(names, (eye.image, eye.vessels, eye.fov), strict=True):
                pixels = pixels if part == "image" else pixels.astype(np.uint8) * 255
                Image.fromarray(pixels).save(root / split / names[part])
            lines.append({"image_id": f"eye{seed}", "patient": f"p{seed}", "dataset": "tiny"})
            lines[-1] |= {f"{part}_file_name": name for part, name in names.items()}
        (root / split / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(TrainingOptions(dataset=(str(folder),), **TINY), out)
    return out


def command(folder: Path, out: Path) -> list[str]:
    line = [sys.executable, str(Path(train_script.__file__)), "--out", str(out), "--dataset", str(folder)]
    for name, value in TINY.items():
        values = value if isinstance(value, tuple) else (value,)
        line += [f"--{name.replace('_', '-')}", *map(str, values)]
    return line


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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
def test_a_killed_run_resumes_to_identical_weights(folder, finished, tmp_path, caplog):
    out = tmp_path / "cut"
    # Cut at the start of an epoch, then inside one.
    for epochs, pause, more in ((1, 0.0, []), (3, 0.4, ["--resume"])):
        process = subprocess.Popen([*command(folder, out), *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        metrics = out / "metrics.jsonl"
        while not metrics.exists() or len(metrics.read_text().splitlines()) < epochs:
            assert process.poll() is None, "training ended before it could be cut"
            time.sleep(0.01)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert train_script.main(["--out", str(out), "--resume"]) == 0
    assert "resuming after epoch" in caplog.text
    for name in ("best.pt", "checkpoint.pt"):
        ours, theirs = (torch.load(run / name, weights_only=True) for run in (out, finished))
        assert_same(ours, theirs)
    assert (out / "release/model.safetensors").read_bytes() == (finished / "release/model.safetensors").read_bytes()
    times = {"seconds": 0, "waited_for_data": 0}
    ours, theirs = ([record | times for record in records(run)] for run in (out, finished))
    assert ours == theirs


def assert_same(ours, theirs):
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == theirs


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


@pytest.mark.slow
def test_a_run_cut_after_its_last_epoch_is_finished_by_resume(finished, folder, tmp_path):
    out = tmp_path / "cut"
    shutil.copytree(finished, out)
    (out / "release").rename(out / "release.partial")  # as a kill while it is written leaves it
    assert train_script.main(["--out", str(out), "--resume"]) == 0
    for name in ("model.safetensors", "config.json", "training.json", "selftest/probability.png"):
        assert (out / "release" / name).read_bytes() == (finished / "release" / name).read_bytes()


@pytest.mark.slow
def test_more_epochs_given_to_resume_are_kept(finished, tmp_path):
    out = tmp_path / "longer"
    shutil.copytree(finished, out)
    assert train_script.main(["--out", str(out), "--resume", "--epochs", "6"]) == 0
    assert [record["epoch"] for record in records(out)] == [1, 2, 3, 4, 5, 6]
    assert json.loads((out / "options.json").read_text())["epochs"] == 6


@pytest.mark.slow
def test_a_preset_named_again_does_not_stretch_a_run(finished, tmp_path, monkeypatch, capsys):
    out = tmp_path / "named"
    shutil.copytree(finished, out)
    monkeypatch.setitem(train_script.PRESETS, "laptop", TINY | {"epochs": 90})  # the run was begun with --epochs 5
    assert train_script.main(["--out", str(out), "--resume", "--preset", "laptop"]) == 0
    assert json.loads((out / "options.json").read_text())["epochs"] == 5
    assert len(records(out)) == 5
    monkeypatch.setitem(train_script.PRESETS, "laptop", TINY | {"encoder": "resnet34"})
    assert train_script.main(["--out", str(out), "--resume", "--preset", "laptop"]) == 1
    assert "--encoder cannot be changed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("change", [["--seed", "4"], ["--learning-rate", "0.5"], ["--encoder", "resnet34"]])
def test_resume_refuses_to_become_another_run(capsys, finished, change):
    before = {path: path.read_bytes() for path in finished.glob("*.*")}
    assert train_script.main(["--out", str(finished), "--resume", *change]) == 1
    assert f"{change[0]} cannot be changed" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in finished.glob("*.*")} == before


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


def test_the_last_epochs_see_photographs_nearly_as_they_are(folder):
    one = [WorkingSample.of(read_sample(load_vessels(folder, "train")[0]), Config(input_size=192))]
    strong, weak = Crops(one, 160, 0), Crops(one, 160, 0, weak_from=4)
    assert torch.equal(strong[3][0], weak[3][0])
    assert not torch.equal(strong[4][0], weak[4][0])

    def changes(crops):
        lit = [(image[:, masks[1] > 0.99]).mean(dim=1) for image, masks in (crops[place] for place in range(4, 64))]
        lit = torch.stack(lit)
        return (lit - lit.median(dim=0).values).abs().mean(dim=1)

    little = changes(strong).median() / 2
    assert changes(weak).median() < little
    assert 3 < (changes(weak) > little).sum() < 30  # but not all of them: other cameras are not to be forgotten


def test_workers_do_not_change_the_crops(folder):
    samples = [WorkingSample.of(read_sample(row), Config(input_size=192)) for row in load_vessels(folder, "train")]
    crops = Crops(samples, 64, seed=4)
    state = torch.get_rng_state()
    expected = [crops[place] for place in range(12)]
    assert torch.equal(torch.get_rng_state(), state)
    loader = torch.utils.data.DataLoader(
        crops, batch_size=3, sampler=range(12), num_workers=2, collate_fn=identity_collate
    )
    for index, (image, masks) in enumerate(loader):
        for k in range(3):
            torch.testing.assert_close(image[k], expected[3 * index + k][0], rtol=0, atol=1e-6)  # alone or in a batch
            assert torch.equal(masks[k], expected[3 * index + k][1])
    assert not torch.equal(expected[0][0], Crops(samples, 64, seed=5)[0][0])


def test_augmentation_moves_photograph_and_vessels_together():
    # The picture is its own mask, so whatever the crop does has to happen to both.
    eye = draw_fundus(5, (400, 400))
    planes = torch.from_numpy(np.stack([255 * eye.vessels.astype(np.uint8)] * 4))
    rng = np.random.default_rng(0)
    for _ in range(20):
        (crop,) = cut_crops([planes], [draw_place(rng, np.argwhere(eye.fov), 400)], 128)
        assert crop.shape == (4, 128, 128)
        assert torch.equal(crop[0], crop[3])
        changed = augment(crop[None, :3], [draw_camera(rng)])
        assert changed.shape == (1, 3, 128, 128)
        assert changed.min() >= 0
        assert changed.max() <= 1


def test_crops_turn_freely_but_stand_upright_under_weak_augmentation():
    rng, inside = np.random.default_rng(0), np.argwhere(np.ones((9, 9)))
    strong, weak = ([draw_place(rng, inside, 9, strength) for _ in range(60)] for strength in (1.0, 0.2))
    up = [place.matrix[0, 0] > abs(place.matrix[1, 0]) and not place.flip for place in strong]
    assert 1 < sum(up) < 30
    for place in weak:
        assert not place.flip
        assert place.matrix[1, 0] == 0 and place.matrix[0, 0] == place.matrix[1, 1] > 0
    assert {place.exact for place in weak} == {place.exact for place in strong} == {True, False}


def test_most_weakly_augmented_crops_are_the_photographs_own_pixels():
    rows, columns = np.mgrid[:256, :256].astype(np.uint8)  # each pixel is told by its values
    planes, inside = torch.from_numpy(np.stack([rows, columns])), np.argwhere(np.ones((256, 256)))
    rng = np.random.default_rng(0)
    exact = 0
    for _ in range(60):
        place = draw_place(rng, inside, 256, strength=0.2)
        crop = cut_crops([planes], [place], 64)[0] * 255
        lies_inside = crop[:, (crop > 0).all(dim=0)]
        whole = torch.allclose(lies_inside, lies_inside.round(), atol=1e-4)
        assert whole >= place.exact
        if place.exact:
            exact += 1
    assert 30 < exact < 55
    # So are half of those of strong variation, turned. Down and right in the crop, as (row, column) in the photograph:
    # four turns, and each of them flipped.
    seen = set()
    for place in (draw_place(rng, inside, 256) for _ in range(200)):
        if place.exact:
            crop = cut_crops([planes], [place], 64)[0] * 255
            steps = (crop[:, 33, 32] - crop[:, 32, 32], crop[:, 32, 33] - crop[:, 32, 32])
            seen.add(tuple(round(float(value)) for step in steps for value in step))
    assert seen == {
        (1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0),
        (1, 0, 0, -1), (0, -1, -1, 0), (-1, 0, 0, 1), (0, 1, 1, 0),
    }  # fmt: skip


@pytest.mark.slow
def test_without_an_epoch_a_release_is_calibrated_at_other_sizes(finished, folder, tmp_path):
    changed = {"start_from": str(finished / "release"), "epochs": 0, "input_size": 224, "smallest_input_size": 128}
    train(TrainingOptions(dataset=(str(folder),), **TINY | changed), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "release" / "training.json").read_text())
    assert (record["epochs_run"], record["earlier"]["epochs_run"]) == (0, 5)
    before, after = (ReSegNet.from_pretrained(run / "release") for run in (finished, tmp_path / "run"))
    assert (after.config.smallest_input_size, after.config.input_size) == (128, 224)
    rgb = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        expected = record["logits_scaled"]["slope"] * before(rgb) + record["logits_scaled"]["offset"]
        torch.testing.assert_close(after(rgb), expected, atol=2e-2, rtol=1e-2)  # kernels are stored as float16
    with pytest.raises(TrainingError, match="0 with --start-from"):
        TrainingOptions(dataset=("synthetic",), epochs=0)


@pytest.mark.slow
def test_the_last_epochs_may_train_on_every_eye_with_the_calibration_of_before(caplog, folder, finished, tmp_path):
    changed = {
        "start_from": str(finished / "release"),
        "validation_fraction": 0,
        "epochs": 1,
        "learning_rate": 0.0,  # so that the answers are to stay
        "freeze_norm": True,
        "preview_every": 1,
    }
    options = TrainingOptions(dataset=(str(folder),), **TINY | changed)
    train(options, tmp_path / "run")
    train(dataclasses.replace(options, epochs=2), tmp_path / "run", resume=True)
    release = tmp_path / "run" / "release"
    verify_release(release)
    record, first = (json.loads((run / "release/training.json").read_text()) for run in (tmp_path / "run", finished))
    assert sorted(record["train_ids"]) == sorted(first["train_ids"] + first["validation_ids"])
    assert record["validation_ids"] == [] and "validation_f1" not in record
    assert (record["epochs_run"], record["best_epoch"]) == (2, 2)
    assert record["logits_scaled"] == first["logits_scaled"]
    before, after = (ReSegNet.from_pretrained(path) for path in (finished / "release", release))
    assert after.config.threshold == before.config.threshold
    rgb = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(after(rgb), before(rgb), atol=2e-2, rtol=1e-2)  # kernels are stored as float16
    assert "validation photographs (" not in caplog.text
    # From here on no eye of the set is new to it.
    again = {"validation_fraction": 0.15, "start_from": str(release), "epochs": 0}
    train(dataclasses.replace(options, **again), tmp_path / "again")
    assert "validation photographs (" in caplog.text
    with pytest.raises(TrainingError, match="has the decoder channels"):
        train(dataclasses.replace(options, decoder_channels=(16, 16, 8)), tmp_path / "other")
    ReSegNet(before.config).save_pretrained(tmp_path / "uncalibrated")
    options = dataclasses.replace(options, start_from=str(tmp_path / "uncalibrated"))
    with pytest.raises(TrainingError, match="does not record how it was calibrated"):
        train(options, tmp_path / "other")
    with pytest.raises(TrainingError, match="nothing to choose a threshold by"):
        TrainingOptions(dataset=("synthetic",), validation_fraction=0)


def test_a_large_photograph_gives_more_of_the_crops():
    samples = [WorkingSample.of(drawn(side), Config(input_size=704, smallest_input_size=192)) for side in (220, 740)]
    small, large = (sample.pixels.shape[0] for sample in samples)
    crops = Crops(samples, 64, seed=0)
    assert 2 * small < 3 * small <= large < 4 * small
    assert [crops.traced.count(photograph) for photograph in dict.fromkeys(crops.traced)] == [1, 3]
    assert len(Crops(samples[1:], 64, seed=0).traced) == 1


def drawn(side: int) -> Sample:
    """Return a synthetic photograph as a sample."""
    eye = draw_fundus(3, (side, side))
    return Sample(eye.image, eye.vessels, eye.fov, "eye", "eye", "synthetic")


def test_a_crop_lies_where_it_is_said_to():
    eye = torch.from_numpy(draw_fundus(7, (300, 300)).image).permute(2, 0, 1)

    def crop(planes, matrix):
        return cut_crops([planes], [Place(160, 140, np.array(matrix), flip=False)], 64)[0]

    exact = crop(eye, [[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(exact, eye[:, 128:192, 108:172] / 255)
    a_little = crop(eye, [[1 + 1e-6, 0.0], [0.0, 1.0]])  # sampled between the pixels, at the pixels
    torch.testing.assert_close(a_little, exact, atol=1e-3, rtol=0)
    down_is_left = np.array([[0.0, 1.0], [-1.0, 0.0]])
    torch.testing.assert_close(crop(eye, down_is_left), exact.rot90(1, (-2, -1)))
    torch.testing.assert_close(crop(eye, down_is_left * (1 + 1e-6)), exact.rot90(1, (-2, -1)), atol=1e-3, rtol=0)
    ramp = torch.arange(150, dtype=torch.uint8).repeat_interleave(2).expand(1, 300, 300)
    half = crop(ramp, np.eye(2) / 2)[0, 10] * 255  # twice as large
    assert half[31:33].mean() * 2 + 1 == pytest.approx(140, abs=0.2)
    assert (half[60] - half[4]).item() == pytest.approx(56 / 4, abs=0.3)


PLAIN = Camera(np.ones(3), 1.0, 1.0, 1.0, False, None, None, None, None, None, None, 0)


def test_each_picture_is_augmented_by_its_own_camera():
    eye = draw_fundus(7, (256, 256)).image[64:192, 64:192]
    images = torch.from_numpy(eye).permute(2, 0, 1).float().expand(8, -1, -1, -1) / 255
    changes = [
        {}, {"gains": np.array([0.5, 1, 1])}, {"grey": True}, {"blur": 1.2}, {"sharpness": 2.5}, {"noise": 0.03},
        {"light": np.full((4, 4), -0.3)}, {"haze": np.full((4, 4), 0.5)},
    ]  # fmt: skip
    cameras = [dataclasses.replace(PLAIN, **change) for change in changes]
    plain, red, grey, blurred, sharp, noisy, dark, hazy = augment(images, cameras)
    torch.testing.assert_close(plain, images[0])
    torch.testing.assert_close(red, plain * torch.tensor([0.5, 1, 1]).view(3, 1, 1))
    torch.testing.assert_close(grey, plain[1:2].expand(3, -1, -1))
    expected = ndimage.gaussian_filter(plain.numpy().astype(float), (0, 1.2, 1.2), mode="mirror", radius=3)
    np.testing.assert_allclose(blurred, expected, atol=1e-5)
    assert sharp.diff().abs().mean() > 1.2 * plain.diff().abs().mean() > 1.4 * blurred.diff().abs().mean()
    assert (noisy - plain).std() == pytest.approx(0.03, rel=0.05)
    torch.testing.assert_close(dark, plain * math.exp(-0.3))
    assert (hazy.diff().abs().mean() / plain.diff().abs().mean()).item() == pytest.approx(0.5, rel=0.1)
    torch.testing.assert_close(hazy.mean(dim=(1, 2)), plain.mean(dim=(1, 2)), atol=5e-3, rtol=0)


@pytest.mark.parametrize("side", [8, 168])  # smaller than what haze looks at, and no multiple of it
def test_haze_keeps_a_slope_of_light(side):
    slope = torch.linspace(0.2, 0.6, side).expand(1, 3, side, side)
    hazy = augment(slope, [dataclasses.replace(PLAIN, haze=np.full((4, 4), 0.5))])
    middle = slice(side // 8, -(side // 8))
    torch.testing.assert_close(
        hazy[..., middle, middle], slope[..., middle, middle], atol=0.1 if side < 16 else 2e-3, rtol=0
    )


@pytest.mark.parametrize("quality", [40, 75, 92])
def test_compression_does_what_jpeg_does(quality):
    eye = draw_fundus(7, (300, 300)).image[80:200, 80:200]  # sides that are no multiple of 16
    file = io.BytesIO()
    Image.fromarray(eye).save(file, "JPEG", quality=quality)
    theirs = np.array(Image.open(file)).astype(float)
    ours = (
        compress_jpeg(torch.from_numpy(eye).permute(2, 0, 1)[None].float() / 255, [quality])[0].permute(1, 2, 0) * 255
    )
    lost = np.abs(theirs - eye).mean()
    assert lost > 0.5
    assert np.abs(ours.numpy() - theirs).mean() < 0.35 * lost + 0.3


@pytest.mark.slow
def test_frozen_statistics_stay_and_the_weights_do_not(finished, folder, tmp_path):
    options = TINY | {"start_from": str(finished / "release"), "freeze_norm": True, "epochs": 1}
    train(TrainingOptions(dataset=(str(folder),), **options), tmp_path / "run")
    before = ReSegNet.from_pretrained(finished / "release").state_dict()
    after = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert not {name for name in changed if "running_" in name}
    assert any(name.endswith("weight") for name in changed)


def test_loss_counts_the_field_only():
    logits = torch.zeros(1, 1, 8, 8)
    vessels = torch.zeros(1, 1, 8, 8)
    field = torch.zeros(1, 1, 8, 8)
    field[..., :4] = 1
    vessels[..., 2:4] = 1
    before = bce_dice_loss(logits, vessels, field)
    logits[..., 4:] = 30  # wrong, and outside
    assert torch.equal(bce_dice_loss(logits, vessels, field), before)
    perfect = torch.where(vessels > 0, 30.0, -30.0)
    assert bce_dice_loss(perfect, vessels, field) < 1e-4
    assert bce_dice_loss(-perfect, vessels, field) > 10


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_without_dice_the_loss_is_least_at_the_truth(share):
    vessels = torch.rand(1, 1, 200, 200, generator=torch.Generator().manual_seed(0)).lt(share).float()
    field, answers = torch.ones_like(vessels), torch.linspace(-6, 6, 241)
    least = {}
    for weight in (0.0, 1.0):
        losses = [bce_dice_loss(torch.full_like(vessels, z), vessels, field, weight) for z in answers.tolist()]
        least[weight] = torch.sigmoid(answers[torch.stack(losses).argmin()]).item()
    assert least[0.0] == pytest.approx(share, abs=0.02)
    assert least[1.0] > share + 0.03


def test_centreline_loss_counts_a_thin_vessel_as_a_wide_one_of_its_length():
    vessels = np.zeros((96, 96), np.uint8)
    vessels[20:32, 8:88] = 255
    vessels[60:62, 8:88] = 255
    flat = np.full((96, 96, 3), 90, np.uint8)
    sample = Sample(flat, vessels > 0, fov=None, image_id="eye", patient="eye", dataset="synthetic")
    masks = WorkingSample.of(sample, Config(input_size=96)).planes()[None, 3:] / 255
    truth, field, lines = masks.split(1, dim=1)
    wide, thin = truth.clone(), truth.clone()
    wide[..., 48:, :] = 0
    thin[..., :48, :] = 0
    missed = [float(centreline_loss(20 * found - 10, lines, field)) for found in (truth, wide, thin, 0 * truth)]
    assert missed[0] < 0.25  # lines are three pixels wide, thin vessels two
    assert abs(missed[1] - missed[2]) < 0.3
    assert missed[3] > 0.98
    assert float(centreline_loss(20 * wide - 10, lines, torch.where(truth > 0, wide, field))) < 0.25


def test_encoder_weights_from_a_file(tmp_path):
    config = Config(encoder="resnet18", encoder_depth=3, decoder_channels=(8, 8, 4), input_size=64)
    donor, model = ReSegNet(config), ReSegNet(config)
    renamed = {f"other.{name}": tensor for name, tensor in donor.net.encoder.state_dict().items()}
    torch.save(renamed, tmp_path / "weights.pth")  # in order, by other names
    load_encoder_weights(model, str(tmp_path / "weights.pth"))
    assert_same(dict(model.net.encoder.state_dict()), dict(donor.net.encoder.state_dict()))
    torch.save(dict(list(renamed.items())[1:]), tmp_path / "short.pth")
    with pytest.raises(TrainingError, match="another shape"):
        load_encoder_weights(model, str(tmp_path / "short.pth"))
    torch.save({"state_dict": renamed, "epoch": 3}, tmp_path / "nested.pth")
    with pytest.raises(TrainingError, match="plain state_dict"):
        load_encoder_weights(model, str(tmp_path / "nested.pth"))
    save_file({name: tensor.contiguous() for name, tensor in renamed.items()}, tmp_path / "other.safetensors")
    with pytest.raises(TrainingError, match="another shape"):  # no order to go by
        load_encoder_weights(model, str(tmp_path / "other.safetensors"))
    two_looks = ReSegNet(
        Config(
            encoder="two-looks",
            encoder_depth=2,
            decoder_channels=(16, 16),
            input_size=64,
            context_size=64,
            context_encoder="resnet18",
            context_channels=(16, 16),
        )
    )
    load_encoder_weights(two_looks, str(tmp_path / "weights.pth"))
    assert_same(dict(two_looks.net.context.encoder.state_dict()), dict(donor.net.encoder.state_dict()))
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_encoder_weights(model, str(tmp_path / "broken.pth"))
    with pytest.raises(TrainingError, match="cannot be read"):
        load_encoder_weights(model, str(tmp_path / "absent.pth"))


@pytest.mark.slow
def test_a_release_can_be_fine_tuned(capsys, folder, finished, tmp_path):
    line = command(folder, tmp_path / "on")[2:]
    line[line.index("--epochs") + 1] = "1"
    line += ["--start-from", str(finished / "release"), "--learning-rate", "0"]
    assert train_script.main(line) == 0
    kept, new = (load_file(run / "release/model.safetensors") for run in (finished, tmp_path / "on"))
    # The last convolution is calibrated anew.
    kernels = [name for name, tensor in kept.items() if tensor.ndim == 4 and "segmentation_head" not in name]
    assert kernels
    assert all(torch.equal(kept[name], new[name]) for name in kernels)
    # Another decoder begins at random, all else as it was.
    line[line.index(str(tmp_path / "on"))] = str(tmp_path / "leaner")
    line[line.index("--decoder-channels") + 1 : line.index("--decoder-channels") + 4] = ["16", "8"]
    assert train_script.main(line) == 0
    leaner = load_file(tmp_path / "leaner/release/model.safetensors")
    shared = [name for name in kernels if name in leaner]
    assert shared and len(shared) < len(kernels)
    assert all(torch.equal(kept[name], leaner[name]) for name in shared)
    other = [
        *command(folder, tmp_path / "other")[2:],
        "--start-from",
        str(finished / "release"),
        "--encoder",
        "resnet34",
    ]
    assert train_script.main(other) == 1
    assert "--start-from" in capsys.readouterr().err


@pytest.mark.slow
def test_a_release_of_the_hub_is_asked_for_once_and_its_commit_is_kept(folder, finished, tmp_path, monkeypatch):
    commit = "c0ffee" * 6 + "c0ff"
    shutil.copytree(finished / "release", tmp_path / commit)
    asked = []

    def download(name, *, revision, **_):
        asked.append((name, revision))
        return str(tmp_path / commit)

    monkeypatch.setattr("resegnet.hub.snapshot_download", download)
    given = {"start_from": "someone/net", "teacher": ("someone/net", "someone/net"), "epochs": 1}
    options = TrainingOptions(dataset=(str(folder),), **TINY | given)
    train(options, tmp_path / "run")
    assert asked == [("someone/net", None)]
    record = json.loads((tmp_path / "run" / "release" / "training.json").read_text())
    first = json.loads((finished / "release" / "training.json").read_text())
    assert record["earlier"] == first
    assert (record["options"]["start_from"], record["start_from_commit"]) == ("net", commit)
    teachers = [{key: teacher[key] for key in ("name", "trained_on", "commit")} for teacher in record["teachers"]]
    assert teachers == 2 * [{"name": "net", "trained_on": ["tiny"], "commit": commit}]
    # The newest commit may be another one by now.
    train(options, tmp_path / "run", resume=True)
    assert asked[1:] == [("someone/net", commit)]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_explained(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"no tensors")
    assert train_script.main(["--out", str(tmp_path / "run"), "--resume"]) == 1
    assert "checkpoint.pt cannot be read" in capsys.readouterr().err


def test_imagenet_weights_out_of_reach_name_the_way_out(capsys, folder, tmp_path):
    # conftest.py sets HF_HUB_OFFLINE.
    arguments = ["--dataset", str(folder), "--out", str(tmp_path / "run"), "--input-size", "192", "--crop-size", "64"]
    assert train_script.main(arguments) == 1
    assert "--encoder-weights none" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_a_hub_that_never_answers_is_told_within_seconds(monkeypatch, tmp_path, encoder):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        model = ReSegNet(Config(encoder=encoder, input_size=64))
        start = time.monotonic()
        with pytest.raises(TrainingError, match="start from random weights: --encoder-weights none"):
            load_encoder_weights(model, "imagenet")
    assert time.monotonic() - start < 10
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


@pytest.mark.slow
def test_a_finished_run_is_not_overwritten_and_an_absent_one_not_resumed(capsys, folder, finished, tmp_path):
    assert train_script.main(["--dataset", str(folder), "--out", str(finished)]) == 1
    assert "--resume" in capsys.readouterr().err
    assert train_script.main(["--dataset", str(folder), "--out", str(tmp_path), "--resume"]) == 1
    assert "Start without --resume" in capsys.readouterr().err


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


def test_a_preset_gives_way_to_what_is_given(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(train_script, "train", lambda options, out, resume: seen.append(options))
    for preset, values in PRESETS.items():
        line = ["--preset", preset, "--dataset", "synthetic", "--out", str(tmp_path), "--epochs", "97"]
        assert train_script.main(line) == 0
        expected = values | {"epochs": 97}
        assert {name: getattr(seen[-1], name) for name in expected} == expected
