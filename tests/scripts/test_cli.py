from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from resegnet.__main__ import main
from resegnet.synthetic import draw_fundus


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "eye.png"
    Image.fromarray(draw_fundus(11, (300, 320)).image).save(path)
    return path


def pixels(path):
    with Image.open(path) as file:
        return np.array(file)


def test_segment_writes_files_of_the_photographs_size(tmp_path, photograph):
    out = tmp_path / "out"
    line = [sys.executable, "-m", "resegnet", "segment", str(photograph), "--out", str(out), "--probability"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "vessels in" in done.stdout
    mask = pixels(out / "masks/eye.png")
    assert mask.shape == (300, 320)
    assert set(np.unique(mask)) == {0, 255}
    probability = pixels(out / "probabilities/eye.png")
    assert probability.shape == (300, 320)
    assert probability.dtype == np.uint16
    assert pixels(out / "overlays/eye.jpg").shape == (300, 320, 3)
    assert json.loads((out / "records/eye.json").read_text())["row"]["model"] == "bundled"


def test_one_bad_file_costs_itself_only(tmp_path, photograph, capsys):
    bad = tmp_path / "notes.jpg"
    bad.write_text("no picture")
    out = tmp_path / "out"
    assert main(["segment", str(bad), str(photograph), "--out", str(out)]) == 1
    assert "notes.jpg" in capsys.readouterr().err
    assert (out / "masks/eye.png").exists()


def test_photographs_of_one_name_do_not_overwrite_each_other(tmp_path, photograph):
    other = tmp_path / "second" / "eye.png"
    other.parent.mkdir()
    Image.fromarray(draw_fundus(12, (200, 210)).image).save(other)
    out = tmp_path / "out"
    assert main(["segment", str(photograph), str(other), "--out", str(out)]) == 0
    assert pixels(out / "masks/eye.png").shape == (300, 320)
    assert pixels(out / "masks/eye_2.png").shape == (200, 210)


def test_names_that_become_equal_do_not_overwrite_each_other(tmp_path, photograph):
    twins = [tmp_path / "a?b.png", tmp_path / "a*b.png"]
    for path in twins:
        path.write_bytes(photograph.read_bytes())
    out = tmp_path / "out"
    assert main(["segment", *map(str, twins), "--out", str(out)]) == 0
    assert len(list(out.glob("masks/*.png"))) == 2


def test_a_threshold_of_ones_own(tmp_path, photograph):
    masks = []
    for threshold in ("0.1", "0.9"):
        out = tmp_path / threshold
        assert main(["segment", str(photograph), "--out", str(out), "--threshold", threshold]) == 0
        masks.append(pixels(out / "masks/eye.png") > 0)
    assert masks[0].sum() > masks[1].sum()
    assert not (masks[1] & ~masks[0]).any()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["segment", "eye.png", "--out", "out", "--model", "nobody/nothing"], "nobody/nothing"),
        (["segment", "eye.png", "--out", "out", "--threshold", "7"], "from 0 to 1"),
        (["prepare", "mnist", "here", "there"], "mnist"),
        (["evaluate", "--dataset", "nowhere"], "nowhere"),
        (["verify", "nowhere"], "nowhere"),
        (["serve", "--examples", "nowhere"], "nowhere"),
        (["serve", "--port", "99999"], "0-65535"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(tmp_path, photograph, monkeypatch, capsys, line, words):
    monkeypatch.chdir(tmp_path)
    assert main(line) == 1
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert error.count("\n") <= 2


def test_evaluate_prints_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    report = tmp_path / "report.json"
    assert main(["evaluate", "--dataset", "synthetic", "--split", "test", "--json", str(report)]) == 0
    assert "pooled" in capsys.readouterr().out
    assert json.loads(report.read_text())["pooled"]["f1"] > 0.6
    assert len(list((tmp_path / "errors" / "synthetic").glob("*_errors.png"))) == 3
