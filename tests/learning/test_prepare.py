"""Original downloads, imitated in their own file formats, come back pixel for pixel."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.downloads import (
    CASES,
    download_aria,
    download_chase_db1,
    download_drive,
    download_fives,
    download_hrf,
    download_orvs,
    download_stare,
    draw,
    write,
)

from resegnet.__main__ import main
from resegnet.errors import DataError
from resegnet.learning import prepare as module
from resegnet.learning.data import load_vessels, read_sample
from resegnet.learning.originals import PREPARERS
from resegnet.learning.prepare import is_prepared, prepare
from resegnet.releases.datasheets import SOURCES

pytestmark = pytest.mark.usefixtures("own_cache")


def test_every_set_has_a_case():
    assert CASES.keys() == PREPARERS.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_download_comes_back_pixel_for_pixel(tmp_path, name):
    download, counts, has_fov, seconds = CASES[name]
    source = tmp_path / "Downloads" / "a nested folder"
    download(source)
    # Files that macOS leaves in archives must not be taken for pictures.
    for path in list(source.rglob("*.*"))[:5]:
        (path.parent / f"._{path.name}").write_bytes(b"Mac OS X")
    (tmp_path / "Downloads" / "__MACOSX").mkdir()
    (tmp_path / "Downloads" / "__MACOSX" / path.name).write_bytes(b"Mac OS X")

    destination = tmp_path / name
    assert prepare(name, tmp_path / "Downloads", destination) == counts

    patients = {}
    for split, count in counts.items():
        loaded = load_vessels(destination, split)
        assert len(loaded) == count
        assert set(loaded["dataset"]) == {name}
        patients[split] = set(loaded["patient"])
        for row in loaded:
            sample, truth = read_sample(row), draw(row["image_id"])
            np.testing.assert_array_equal(sample.vessels, truth["mask"])
            assert (sample.fov is not None) == has_fov
            if has_fov:
                np.testing.assert_array_equal(sample.fov, truth["fov"])
            if Path(row["image"]["path"]).suffix == ".png":
                np.testing.assert_array_equal(sample.image, truth["image"])
    assert not patients["train"] & patients["test"]

    masks = [path for path in destination.rglob("*.png") if path.stem.endswith(("_mask", "_fov"))]
    observers = list((destination / "second_observer").glob("*.png"))
    assert len(observers) == seconds
    for path in observers:
        np.testing.assert_array_equal(np.asarray(Image.open(path)), draw(path.stem)["second"] * np.uint8(255))
    assert {tuple(np.unique(np.asarray(Image.open(path)))) for path in masks} == {(0, 255)}
    readme = (destination / "README.md").read_text()
    about = SOURCES[name]
    for fact in (about.paper, about.terms, about.camera, about.eyes, *about.notes):
        assert fact in readme
    assert [path.name for path in tmp_path.iterdir()].count(f".{name}.resegnet-partial") == 0


@pytest.mark.slow
def test_splits_are_the_usual_ones(tmp_path):
    def ids(name, split):
        lines = (tmp_path / f"{name}_out" / split / "metadata.jsonl").read_text().splitlines()
        return [json.loads(line)["image_id"] for line in lines]

    for name, (download, *_) in CASES.items():
        download(tmp_path / name)
        prepare(name, tmp_path / name, tmp_path / f"{name}_out")
    assert ids("drive", "train") == [f"drive_{number}" for number in range(21, 41)]
    assert ids("chase_db1", "test") == [f"chase_{n}{side}" for n in (11, 12, 13, 14) for side in "LR"]
    assert ids("stare", "train")[-1] == "stare_im0139"
    assert ids("stare", "test")[0] == "stare_im0162"
    assert sorted(ids("hrf", "train"))[:5] == [f"hrf_01_{g}" for g in ("dr", "g", "h")] + [
        "hrf_02_dr",
        "hrf_02_g",
    ]
    assert ids("fives", "train") == ["fives_001_A", "fives_002_D", "fives_010_N"]
    assert ids("fives", "test") == ["fives_t001_A", "fives_t002_G"]
    assert ids("dr_hagis", "test") == [f"drhagis_{number:03d}" for number in (33, 34, 35, 37, 39, 40)]
    assert "drhagis_032" not in ids("dr_hagis", "train")
    assert ids("aria", "test") == ["aria_a_10_3", "aria_c_1_7", "aria_d_26"]
    assert ids("orvs", "test") == ["orvs_2014", "orvs_2016"]


def test_jpeg_photographs_are_copied_byte_by_byte(tmp_path):
    download_hrf(tmp_path / "source")
    prepare("hrf", tmp_path / "source", tmp_path / "out")
    for group, suffix in (("h", "jpg"), ("dr", "JPG")):
        copy = (tmp_path / "out" / "train" / f"hrf_01_{group}.jpg").read_bytes()
        assert copy == (tmp_path / "source" / "images" / f"01_{group}.{suffix}").read_bytes()


def test_two_eyes_of_a_child_are_one_patient(tmp_path):
    download_chase_db1(tmp_path / "source")
    prepare("chase_db1", tmp_path / "source", tmp_path / "out")
    assert load_vessels(tmp_path / "out", "test")["patient"][:2] == ["chase_11", "chase_11"]


def test_aria_is_also_read_from_the_copy_beside_orvs(tmp_path):
    download_orvs(tmp_path / "source")
    assert prepare("aria", tmp_path / "source", tmp_path / "out") == {"train": 2, "test": 1}
    for split, ids in (("train", ["aria_500", "aria_501"]), ("test", ["aria_508"])):
        rows = load_vessels(tmp_path / "out", split)
        assert list(rows["image_id"]) == ids
        for row in rows:
            sample, truth = read_sample(row), draw(row["image_id"])
            np.testing.assert_array_equal(sample.image, truth["image"])
            np.testing.assert_array_equal(sample.vessels, truth["mask"])


def test_aria_lacking_a_reference_or_a_photograph_is_told(tmp_path):
    source = tmp_path / "source"
    download_aria(source)
    (source / "aria_a_markups" / "aria_a_10_3.tif").unlink()
    (source / "aria_c_markup_vessel" / "aria_c_markup_vessel" / "aria_c_1_4_BDP.tif").unlink()
    with pytest.raises(DataError) as caught:
        prepare("aria", source, tmp_path / "out")
    assert [line for line in str(caught.value).splitlines() if line.endswith(": missing")] == [
        "- aria_a_markups/aria_a_10_3.tif: missing",
        "- aria_c_markup_vessel/aria_c_1_4_bdp.tif: missing",
    ]


def test_the_download_may_be_the_folder_where_the_command_runs(tmp_path, monkeypatch):
    download_orvs(tmp_path / "source")
    monkeypatch.chdir(tmp_path / "source" / "Vessels-Datasets" / "ORVS")
    assert prepare("orvs", ".", tmp_path / "out") == {"train": 3, "test": 2}


def test_drive_without_test_tracings_gives_the_training_split_and_says_so(tmp_path, caplog):
    download_drive(tmp_path / "source")
    for path in (tmp_path / "source" / "test" / "1st_manual").iterdir():
        path.unlink()
    assert prepare("drive", tmp_path / "source", tmp_path / "out") == {"train": 20}
    assert "no references of its test photographs" in caplog.text
    assert "this folder has no split `test`" in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "test").exists()
    assert not (tmp_path / "out" / "second_observer").exists()


def test_an_empty_folder_is_no_download_of_drive_without_references(tmp_path, caplog):
    (tmp_path / "source").mkdir()
    with pytest.raises(DataError, match="not a complete download of DRIVE"):
        prepare("drive", tmp_path / "source", tmp_path / "out")
    assert not caplog.text


def test_one_error_lists_all_that_is_missing_or_there_twice(tmp_path):
    source = tmp_path / "source"
    download_drive(source)
    (source / "training" / "1st_manual" / "21_manual1.gif").unlink()
    (source / "training" / "mask" / "33_training_mask.gif").unlink()
    (source / "test" / "1st_manual" / "07_manual1.gif").unlink()
    write(source / "copy" / "25_training.tif", draw("copy")["image"])
    (source / "more.zip").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        prepare("drive", source, tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert "not a complete download of DRIVE" in lines[0]
    assert lines[1] == "Not unpacked yet? more.zip"
    assert [line for line in lines[2:] if line.endswith(": missing")] == [
        "- 21_manual1.gif: missing",
        "- 33_training_mask.gif: missing",
        "- 07_manual1.gif: missing",
    ]
    assert len(lines) == 6
    assert any(line.startswith("- 25_training.tif: found 2 times") for line in lines)
    assert not (tmp_path / "out").exists()


def test_fives_lacking_one_of_a_pair_is_told(tmp_path):
    download_fives(tmp_path / "source")
    (tmp_path / "source" / "train" / "Original" / "2_D.png").unlink()
    (tmp_path / "source" / "test" / "Ground truth" / "1_A.png").unlink()
    with pytest.raises(DataError) as caught:
        prepare("fives", tmp_path / "source", tmp_path / "out")
    assert str(caught.value).count(": missing") == 2
    assert "train/original/2_d.png: missing" in str(caught.value)
    assert "test/ground truth/1_a.png: missing" in str(caught.value)


def test_spoilt_files_are_listed_before_anything_is_written(tmp_path):
    source = tmp_path / "source"
    download_fives(source)
    write(source / "train" / "Ground truth" / "1_A.png", ~draw("fives_001_A")["mask"])
    write(source / "test" / "Ground truth" / "1_A.png", draw("fives_t001_A")["mask"][1:])
    with pytest.raises(DataError) as caught:
        prepare("fives", source, tmp_path / "out")
    assert str(caught.value).startswith("2 problems in ")
    assert f"{source / 'train' / 'Ground truth' / '1_A.png'}: inverted?" in str(caught.value)
    assert f"{source / 'test' / 'Ground truth' / '1_A.png'}: its size 28 x 23" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_broken_gzip_is_named(tmp_path):
    download_stare(tmp_path / "source")
    path = tmp_path / "source" / "labels-ah" / "im0044.ah.ppm.gz"
    whole = path.read_bytes()
    for spoilt in (whole[:40], whole[:20] + bytes(byte ^ 255 for byte in whole[20:-8]) + whole[-8:]):
        path.write_bytes(spoilt)
        with pytest.raises(DataError, match=r"im0044\.ah\.ppm\.gz cannot be unpacked"):
            prepare("stare", tmp_path / "source", tmp_path / "out")


def test_an_interrupted_run_leaves_nothing_and_the_next_one_succeeds(tmp_path, monkeypatch, caplog):
    download_fives(tmp_path / "source")
    write_eye = module._write_eye
    written = []

    def interrupt(eye, *rest):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(eye)
        write_eye(eye, *rest)

    monkeypatch.setattr(module, "_write_eye", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare("fives", tmp_path / "source", tmp_path / "out")
    assert len(written) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]

    # A killed run cannot clean up behind itself.
    monkeypatch.undo()
    (tmp_path / ".out.resegnet-partial" / "train").mkdir(parents=True)
    (tmp_path / ".out.resegnet-partial" / "train" / "metadata.jsonl").write_text("{}\n")
    with caplog.at_level(logging.INFO):
        assert prepare("fives", tmp_path / "source", tmp_path / "out") == {"train": 3, "test": 2}
    assert "train: fives_001_A" in caplog.text
    assert len((tmp_path / "out" / "train" / "metadata.jsonl").read_text().splitlines()) == 3


def test_refuses_unknown_names_and_folders_in_use(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"No data set 'rite' is known; there are: drive, chase_db1"):
        prepare("rite", tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match=r"There is no folder .*absent"):
        prepare("drive", tmp_path / "absent", tmp_path / "out")
    download_fives(tmp_path / "source")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    with pytest.raises(DataError, match="is the working folder"):
        prepare("drive", tmp_path, ".")
    with pytest.raises(DataError, match="already holds something"):
        prepare("fives", tmp_path / "source", tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
    (tmp_path / "out" / "mine.txt").unlink()
    assert prepare("fives", tmp_path / "source", tmp_path / "out") == {"train": 3, "test": 2}


def test_what_must_not_be_published_is_refused_before_the_long_work(tmp_path, capsys):
    out = tmp_path / "out"
    for name, repo_id, told in (
        ("drive", "someone/drive", "DRIVE must not be published"),
        ("fives", "a/b/c", "cannot be a name on the Hub"),
        ("fives", "other", "has no user name"),
        ("rite", "someone/rite", "No data set 'rite' is known"),
    ):
        assert main(["prepare", name, str(tmp_path / "absent"), str(out), "--push-to-hub", repo_id]) == 1
        assert told in capsys.readouterr().err


def test_what_was_prepared_is_known_again(tmp_path):
    download_fives(tmp_path / "source")
    out = tmp_path / "out"
    assert not is_prepared(out, "fives")
    prepare("fives", tmp_path / "source", out)
    assert is_prepared(out, "fives") and not is_prepared(out, "drive")
    assert not is_prepared(tmp_path / "source", "fives")
