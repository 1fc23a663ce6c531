"""The stress table: each degradation does what its name says, and scores are those of the degraded photograph."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from resegnet.__main__ import main
from resegnet.config import Config
from resegnet.errors import DataError
from resegnet.learning import stress as module
from resegnet.learning.data import load_vessels, read_sample
from resegnet.learning.stress import (
    STRESSES,
    Stress,
    apply_stress,
    format_stress_table,
    small_photographs,
    stress_table,
)
from resegnet.segmenter import Segmenter


def inner(image: np.ndarray) -> np.ndarray:
    """The middle quarter of a photograph, float."""
    height, width = image.shape[:2]
    return image[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3].astype(float)


def test_a_photograph_as_it_is_stays_as_it_is(drawn):
    assert np.array_equal(apply_stress(drawn.image, STRESSES[0]), drawn.image)


def test_enlarging_keeps_the_picture(drawn):
    height, width = drawn.image.shape[:2]
    large = apply_stress(drawn.image, Stress("", enlarged=2.0))
    assert large.shape == (2 * height, 2 * width, 3)
    small = large.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - drawn.image).mean() < 1


def test_softening_is_a_gaussian_of_the_share_of_the_field(drawn):
    columns = np.flatnonzero(drawn.fov.any(axis=0))
    sigma = 0.01 * (columns[-1] - columns[0] + 1)
    soft = apply_stress(drawn.image, Stress("", softened=0.01))
    expected = ndimage.gaussian_filter(drawn.image.astype(float), (sigma, sigma, 0))
    assert np.abs(inner(soft) - inner(expected)).mean() < 1


def test_contrast_is_cut_and_brightness_stays(drawn):
    flat = apply_stress(drawn.image, Stress("", contrast=0.45))
    before, after = inner(drawn.image)[..., 1], inner(flat)[..., 1]
    assert after.mean() == pytest.approx(before.mean(), rel=0.02)
    fine, fine_after = (layer - ndimage.gaussian_filter(layer, 4) for layer in (before, after))
    assert fine_after.std() == pytest.approx(0.45 * fine.std(), rel=0.1)


def test_gain_is_of_each_channel(drawn):
    tinted = apply_stress(drawn.image, Stress("", gain=(0.5, 1.0, 0.0)))
    assert np.abs(tinted[..., 0] - drawn.image[..., 0] / 2).max() <= 0.5
    assert np.array_equal(tinted[..., 1], drawn.image[..., 1]) and not tinted[..., 2].any()


def test_jpeg_has_the_quality_that_is_named(drawn):
    (stress,) = [one for one in STRESSES if one.jpeg_quality is not None]
    assert stress.name == f"JPEG of quality {stress.jpeg_quality}"
    for quality in (30, 90):
        file = io.BytesIO()
        Image.fromarray(drawn.image).save(file, "JPEG", quality=quality)
        found = apply_stress(drawn.image, Stress("", jpeg_quality=quality))
        assert np.array_equal(found, np.asarray(Image.open(file).convert("RGB")))


def test_contrast_and_light_are_what_the_names_say():
    named = {stress.name: stress for stress in STRESSES}
    assert named["contrast cut to 0.45"].contrast == 0.45
    assert named["darkened to 0.3"].gain == (0.3, 0.3, 0.3)


@pytest.fixture(scope="module")
def two(folder):
    return load_vessels(folder, "test")


def oracle(darkest: float) -> Segmenter:
    """Calls vessel what is darker than a share of the photograph's brightest green."""

    def network(rgb: np.ndarray) -> np.ndarray:
        return (rgb[:, 1] < darkest * rgb[:, 1].max()).astype(np.float32)

    return Segmenter(network, Config(input_size=256, threshold=0.5))


def test_rows_are_the_scores_of_the_degraded_photographs(two):
    stresses = (STRESSES[0], Stress("half", enlarged=0.5), Stress("black", gain=(0.0, 0.0, 0.0)))
    as_is, half, black = stress_table(oracle(0.5), two, stresses, progress=False)
    assert [row["count"] for row in (as_is, half, black)] == [2, 2, 2]
    assert 0 < as_is["worst_f1"] <= as_is["f1"] <= 1
    samples = [read_sample(row) for row in two]
    masks = [oracle(0.5)(sample.image).mask & sample.fov for sample in samples]
    hits = sum(np.count_nonzero(mask & one.vessels) for mask, one in zip(masks, samples, strict=True))
    vessels = sum(np.count_nonzero(one.vessels & one.fov) for one in samples)
    assert as_is["recall"] == pytest.approx(hits / vessels)
    assert as_is["worst_image_id"] in two["image_id"]
    assert half["f1"] == pytest.approx(as_is["f1"], abs=0.1)
    assert black["recall"] == 0  # a black photograph shows nothing to this network


def test_what_would_be_too_large_is_counted_not_scored(two, monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    (row,) = stress_table(oracle(0.5), two, STRESSES[:1], progress=False)
    assert (row["count"], row["left_out"], row["f1"], row["worst_image_id"]) == (0, 2, None, None)
    assert "2 too large" in format_stress_table([row])


def test_an_empty_data_set_is_refused(two):
    with pytest.raises(DataError, match="no photograph"):
        stress_table(oracle(0.5), two.select([]))


def test_the_table_has_a_line_for_each_stress():
    row = {"count": 2, "left_out": 0, "f1": 0.8, "recall": 0.7, "worst_f1": 0.5, "worst_image_id": "eye"}
    lines = format_stress_table([{"stress": stress.name, **row} for stress in STRESSES]).splitlines()
    assert len(lines) == 1 + len(STRESSES) and all(
        line.split()[-4:] == ["0.8000", "0.7000", "0.5000", "eye"] for line in lines[1:]
    )
    assert len({dataclasses.astuple(stress)[1:] for stress in STRESSES}) == len(STRESSES)


@pytest.mark.slow
def test_the_command_prints_the_table_and_writes_it_down(two, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: oracle(0.5))
    monkeypatch.setattr("resegnet.learning.evaluate.load_vessels", lambda *_: two.select([0]))
    report = tmp_path / "report.json"
    line = ["evaluate", "--dataset", "synthetic", "--worst", "0", "--stress", "--json", str(report)]
    assert main(line) == 0
    rows = json.loads(report.read_text())["stress"]
    assert [row["stress"] for row in rows] == [stress.name for stress in STRESSES]
    assert format_stress_table(rows) in capsys.readouterr().out
    assert rows[0]["f1"] == json.loads(report.read_text())["pooled"]["f1"]


@pytest.mark.slow
def test_scores_are_saved_in_the_records_of_a_release(two, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: oracle(0.5))
    monkeypatch.setattr("resegnet.learning.evaluate.load_vessels", lambda *_: two.select([0]))
    (tmp_path / "metrics.json").write_text(json.dumps({"other": {"count": 3}, "synthetic": {"stress": ["old"]}}))
    line = ["evaluate", "--dataset", "synthetic", "--worst", "1", "--out", str(tmp_path / "private")]
    assert main([*line, "--save", "--model", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["other"] == {"count": 3}
    assert metrics["synthetic"]["count"] == 1 and metrics["synthetic"]["split"] == "test"
    assert metrics["synthetic"]["stress"] == ["old"]  # not measured anew
    assert "private" not in json.dumps(metrics)
    assert main([*line, "--save", "--model", "bundled"]) == 1
    assert "--save got --model bundled, expected the folder of a release" in capsys.readouterr().err


def test_small_photographs_are_spread_over_the_set(two, monkeypatch):
    rows = two.select([0, 1, 0, 1, 0])
    assert small_photographs(rows, 3)["image_id"] == rows.select([0, 2, 4])["image_id"]
    assert len(small_photographs(rows, 0)) == 0 and len(small_photographs(rows, 9)) == 5
    monkeypatch.setattr(module, "SMALL_PIXELS", 1000)
    assert len(small_photographs(rows, 3)) == 0
