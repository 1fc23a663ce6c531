"""A small data set, and a finished run on it."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from support.exports import quick_releases
from support.synthetic import draw_fundus
from support.tiny_run import TINY

from resegnet.learning.options import TrainingOptions
from resegnet.learning.training import train


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    """Let `datasets` keep nothing that another test finds."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def finished(folder, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with quick_releases():  # the fixture of that name lasts for one module, and would start after this one
        train(TrainingOptions(dataset=(str(folder),), **TINY), out)
    return out
