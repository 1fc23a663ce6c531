"""Scores of arteries, veins, disc, fovea and eye where every count is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter
from resegnet.__main__ import main
from resegnet.errors import ArgumentError, DataError, ReleaseError
from resegnet.geometry import Geometry
from resegnet.learning.anatomy_evaluation import (
    KindScores,
    evaluate_places,
    format_anatomy,
    has_places,
    has_vessels,
    held_back_ids,
    kinds_folder,
    score_kinds,
)
from resegnet.releases.records import check_split
from resegnet.results.anatomy import ARTERY, VEIN, Anatomy
from resegnet.results.segmentation import Segmentation

CONFIG = Config(
    encoder="two-looks",
    encoder_depth=2,
    decoder_channels=(16, 16),
    input_size=256,
    context_size=256,
    context_channels=(32, 16, 16),
)


def test_kinds_are_counted_as_the_protocol_says() -> None:
    traced = np.array([[0, 1, 1, 1, 2, 2, 3, 3, 0, 1]], np.uint8)
    told = np.array([[0, 1, 2, 0, 2, 3, 3, 1, 2, 1]], np.uint8)
    fov = np.ones((1, 10), bool)
    fov[0, 9] = False  # does not count
    scores = KindScores()
    scores.add("eye", told, (traced & ARTERY != 0, traced & VEIN != 0), fov)
    # Arteries: traced at 1 2 3 6 7, told at 1 5 6 7. Veins: traced at 4 5 6 7, told at 2 4 5 6 8.
    assert scores.scores()["artery_f1"] == pytest.approx(2 * 3 / (5 + 4))
    assert scores.scores()["vein_f1"] == pytest.approx(2 * 3 / (4 + 5))
    # Pixels of one kind that were found: 1 right, 2 wrong, 4 right, 5 told as both.
    assert scores.scores()["accuracy"] == pytest.approx(2 / 4)
    report = scores.report()
    assert report["confusion"] == {
        "artery": {"artery": 1, "vein": 1, "both": 0},
        "vein": {"artery": 0, "vein": 1, "both": 1},
    }
    scores.add("other", told * 0, (traced == 1, traced == 2), fov)
    assert [picture["image_id"] for picture in scores.report()["pictures"]] == ["eye", "other"]
    assert scores.scores()["artery_f1"] == pytest.approx(2 * 3 / (5 + 4 + 3))
    assert "artery F1 0.5000" in format_anatomy(scores.report(), None)


class TruthTeller:
    """In place of a network of two looks: the disc is where red is 1, the fovea where blue is; green is a vessel."""

    def look_twice(self, rgb: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        red, green, blue = np.moveaxis(context, 1, 0)
        return rgb[:, 1], np.stack([green, 1 - green, red > 0.9, blue > 0.9], axis=1).astype(np.float32)


def photograph(disc: tuple[int, int] | None, fovea: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return a round field of 240 px, with a disc of 40 px diameter and a spot at the fovea, and the disc's mask."""
    rows, columns = np.indices((256, 300))
    image = np.zeros((256, 300, 3), np.uint8)
    image[np.hypot(rows - 128, columns - 150) < 120] = (120, 60, 40)
    mask = np.zeros((256, 300), bool)
    if disc is not None:
        mask = np.hypot(rows - disc[0], columns - disc[1]) < 20
        image[mask, 0] = 255
    if fovea is not None:
        image[np.hypot(rows - fovea[0], columns - fovea[1]) < 9, 2] = 255
    return image, mask


def write_folder(folder: Path, eyes: dict[str, dict], split: str) -> None:
    (folder / split).mkdir(parents=True)
    lines, centres = [], []
    for name, eye in eyes.items():
        image, mask = photograph(eye["disc"], eye["fovea"])
        Image.fromarray(image).save(folder / split / f"{name}.png")
        row = {"image_id": name, "image_file_name": f"{name}.png"}
        if eye.get("mask"):
            Image.fromarray(mask).save(folder / split / f"{name}_disc.png")
            row["disc_file_name"] = f"{name}_disc.png"
        lines.append(json.dumps(row))
        if "known" in eye:
            (disc_y, disc_x), (fovea_y, fovea_x) = eye["known"]
            centres.append([name, disc_x, disc_y, fovea_x, fovea_y])
    (folder / split / "metadata.jsonl").write_text("\n".join(lines))
    with (folder / "centres.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image_id", "disc_x", "disc_y", "fovea_x", "fovea_y"], *centres])


RIGHT = {"disc": (128, 220), "fovea": (138, 130)}
EYES = {
    "masked": {**RIGHT, "mask": True},
    "near": {**RIGHT, "known": ((128, 220), (138, 125))},
    "far": {**RIGHT, "known": ((128, 220), (138, 170))},
    "mirrored": {**RIGHT, "known": ((128, 80), (138, 170))},
    "blank": {"disc": None, "fovea": None, "known": ((128, 220), (138, 130))},
    "unknown": RIGHT,
}


def test_places_are_scored_by_masks_and_centres(tmp_path: Path) -> None:
    write_folder(tmp_path, EYES, "test")
    report = evaluate_places(Segmenter(TruthTeller(), CONFIG), tmp_path, "test")
    assert report["count"] == 5
    assert (report["disc_dice_count"], report["disc_count"], report["fovea_count"]) == (1, 5, 4)
    assert report["disc_dice"] > 0.95
    assert report["disc_found"] == 4
    assert report["disc_near"] == pytest.approx(3 / 5)
    assert report["fovea_found"] == 3
    assert report["fovea_near"] == pytest.approx(1 / 4)
    assert (report["eye_count"], report["eye_right"]) == (3, pytest.approx(2 / 3))
    rows = {row["image_id"]: row for row in report["pictures"]}
    assert rows["near"]["fovea_distance"] == pytest.approx(5 / (0.148 * 245), abs=0.03)
    assert rows["blank"]["disc_distance"] is None
    json.dumps(report, allow_nan=False)
    told = format_anatomy(None, report)
    assert "found 4 of 5" in told
    assert "66.7% of 3" in told


def test_the_photographs_that_training_held_back_are_a_split(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", EYES, "train")
    segmenter = Segmenter(TruthTeller(), CONFIG, "mine", tmp_path)
    with pytest.raises(DataError, match="held back"):
        evaluate_places(segmenter, tmp_path / "data", "validation")
    record = {"anatomy_validation_ids": ["near", "far", "masked"], "earlier": {"anatomy_train_ids": ["masked"]}}
    (tmp_path / "training.json").write_text(json.dumps(record))
    assert held_back_ids(segmenter) == {"near", "far"}
    report = evaluate_places(segmenter, tmp_path / "data", "validation")
    assert sorted(row["image_id"] for row in report["pictures"]) == ["far", "near"]
    (tmp_path / "training.json").write_text("[]")
    with pytest.raises(ReleaseError, match="expected a JSON object"):
        held_back_ids(segmenter)
    (tmp_path / "training.json").write_text('{"anatomy_validation_ids": 7, "earlier": [1]}')
    with pytest.raises(DataError, match="held back"):
        held_back_ids(segmenter)
    with pytest.raises(DataError, match="no photographs with disc or fovea in the split test"):
        evaluate_places(segmenter, tmp_path / "data", "test")


def test_a_model_of_vessels_is_refused_and_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="finds vessels only"):
        evaluate_places(Segmenter(lambda rgb: rgb[:, 1], Config()), tmp_path, "test")
    with pytest.raises(ArgumentError, match="finds vessels only"):
        evaluate_places(Segmenter(TruthTeller(), CONFIG, anatomy=False), tmp_path, "test")
    assert has_vessels("synthetic")
    write_folder(tmp_path, EYES, "test")
    assert not has_vessels(str(tmp_path)) and has_places(str(tmp_path))
    (tmp_path / "test" / "metadata.jsonl").write_text('{"image_file_name": "a.png", "mask_file_name": "b.png"}')
    assert has_vessels(str(tmp_path)) and has_places(str(tmp_path))  # by its centres
    (tmp_path / "centres.csv").unlink()
    assert not has_places(str(tmp_path)) and not has_places("synthetic")


def test_a_folder_with_vessels_and_discs_is_scored_on_both(tmp_path, monkeypatch, capsys) -> None:
    write_folder(tmp_path / "eyes", {"masked": EYES["masked"]}, "test")
    path = tmp_path / "eyes" / "test" / "metadata.jsonl"
    row = json.loads(path.read_text())
    path.write_text(json.dumps(row | {"mask_file_name": row["disc_file_name"]}))  # as good a mask as any
    segmenter = Segmenter(TruthTeller(), CONFIG)
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: segmenter)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--dataset", "eyes", "--anatomy", "--json", "report.json"]) == 0
    assert "Optic disc" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["pooled"] and report["places"]["count"] == 1 and report["kinds"] is None


def test_scores_of_two_splits_are_not_mixed(tmp_path) -> None:
    (tmp_path / "metrics.json").write_text('{"drive": {"pooled": {}}, "discs": {"split": "validation"}}')
    check_split(tmp_path, "drive", "test")
    check_split(tmp_path, "discs", "validation")
    check_split(tmp_path, "new", "train")
    for name, split, kept in (("drive", "train", "test"), ("discs", "test", "validation")):
        with pytest.raises(ArgumentError, match=f"has the scores of {name}, {kept}; those of {split}"):
            check_split(tmp_path, name, split)


def test_kinds_are_scored_where_there_is_a_reference(tmp_path: Path) -> None:
    drawn = draw_fundus(3, (256, 256))
    result = Segmenter(TruthTeller(), CONFIG)(drawn.image)
    scores = KindScores()
    score_kinds(scores, "eye", result, tmp_path, drawn.fov)
    assert scores.report() is None
    segmenter = Segmenter(TruthTeller(), CONFIG)
    with pytest.raises(DataError, match="no references of arteries and veins"):
        kinds_folder(segmenter, str(tmp_path))
    (tmp_path / "artery_vein").mkdir()
    assert kinds_folder(segmenter, str(tmp_path)) == tmp_path / "artery_vein"
    Image.fromarray(result.kinds).save(tmp_path / "eye.png")
    score_kinds(scores, "eye", result, tmp_path, result.fov)
    assert scores.report()["numbers"] is None
    score_kinds(scores, "eye", result, tmp_path, result.fov, numbers=True)
    assert scores.report()["artery_f1"] == scores.report()["accuracy"] == 1
    assert len(scores.found_numbers) == 1
    assert scores.traced_numbers[0] == pytest.approx(scores.found_numbers[0], nan_ok=True)
    Image.fromarray(result.kinds[1:]).save(tmp_path / "eye.png")
    with pytest.raises(DataError, match="shape"):
        score_kinds(scores, "eye", result, tmp_path, result.fov)


def test_numbers_of_kinds_found_and_traced_are_compared(tmp_path: Path) -> None:
    scores, fov = KindScores(), np.ones((256, 256), bool)
    for number, extra in enumerate((0, 8)):
        arteries, veins = np.zeros((2, 256, 256), bool)
        arteries[60 : 66 + number, 40:200], veins[160:170, 40 : 200 - 30 * number] = True, True
        kinds = np.where(arteries, ARTERY, 0) + np.where(veins, VEIN, 0)
        planes = np.stack([arteries, veins, ~fov, ~fov]).astype(np.float32)
        probability = (arteries | veins).astype(np.float32)
        anatomy = Anatomy(planes, Geometry.around(fov, 256))
        found = Segmentation(np.zeros((256, 256, 3), np.uint8), probability, fov, 0.5, anatomy=anatomy)
        kinds[60 - extra : 60, 40:200] = ARTERY  # traced wider
        Image.fromarray(kinds.astype(np.uint8)).save(tmp_path / f"{number}.png")
        score_kinds(scores, str(number), found, tmp_path, fov, numbers=True)
    agreement = scores.report()["numbers"]["agreement"]
    assert agreement["artery_calibre_mean_px"]["bias"] == pytest.approx(-4, abs=0.3)  # 0 and 8 px too narrow
    assert agreement["vein_calibre_mean_px"]["bias"] == 0
    assert agreement["vein_vessel_density"]["icc"] == pytest.approx(1)
    assert agreement["crae_px"]["count"] == 0  # there is no disc
    told = format_anatomy(scores.report(), None)
    (line,) = (line for line in told.splitlines() if line.startswith("artery_calibre_mean_px"))
    assert line.split()[1] == "2" and float(line.split()[3]) == pytest.approx(-4, abs=0.3)
    assert next(line for line in told.splitlines() if line.startswith("avr")).split()[1:3] == ["0", "-"]
