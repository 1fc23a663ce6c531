"""Photographs labelled by models, and training on them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from support.dicom import PATIENT, dicom
from support.stand_in import DarkOnGreen, TwoLooksOnGreen
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter
from resegnet.__main__ import main
from resegnet.config import TWO_LOOKS
from resegnet.errors import DataError
from resegnet.learning.crops import Crops, WorkingSample
from resegnet.learning.data import load_vessels, read_sample
from resegnet.learning.label import LABELLED_BY_NAME, MirroredNetwork, label, read_labelled_by
from resegnet.learning.options import TrainingOptions
from resegnet.learning.photographs import TrainingData

CONFIG = Config(input_size=512, threshold=0.6)
TWO_LOOKS_CONFIG = Config(
    encoder=TWO_LOOKS,
    encoder_depth=2,
    decoder_channels=(16, 16),
    input_size=384,
    threshold=0.7,
    context_size=64,
    context_channels=(16, 16, 16),
)


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    for seed in range(4):
        Image.fromarray(draw_fundus(seed).image).save(folder / "more" / f"{seed}.png")
    grey = np.random.default_rng(0).integers(0, 255, (300, 320, 3), np.uint8)
    Image.fromarray(grey).save(folder / "no_fundus.png")
    (folder / "broken.jpg").write_bytes(b"text")
    return folder


@pytest.mark.slow
def test_what_the_model_finds_becomes_a_data_set(photographs, tmp_path):
    segmenter = Segmenter(DarkOnGreen(), CONFIG)
    assert label([segmenter], photographs, tmp_path / "labelled") == (4, 2)
    rows = load_vessels(str(tmp_path / "labelled"), "train")
    assert sorted(rows["image_id"]) == [f"more_{seed}" for seed in range(4)]
    sample = read_sample(rows[0])
    assert np.array_equal(sample.image, np.asarray(Image.open(photographs / "more" / "0.png")))
    # The stand-in sees mirrored pictures alike, so that the ensemble is itself.
    assert (sample.vessels != segmenter(sample.image).mask).mean() < 0.002


@pytest.mark.slow
def test_photographs_of_one_name_stay_two(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, seed in (("a.png", 0), ("a.jpg", 1)):
        Image.fromarray(draw_fundus(seed).image).save(pictures / name)
    assert label([Segmenter(DarkOnGreen(), CONFIG)], pictures, tmp_path / "labelled") == (2, 0)
    assert len(set(load_vessels(str(tmp_path / "labelled"), "train")["image_id"])) == 2


@pytest.mark.slow
def test_fewer_are_taken_evenly_and_nothing_is_overwritten(photographs, tmp_path):
    segmenters = [Segmenter(DarkOnGreen(), CONFIG)] * 2
    assert label(segmenters, photographs / "more", tmp_path / "labelled", limit=2) == (2, 0)
    assert list(load_vessels(str(tmp_path / "labelled"), "train")["image_id"]) == ["0", "3"]
    with pytest.raises(DataError, match="exists already"):
        label(segmenters, photographs, tmp_path / "labelled")
    with pytest.raises(DataError, match="no photograph"):
        label(segmenters, tmp_path / "labelled" / "train" / "nothing", tmp_path / "other")


def test_where_nothing_can_be_labelled_nothing_is_left(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="None of the 1 photographs"):
        label([Segmenter(DarkOnGreen(), CONFIG)], tmp_path / "pictures", tmp_path / "labelled")
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_the_command_takes_models_and_a_limit_and_counts(tmp_path, monkeypatch, capsys):
    (tmp_path / "pictures").mkdir()
    for seed in range(3):
        Image.fromarray(draw_fundus(seed).image).save(tmp_path / "pictures" / f"{seed}.png")
    loaded = []
    segmenter = Segmenter(DarkOnGreen(), CONFIG)
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda name: loaded.append(name) or segmenter)
    arguments = [str(tmp_path / "pictures"), str(tmp_path / "labelled"), "--model", "one", "two", "--limit", "2"]
    assert main(["label", *arguments]) == 0
    assert loaded == ["one", "two"]
    assert capsys.readouterr().out == f"{tmp_path / 'labelled'}: 2 photographs labelled, 0 left out\n"
    assert len(load_vessels(str(tmp_path / "labelled"), "train")) == 2


def test_nothing_personal_of_a_dicom_file_gets_into_the_data_set(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    photo = draw_fundus(0).image
    (pictures / "a.dcm").write_bytes(dicom(photo))
    (pictures / "named.dcm").write_bytes(dicom(photo, BurnedInAnnotation="YES"))
    assert label([Segmenter(DarkOnGreen(), CONFIG)], pictures, tmp_path / "labelled") == (1, 1)
    rows = load_vessels(str(tmp_path / "labelled"), "train")
    assert np.array_equal(read_sample(rows[0]).image, photo)
    written = b"".join(path.read_bytes() for path in (tmp_path / "labelled").rglob("*") if path.is_file())
    assert not [value for value in PATIENT.values() if value.encode() in written]


def test_models_of_one_look_and_of_two_label_together(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(draw_fundus(0).image).save(pictures / "a.png")
    segmenters = [Segmenter(DarkOnGreen(), CONFIG), Segmenter(TwoLooksOnGreen(), TWO_LOOKS_CONFIG)]
    for number, models in enumerate((segmenters, segmenters[::-1])):
        assert label(models, pictures, tmp_path / str(number)) == (1, 0)
        mask = read_sample(load_vessels(str(tmp_path / str(number)), "train")[0]).vessels
        results = [model(pictures / "a.png") for model in models]
        wanted = (np.mean([result.probability for result in results], axis=0) >= 0.65) & results[0].fov
        assert wanted.any()
        assert (mask != wanted).mean() < 0.002  # each stand-in sees mirrored pictures alike


@pytest.mark.usefixtures("own_cache")
def test_the_models_that_labelled_are_recorded_with_what_they_learned_from(folder, tmp_path):
    (tmp_path / "photographs").mkdir()
    Image.fromarray(draw_fundus(0).image).save(tmp_path / "photographs" / "a.png")
    release = tmp_path / "private" / "mine" / "release"
    release.mkdir(parents=True)
    (release.parent / "options.json").write_text("{}")
    training = {"options": {"dataset": ["drive"]}, "train_ids": ["0"], "train_sha256": ["ab"]}
    (release / "training.json").write_text(json.dumps(training))
    segmenters = [
        Segmenter(DarkOnGreen(), CONFIG, str(release), release),
        Segmenter(DarkOnGreen(), CONFIG, "someone/net@c0ffee", tmp_path),
        Segmenter(DarkOnGreen(), CONFIG),
    ]
    labelled = tmp_path / "labelled"
    assert label(segmenters, tmp_path / "photographs", labelled) == (1, 0)
    known = {"name": "mine", "trained_on": ["drive"], "sha256": ["ab"]}
    unknown = [{"name": name, "trained_on": []} for name in ("net@c0ffee", "a model without a name")]
    assert json.loads((labelled / LABELLED_BY_NAME).read_text()) == [known, *unknown]
    assert "private" not in (labelled / LABELLED_BY_NAME).read_text()
    data = TrainingData.load(TrainingOptions(dataset=(str(folder),), extra=(str(labelled),)))
    assert data.labelled_by == [known, *unknown] and len(data.extra) == 1


def test_a_folder_that_does_not_say_who_labelled_it_was_labelled_by_something_unknown(tmp_path):
    assert read_labelled_by(str(tmp_path)) == [
        {"name": f"unknown models that labelled {tmp_path.name}", "trained_on": []}
    ]
    assert read_labelled_by("synthetic") == []
    for content in ("[]", "{", '{"name": "a"}', '["a"]', '[{"trained_on": []}]'):
        (tmp_path / LABELLED_BY_NAME).write_text(content)
        with pytest.raises(DataError, match=r"labelled_by\.json: .*label"):
            read_labelled_by(str(tmp_path))


def test_mirrored_averages_over_four_views_each_turned_back():
    rgb = np.random.default_rng(1).random((2, 3, 6, 8)).astype(np.float32)
    assert np.allclose(MirroredNetwork(lambda rgb: rgb[:, 1])(rgb), rgb[:, 1])
    # One that favours the upper left corner favours none when mirrored.
    corner = np.zeros((6, 8), np.float32)
    corner[0, 0] = 1
    found = MirroredNetwork(lambda rgb: np.broadcast_to(corner, (len(rgb), 6, 8)))(rgb)
    assert found[0, [0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0.25] * 4
    assert found[0].sum() == 1


def test_every_third_crop_comes_from_a_labelled_photograph():
    def plain(value: int) -> WorkingSample:
        full = np.full((64, 64), 255, np.uint8)
        vessels = np.full((64, 64), value, np.uint8)
        return WorkingSample(np.full((64, 64, 3), value, np.uint8), vessels, full, vessels, "set")

    traced, labelled = [plain(value) for value in (10, 20)], [plain(value) for value in (110, 120, 130)]
    crops = Crops(traced, 32, seed=0, extra=labelled)
    seen = [round(float(crops[place][1][0, 16, 16]) * 255) for place in range(36)]
    assert all(value < 100 for place, value in enumerate(seen) if place % 3 != 2)
    assert sorted(seen[2::3]) == sorted([110, 120, 130] * 4)
    assert sorted(set(seen[::3] + seen[1::3])) == [10, 20]
    alone = Crops(traced, 32, seed=0)
    assert len({round(float(alone[place][1][0, 16, 16]) * 255) for place in range(2)}) == 2
