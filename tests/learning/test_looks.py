"""Crops of two looks: both show one place, and what is known of it stays where it is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.exports import quick_releases
from support.synthetic import draw_fundus
from support.tiny_run import TWO_LOOKS

from resegnet.config import Config
from resegnet.errors import TrainingError
from resegnet.learning.anatomy import AnatomySample, load_anatomy
from resegnet.learning.anatomy_scores import count_kinds, score_centres
from resegnet.learning.crops import WorkingSample
from resegnet.learning.folder import save_tensors
from resegnet.learning.look_views import cut_looks, detail_positions, distances_to, draw_view
from resegnet.learning.looks import LookCrops
from resegnet.learning.options import TrainingOptions
from resegnet.learning.run import Run
from resegnet.learning.samples import Sample
from resegnet.learning.self_training import KindsTeacher
from resegnet.learning.training import train
from resegnet.model import ReSegNet
from resegnet.releases.records import training_datasets
from resegnet.segmenter import Segmenter
from resegnet.two_looks import sample_squares

PARTS = ("vessels", "context", "kinds", "disc", "fovea")
CONFIG = Config(
    encoder="two-looks",
    encoder_depth=2,
    decoder_channels=(16, 16),
    context_size=96,
    context_channels=(16, 16, 16),
    input_size=256,
    smallest_input_size=128,
)


def working_sample(seed: int, side: int) -> WorkingSample:
    eye = draw_fundus(seed, (side, side))
    return WorkingSample.of(Sample(eye.image, eye.vessels, eye.fov, f"eye{seed}", "", "drawn"), CONFIG)


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_the_context_shows_where_the_detail_lies(strength):
    """Both pictures hold their own coordinates, so that each crop says where it was cut."""
    rng = np.random.default_rng(0)
    side, context_side = 384, 192
    config = dataclasses.replace(CONFIG, context_size=context_side, input_size=512)

    def coordinates(size: int) -> torch.Tensor:
        line = (torch.arange(size) + 0.5) / size * 255
        return torch.stack([line[:, None].expand(size, size), line[None].expand(size, size)])

    inside = np.array([[192, 192], [180, 200]])
    furthest = 0.0
    for _ in range(40):
        view = draw_view(rng, inside, side, config, (32, 64), strength)
        detail = cut_looks([coordinates(side)], [view.detail], [view.detail_finer], 32)
        source = coordinates(side if view.sharp else context_side)
        context = cut_looks([source], [view.context], [view.context_finer], 64)
        seen = sample_squares(context, detail_positions([view], 32, 64), (32, 32))
        furthest = max(furthest, float((detail - seen).abs().max()) * side)
    assert 0 < furthest < 0.6  # px of the detail's picture


def test_a_context_crop_as_large_as_the_field_shows_nearly_all_of_it():
    rng = np.random.default_rng(2)
    field = np.hypot(*(np.indices((96, 96)) - 47.5)) < 48
    inside = np.argwhere(field)
    picture = torch.from_numpy(field * 255.0)[None]
    for fixed in (False, True):
        shares = []
        for _ in range(40):
            view = draw_view(rng, inside, 96, CONFIG, (0 if fixed else 32, 96), fixed=fixed)
            place, finer = (view.detail, view.detail_finer) if fixed else (view.context, view.context_finer)
            zoom = 1 / (abs(np.linalg.det(place.matrix)) ** 0.5 * finer)
            shares.append(float(cut_looks([picture], [place], [finer], 96).sum()) / zoom**2 / field.sum())
        assert np.median(shares) > 0.9


def test_a_point_keeps_its_distance_through_a_crop():
    rng = np.random.default_rng(1)
    line = torch.arange(96.0) + 0.5
    centre = np.array([40.0, 55.0])
    distances = torch.hypot(line[:, None] - centre[0], line[None] - centre[1])[None]
    inside = np.array([[48, 48]])
    for _ in range(20):
        view = draw_view(rng, inside, 96, CONFIG, (0, 32), fixed=True)
        cut = cut_looks([distances], [view.detail], [view.detail_finer], 32) * 255
        expected = distances_to(view, centre, 32)
        assert (cut - expected)[cut > 3].abs().max() < 0.7


def test_crops_depend_on_seed_and_place_alone():
    samples = [working_sample(seed, side) for seed, side in ((1, 150), (2, 220))]
    planes = np.concatenate([samples[0].context[:3], samples[0].context[4:5]])
    eyes = [AnatomySample(planes, np.array([30.0, 40.0]), np.array([50.0, 50.0]), "eye")]
    crops, other = (LookCrops(samples, eyes, CONFIG, (64, 64), seed, weak_from=8) for seed in (0, 1))
    batch, again = crops.__getitems__(range(4, 12)), crops.__getitems__(range(8, 12))
    assert batch.detail.shape == (8, 3, 64, 64)
    assert batch.context.shape == (10, 3, 64, 64)
    assert batch.anatomy_masks.shape == (2, 6, 64, 64)
    for part in (batch.detail, batch.context, batch.detail_masks, batch.anatomy_masks):
        assert part.min() >= 0
    assert torch.equal(batch.detail[4:], again.detail)
    assert torch.equal(batch.context[4:8], again.context[:4])
    assert torch.equal(batch.anatomy_masks[1:], again.anatomy_masks)
    assert not torch.equal(again.detail, other.__getitems__(range(8, 12)).detail)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six drawn eyes to train on and two to score, arteries and veins beside them, and discs of four."""
    root = tmp_path_factory.mktemp("data")
    (root / "artery_vein").mkdir()
    for split, seeds in (("train", range(6)), ("test", range(100, 102))):
        for name in ("tiny", "discs"):
            (root / name / split).mkdir(parents=True)
        rows, discs = [], []
        for seed in seeds:
            eye = draw_fundus(seed, (200, 200))
            Image.fromarray(eye.image).save(root / "tiny" / split / f"eye{seed}.png")
            Image.fromarray(eye.vessels).save(root / "tiny" / split / f"eye{seed}_mask.png")
            classes = eye.vessels.astype(np.uint8) * (1 + (np.arange(200)[None] > 100))
            Image.fromarray(classes.astype(np.uint8)).save(root / "artery_vein" / f"eye{seed}.png")
            rows.append({"image_id": f"eye{seed}", "image_file_name": f"eye{seed}.png"})
            rows[-1]["mask_file_name"] = f"eye{seed}_mask.png"
            # One photograph of each split is the same, in other bytes.
            eye = draw_fundus(200 + (seed if seed not in (3, 101) else 77), (180, 180))
            Image.fromarray(eye.image).save(root / "discs" / split / f"disc{seed}.jpg", quality=90 if seed == 3 else 95)
            disc = np.hypot(*(np.mgrid[:180, :180] - 70)) < 12
            Image.fromarray(disc).save(root / "discs" / split / f"disc{seed}.png")
            discs.append({"image_id": f"disc{seed}", "image_file_name": f"disc{seed}.jpg"})
            if seed % 2:
                discs[-1]["disc_file_name"] = f"disc{seed}.png"
        for name, lines in (("tiny", rows), ("discs", discs)):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (root / name / split / "metadata.jsonl").write_text(text)
    (root / "discs" / "centres.csv").write_text(
        "image_id,disc_x,disc_y,fovea_x,fovea_y\ndisc0,70,71,110,90\ndisc2,70,70,,\n"
    )
    return root


@pytest.mark.slow
def test_discs_and_centres_are_read_and_copies_of_test_photographs_left_out(folder, tmp_path):
    samples = load_anatomy([str(folder / "discs")], CONFIG, tmp_path)
    assert [sample.image_id for sample in samples] == ["disc0", "disc1", "disc2", "disc5"]
    assert [len(sample.planes) for sample in samples] == [4, 5, 4, 5]
    assert samples[2].fovea_centre is None
    rows, columns = np.nonzero(samples[1].planes[4] > 127)
    assert np.allclose((rows.mean(), columns.mean()), samples[2].disc_centre, atol=1)
    again = load_anatomy([str(folder / "discs")], CONFIG, tmp_path)
    assert np.array_equal(again[3].planes, samples[3].planes)
    assert np.array_equal(again[0].fovea_centre, samples[0].fovea_centre)


def test_places_within_half_a_disc_diameter_count():
    model = ReSegNet(CONFIG)
    logits = torch.full((1, 5, 96, 96), -4.0)
    logits[0, 3, 30:34, 40:44] = 4.0
    logits[0, 3, 80, 10] = 9.0  # a single pixel is no disc
    logits[0, 4, 58:62, 58:62] = 4.0
    model.net.look_around = lambda _: (None, logits)
    planes = np.zeros((4, 96, 96), np.uint8)
    near, far, beyond = np.array([32.0, 42.0]), np.array([60.0, 66.5]), np.array([60.0, 68.5])
    eyes = [AnatomySample(planes, near, far, "a"), AnatomySample(planes, None, beyond, "b")]
    assert score_centres(model, eyes) == {"disc": 1.0, "fovea": 0.5}


def test_kinds_are_counted_where_a_vessel_is_of_one_kind():
    context = np.zeros((7, 4, 4), np.uint8)
    context[5, 0], context[6, 0, :1], context[6, 1] = 255, 255, 255  # the first pixel is a crossing
    anatomy = np.zeros((4, 4, 4), np.float32)
    anatomy[0, 0], anatomy[0, 1, 0], anatomy[1, 1, 1:] = 0.9, 0.6, 0.3
    assert count_kinds(anatomy, context) == (6, 7)
    assert count_kinds(anatomy, np.zeros_like(context)) == (0, 0)


def tiny_options(folder: Path) -> dict:
    """Options of a run of a few seconds."""
    return {
        "dataset": (str(folder / "tiny"),),
        "anatomy": (str(folder / "discs"),),
        **TWO_LOOKS,
        "steps_per_epoch": 4,
        "validate_every": 2,
        "batch_size": 4,
        "threads": 1,
        "epochs": 3,
    }


def test_disc_and_fovea_weigh_the_same_however_crops_are_shared_out(folder):
    samples = [working_sample(1, 150)]
    planes = np.concatenate([samples[0].context[:3], samples[0].context[4:5]])
    eyes = [AnatomySample(planes, np.array([30.0, 40.0]), np.array([50.0, 50.0]), "eye")]
    crops = LookCrops(samples, eyes, CONFIG, (64, 64), seed=0)
    run = Run(TrainingOptions(**tiny_options(folder)))
    run.model.eval()
    whole, *parts = (run._look_losses(crops.__getitems__(places)) for places in ((0, 1, 2, 3), (0, 2), (1, 3)))
    assert "disc" not in parts[0]
    for name in ("disc", "fovea"):
        torch.testing.assert_close(whole[name], parts[1][name] / 2, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_a_cut_run_of_two_looks_ends_as_an_uncut_one_does(folder, tmp_path):
    options = tiny_options(folder)
    with quick_releases():
        release = train(TrainingOptions(**options), tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert ["validation_f1" in line for line in lines] == [False, True, True]
    assert 0 <= lines[-1]["validation_kinds"] <= 1
    assert lines[-1]["loss"] == pytest.approx(sum(lines[-1][f"loss_{name}"] for name in PARTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resegnet.learning.run.Run.finished", property(lambda run: run.epoch >= 2))
        patch.setattr("resegnet.learning.training._finish", lambda *_: None)
        train(TrainingOptions(**options), tmp_path / "cut")
    with quick_releases():
        resumed = train(TrainingOptions(**options), tmp_path / "cut", resume=True)
    assert (release / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()
    record = json.loads((release / "training.json").read_text())
    assert {*record["anatomy_train_ids"], *record["anatomy_validation_ids"]} == {"disc0", "disc1", "disc2", "disc5"}
    assert record["artery_vein_datasets"] == ["tiny"]
    metrics = json.loads((release / "metrics.json").read_text())
    assert metrics["tiny"]["kinds"]["count"] == metrics["tiny"]["stress"][0]["count"] == 2
    assert metrics["discs"]["places"]["count"] == 1
    assert training_datasets(record) == ["tiny", "discs"]
    result = Segmenter.from_pretrained(release)(draw_fundus(9, (150, 170)).image)
    assert result.probability.shape == (150, 170)


@pytest.mark.slow
def test_in_detail_epochs_the_context_branch_stays_as_its_average_was(folder, tmp_path):
    options, states = tiny_options(folder), []
    for epochs, detail_epochs in ((1, 0), (2, 1)):
        options |= {"epochs": epochs, "detail_epochs": detail_epochs, "validate_every": 1}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("resegnet.learning.training._finish", lambda *_: None)
            train(TrainingOptions(**options), tmp_path / "run", resume=epochs > 1)
        states.append(torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True))
    average, learned = (
        {name.removeprefix("module."): v for name, v in states[0]["average"].items()},
        states[1]["model"],
    )
    assert not all(torch.equal(value, average[name]) for name, value in states[0]["model"].items())
    changed = {name for name, value in learned.items() if not torch.equal(value, average[name])}
    assert changed and not [name for name in changed if name.startswith("net.context")]
    assert [name for name in changed if name.startswith("net.detail.")]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [name for name in lines[1] if name.startswith("loss_")] == ["loss_vessels"]


@pytest.mark.slow
def test_the_detail_branch_can_start_from_a_plain_network(folder, tmp_path):
    options = tiny_options(folder)
    options |= {"detail_from": str(tmp_path / "vessels"), "learning_rate": 0.0, "epochs": 1}
    plain = Config(
        encoder="plain", encoder_depth=3, decoder_channels=(16, 16, 16), input_size=256, mean=(0, 0, 0), std=(1, 1, 1)
    )
    given = ReSegNet(plain)
    given.save_pretrained(tmp_path / "vessels")
    record = {"options": {"dataset": ["others"]}, "train_ids": ["a"]}
    (tmp_path / "vessels" / "training.json").write_text(json.dumps(record))
    with pytest.raises(TrainingError, match=r"plain with the channels \(16, 16, 16\), expected plain with \(16, 16\)"):
        train(TrainingOptions(**options), tmp_path / "unlike")
    options |= {"encoder_depth": 3, "decoder_channels": (16, 16, 16)}
    with quick_releases():
        release = train(TrainingOptions(**options), tmp_path / "run")
    found = ReSegNet.from_pretrained(release).net.detail.state_dict()
    for name, kernel in given.net.state_dict().items():
        if kernel.ndim == 4 and "segmentation_head" not in name:  # the last one is calibrated anew
            assert torch.allclose(found[name], kernel, atol=1e-3), name
    told = json.loads((release / "training.json").read_text())
    assert (told["options"]["detail_from"], told["detail_earlier"]) == ("vessels", record)
    assert training_datasets(told) == ["tiny", "others", "discs"]


@pytest.mark.slow
def test_photographs_without_labels_learn_the_kinds_that_the_parent_tells(folder, tmp_path, monkeypatch):
    unlabelled = tmp_path / "data" / "unlabelled"  # beside no folder artery_vein
    shutil.copytree(folder / "tiny", unlabelled)
    options = tiny_options(folder) | {"dataset": (str(unlabelled),), "epochs": 1, "validate_every": 1}
    with quick_releases():
        parent = train(TrainingOptions(**options), tmp_path / "parent")
    assert "loss_kinds" in (tmp_path / "parent" / "metrics.jsonl").read_text()
    kinds_without = json.loads((tmp_path / "parent" / "metrics.jsonl").read_text())["loss_kinds"]
    answers = []
    tell = KindsTeacher.__call__
    monkeypatch.setattr(
        KindsTeacher, "__call__", lambda teacher, image: (answers.append(tell(teacher, image)), answers[-1])[1]
    )
    options |= {"start_from": str(parent), "self_training": True}
    with quick_releases():
        release = train(TrainingOptions(**options), tmp_path / "run")
    record = json.loads((release / "training.json").read_text())
    assert len(answers) == len(record["train_ids"]) + len(record["anatomy_train_ids"])
    assert record["artery_vein_datasets"] == []  # no person labelled them
    kinds_with = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())["loss_kinds"]
    assert kinds_without == 0 < kinds_with


@pytest.mark.slow
def test_a_run_that_teaches_itself_tells_kinds_after_its_context_epochs(folder, tmp_path, monkeypatch):
    unlabelled = tmp_path / "data" / "unlabelled"  # beside no folder artery_vein
    shutil.copytree(folder / "tiny", unlabelled)
    options = tiny_options(folder) | {"dataset": (str(unlabelled),), "validate_every": 1}
    options |= {"context_epochs": 1, "self_training": True}
    states, answers = {}, []
    tell = KindsTeacher.__call__
    monkeypatch.setattr(
        KindsTeacher, "__call__", lambda teacher, image: (answers.append(teacher.digest), tell(teacher, image))[1]
    )
    train_epoch = Run.train_epoch
    monkeypatch.setattr(
        Run,
        "train_epoch",
        lambda run, crops: (
            train_epoch(run, crops),
            states.setdefault(run.epoch, {name: part.clone() for name, part in run.model.state_dict().items()}),
        )[0],
    )
    with quick_releases():
        release = train(TrainingOptions(**options), tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert "loss_vessels" not in lines[0] and "validation_f1" not in lines[0]  # the detail branch has yet to learn
    record = json.loads((release / "training.json").read_text())
    assert len(answers) == len(record["train_ids"]) + len(record["anatomy_train_ids"])
    torch.manual_seed(0)  # as the run did
    start = Run(TrainingOptions(**options)).model.state_dict()
    for epoch, learned in ((1, False), (2, True)):
        changed = [name for name, part in states[epoch].items() if not torch.equal(part, start[name])]
        assert any(name.startswith("net.context") for name in changed)
        assert any(name.startswith("net.detail") for name in changed) == learned
    for last in (1, 2):  # cut before and after it told the kinds
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("resegnet.learning.run.Run.finished", property(lambda run, last=last: run.epoch >= last))
            patch.setattr("resegnet.learning.training._finish", lambda *_: None)
            train(TrainingOptions(**options), tmp_path / "cut", resume=last > 1)
    with quick_releases():
        resumed = train(TrainingOptions(**options), tmp_path / "cut", resume=True)
    assert (release / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()


def test_a_run_that_teaches_itself_takes_vessels_from_its_context_branch(tmp_path):
    model = ReSegNet(CONFIG)
    with torch.no_grad():
        model.net.detail.segmentation_head[0].bias.fill_(-9)  # finds nothing
        logits = model.net.context_head[0]
        logits.weight.zero_()
        logits.bias[:] = torch.tensor([5.0, 5.0, -5.0, -5.0, -5.0]).repeat_interleave(4)  # arteries everywhere
    save_tensors(model.state_dict(), tmp_path / "teacher.pt")
    teacher = KindsTeacher.of_weights(tmp_path / "teacher.pt", CONFIG, torch.device("cpu"))
    eye = draw_fundus(3, (180, 200))
    arteries, veins = teacher(eye.image)
    assert arteries.shape == (180, 200) and arteries[eye.fov].mean() > 0.98 and not veins.any()
