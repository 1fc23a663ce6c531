"""find_fov agrees with fields of known shape, and with the given fields of the benchmark photographs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import skimage.data
from PIL import Image

from resegnet.fov import Box, bounding_box, find_field_of_view, find_fov


def draw(shape, centre, radii, *, surround=0, noise=3.0, dim=0.0, seed=0):
    """Draw an orange upright ellipse in an even surround, and its exact field; `dim` darkens it to the right."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    fov = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1
    light = 1 - dim * np.clip((x - centre[1] + radii[1]) / (2 * radii[1]), 0, 1)
    image = np.where(fov[..., None], np.array([190, 95, 40]) * light[..., None], float(surround))
    image += np.random.default_rng(seed).normal(0, noise, image.shape)
    return np.clip(image, 0, 255).round().astype(np.uint8), fov


def overlap(found, truth):
    return (found & truth).sum() / (found | truth).sum()


CASES = {
    "whole circle": draw((300, 320), (148, 165), (140, 140)),
    "cut at top and bottom": draw((230, 340), (114, 168), (155, 155)),
    "cut at left": draw((300, 260), (150, 90), (140, 140)),
    "one corner of it": draw((240, 240), (20, 30), (200, 200)),
    "small in a large frame": draw((500, 700), (330, 180), (75, 75)),
    "grey noisy surround": draw((300, 320), (148, 165), (140, 140), surround=25, noise=8),
    "white surround": draw((300, 320), (148, 165), (140, 140), surround=255),
    "dark at one side": draw((300, 320), (148, 165), (140, 140), dim=0.9),
    "squashed to a square": draw((300, 300), (150, 150), (145, 97)),
    "squashed and cut": draw((300, 300), (150, 150), (205, 140)),
    "large photograph": draw((1400, 2100), (690, 1040), (980, 980)),
    "thumbnail": draw((64, 64), (32, 31), (29, 29)),
}


@pytest.mark.parametrize("name", CASES)
def test_finds_the_drawn_field(name):
    image, truth = CASES[name]
    fov = find_fov(image)
    assert fov.shape == truth.shape
    assert fov.dtype == bool
    assert overlap(fov, truth) > (0.95 if name == "thumbnail" else 0.985)


def test_finds_a_very_dark_field():
    image, truth = draw((300, 320), (148, 165), (140, 140), noise=0)
    assert overlap(find_fov(image // 8), truth) > 0.985


def test_black_strips_inside_the_frame_cut_the_field():
    image, truth = draw((300, 320), (150, 160), (145, 145))
    for strip in (np.s_[:40], np.s_[-30:]):
        image[strip], truth[strip] = 0, False
    fov = find_fov(image)
    assert overlap(fov, truth) > 0.985
    assert not fov[:36].any()
    assert not fov[-26:].any()


def test_frame_padded_to_a_square_is_left_out():
    image, _ = draw((200, 300), (100, 150), (400, 400))
    padded = np.zeros((300, 300, 3), np.uint8)
    padded[50:250] = image
    truth = np.zeros((300, 300), bool)
    truth[50:250] = True
    assert overlap(find_fov(padded), truth) > 0.97


def test_letters_and_a_notch_in_the_surround_change_nothing():
    image, truth = draw((300, 320), (148, 165), (140, 140))
    image[10:30, 5:9] = image[10:14, 5:40] = image[10:30, 20:24] = 255
    image[30:50, 255:275] = image[148, 165]
    assert overlap(find_fov(image), truth) > 0.985


def test_field_that_fills_the_frame():
    image, _ = draw((200, 300), (100, 150), (400, 400))
    assert find_fov(image).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (2000, 1), (23, 23), (24, 24), (30, 900), (24, 13000)])
@pytest.mark.parametrize("content", [0, 7, 128, 255, "noise", "gradient"])
def test_anything_gives_a_field_of_its_own_size(shape, content):
    if content == "noise":
        image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    elif content == "gradient":
        image = np.broadcast_to(np.linspace(0, 255, shape[1])[:, None], (*shape, 3)).astype(np.uint8)
    else:
        image = np.full((*shape, 3), content, np.uint8)
    fov = find_fov(image)
    assert fov.shape == shape
    assert fov.any()
    if content != "gradient":
        assert fov.all()


@pytest.mark.parametrize("name", ["astronaut", "coffee", "cat", "rocket", "camera", "page", "immunohistochemistry"])
def test_everyday_pictures_keep_their_whole_frame(name):
    picture = getattr(skimage.data, name)()
    image = np.stack([picture] * 3, axis=-1) if picture.ndim == 2 else np.ascontiguousarray(picture[..., :3])
    assert find_fov(image).all()


def test_same_photograph_gives_the_same_field():
    image, _ = CASES["grey noisy surround"]
    before = image.copy()
    assert np.array_equal(find_fov(image), find_fov(image))
    assert np.array_equal(image, before)


def test_result_does_not_depend_on_memory_layout():
    image, _ = CASES["cut at left"]
    assert np.array_equal(find_fov(np.asfortranarray(image)), find_fov(image))


@pytest.mark.parametrize("array", [np.zeros((9, 9, 3)), np.zeros((9, 9, 3), np.uint16), [[0, 0, 0]], None])
def test_refuses_other_types(array):
    with pytest.raises(TypeError, match="uint8"):
        find_fov(array)


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 4), (0, 9, 3), (9, 9, 3, 1)])
def test_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        find_fov(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("centre", "radii"), [((148, 165), (140, 140)), ((150, 160), (190, 190)), ((150, 160), (200, 140))]
)
def test_the_rim_is_the_uncut_ellipse(centre, radii):
    image, _ = draw((300, 320), centre, radii)
    assert find_field_of_view(image).rim == pytest.approx((*centre, *radii), abs=2.5)


@pytest.mark.parametrize("name", CASES)
def test_mask_rim_and_box_tell_the_same_of_every_field(name):
    image, _ = CASES[name]
    fov = find_field_of_view(image)
    assert np.array_equal(fov.mask, find_fov(image))
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    rim = fov.rim
    inside = ((y - rim.centre_y) / rim.radius_y) ** 2 + ((x - rim.centre_x) / rim.radius_x) ** 2 <= 1
    assert overlap(fov.mask, inside) > 0.99
    rows, columns = np.nonzero(fov.mask)
    assert fov.box == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)


@pytest.mark.parametrize("image", [np.zeros((200, 300, 3), np.uint8), np.full((200, 300, 3), 128, np.uint8)])
def test_no_rim_where_no_edge_is_rounded(image):
    fov = find_field_of_view(image)
    assert fov.rim is None
    assert fov.box == (0, 0, 200, 300)


def test_the_box_holds_the_mask_and_is_empty_without_one():
    mask = np.zeros((20, 30), bool)
    assert bounding_box(mask) == Box(0, 0, 0, 0)
    mask[4, 7] = mask[9, 2] = True
    box = bounding_box(mask)
    assert box == Box(top=4, left=2, bottom=10, right=8)
    assert (box.height, box.width) == (6, 6)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["drive", "chase_db1", "hrf"])
def test_agrees_with_the_given_fields(real, name):
    folder = real / name / "train"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    scores = {}
    for row in rows:
        with Image.open(folder / row["image_file_name"]) as photograph:
            image = np.array(photograph.convert("RGB"))
        with Image.open(folder / row["fov_file_name"]) as given:
            truth = np.array(given.convert("L")) > 127
        scores[row["image_id"]] = overlap(find_fov(image), truth)
    assert np.mean(list(scores.values())) >= 0.98
    assert min(scores.values()) >= 0.95, scores


@pytest.mark.data
@pytest.mark.slow
def test_one_camera_gives_one_field(real):
    shares = {}
    for path in sorted((real / "idrid_unlabelled" / "train").glob("*.jpg")):
        with Image.open(path) as photograph:
            shares[path.name] = find_fov(np.array(photograph.convert("RGB"))).mean()
    assert len(shares) == 516
    typical = np.median(list(shares.values()))
    assert {name: share for name, share in shares.items() if abs(share - typical) > 0.01} == {}
