"""An interrupted run ends like an uninterrupted one, and a resumed run stays the run that it was."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time

import pytest
import torch
from support.tiny_run import TINY, assert_same, command, records

import train as train_script

pytestmark = pytest.mark.usefixtures("quick_releases")


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
def test_fewer_epochs_than_are_done_are_refused(finished, tmp_path, capsys):
    out = tmp_path / "shorter"
    shutil.copytree(finished, out)
    assert train_script.main(["--out", str(out), "--resume", "--epochs", "3"]) == 1
    assert "--epochs is 3, but 5 are done. Expected 6 or more" in capsys.readouterr().err
    assert train_script.main(["--out", str(out), "--resume"]) == 0


@pytest.mark.slow
def test_a_run_started_anew_in_its_folder_forgets_the_old_one(finished, folder, tmp_path):
    out = tmp_path / "anew"
    shutil.copytree(finished, out)
    (out / "checkpoint.pt").unlink()
    line = command(folder, out)[2:]
    line[line.index("--epochs") + 1] = "1"
    assert train_script.main(line) == 0
    assert len(records(out)) == 1


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


@pytest.mark.slow
def test_a_damaged_checkpoint_is_explained(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"no tensors")
    assert train_script.main(["--out", str(tmp_path / "run"), "--resume"]) == 1
    assert "checkpoint.pt cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_a_finished_run_is_not_overwritten_and_an_absent_one_not_resumed(capsys, folder, finished, tmp_path):
    assert train_script.main(["--dataset", str(folder), "--out", str(finished)]) == 1
    assert "--resume" in capsys.readouterr().err
    assert train_script.main(["--dataset", str(folder), "--out", str(tmp_path), "--resume"]) == 1
    assert "Start without --resume" in capsys.readouterr().err
