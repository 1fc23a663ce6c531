"""Work that is killed, or finds a full disk or a closed folder, goes on; no half file is taken for a whole one."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image
from support import PATIENCE_S
from support.files import tree
from support.hub_server import HubServer
from support.stand_in import DarkOnGreen, small_photographs
from support.synthetic import draw_fundus
from support.tiny_run import assert_same

import train as train_script
from resegnet import Config, ReSegNet, Segmenter
from resegnet.__main__ import main
from resegnet.releases.release import verify_release, write_release
from resegnet.results.export import save
from resegnet.web.endpoints import Endpoints
from resegnet.web.models import Models
from resegnet.web.recent import RecentResults

pytestmark = pytest.mark.usefixtures("quick_releases")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Five drawn photographs to learn from, and one to be scored on, in the public layout."""
    root = tmp_path_factory.mktemp("data") / "tiny"
    for split, seeds in (("train", range(5)), ("test", (100,))):
        for part in ("image", "mask"):
            (root / split / part).mkdir(parents=True)
        for seed in seeds:
            eye = draw_fundus(seed, (128, 128))
            Image.fromarray(eye.image).save(root / split / "image" / f"{seed}.png")
            Image.fromarray(eye.vessels).save(root / split / "mask" / f"{seed}.png")
    return root


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    torch.manual_seed(0)
    config = Config(encoder="resnet18", encoder_depth=3, decoder_channels=(8, 8, 8), input_size=64)
    training = {"options": {"dataset": ["synthetic"]}}
    folder = tmp_path_factory.mktemp("runs") / "release"
    return write_release(ReSegNet(config).eval(), training, {}, folder, small_photographs(64))


def cuts(environment, *arguments):
    """Run `cuts.py`; gives what it says at the end."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / "cuts.py", *map(str, arguments)],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
        text=True,
        timeout=6 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_training_ends_the_same_however_often_it_is_killed(dataset, tmp_path):
    runs = cuts(os.environ, "train", 7, 30, dataset, tmp_path)
    whole = tmp_path / "whole"
    for run in runs:
        out = tmp_path / run
        for name in ("best.pt", "checkpoint.pt"):
            ours, theirs = (torch.load(folder / name, weights_only=True) for folder in (out, whole))
            assert_same(ours, theirs)
        for name in ("model.safetensors", "config.json", "training.json", "metrics.json"):
            assert (out / "release" / name).read_bytes() == (whole / "release" / name).read_bytes()
        assert verify_release(out / "release") < 1e-3
        assert not list(out.glob(".*.resegnet-*")) and not list(out.glob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_publishing_ends_the_same_however_often_it_is_killed(release, tmp_path):
    with HubServer(tmp_path / "hub") as hub:
        names = cuts(hub.environment(tmp_path / "home"), "publish", 7, 20, release, "someone/net")
        for name in names:
            assert len(hub.commits(name)) == 2  # the first came with the repository: nothing was sent twice
            assert hub.tags(name) == {"v1": hub.commits(name)[0]}
            files = hub.files(name, "v1")
            for path in release.rglob("*"):
                assert path.is_dir() or files[path.relative_to(release).as_posix()] == path.read_bytes()


@contextmanager
def full_disk(size):
    """No file may grow beyond that many bytes, as at the end of a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def training_line(dataset, out):
    line = ["--out", str(out), "--dataset", str(dataset), "--encoder", "resnet18", "--encoder-weights", "none"]
    line += ["--encoder-depth", "3", "--decoder-channels", "8", "8", "8", "--input-size", "64", "--crop-size", "32"]
    return [*line, "--steps-per-epoch", "1", "--epochs", "2", "--threads", "1"]


@pytest.mark.slow
def test_training_on_a_full_disk_is_told_and_nothing_is_lost(dataset, tmp_path, capsys):
    out = tmp_path / "run"
    with full_disk(1_000_000):
        assert train_script.main(training_line(dataset, out)) == 1
    told = capsys.readouterr().err
    assert "checkpoint.pt" in told and "File too large" in told and "Traceback" not in told
    assert not list(out.glob("*.pt*"))
    assert train_script.main(training_line(dataset, out)) == 0
    before = tree(out)
    with full_disk(1_000_000):
        assert train_script.main(["--out", str(out), "--resume", "--epochs", "3"]) == 1
    assert "Make room, then resume with: python train.py --out" in capsys.readouterr().err
    after = tree(out)
    assert {path for path in before if before[path] != after.get(path)} <= {"options.json", "metrics.jsonl"}
    assert after.keys() - before.keys() <= {"previews/epoch_0003.png"}


@pytest.mark.slow
def test_a_release_on_a_full_disk_leaves_the_old_one(release, tmp_path):
    folder = tmp_path / "release"
    model = ReSegNet.from_pretrained(release)
    shutil.copytree(release, folder)
    before = tree(folder)
    with full_disk(50_000), pytest.raises(OSError, match=r"File too large.*model.safetensors"):
        write_release(model, {"other": 1}, {}, folder, small_photographs(64))
    assert tree(folder) == before
    write_release(model, {"other": 1}, {}, folder, small_photographs(64))
    assert json.loads((folder / "training.json").read_text()) == {"other": 1}
    assert list(tmp_path.iterdir()) == [folder]


@pytest.fixture
def stand_in(monkeypatch):
    segmenter = Segmenter(DarkOnGreen(), Config(input_size=64, threshold=0.6))
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: segmenter)
    return segmenter


def test_results_on_a_full_disk_are_told_and_the_old_ones_stay(stand_in, tmp_path, capsys):
    photograph = tmp_path / "eye.png"
    Image.fromarray(draw_fundus(1, (230, 300)).image).save(photograph)
    out = tmp_path / "out"
    assert main(["segment", str(photograph), "--out", str(out)]) == 0
    before = tree(out)
    with full_disk(3000):
        assert main(["segment", str(photograph), "--out", str(out), "--threshold", "0.7", "--resume"]) == 1
    told = capsys.readouterr().err
    assert "File too large" in told and str(out) in told and "Traceback" not in told
    assert set(tree(out)) <= set(before)  # no rubbish
    for path in [*out.rglob("*.png"), *out.rglob("*.jpg")]:
        with Image.open(path) as image:
            image.load()
    assert main(["segment", str(photograph), "--out", str(out), "--resume"]) == 0
    assert tree(out) == before


def test_the_page_on_a_full_disk_says_so_and_keeps_no_half_file(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    photograph = tmp_path / "eye.png"
    Image.fromarray(draw_fundus(1, (230, 300)).image).save(photograph)
    endpoints = Endpoints(RecentResults(Models(stand_in)))
    with full_disk(3000), pytest.raises(gr.Error, match="no room for files"):
        endpoints.segment(str(photograph), 0.55)
    for content in tree(tmp_path / "files").values():
        Image.open(io.BytesIO(content)).close()
    overlay, mask, *_ = endpoints.segment(str(photograph), 0.55)
    with Image.open(overlay) as shown, Image.open(mask) as found:
        np.testing.assert_array_equal(np.asarray(shown), stand_in(photograph).at(0.55).overlay())
        np.testing.assert_array_equal(np.asarray(found) > 0, stand_in(photograph).at(0.55).mask)


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["file", "proc"])
def test_a_folder_that_cannot_be_written_to_is_told(stand_in, dataset, tmp_path, capsys, caplog, closed):
    if closed == "file":
        (tmp_path / "notes").write_text("no folder")
        out = tmp_path / "notes/out"
    else:  # root may write anywhere else
        out = Path("/proc/1/out")
        if not out.parent.is_dir():
            pytest.skip("no /proc")
    photograph = tmp_path / "eye.png"
    Image.fromarray(draw_fundus(1, (230, 300)).image).save(photograph)
    assert main(["segment", str(photograph), "--out", str(out)]) == 1
    assert train_script.main(training_line(dataset, out)) == 1
    told = capsys.readouterr().err
    assert told.count("out") >= 2 and "Traceback" not in told
    assert main(["evaluate", "--dataset", str(dataset), "--out", str(out)]) == 0  # the scores are not lost
    assert "pooled" in capsys.readouterr().out
    assert "The error maps cannot be written" in caplog.text
    assert main(["evaluate", "--dataset", str(dataset), "--out", str(tmp_path), "--json", str(out / "a.json")]) == 1
    shown = capsys.readouterr()
    assert "pooled" in shown.out and "Traceback" not in shown.err


@pytest.mark.parametrize(
    "stem",
    [
        "..",
        "...hidden",
        "CON",
        "eye. . .",
        "a\nb\x01",
        "眼底" * 20,
        "x" * 240,
        "-rf",
        "C:\\eye",
        "~",
        "$HOME",
        "%2e%2e%2f",
    ],
    ids=ascii,
)
def test_results_stay_in_the_folder_whatever_the_photograph_is_called(stand_in, tmp_path, monkeypatch, stem):
    inside = tmp_path / "photographs"
    inside.mkdir()
    monkeypatch.chdir(inside)
    photograph = inside / f"{stem}.png"
    Image.fromarray(draw_fundus(1, (150, 160)).image).save(photograph, "PNG")
    out = tmp_path / "out"
    assert main(["segment", "--out", str(out), "--", f"{stem}.png"]) == 0
    assert set(tmp_path.iterdir()) == {inside, out} and list(inside.iterdir()) == [photograph]
    names = [path.name for path in out.rglob("*")]
    assert len(list((out / "masks").iterdir())) == 1
    for name in names:
        assert name.isprintable() and not set(name) & set('/\\:*?"<>|') and not name.startswith(".")
        assert name.partition(".")[0].upper() not in {"CON", "NUL", "AUX", "PRN", "COM1", "LPT1"}
    # The same from Python, where a name may be anything.
    result = stand_in(photograph)
    for name in (f"/etc/{stem}", f"../{stem}\0", stem):
        assert {path.parent for path in save(result, out, name).values()} == {out}
    assert set(tmp_path.iterdir()) == {inside, out}
    assert np.asarray(result.mask).any()
