"""find_warnings says nothing of good photographs, and the right sentence for each fault."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageFilter
from support.synthetic import draw_fundus

from resegnet import Segmenter
from resegnet.fov import FieldOfView, find_field_of_view, find_fov
from resegnet.quality import (
    BLURRED,
    BRIGHT_SPOTS,
    CUT_OFF,
    FEW_VESSELS,
    NOT_FUNDUS,
    OVEREXPOSED,
    POOR_CONTRAST,
    SOFT,
    TOO_DARK,
    WARNINGS,
    find_warnings,
)
from resegnet.softness import measure_edges

# On these, other people's programs rely; a code may be added, none may change.
CODES = [
    *("burned_in", "not_fundus", "cut_off", "too_dark", "overexposed", "poor_contrast", "blurred", "soft"),
    *("few_vessels", "bright_spots"),
]
EVERYDAY = [
    *("astronaut", "brick", "camera", "cat", "cell", "clock", "coffee", "coins", "colorwheel", "grass", "gravel"),
    *("horse", "hubble_deep_field", "immunohistochemistry", "logo", "microaneurysms", "moon", "page", "rocket", "text"),
]


def warnings_for(image):
    image = np.ascontiguousarray(image)
    return find_warnings(image, find_field_of_view(image))


def blur(image, sigma):
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def flatten(image, fov, share):
    middle = np.median(image[fov], axis=0)
    flat = np.where(fov[..., None], (image - middle) * share + middle, image)
    return np.clip(flat, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def retina():
    """The one real photograph that is free for everyone: 1411 x 1411 px, CC0."""
    return skimage.data.retina()


def test_codes_of_warnings_stay():
    assert [warning.code for warning in WARNINGS] == CODES
    assert [warning.code for warning in WARNINGS if warning.kind == "privacy"] == ["burned_in"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda warning: pickle.loads(pickle.dumps(warning))])
def test_a_warning_is_text_that_keeps_its_code(duplicate):
    for warning in WARNINGS:
        again = duplicate(warning)
        assert (again, again.code, again.kind) == (warning, warning.code, warning.kind)
    assert json.loads(json.dumps(list(WARNINGS))) == [str(warning) for warning in WARNINGS]


def test_the_free_retina_is_fine(retina):
    assert warnings_for(retina) == []


@pytest.mark.parametrize("longest_px", [512, 700, 1000])
def test_smaller_copies_of_it_are_fine(retina, longest_px):
    small = Image.fromarray(retina)
    small.thumbnail((longest_px, longest_px))
    assert warnings_for(np.array(small)) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_synthetic_photograph_is_fine(seed):
    assert warnings_for(draw_fundus(seed).image) == []


def test_cut_at_top_and_bottom_as_cameras_do_is_fine(retina):
    assert warnings_for(retina[150:-150]) == []


@pytest.mark.parametrize("window", [np.s_[:, 560:], np.s_[:850], np.s_[:900, :900], np.s_[400:1000, 400:1000]], ids=str)
def test_cut_off(retina, window):
    assert warnings_for(retina[window]) == [CUT_OFF]


@pytest.mark.parametrize("share", [0.3, 0.2, 0.1])
def test_too_dark(retina, share):
    assert TOO_DARK in warnings_for((retina * share).astype(np.uint8))


def test_overexposed(retina):
    assert OVEREXPOSED in warnings_for(np.clip(retina * 3.5, 0, 255).astype(np.uint8))


def test_white_glare_over_a_quarter_of_the_field(retina):
    y, x = np.mgrid[:1411, :1411]
    glare = 400 * np.exp(-((((y - 600) / 350) ** 2 + ((x - 900) / 350) ** 2) ** 2)) * find_fov(retina)
    assert warnings_for(np.clip(retina + glare[..., None], 0, 255).astype(np.uint8)) == [OVEREXPOSED]


@pytest.mark.parametrize("share", [0.2, 0.1, 0.0])
def test_poor_contrast(retina, share):
    assert POOR_CONTRAST in warnings_for(flatten(retina, find_fov(retina), share))


@pytest.mark.parametrize("sigma", [6, 9, 15])
def test_blurred(retina, sigma):
    assert BLURRED in warnings_for(blur(retina, sigma))


def test_too_small_to_show_thin_vessels(retina):
    small = Image.fromarray(retina).resize((150, 150), Image.Resampling.BOX)
    assert warnings_for(np.array(small)) == [BLURRED]


@pytest.mark.slow
@pytest.mark.parametrize(("size", "sigma", "expected"), [(2000, 0, []), (2000, 4, [SOFT]), (500, 0, []), (500, 1, [])])
def test_soft_for_its_many_pixels(size, sigma, expected):
    eye = draw_fundus(0, (size, size))
    image = blur(eye.image, sigma)
    fov = find_field_of_view(image)
    edges = measure_edges(image[..., 1], eye.vessels, fov.diameter)
    assert find_warnings(image, fov, eye.vessels, edges) == expected


@pytest.mark.slow
def test_by_the_vessels_that_the_model_finds_the_free_retina_is_soft_once_it_is_softened(retina):
    segmenter = Segmenter.from_pretrained(anatomy=False)
    assert segmenter(retina).warnings == ()
    assert segmenter(blur(retina, 3)).warnings == (SOFT,)


@pytest.mark.parametrize(("share", "expected"), [(0.0, [FEW_VESSELS]), (0.02, [FEW_VESSELS]), (0.05, [])])
def test_hardly_any_vessel(retina, share, expected):
    fov = find_field_of_view(retina)
    vessels = np.ones(retina.shape[:2], bool)  # also outside the field, where nothing counts
    vessels[fov.mask] = np.arange(np.count_nonzero(fov.mask)) % 100 < 100 * share
    assert find_warnings(retina, fov, vessels) == expected


@pytest.mark.parametrize(("count", "expected"), [(0, []), (12, []), (120, [BRIGHT_SPOTS])])
def test_many_bright_spots(retina, count, expected):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:1411, :1411]
    image = retina.copy()
    for row, column in rng.uniform((700, 300), (1050, 700), (count, 2)):  # below the middle, away from the disc
        image[(y - row) ** 2 + (x - column) ** 2 < 6**2] = (250, 230, 120)
    assert warnings_for(image) == expected


def test_blur_and_poor_contrast_are_told_apart(retina):
    fov = find_field_of_view(retina)
    assert BLURRED not in find_warnings(flatten(retina, fov.mask, 0.25), fov)
    assert POOR_CONTRAST not in find_warnings(blur(retina, 6), fov)


@pytest.mark.parametrize("name", EVERYDAY)
def test_everyday_pictures_are_recognised(name):
    picture = getattr(skimage.data, name)()
    if picture.dtype == bool:
        picture = picture.astype(np.uint8) * 255
    image = np.stack([picture] * 3, axis=-1) if picture.ndim == 2 else picture[..., :3]
    assert warnings_for(image) == [NOT_FUNDUS]


def test_grey_copy_of_a_retina_is_no_colour_photograph(retina):
    grey = np.repeat(retina[..., 1:2], 3, axis=2)
    assert warnings_for(grey) == [NOT_FUNDUS]


def test_swapped_colours_are_noticed(retina):
    assert warnings_for(retina[..., ::-1]) == [NOT_FUNDUS]


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (200, 200)])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 90, 40), (10, 90, 200)])
def test_flat_colour_warns(shape, colour):
    assert warnings_for(np.full((*shape, 3), colour, np.uint8)) != []


@pytest.mark.parametrize("shape", [(64, 64), (300, 400)])
@pytest.mark.parametrize("noise", [0, 5])
def test_a_plain_red_picture_is_no_fundus_photograph(shape, noise):
    rng = np.random.default_rng(0)
    picture = np.array([200, 40, 20]) + rng.normal(0, noise, (*shape, 3))
    assert warnings_for(np.clip(picture, 0, 255).astype(np.uint8)) == [NOT_FUNDUS]


def test_noise_warns():
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert warnings_for(noise) == [NOT_FUNDUS]


def test_empty_field_of_view_warns(retina):
    assert find_warnings(retina, FieldOfView(np.zeros(retina.shape[:2], bool))) == [NOT_FUNDUS]


def test_a_field_of_one_pixel_is_survived(retina):
    fov = np.zeros(retina.shape[:2], bool)
    fov[700, 700] = True
    assert find_warnings(retina, FieldOfView(fov)) != []


@pytest.mark.parametrize("fov", [np.ones((9, 9), bool), [[True]], None])
def test_refuses_what_is_no_field_of_view(fov):
    with pytest.raises(TypeError, match="expected a FieldOfView"):
        find_warnings(np.zeros((9, 9, 3), np.uint8), fov)


@pytest.mark.parametrize("mask", [np.ones((9, 9), np.uint8), [[True]], None])
def test_refuses_a_mask_that_is_not_bool(mask):
    with pytest.raises(TypeError, match="expected a bool array"):
        FieldOfView(mask)


@pytest.mark.parametrize("shape", [(8, 9), (9, 9, 1), (9,)])
def test_refuses_a_field_of_another_size(shape):
    with pytest.raises(ValueError, match=r"\(9, 9\)"):
        find_warnings(np.zeros((9, 9, 3), np.uint8), FieldOfView(np.ones(shape, bool)))


@pytest.mark.parametrize("image", [np.zeros((9, 9, 3)), None])
def test_refuses_other_images(image):
    with pytest.raises(TypeError, match="uint8"):
        find_warnings(image, FieldOfView(np.ones((9, 9), bool)))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["drive", "chase_db1", "hrf"])
def test_training_photographs_are_fine(real, name):
    folder = real / name / "train"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    found = {}
    for row in rows:
        with (
            Image.open(folder / row["image_file_name"]) as photograph,
            Image.open(folder / row["mask_file_name"]) as mask,
        ):
            image, vessels = np.array(photograph.convert("RGB")), np.array(mask.convert("L")) > 127
        fov = find_field_of_view(image)
        edges = measure_edges(image[..., 1], vessels, fov.diameter)
        found[row["image_id"]] = find_warnings(image, fov, vessels, edges)
    assert {image_id: sentences for image_id, sentences in found.items() if sentences} == {}


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["dr_hagis", "aria", "orvs", "idrid_unlabelled"])
def test_photographs_of_other_cameras_are_known_as_such(real, name):
    folder = real / name / "train"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for row in rows[:: max(1, len(rows) // 60)]:
        path = row.get("image_file_name") or row["file_name"]
        with Image.open(folder / path) as photograph:
            assert NOT_FUNDUS not in warnings_for(np.array(photograph.convert("RGB"))), path


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["idrid_tr_384", "idrid_tr_344", "idrid_tr_042", "idrid_te_072"])
def test_exudates_are_warned_of(real, name):
    with Image.open(real / "idrid_unlabelled" / "train" / f"{name}.jpg") as photograph:
        assert warnings_for(np.array(photograph.convert("RGB"))) == [BRIGHT_SPOTS]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["drive", "chase_db1", "hrf", "idrid_unlabelled"])
def test_they_are_too_dark_at_15_percent_of_their_light(real, name):
    folder = real / name / "train"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for row in rows[:: max(1, len(rows) // 10)]:
        path = row.get("image_file_name") or row["file_name"]
        with Image.open(folder / path) as photograph:
            dark = (np.array(photograph.convert("RGB")) * 0.15).astype(np.uint8)
        found = warnings_for(dark)
        assert TOO_DARK in found and NOT_FUNDUS not in found, path
