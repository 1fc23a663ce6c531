"""Labels of disc and fovea: what is refused, and what is read again for other sizes."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features
from PIL import Image
from support.synthetic import draw_fundus

from resegnet.config import TWO_LOOKS, Config
from resegnet.dataset_source import PICTURE_CELL
from resegnet.errors import DataError
from resegnet.learning.anatomy import load_anatomy, photographs_of, split_anatomy
from resegnet.learning.samples import photograph_sha256

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


def rows_of(*seeds: int) -> Dataset:
    """Photographs as rows of a data set with vessels, in other bytes than those of `write_discs`."""
    cells = []
    for seed in seeds:
        stream = io.BytesIO()
        Image.fromarray(draw_fundus(seed, (200, 220)).image).save(stream, "JPEG", quality=92)
        cells.append({"image": {"bytes": stream.getvalue(), "path": None}})
    return Dataset.from_list(cells, features=Features({"image": PICTURE_CELL}))


def write_discs(folder: Path, seeds: range) -> str:
    (folder / "train").mkdir(parents=True)
    lines = []
    for seed in seeds:
        Image.fromarray(draw_fundus(seed, (200, 220)).image).save(folder / "train" / f"{seed}.png")
        Image.fromarray(np.ones((200, 220), bool)).save(folder / "train" / f"{seed}_disc.png")
        lines.append({"image_id": f"{seed}", "image_file_name": f"{seed}.png", "disc_file_name": f"{seed}_disc.png"})
    (folder / "train" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_copies_of_photographs_that_are_scored_or_validated_on_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_discs(tmp_path / "discs", range(4))
    assert [sample.image_id for sample in load_anatomy([source], CONFIG, tmp_path)] == ["0", "1", "2", "3"]
    # The file in the cache is not taken: it holds the copies.
    with caplog.at_level(logging.INFO):
        samples = load_anatomy([source], CONFIG, tmp_path, scored=[rows_of(1, 7), rows_of(3)])
    assert [sample.image_id for sample in samples] == ["0", "2"]
    assert "left out 2 photographs with disc or fovea" in caplog.text
    again = load_anatomy([source], CONFIG, tmp_path, scored=[rows_of(1, 7), rows_of(3)])
    for sample, kept, seed in zip(samples, again, (0, 2), strict=True):
        assert sample.sha256 == kept.sha256 == photograph_sha256(draw_fundus(seed, (200, 220)).image)
    assert [sample.image_id for sample in load_anatomy([source], CONFIG, tmp_path, [rows_of(2)])] == ["0", "1", "3"]


def test_copies_of_photographs_with_vessels_to_learn_are_not_validated_on(tmp_path: Path) -> None:
    source = write_discs(tmp_path / "discs", range(4))
    for _ in range(2):  # the second time from the cache
        samples = load_anatomy([source], CONFIG, tmp_path, trained_on=[rows_of(0, 2)])
        train, validation = split_anatomy(samples, 1.0, seed=0)
        assert ([sample.image_id for sample in train], [sample.image_id for sample in validation]) == (
            ["0", "2"],
            ["1", "3"],
        )


def test_a_name_may_hold_any_character(tmp_path: Path) -> None:
    folder = Path(write_folder(tmp_path / "data", (200, 220), "a\u2028b"))
    assert [name for name, _, _ in photographs_of(folder, "train")] == ["a\u2028b"]
