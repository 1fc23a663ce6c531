"""The command line of train.py: its options, what they say, and what becomes of errors."""

from __future__ import annotations

import dataclasses
import json

import pytest

import train as train_script
from resegnet import Segmenter
from resegnet.errors import ArgumentError, TrainingError
from resegnet.learning.folder import RunFolder
from resegnet.learning.options import PRESETS, TrainingOptions

OPTIONS = {
    "-h", "--help", "--out", "--preset", "--resume",
    "--dataset", "--extra", "--teacher", "--unseen", "--anatomy",
    "--encoder", "--encoder-depth", "--decoder-channels", "--encoder-weights", "--start-from", "--detail-from",
    "--self-training", "--no-self-training", "--context-epochs",
    "--input-size", "--smallest-input-size", "--crop-size",
    "--context-size", "--context-encoder", "--context-channels", "--context-crop-size", "--validate-every",
    "--batch-size", "--accumulate", "--steps-per-epoch", "--epochs",
    "--optimizer", "--learning-rate", "--weight-decay", "--schedule", "--patience",
    "--dice-weight", "--centreline-weight", "--freeze-norm", "--no-freeze-norm", "--weak-augmentation-share",
    "--detail-epochs",
    "--average-decay",
    "--validation-fraction", "--patient-pattern", "--eye-fingerprints", "--no-eye-fingerprints", "--seed",
    "--choose-by", "--stress-photographs", "--preview-every", "--track", "--track-space",
    "--device", "--workers", "--threads",
}  # fmt: skip


def test_the_option_names_are_those_that_people_use():
    assert {name for action in train_script.build_parser()._actions for name in action.option_strings} == OPTIONS


def test_the_help_names_every_default():
    parser = train_script.build_parser()
    names = {field.name for field in dataclasses.fields(TrainingOptions)}
    with_value = [action for action in parser._actions if action.dest in names and action.nargs != 0]
    assert with_value and [action.dest for action in with_value if "(default: " not in action.help] == []
    text = " ".join(parser.format_help().split())
    for words in (
        "number of crops in a batch (default: 2)",
        "channels of the decoder, coarse to fine (default: 256 128 64 32 16)",
        "parent release to fine-tune, with the same encoder, in place of --encoder-weights (default: none)",
        "--schedule cosine|plateau",
        "on photographs with reference segmentations",
    ):
        assert words in text


def test_the_help_groups_every_option_below_a_heading():
    groups = {group.title: group._group_actions for group in train_script.build_parser()._action_groups}
    below = {action.dest for title in train_script._HEADINGS.values() for action in groups[title]}
    assert below == {field.name for field in dataclasses.fields(TrainingOptions)}


def test_options_given_on_the_command_line_have_the_types_of_the_fields():
    line = ["--out", "run", "--smallest-input-size", "96", "--decoder-channels", "8", "4", "--learning-rate", "1"]
    given = train_script.build_parser().parse_args([*line, "--dataset", "synthetic", "--freeze-norm"])
    assert given.smallest_input_size == 96
    assert given.decoder_channels == [8, 4]
    assert isinstance(given.learning_rate, float)
    assert given.dataset == ["synthetic"]
    assert given.freeze_norm is True
    assert given.epochs is given.self_training is None
    assert train_script.build_parser().parse_args([*line, "--no-self-training"]).self_training is False


def test_a_run_that_would_stop_before_it_is_scored_is_refused():
    with pytest.raises(TrainingError, match="--patience is 15, expected 40"):
        TrainingOptions(dataset=("synthetic",), epochs=50, validate_every=40, patience=15)
    assert TrainingOptions(dataset=("synthetic",), epochs=10, validate_every=40, patience=15).epochs == 10


def test_a_device_that_this_machine_lacks_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert TrainingOptions(dataset=("synthetic",), device="cuda").device == "cuda"
    assert TrainingOptions(dataset=("synthetic",), device="cuda:1").device == "cuda:1"
    for device in ("cuda:2", "cuda:-1", "cudaX", "mps", ""):
        with pytest.raises(TrainingError, match="--device"):
            TrainingOptions(dataset=("synthetic",), device=device)
        with pytest.raises(ArgumentError, match="no such device"):
            Segmenter.from_pretrained(device=device)


def test_a_dashboard_elsewhere_needs_a_project():
    with pytest.raises(TrainingError, match="--track-space needs --track"):
        TrainingOptions(dataset=("synthetic",), track_space="user/eyes")


def test_a_threshold_is_not_kept_for_other_weights():
    with pytest.raises(TrainingError, match="--detail-from gives weights that the threshold"):
        TrainingOptions(
            **{**PRESETS["bundled"], "dataset": ("any",), "validation_fraction": 0, "detail_from": "bundled-vessels"}
        )


@pytest.mark.parametrize("name", ["samples", "release"])
def test_folders_that_no_run_made_are_not_replaced(name, tmp_path, capsys):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    assert train_script.main(["--dataset", "synthetic", "--out", str(tmp_path)]) == 1
    assert f"holds a folder {name}, which no run made" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == [name, "mine.txt"]


@pytest.mark.parametrize(("option", "value"), [("--threads", 10**5), ("--workers", 10**20), ("--seed", 2**64)])
def test_numbers_beyond_what_torch_takes_are_refused(option, value, tmp_path, capsys):
    assert train_script.main(["--dataset", "synthetic", "--out", str(tmp_path / "run"), option, str(value)]) == 1
    assert f"{option} is {value}, expected at most" in capsys.readouterr().err


def test_a_mistyped_run_is_not_resumed(tmp_path, capsys):
    assert train_script.main(["--out", str(tmp_path / "frist"), "--resume"]) == 1
    assert "frist holds no checkpoint.pt to resume" in capsys.readouterr().err


def test_a_defect_keeps_its_traceback(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ValueError("a defect")

    monkeypatch.setattr(train_script, "train", fail)
    with pytest.raises(ValueError, match="a defect"):
        train_script.main(["--dataset", "synthetic", "--out", str(tmp_path)])


def test_the_options_of_a_run_are_read_on_a_machine_without_its_device(tmp_path):
    folder = RunFolder(tmp_path)
    options = TrainingOptions(dataset=("synthetic",), smallest_input_size=320)
    folder.write_options(options)
    assert folder.read_options() == dataclasses.asdict(options)
    folder.options.write_text(json.dumps(dataclasses.asdict(options) | {"device": "cuda:7"}))
    assert folder.read_options()["device"] == "cuda:7"


GIVEN = '{"dataset": ["synthetic"], "device": "cpu"'


@pytest.mark.parametrize("text", ["", "[]", f'{GIVEN}, "no_such_option": 1}}', f'{GIVEN}, "epochs": "many"}}'])
def test_options_that_cannot_be_read_are_explained(tmp_path, text):
    folder = RunFolder(tmp_path)
    folder.options.write_text(text)
    with pytest.raises(TrainingError, match=r"options.json cannot be read .* Start again with another --out"):
        folder.read_options()


def test_temporary_files_of_a_killed_run_are_removed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    (tmp_path / "run" / "previews").mkdir(parents=True)
    for name in (f".{'0a' * 16}.tmp", f"previews/.{'f' * 32}.tmp", "notes.tmp", ".notes.tmp"):
        (tmp_path / "run" / name).write_bytes(b"")
    folder.make()
    assert {path.name for path in (tmp_path / "run").rglob("*")} == {"previews", "notes.tmp", ".notes.tmp"}
