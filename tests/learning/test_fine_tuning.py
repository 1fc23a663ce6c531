"""Where training starts from: weights of an encoder, or a release that is fine-tuned."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import time

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_run import TINY, assert_same, command

import train as train_script
from resegnet.config import Config
from resegnet.errors import TrainingError
from resegnet.learning.options import TrainingOptions
from resegnet.learning.parents import ParentRelease
from resegnet.learning.start import load_encoder_weights, load_release
from resegnet.learning.training import train
from resegnet.model import ReSegNet
from resegnet.releases.release import verify_release

pytestmark = pytest.mark.usefixtures("quick_releases")


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


@pytest.mark.slow
def test_frozen_statistics_stay_and_the_weights_do_not(finished, folder, tmp_path):
    options = TINY | {"start_from": str(finished / "release"), "freeze_norm": True, "epochs": 1}
    train(TrainingOptions(dataset=(str(folder),), **options), tmp_path / "run")
    before = ReSegNet.from_pretrained(finished / "release").state_dict()
    after = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert not {name for name in changed if "running_" in name}
    assert any(name.endswith("weight") for name in changed)


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
    two_looks.save_pretrained(tmp_path / "looks")
    parent = ParentRelease("looks", tmp_path / "looks", None, {})
    other = ReSegNet(dataclasses.replace(two_looks.config, context_encoder="resnet34"))
    with pytest.raises(TrainingError, match="its context branch has the encoder resnet18, this run's resnet34"):
        load_release(other, parent, whole=False)
    wider = ReSegNet(dataclasses.replace(two_looks.config, decoder_channels=(32, 16)))
    with pytest.raises(TrainingError, match="would stay random or uncalibrated"):
        load_release(wider, parent, whole=True)
    load_release(wider, parent, whole=False)
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
