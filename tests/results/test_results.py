"""Values, measures, pictures and files of a segmentation whose every pixel is known."""

import io
import itertools
import json
import math
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab
from support.colours import EYES, distance

from resegnet.quality import PhotographWarning
from resegnet.results import export, render
from resegnet.results.measure import measure
from resegnet.results.segmentation import Segmentation

THRESHOLD = 0.4


@pytest.fixture
def result():
    """40 x 60, field 30 x 50, one bar of 4 x 40 over the threshold in the field and one outside it."""
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    probability = (random.random((40, 60)) * 0.39).astype(np.float32)
    probability[20:24, 10:50] = 0.4 + random.random((4, 40)).astype(np.float32) * 0.6
    probability[1:3, :] = 0.9
    fov = np.zeros((40, 60), bool)
    fov[5:35, 5:55] = True
    warnings = (PhotographWarning("blurred", "Die Aufnahme ist unscharf."), PhotographWarning("larger", "größer"))
    return Segmentation(image, probability, fov, THRESHOLD, warnings, "user/model")


# Values


def copy_of(result):
    return pickle.loads(pickle.dumps(result))


def test_results_are_equal_by_value(result):
    other = copy_of(result)
    assert other == result
    assert hash(other) == hash(result)
    assert len({result, other}) == 1
    assert (result == 3) is False
    assert result.at(0.4) == result
    for change in (
        {"image": result.image + 1},
        {"probability": result.probability / 2},
        {"fov": ~result.fov},
        {"threshold": 0.41},
        {"warnings": ()},
        {"model": "another"},
        {"um_per_px": 5.0},
        {"image": result.image[1:], "probability": result.probability[1:], "fov": result.fov[1:]},
    ):
        assert replace(result, **change) != result


def test_repr_is_short_and_says_what_matters(result):
    assert repr(result) == (
        "Segmentation(60 x 40 px, threshold 0.4, model 'user/model', 10.7% of the field is vessel, 2 warnings)"
    )
    nowhere = replace(result, fov=result.fov & False, warnings=result.warnings[:1])
    assert "no field of view, 1 warning)" in repr(nowhere)


def test_notebooks_show_the_overlay_reduced():
    for shape, shown in (((40, 60), (60, 40)), ((600, 3000), (1024, 205))):
        image = np.full((*shape, 3), 90, np.uint8)
        everywhere = np.ones(shape, bool)
        result = Segmentation(image, everywhere.astype(np.float32), everywhere, 0.5)
        with Image.open(io.BytesIO(result._repr_png_())) as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", shown)
            assert (np.asarray(picture) == result.overlay()[0, 0]).all()


# Measures


def test_areas_and_density_are_those_drawn(result):
    numbers = measure(result)
    assert (numbers["field_area_px"], numbers["vessel_area_px"]) == (1500, 160)
    assert numbers["vessel_density"] == pytest.approx(160 / 1500)


def test_density_without_a_field_is_nan(result):
    nowhere = replace(result, fov=np.zeros((40, 60), bool))
    assert math.isnan(measure(nowhere)["vessel_density"])


# Pictures


def test_overlay_colours_the_mask_and_nothing_else(result):
    before = result.image.copy()
    drawn = render.overlay(result.image, result.mask, color=(10, 20, 30), opacity=1)
    assert (drawn[result.mask] == (10, 20, 30)).all()
    assert np.array_equal(drawn[~result.mask], before[~result.mask])
    assert np.array_equal(result.image, before)


def test_overlay_blends_by_opacity():
    image = np.full((2, 2, 3), (200, 100, 0), np.uint8)
    drawn = render.overlay(image, np.eye(2, dtype=bool), color=(0, 200, 255), opacity=0.25)
    assert drawn[0, 0].tolist() == [150, 125, 64]
    assert drawn[0, 1].tolist() == [200, 100, 0]


def test_error_map_shows_each_kind_of_pixel_in_its_colour():
    image = np.full((10, 10, 3), (250, 120, 50), np.uint8)
    truth, prediction, fov = (np.zeros((10, 10), bool) for _ in range(3))
    fov[:, 2:] = True
    truth[2, :] = True
    prediction[2, :6] = True
    prediction[7, 1:8] = True
    drawn = render.error_map(image, prediction, truth, fov)
    counts = {name: np.count_nonzero((drawn == color).all(axis=2)) for name, color in render.ERROR_COLORS.items()}
    assert counts == {"hit": 4, "miss": 4, "false alarm": 6}
    assert (drawn[2, :2] == drawn[0, 0]).all()  # outside the field nothing is marked
    assert len(set(drawn[5, 5].tolist())) == 1
    assert drawn[5, 5, 0] == 2 * drawn[0, 0, 0] > 0


def test_error_map_dims_a_bright_photograph_and_lights_up_a_dark_one():
    nothing, whole = np.zeros((10, 10), bool), np.ones((10, 10), bool)
    for level in (6, 60, 255):
        drawn = render.error_map(np.full((10, 10, 3), level, np.uint8), nothing, nothing, whole)
        assert (drawn == render._GREY_MAX).all()
    assert not render.error_map(np.zeros((10, 10, 3), np.uint8), nothing, nothing, whole).any()


@pytest.mark.parametrize("eye", EYES)
def test_colours_are_told_apart_by_all_eyes(eye):
    errors = [*render.ERROR_COLORS.values(), (render._GREY_MAX,) * 3]
    assert min(distance(one, other, eye) for one, other in itertools.combinations(errors, 2)) > 28
    fundus = {
        "field": (205, 110, 55),
        "dark field": (110, 45, 20),
        "disc": (250, 225, 150),
        "vessel": (120, 40, 20),
    }
    vessel = np.full((1, 1, 3), fundus["vessel"], np.uint8)
    drawn = render.overlay(vessel, np.ones((1, 1), bool))[0, 0]
    assert min(distance(drawn, color, eye) for color in fundus.values()) > 35


def test_magma_grows_lighter_from_black():
    colors = render.magma()
    assert (colors.shape, colors.dtype) == ((256, 3), np.uint8)
    assert colors[0].tolist() == [0, 0, 4]
    assert colors[128].tolist() == [183, 55, 121]  # matplotlib's magma(128)
    assert colors[-1].tolist() == [252, 253, 191]
    assert (np.diff(rgb2lab(colors[None])[0, ::8, 0]) > 0).all()


def test_pictures_of_another_size_are_refused(result):
    with pytest.raises(ValueError, match=r"mask has the shape \(40, 59\)"):
        render.overlay(result.image, result.mask[:, 1:])
    with pytest.raises(ValueError, match=r"mask has .* type uint8"):
        render.overlay(result.image, result.mask.astype(np.uint8))
    with pytest.raises(ValueError, match="image has the shape"):
        render.overlay(result.image[:, :, 0], result.mask)
    with pytest.raises(ValueError, match="reference has the shape"):
        render.error_map(result.image, result.mask, result.mask[1:], result.fov)
    with pytest.raises(ValueError, match="opacity is 70"):
        render.overlay(result.image, result.mask, opacity=70)


# Files


def test_saved_files_give_back_every_pixel(result, tmp_path):
    paths = export.save(result, tmp_path / "new" / "folder", "left eye")
    assert {kind: path.name for kind, path in paths.items()} == {
        "mask": "left eye_mask.png",
        "probability": "left eye_probability.png",
        "overlay": "left eye_overlay.png",
        "summary": "left eye_summary.json",
    }
    assert sorted(paths.values()) == sorted((tmp_path / "new" / "folder").iterdir())
    with Image.open(paths["mask"]) as mask:
        assert (mask.mode, mask.size) == ("L", (60, 40))
        assert np.array_equal(np.asarray(mask), np.where(result.mask, 255, 0))
    with Image.open(paths["probability"]) as probability:
        assert (probability.mode, probability.size) == ("I;16", (60, 40))
        assert np.abs(np.asarray(probability) / 65535 - result.probability).max() < 0.51 / 65535
    with Image.open(paths["overlay"]) as overlay:
        assert np.array_equal(np.asarray(overlay), render.overlay(result.image, result.mask))


def test_a_segmentation_offers_all_of_it_itself(result, tmp_path):
    assert export.without_nan(result.measure()) == export.without_nan(measure(result))
    look = {"color": (9, 8, 7), "opacity": 0.5}
    assert np.array_equal(result.overlay(**look), render.overlay(result.image, result.mask, **look))
    assert np.array_equal(result.overlay((9, 8, 7), 0.5), result.overlay(**look))
    assert result.save(tmp_path)["mask"].read_bytes() == export.mask_png(result)


def test_summary_is_strict_json_of_what_was_found(result, tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    path = export.save(result, tmp_path)["summary"]
    summary = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert (summary["height_px"], summary["width_px"], summary["threshold"]) == (40, 60, 0.4)
    assert summary["model"] == "user/model"
    assert summary["warnings"] == list(result.warnings)
    assert summary["warning_codes"] == [warning.code for warning in result.warnings]
    assert summary["measures"]["vessel_area_px"] == 160
    nowhere = replace(result, fov=np.zeros((40, 60), bool))
    path = export.save(nowhere, tmp_path)["summary"]
    assert json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)["measures"]["vessel_density"] is None


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_probability_file_holds_both_ends(value):
    flat = np.full((3, 4), value, np.float32)
    content = export.probability_png(Segmentation(np.zeros((3, 4, 3), np.uint8), flat, flat > 2, 0.5))
    with Image.open(io.BytesIO(content)) as picture:
        assert (np.asarray(picture) == round(value * 65535)).all()


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("IMG_0042", "IMG_0042"),
        ("Müller 網膜", "Müller 網膜"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "photograph"),
        ("", "photograph"),
        (" . ", "photograph"),
        (".hidden", "hidden"),
        ("C:\\temp\\eye", "C__temp_eye"),
        ("a\x00b\nc\u202ed\udcff", "a_b_c_d_"),
        ('what?*<>|"', "what______"),
        ("x" * 400, "x" * 150),
        ("網" * 100, "網" * 50),
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_names_are_made_harmless(name, safe, result, tmp_path):
    assert export.safe_name(name) == safe
    folder = tmp_path / "out"
    for path in export.save(result, folder, name).values():
        assert path.parent == folder
        assert path.is_file()
    assert list(tmp_path.iterdir()) == [folder]


def test_a_link_in_the_folder_is_replaced_and_not_followed(result, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "photograph_mask.png").symlink_to(secret)
    export.save(result, folder)
    assert secret.read_text() == "mine"
    assert not (folder / "photograph_mask.png").is_symlink()


def test_a_broken_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "eye_mask.png"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        export.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
