"""The command line: its commands and options, what they write, and how errors are told."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.files import pixels
from support.synthetic import draw_fundus

from resegnet.__main__ import build_parser, main
from resegnet.errors import ResegnetError
from resegnet.segmenter import Segmenter
from resegnet.version import __version__


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "eye.png"
    Image.fromarray(draw_fundus(11, (300, 320)).image).save(path)
    return path


@pytest.mark.slow
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


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"resegnet {__version__}\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["segment", "eye.png", "--out", "out", "--model", "nobody/nothing"], "nobody/nothing"),
        (["prepare", "mnist", "here", "there"], "mnist"),
        (["evaluate", "--dataset", "nowhere"], "nowhere"),
        (["verify", "nowhere"], "nowhere"),
        (["serve", "--examples", "nowhere"], "nowhere"),
        (["serve", "--port", "99999"], "0-65535"),
        (["serve", "--host", "nosuch.invalid"], "cannot be served at nosuch.invalid"),
    ],
)
def test_an_error_is_one_sentence(tmp_path, photograph, monkeypatch, capsys, line, words):
    monkeypatch.chdir(tmp_path)
    assert main(line) == 1
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert error.count("\n") <= 2


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        *[("--threshold", value, "a number from 0 to 1") for value in ("7", "-0.1", "nan", "half", "")],
        *[("--um-per-px", value, "a number above 0") for value in ("0", "-7", "inf", "nan", "7um")],
        *[("--workers", value, "a whole number of at least 1") for value in ("0", "-1", "1.5", "all")],
    ],
)
def test_a_number_outside_its_range_is_refused_before_any_work(capsys, option, value, expected):
    with pytest.raises(SystemExit) as stop:
        main(["segment", "eye.png", "--out", "out", f"{option}={value}"])
    assert stop.value.code == 2
    assert f"argument {option}: got {value!r}, expected {expected}" in capsys.readouterr().err


def test_only_errors_that_the_user_can_mend_become_one_sentence(monkeypatch, capsys, photograph, tmp_path):
    def fail_with(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr(Segmenter, "from_pretrained", fail)
        return main(["segment", str(photograph), "--out", str(tmp_path / "out")])

    assert fail_with(ResegnetError("Mend it.")) == 1
    assert capsys.readouterr().err == "resegnet: Mend it.\n"
    assert fail_with(OSError("No space.")) == 1
    assert fail_with(KeyboardInterrupt()) == 130
    for defect in (ValueError("a defect"), KeyError("a defect"), RuntimeError("a defect")):
        with pytest.raises(type(defect), match="a defect"):
            fail_with(defect)


COMMANDS = {
    "serve": "--model --revision --host --port --examples",
    "segment": "photographs --out --resume --model --revision --engine --address --workers --threshold --um-per-px "
    "--probability --quadrants --no-overlay --no-anatomy --split",
    "evaluate": "--dataset --split --model --revision --engine --second-observer --json --numbers --out --worst "
    "--stress --anatomy --save",
    "prepare": "name source destination --push-to-hub --private",
    "benchmark": "photographs --model --repeats --files",
    "label": "source destination --model --limit",
    "verify": "folder",
}


def test_commands_and_options_stay():
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    found = {
        name: " ".join(action.option_strings[0] if action.option_strings else action.dest for action in parser._actions)
        for name, parser in commands.choices.items()
    }
    assert found == {name: f"-h {options}" for name, options in COMMANDS.items()}
    for parser in commands.choices.values():
        assert all(action.help for action in parser._actions)


@pytest.mark.slow
def test_evaluate_prints_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    report = tmp_path / "report.json"
    assert main(["evaluate", "--dataset", "synthetic", "--split", "test", "--json", str(report)]) == 0
    assert "pooled" in capsys.readouterr().out
    assert json.loads(report.read_text())["pooled"]["f1"] > 0.6
    assert len(list((tmp_path / "errors" / "synthetic").glob("*_errors.png"))) == 3
