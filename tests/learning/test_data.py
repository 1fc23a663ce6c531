"""Vessel data sets of every form come in alike, and what is wrong with one is told."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from support.synthetic import draw_fundus

from resegnet.errors import DataError
from resegnet.learning import synthetic_rows
from resegnet.learning.checks import check_disjoint
from resegnet.learning.data import load_vessels, read_mask, read_sample

SIZE = (40, 48)


pytestmark = pytest.mark.usefixtures("own_cache")


def draw(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    vessels = np.zeros(SIZE, bool)
    vessels[10 + seed % 15] = True
    vessels[:, 20:22] = True
    fov = np.zeros(SIZE, bool)
    fov[3:-3, 4:-4] = True
    return {"image": rng.integers(0, 256, (*SIZE, 3), np.uint8), "mask": vessels & fov, "fov": fov}


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_image_folder(folder: Path, seeds=None, columns=("image", "mask", "fov"), **values) -> Path:
    for split, members in (seeds or {"train": (1, 2), "test": (3,)}).items():
        (folder / split).mkdir(parents=True)
        lines = []
        for seed in members:
            line = {"image_id": f"eye_{seed}", **values}
            for column, pixels in draw(seed).items():
                if column in columns:
                    line[f"{column}_file_name"] = f"eye_{seed}_{column}.png"
                    (folder / split / f"eye_{seed}_{column}.png").write_bytes(png(pixels))
            lines.append(json.dumps(line))
        (folder / split / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def write_public_layout(folder: Path) -> Path:
    for split, seeds in (("train", (1, 2)), ("test", (3,))):
        for kind in ("image", "mask"):
            (folder / split / kind).mkdir(parents=True)
            for seed in seeds:
                pixels = draw(seed)[kind]
                if kind == "mask":  # resized masks have grey edges: 127 is background, 128 vessel
                    pixels = np.where(pixels, 128, 127).astype(np.uint8)
                (folder / split / kind / f"{seed}.png").write_bytes(png(pixels))
    return folder


def in_memory() -> datasets.DatasetDict:
    features = datasets.Features({name: datasets.Image() for name in ("image", "mask", "fov")})
    rows = {
        split: [{column: {"bytes": png(pixels)} for column, pixels in draw(seed).items()} for seed in seeds]
        for split, seeds in (("train", (1, 2)), ("test", (3,)))
    }
    return datasets.DatasetDict(
        {split: datasets.Dataset.from_list(members, features=features) for split, members in rows.items()}
    )


def write_parquet(folder: Path) -> Path:
    folder.mkdir()
    for split, rows in in_memory().items():
        rows.to_parquet(folder / f"{split}.parquet")
    return folder


def write_saved(folder: Path) -> Path:
    in_memory().save_to_disk(folder)
    return folder


@pytest.mark.parametrize("write", [write_image_folder, write_public_layout, write_parquet, write_saved])
def test_every_form_gives_the_same_samples_and_leaves_the_source_as_it_was(tmp_path, write):
    folder = write(tmp_path / "eyes")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for split, seeds in (("train", (1, 2)), ("test", (3,))):
        loaded = load_vessels(folder, split)
        assert loaded.column_names == ["image", "mask", "fov", "image_id", "patient", "dataset", "source", "eye"]
        assert set(loaded["source"]) == {str(folder)}
        assert set(loaded[0]["image"]) == {"bytes", "path"}
        assert len(loaded) == len(seeds)
        for row, seed in zip(loaded, seeds, strict=True):
            sample, truth = read_sample(row), draw(seed)
            np.testing.assert_array_equal(sample.image, truth["image"])
            np.testing.assert_array_equal(sample.vessels, truth["mask"])
            assert sample.vessels.dtype == bool
            if write is write_public_layout:
                assert sample.fov is None
            else:
                np.testing.assert_array_equal(sample.fov, truth["fov"])
            assert sample.dataset == "eyes"
            assert sample.patient
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_parquet_file_is_the_split_of_its_name(tmp_path):
    folder = write_parquet(tmp_path / "eyes")
    assert len(load_vessels(folder / "train.parquet", "train")) == 2
    assert len(load_vessels(folder / "test.parquet", "test")) == 1


def test_a_saved_single_data_set_counts_as_train(tmp_path):
    in_memory()["train"].save_to_disk(tmp_path / "eyes")
    assert len(load_vessels(tmp_path / "eyes", "train")) == 2


def test_sources_are_joined_in_their_order_with_what_they_lack_filled_in(tmp_path):
    first = write_image_folder(tmp_path / "first", patient="anna", dataset="named")
    second = write_image_folder(tmp_path / "second", {"train": (7, 8)}, ("image", "mask"), camera="left out")
    joined = load_vessels([first, str(second)], "train")
    assert joined["image_id"][:] == ["eye_1", "eye_2", "eye_7", "eye_8"]
    assert joined["patient"][:] == ["anna", "anna", "eye_7", "eye_8"]
    assert joined["dataset"][:] == ["named", "named", "second", "second"]
    samples = [read_sample(row) for row in joined]
    assert [sample.fov is None for sample in samples] == [False, False, True, True]
    np.testing.assert_array_equal(samples[3].image, draw(8)["image"])


def test_hub_id_goes_to_the_hub(monkeypatch):
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name) or in_memory())
    loaded = load_vessels("someone/eyes", "test")
    assert asked == ["someone/eyes"]
    assert (loaded["dataset"][0], loaded["image_id"][0]) == ("eyes", "eyes_0000")


def test_a_hub_that_cannot_be_reached_is_a_data_error(monkeypatch, caplog):
    def fail(name):
        assert "There is no folder someone/eyes; looking for" in caplog.text  # before the Hub takes its time
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    expected = r"someone/eyes cannot be loaded \(no network\). Check its name.* `python -m resegnet prepare` makes"
    with caplog.at_level(logging.INFO), pytest.raises(DataError, match=expected):
        load_vessels("someone/eyes", "test")


def test_a_mistyped_folder_beside_others_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda name: pytest.fail(f"asked the Hub for {name}"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"There is no file or folder data/drvie\..*`python -m resegnet prepare` makes"):
        load_vessels("data/drvie", "test")


def test_synthetic_photographs_are_small_sets_with_splits_that_share_nothing(monkeypatch):
    assert {name: len(seeds) for name, seeds in synthetic_rows.SYNTHETIC_SEEDS.items()} == {"train": 24, "test": 8}
    assert not set(synthetic_rows.SYNTHETIC_SEEDS["train"]) & set(synthetic_rows.SYNTHETIC_SEEDS["test"])
    monkeypatch.setattr(synthetic_rows, "SYNTHETIC_SEEDS", {"train": range(1), "test": range(1_000_000, 1_000_001)})
    synthetic_rows.synthetic_rows.cache_clear()
    rows = [load_vessels("synthetic", split)[0] for split in ("train", "test")]
    synthetic_rows.synthetic_rows.cache_clear()
    first, second = (read_sample(row) for row in rows)
    assert first.image.shape == (584, 565, 3)
    assert first.fov is not None
    assert 0.03 < first.vessels[first.fov].mean() < 0.25
    assert not np.array_equal(first.image, second.image)
    assert rows[0]["image_id"] != rows[1]["image_id"]


def test_unknown_split_and_source_are_answered_with_what_there_is(tmp_path):
    folder = write_image_folder(tmp_path / "eyes")
    with pytest.raises(DataError, match=r"no split 'validation'; it has: test, train"):
        load_vessels(folder, "validation")
    with pytest.raises(DataError, match=r"no split 'dev'; it has: test, train"):
        load_vessels("synthetic", "dev")
    with pytest.raises(DataError, match=r"There is no file or folder .*absent"):
        load_vessels(tmp_path / "absent", "train")
    with pytest.raises(DataError, match=r"There is no file or folder ~nobody-here/eyes"):
        load_vessels("~nobody-here/eyes", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no data in a known form"):
        load_vessels(tmp_path / "empty", "train")
    with pytest.raises(DataError, match="No data set was named"):
        load_vessels([], "train")


def test_photographs_without_any_mask_are_refused(tmp_path):
    folder = write_image_folder(tmp_path / "eyes", columns=("image",))
    with pytest.raises(DataError, match=r"lacks the column mask; it has: image_id, image"):
        load_vessels(folder, "train")


def test_one_error_lists_every_offending_file(tmp_path):
    folder = write_image_folder(tmp_path / "eyes", {"train": range(1, 9)})
    train = folder / "train"
    (train / "eye_1_mask.png").unlink()
    (train / "eye_2_image.png").write_bytes(b"no picture")
    (train / "eye_3_mask.png").write_bytes(png(draw(3)["mask"][:-1]))
    (train / "eye_4_mask.png").write_bytes(png(~draw(4)["mask"]))
    (train / "eye_5_mask.png").write_bytes(png(np.zeros(SIZE, bool)))
    (train / "eye_6_fov.png").write_bytes(png(draw(6)["fov"].T.copy()))
    cut = (train / "eye_7_image.png").read_bytes()
    (train / "eye_7_image.png").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(DataError) as caught:
        load_vessels(folder, "train")
    message = str(caught.value)
    assert message.startswith("7 problems in the split 'train':")
    for name, words in {
        "eye_1_mask.png": "the file is missing",
        "eye_2_image.png": "cannot be identified",
        "eye_3_mask.png": "its size 48 x 39 differs from the photograph's, 48 x 40",
        "eye_4_mask.png": "inverted?",
        "eye_5_mask.png": "no vessel is marked",
        "eye_6_fov.png": "its size 40 x 48 differs",
        "eye_7_image.png": "cannot be decoded",
    }.items():
        assert any(f"{train / name}: " in line and words in line for line in message.splitlines()), name
    assert "eye_8" not in message


def test_public_layout_lists_files_without_counterpart(tmp_path):
    folder = write_public_layout(tmp_path / "eyes")
    (folder / "train" / "mask" / "1.png").rename(folder / "train" / "mask" / "9.png")
    with pytest.raises(DataError) as caught:
        load_vessels(folder, "train")
    assert f"{folder}/train/image/1.png: no mask" in str(caught.value)
    assert f"{folder}/train/mask/9.png: no photograph" in str(caught.value)


def test_public_layout_names_pictures_of_train_and_test_apart(tmp_path):
    folder = write_public_layout(tmp_path / "eyes")
    for kind in ("image", "mask"):
        (folder / "test" / kind / "3.png").rename(folder / "test" / kind / "1.png")
    assert load_vessels(folder, "train")["image_id"][0] == "eyes_1"
    assert load_vessels(folder, "test")["image_id"][0] == "eyes_test_1"


def test_public_layout_with_other_folders_is_told_what_is_expected(tmp_path):
    folder = write_public_layout(tmp_path / "download" / "eyes")
    for path in (folder / "train", folder / "test" / "image"):
        with pytest.raises(DataError, match="no data in a known form"):
            load_vessels(path, "train")
    for path in (folder.parent, folder / "train"):
        with pytest.raises(DataError, match=f"give {folder}\\."):
            load_vessels(path, "train")
    (folder / "train" / "mask").rename(folder / "train" / "masks")
    with pytest.raises(DataError, match=r"/train needs the folders image and mask, .* its folders: image, masks\."):
        load_vessels(folder, "train")


def test_public_layout_takes_names_of_any_characters(tmp_path):
    folder = write_public_layout(tmp_path / "eyes")
    for kind in ("image", "mask"):
        (folder / "train" / kind / "1.png").rename(folder / "train" / kind / "1\u00b2.png")  # a superscript two
    assert "eyes_1\u00b2" in load_vessels(folder, "train")["image_id"]


def test_public_layout_refuses_two_files_of_one_name(tmp_path):
    folder = write_public_layout(tmp_path / "eyes")
    Image.fromarray(draw(1)["image"]).save(folder / "train" / "image" / "1.jpg")
    with pytest.raises(DataError, match="pairs are ambiguous"):
        load_vessels(folder, "train")


def test_public_layout_takes_patients_from_drive_names_and_else_warns(tmp_path, caplog):
    folder = write_public_layout(tmp_path / "eyes")
    assert load_vessels(folder, "train")["patient"][:] == ["train_1", "train_2"]
    assert "do not identify patients" in caplog.text
    caplog.clear()
    load_vessels(folder, "test")
    assert "do not identify patients" not in caplog.text  # nothing is split off from it
    for kind in ("image", "mask"):
        for old, new in (("1.png", "21_training_0.png"), ("2.png", "21_training_3.png")):
            (folder / "train" / kind / old).rename(folder / "train" / kind / new)
    loaded = load_vessels(folder, "train")
    assert loaded["patient"][:] == ["21", "21"]
    assert loaded["image_id"][:] == ["eyes_21_training_0", "eyes_21_training_3"]


def test_public_layout_takes_patients_from_metadata(tmp_path):
    folder = write_public_layout(tmp_path / "eyes")
    for split, seeds in (("train", (1, 2)), ("test", (3,))):
        lines = [
            json.dumps({"image_file_name": f"image/{seed}.png", "mask_file_name": f"mask/{seed}.png", "patient": 21})
            for seed in seeds
        ]
        (folder / split / "metadata.jsonl").write_text("\n".join(lines))
    loaded = load_vessels(folder, "train")
    assert loaded["patient"][:] == ["21", "21"]
    np.testing.assert_array_equal(read_sample(loaded[1]).vessels, draw(2)["mask"])


def test_a_photograph_in_two_splits_is_a_leak_also_across_sources(tmp_path):
    first = write_image_folder(tmp_path / "first", {"train": (1, 2)})
    second = write_image_folder(tmp_path / "second", {"train": (5,), "test": (2, 6)})
    with pytest.raises(DataError) as caught:
        load_vessels([first, second], "train")
    assert "1 problem " in str(caught.value)
    assert "eye_2_image.png: the same photograph is in another split (second, test)" in str(caught.value)


def test_a_source_named_twice_is_told(tmp_path):
    folder = write_image_folder(tmp_path / "eyes")
    with pytest.raises(DataError, match="eye_1: 2 pictures have this image_id"):
        load_vessels([folder, folder], "train")


def palette_mask(vessels: np.ndarray) -> Image.Image:
    picture = Image.new("P", vessels.shape[::-1])
    picture.putdata(vessels.astype(int).ravel().tolist())
    picture.putpalette([0, 0, 0, 255, 255, 255])
    return picture


@pytest.mark.parametrize(
    ("mode", "picture"),
    [
        ("bilevel", lambda vessels: Image.fromarray(vessels)),
        ("0 and 255", lambda vessels: Image.fromarray(vessels.astype(np.uint8) * 255)),
        ("0 and 1", lambda vessels: Image.fromarray(vessels.astype(np.uint8))),
        ("127 and 128", lambda vessels: Image.fromarray(vessels.astype(np.uint8) + 127)),
        ("palette", palette_mask),
        ("red", lambda vessels: Image.fromarray(vessels[..., None] * np.array([255, 0, 0], np.uint8))),
        ("16 bit", lambda vessels: Image.fromarray(vessels.astype(np.uint16) * 65535)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_masks_of_every_mode_are_read_alike(mode, picture):
    vessels = draw(1)["mask"]
    stream = io.BytesIO()
    picture(vessels).save(stream, "PNG")
    mask = read_mask({"bytes": stream.getvalue(), "path": None})
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, vessels)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("drive", {"train": 20, "test": 20}),
        ("chase_db1", {"train": 20, "test": 8}),
        ("hrf", {"train": 15, "test": 30}),
        ("les_av", {"test": 22}),
    ],
)
def test_the_real_sets_pass_all_checks(real, name, counts):
    for split, count in counts.items():
        loaded = load_vessels(real / name, split)
        assert len(loaded) == count
        assert set(loaded["dataset"]) == {name}
        assert None not in loaded["fov"][:]


def test_a_patient_on_both_sides_is_told(tmp_path, caplog):
    pictures = {"train": 1, "test": 2}
    for split, seed in pictures.items():
        eye = draw_fundus(seed, (130, 130))
        folder = tmp_path / "eyes" / split
        folder.mkdir(parents=True)
        Image.fromarray(eye.image).save(folder / "a.png")
        Image.fromarray(eye.vessels).save(folder / "b.png")
        line = {"image_file_name": "a.png", "mask_file_name": "b.png", "image_id": split, "patient": "anna"}
        (folder / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    load_vessels(tmp_path / "eyes", "train")
    assert "anna" in caplog.text
    assert "optimistic" in caplog.text


@pytest.mark.slow
def test_a_photograph_in_a_set_to_be_scored_is_found(tmp_path):
    drawn = load_vessels("synthetic", "test")
    check_disjoint(drawn.select(range(3)), {"rest": drawn.select(range(3, 8))})
    with pytest.raises(DataError, match=r"synthetic_test_02.*\n.*synthetic_test_03") as caught:
        check_disjoint(drawn.select(range(4)), {"rest": drawn.select(range(2, 8))})
    assert "(rest)" in str(caught.value)
