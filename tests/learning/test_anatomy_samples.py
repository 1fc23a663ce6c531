"""Labels of disc and fovea: what is refused, and what is read again for other sizes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.synthetic import draw_fundus

from resegnet.config import TWO_LOOKS, Config
from resegnet.errors import DataError
from resegnet.learning.anatomy import load_anatomy, photographs_of

CONFIG = Config(
    encoder=TWO_LOOKS,
    encoder_depth=2,
    decoder_channels=(16, 16),
    input_size=512,
    context_size=64,
    context_channels=(16, 16, 16),
)


def write_folder(folder: Path, disc_shape: tuple[int, int], name: str = "eye") -> str:
    (folder / "train").mkdir(parents=True)
    Image.fromarray(draw_fundus(1, (200, 220)).image).save(folder / "train" / "eye.png")
    Image.fromarray(np.ones(disc_shape, bool)).save(folder / "train" / "disc.png")
    row = {"image_id": name, "image_file_name": "eye.png", "disc_file_name": "disc.png"}
    (folder / "train" / "metadata.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\r\n\n", encoding="utf-8")
    return str(folder)


def test_a_disc_of_another_size_than_its_photograph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"disc\.png.*\(100, 110\) differs from the photograph's, \(200, 220\)"):
        load_anatomy([write_folder(tmp_path / "data", (100, 110))], CONFIG, tmp_path)


def test_photographs_are_read_again_for_another_smallest_size(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "data", (200, 220))
    (tmp_path / "empty").mkdir()
    unscaled = replace(CONFIG, smallest_input_size=64)
    before = load_anatomy([source], CONFIG, tmp_path)[0].planes
    after = load_anatomy([source], unscaled, tmp_path)[0].planes
    assert not np.array_equal(before, after)
    assert np.array_equal(after, load_anatomy([source], unscaled, tmp_path / "empty")[0].planes)


def test_a_name_may_hold_any_character(tmp_path: Path) -> None:
    folder = Path(write_folder(tmp_path / "data", (200, 220), "a\u2028b"))
    assert [name for name, _, _ in photographs_of(folder, "train")] == ["a\u2028b"]
