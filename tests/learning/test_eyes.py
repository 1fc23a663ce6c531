"""Pictures of one eye are found although turned, mirrored or rescaled, and kept on one side of every split."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.synthetic import draw_fundus

from resegnet.errors import DataError, TrainingError
from resegnet.image import read_image
from resegnet.learning import samples
from resegnet.learning.data import load_vessels, read_mask
from resegnet.learning.eyes import SAME_EYE, eye_numbers, fingerprint, from_texts, similarity, to_text
from resegnet.learning.options import TrainingOptions
from resegnet.learning.parents import ParentRelease
from resegnet.learning.photographs import TrainingData
from resegnet.learning.samples import encoded, photograph_sha256
from resegnet.learning.split import split_validation

pytestmark = pytest.mark.usefixtures("own_cache")


def read(path: Path) -> np.ndarray:
    return read_mask({"bytes": path.read_bytes(), "path": None})


def four_times(picture: Image.Image, angle: float, side: int) -> list[Image.Image]:
    """Return a picture as it is, mirrored, upside down and turned, each squeezed to a square of `side` px."""
    pictures = [
        picture,
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        picture.rotate(angle, Image.Resampling.BILINEAR),
    ]
    return [turned.resize((side, side), Image.Resampling.BILINEAR) for turned in pictures]


def write_copies(folder: Path, eyes: dict[str, list[tuple[np.ndarray, np.ndarray]]], side: int) -> Path:
    """Write eyes, (image, vessels) by split, in the public layout, the training half four times, in mixed order."""
    rng = np.random.default_rng(7)
    for split, pairs in eyes.items():
        pictures = []
        for image, vessels in pairs:
            angle = rng.uniform(-45, 45)
            both = (Image.fromarray(image), Image.fromarray(vessels.astype(np.uint8) * 255))
            copies = list(zip(*(four_times(picture, angle, side) for picture in both), strict=True))
            pictures += copies if split == "train" else copies[:1]
        for kind in ("image", "mask"):
            (folder / split / kind).mkdir(parents=True)
        for number, place in enumerate(rng.permutation(len(pictures))):
            for kind, picture in zip(("image", "mask"), pictures[place], strict=True):
                picture.save(folder / split / kind / f"{number}.png")
    return folder


def drawn_eyes(seeds) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(eye.image, eye.vessels) for eye in (draw_fundus(seed, (206, 200)) for seed in seeds)]


@pytest.mark.slow
def test_a_copy_of_each_eye_turned_and_mirrored_is_found(tmp_path, caplog):
    folder = write_copies(tmp_path / "eyes", {"train": drawn_eyes(range(20)), "test": drawn_eyes((30,))}, 200)
    with caplog.at_level(logging.INFO):
        rows = load_vessels(folder, "train")
    assert "eyes: 80 pictures of 20 eyes" in caplog.text
    rng = np.random.default_rng(7)
    angles_and_order = [rng.uniform(-45, 45) for _ in range(20)], rng.permutation(80)
    truth = {f"eyes_{number}": place // 4 for number, place in enumerate(angles_and_order[1])}
    groups = {(patient, truth[name]) for patient, name in zip(rows["patient"], rows["image_id"], strict=True)}
    assert len(groups) == len({patient for patient, _ in groups}) == 20
    train, validation = split_validation(rows, 0.15, seed=0)
    sides = [{truth[name] for name in part["image_id"]} for part in (train, validation)]
    assert not sides[0] & sides[1]
    assert (len(train), len(validation)) == (68, 12)


@pytest.mark.slow
@pytest.mark.data
def test_the_seed_data_set_made_of_drive_has_twenty_eyes(real, tmp_path, caplog):
    eyes = {
        split: [
            (np.asarray(Image.open(path)), read(path.with_name(f"{path.stem}_mask.png")))
            for path in sorted((real / "drive" / split).glob("drive_??.png"))
        ]
        for split in ("train", "test")
    }
    folder = write_copies(tmp_path / "seed", eyes, 512)
    with caplog.at_level(logging.INFO):
        rows = load_vessels(folder, "train")
        assert "seed: 80 pictures of 20 eyes" in caplog.text
        assert sorted(np.unique(rows["patient"], return_counts=True)[1]) == [4] * 20
        caplog.clear()
        TrainingData.load(TrainingOptions(dataset=(str(folder),), unseen=(str(real / "drive"),)))
    assert "show eyes" not in caplog.text


@pytest.mark.slow
@pytest.mark.data
def test_no_two_different_eyes_of_the_real_sets_count_as_one(real):
    names, prints = [], []
    for metadata in sorted(real.glob("*/*/metadata.jsonl")):
        for line in metadata.read_text().splitlines():
            row = json.loads(line)
            if "mask_file_name" in row and not metadata.parts[-3].startswith("idrid"):
                names.append(row["image_id"])
                prints.append(fingerprint(read(metadata.parent / row["mask_file_name"])))
    pairs = np.triu(similarity(np.array(prints), np.array(prints)), 1)
    found = {frozenset((names[one], names[other])) for one, other in np.argwhere(pairs >= 0.8)}
    # ORVS holds these eyes twice, photographed anew; a person sees it at once.
    again = [("orvs_2028", "orvs_2030"), ("orvs_2116", "orvs_2117"), ("orvs_2115", "orvs_2118")]
    assert len(names) == 365
    assert found <= set(map(frozenset, again))


def test_similarity_is_the_same_with_and_without_the_short_cut():
    prints = np.array([fingerprint(vessels) for _, vessels in drawn_eyes(range(12))])
    exact = similarity(prints, prints)
    np.testing.assert_allclose(np.diag(exact), 1, atol=1e-4)
    assert exact[~np.eye(12, dtype=bool)].max() < SAME_EYE
    np.testing.assert_array_equal(similarity(prints, prints, at_least=0.6) >= 0.6, exact >= 0.6)
    assert len(set(eye_numbers(prints))) == 12


def test_a_mask_that_shows_too_little_matches_nothing():
    line = np.zeros((200, 200), bool)
    line[100] = True
    small = np.eye(40, dtype=bool)
    prints = np.array([fingerprint(vessels) for vessels in (line, small, np.zeros((200, 200), bool))])
    assert not prints.any()
    assert not similarity(prints, prints).any()


def test_fingerprints_go_through_json_and_what_is_none_is_left_out():
    prints = np.array([fingerprint(vessels) for _, vessels in drawn_eyes(range(3))])
    texts = json.loads(json.dumps([to_text(one) for one in prints]))
    assert max(map(len, texts)) < 700
    np.testing.assert_array_equal(from_texts([texts[0], None, 3, "AAAA", "no base64", *texts[1:]]), prints)
    assert from_texts([]).shape == (0, 16, 64)


@pytest.mark.slow
def test_an_eye_in_two_data_sets_stays_on_one_side(tmp_path):
    eyes = drawn_eyes(range(6))
    one, other = (
        write_copies(tmp_path / name, {"train": eyes if name == "one" else [*eyes[2:], *drawn_eyes((40, 41))]}, side)
        for name, side in (("one", 200), ("other", 180))
    )
    rows = load_vessels([one, other], "train")
    for seed in range(4):
        train, validation = split_validation(rows, 0.3, seed)
        eye = [set(part["eye"]) for part in (train, validation)]
        prints = [np.array([np.frombuffer(text, np.uint8).reshape(16, 64) for text in sorted(side)]) for side in eye]
        assert similarity(*prints).max() < SAME_EYE


def test_eyes_that_are_trained_on_and_scored_are_told(tmp_path, caplog):
    eyes = drawn_eyes(range(5))
    folder = write_copies(tmp_path / "eyes", {"train": eyes[:4], "test": [eyes[4]]}, 200)
    TrainingData.load(TrainingOptions(dataset=(str(folder),)))
    assert "show eyes" not in caplog.text
    turned = [tuple(np.rot90(part) for part in eyes[0])]
    leaking = write_copies(tmp_path / "leaking", {"train": eyes[:4], "test": [eyes[4], *turned]}, 180)
    TrainingData.load(TrainingOptions(dataset=(str(leaking),)))
    assert "1 of the 2 photographs to score in leaking show eyes that are trained or validated on" in caplog.text


def test_eyes_of_the_parent_are_known_under_other_names(tmp_path, caplog, monkeypatch):
    eyes = drawn_eyes(range(6))
    folder = write_copies(tmp_path / "eyes", {"train": eyes[:4], "test": eyes[4:]}, 200)
    data = TrainingData.load(TrainingOptions(dataset=(str(folder),)))
    prints = [to_text(fingerprint(vessels)) for _, vessels in eyes]
    pixels = [photograph_sha256(read_image(encoded(cell))) for cell in data.tests["eyes"]["image"]]
    decoded = []
    monkeypatch.setattr(samples, "read_image", lambda content: decoded.append(content) or read_image(content))
    for record, words in (
        ({"train_ids": ["a"], "train_eyes": prints[5:]}, ["1 of the 2 'eyes' test photographs"]),
        ({"earlier": {"train_eyes": prints[:4]}}, ["4 of the 4 validation photographs (0 have the same image_id"]),
        ({"train_ids": ["a"]}, []),
        ({"train_ids": data.tests["eyes"]["image_id"][:1]}, ["1 of the 2 'eyes' test photographs (1 have the same"]),
        (
            {"earlier": {"train_sha256": pixels[:1]}},
            ["(0 have the same image_id, 1 the same pixels, 0 the same vessels"],
        ),
        ({"anatomy_train_sha256": pixels}, ["2 of the 2 'eyes' test photographs (0 have the same image_id, 2 the"]),
    ):
        caplog.clear()
        decoded.clear()
        data.warn_of_known_eyes([ParentRelease("theirs", tmp_path, None, record)])
        assert [word for word in words if word not in caplog.text] == []
        assert ("theirs" in caplog.text) == bool(words)
        assert bool(decoded) == ("sha256" in str(record))
    # Once for all releases.
    decoded.clear()
    record = {"train_sha256": pixels[1:]}
    data.warn_of_known_eyes(ParentRelease(name, tmp_path, None, record) for name in ("one", "other"))
    assert len(decoded) == len(data.validation) + len(data.tests["eyes"])
    assert "one was trained on" in caplog.text and "other was trained on" in caplog.text


def test_patients_come_from_names_by_a_pattern(tmp_path, caplog):
    folder = write_copies(tmp_path / "eyes", {"train": drawn_eyes(range(2)), "test": drawn_eyes((4,))}, 200)
    for split in ("train", "test"):
        for path in (folder / split).rglob("*.png"):
            path.rename(path.with_name(f"person-{int(path.stem) // 4 + (split == 'test') * 9}_{path.stem}.png"))
    rows = load_vessels(folder, "test", r"person-(\d+)")
    assert rows["patient"][:] == ["9"]
    assert load_vessels(folder, "test", r"person-\d+")["patient"][:] == ["person-9"]
    assert "do not identify patients" not in caplog.text
    with pytest.raises(DataError, match=r"--patient-pattern nobody matches none of 8 names, such as person-"):
        load_vessels(folder, "train", "nobody")
    with pytest.raises(TrainingError, match="no regular expression"):
        TrainingOptions(dataset=("synthetic",), patient_pattern="(")
