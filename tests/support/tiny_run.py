"""A training run small enough for a test: its options, its command line and what it records."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import train as train_script

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

# The network and the crops of a run of two looks.
TWO_LOOKS = {
    "encoder": "two-looks",
    "encoder_weights": "none",
    "encoder_depth": 2,
    "decoder_channels": (16, 16),
    "context_size": 96,
    "context_channels": (16, 16, 16),
    "input_size": 256,
    "smallest_input_size": 128,
    "crop_size": 64,
    "context_crop_size": 64,
}


def command(folder: Path, out: Path) -> list[str]:
    line = [sys.executable, str(Path(train_script.__file__)), "--out", str(out), "--dataset", str(folder)]
    for name, value in TINY.items():
        values = value if isinstance(value, tuple) else (value,)
        line += [f"--{name.replace('_', '-')}", *map(str, values)]
    return line


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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
