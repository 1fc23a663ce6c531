"""Every way in which the file of a reference may come, and files that are refused as references."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter
from support.synthetic import draw_fundus
from support.tracings import dice, grey, segmentation_of

from resegnet.errors import ImageError
from resegnet.image import read_image
from resegnet.results import render
from resegnet.results.compare import compare, read_reference
from resegnet.results.segmentation import Segmentation

SHADES, DARK, LABELS, OUTSIDE = "cut half-way", "was inverted", "all of them were taken", "outside the field of view"


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, kind, **options)
    return file.getvalue()


def read(source, result):
    """Mask inside the field and which kinds of note there are."""
    vessels, notes = read_reference(source, result)
    assert (vessels.dtype, vessels.shape) == (bool, result.fov.shape)
    assert all(note.endswith(".") for note in notes)
    kinds = [kind for note in notes for kind in (SHADES, DARK, LABELS, OUTSIDE) if kind in note]
    assert len(kinds) == len(notes)
    return vessels & result.fov, kinds


# Files that are references


def test_white_on_black_is_read_as_it_is_from_every_kind_of_source(eye, result, tmp_path):
    path = tmp_path / "reference.tif"
    path.write_bytes(encoded(grey(eye.vessels), "TIFF"))
    picture = Image.fromarray(grey(eye.vessels))
    rgba = np.dstack([np.full((*eye.vessels.shape, 3), 255, np.uint8), grey(eye.vessels)])
    label_16_bit = eye.vessels.astype(np.uint16) * 65535
    for source in (
        path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), picture, picture.convert("1"), eye.vessels,
        eye.vessels.astype(np.float32), encoded(label_16_bit), encoded(picture, "GIF"), encoded(rgba),
    ):  # fmt: skip
        vessels, kinds = read(source, result)
        assert np.array_equal(vessels, eye.vessels)
        assert kinds == []


@pytest.mark.parametrize("level", [1, 2, 37, 128, 255])
def test_any_single_value_is_vessel(eye, result, level):
    vessels, kinds = read(eye.vessels * np.uint8(level), result)
    assert np.array_equal(vessels, eye.vessels)
    assert kinds == []
    vessels, kinds = read(np.where(eye.vessels, np.uint8(0), np.uint8(level)), result)
    assert np.array_equal(vessels, eye.vessels)
    assert kinds == [DARK]


def sides(vessels, values):
    """Vessels in so many upright strips, one value or colour each."""
    strip = np.arange(vessels.shape[1]) * len(values) // vessels.shape[1]
    painted = np.array(values, np.uint8)[np.broadcast_to(strip, vessels.shape)]
    return painted, vessels if painted.ndim == 2 else vessels[:, :, None]


@pytest.mark.parametrize(
    ("values", "ground", "number", "kinds"),
    [
        ([1, 2], 0, "2 grey levels", [LABELS]),
        ([1, 2, 3], 0, "3 grey levels", [LABELS]),
        (list(range(1, 9)), 0, None, [LABELS]),
        ([85, 170, 255], 0, "3 grey levels", [LABELS]),
        ([(255, 0, 0), (0, 0, 255), (0, 255, 0)], (0, 0, 0), "3 colours", [LABELS]),
        ([(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)], (0, 0, 0), "4 colours", [LABELS]),
        ([(255, 0, 0), (0, 0, 255)], (255, 255, 255), "2 colours", [LABELS, DARK]),
        ([(0, 0, 255)], (0, 0, 0), None, []),
        ([(253, 231, 37)], (68, 1, 84), None, []),  # matplotlib's viridis
    ],
)
def test_labels_and_colours_are_vessels_all_but_the_background(eye, result, values, ground, number, kinds):
    painted, vessels = sides(eye.vessels, values)
    found, notes = read_reference(encoded(np.where(vessels, painted, np.array(ground, np.uint8))), result)
    assert np.array_equal(found, eye.vessels)
    assert len(notes) == len(kinds)
    assert all(kind in note for kind, note in zip(kinds, notes, strict=True))
    if number:
        assert number in notes[0]


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("quality", [30, 75, 95, 98])
def test_jpeg_gives_back_nearly_the_same_mask(eye, result, quality, inverted):
    vessels, kinds = read(encoded(grey(eye.vessels ^ inverted), "JPEG", quality=quality), result)
    assert dice(vessels, eye.vessels) > 0.999
    assert (DARK in kinds) == inverted
    if quality < 98:  # the few levels of the best JPEG may count as labels
        assert set(kinds) - {DARK} == {SHADES}


def test_the_few_levels_of_the_best_jpeg_do_not_widen_vessels(eye, result):
    source = encoded(grey(eye.vessels), "JPEG", quality=100)
    assert 2 < len(np.unique(read_image(source))) < 10
    assert np.array_equal(read(source, result)[0], eye.vessels)


def test_coloured_jpeg_is_read_on_black_and_on_white(eye, result):
    painted, vessels = sides(eye.vessels, [(255, 0, 0), (0, 0, 255)])
    for ground, least in ((0, 0.93), (255, 0.98)):  # half the colour resolution; on black it makes up the lines
        found, kinds = read(encoded(np.where(vessels, painted, np.uint8(ground)), "JPEG", quality=75), result)
        assert dice(found, eye.vessels) > least
        assert kinds == ([SHADES, DARK] if ground else [SHADES])


def test_smoothed_tracings_are_cut_half_way(eye, result):
    picture = Image.fromarray(grey(eye.vessels))
    blurred = picture.filter(ImageFilter.GaussianBlur(1))
    small = picture.resize((250, 210), Image.Resampling.BOX).resize(picture.size, Image.Resampling.BILINEAR)
    for source in (blurred, small):
        vessels, kinds = read(source, result)
        assert np.array_equal(vessels, (np.asarray(source) > np.asarray(source).max() / 2) & eye.fov)
        assert dice(vessels, eye.vessels) > 0.8
        assert kinds == [SHADES]


def test_five_even_levels_of_a_tracing_scaled_to_its_half_are_no_labels(eye):
    truth = grey(eye.vessels)
    half = np.asarray(Image.fromarray(truth).reduce(2))
    small = Segmentation(eye.image[::2, ::2], np.zeros(half.shape, np.float32), eye.fov[::2, ::2], 0.5)
    assert len(np.unique(half)) == 5
    vessels, kinds = read(half, small)
    assert np.array_equal(vessels, (half > 127) & small.fov)
    assert kinds == [SHADES]


def test_inverted_on_white_and_on_a_black_surround(eye, result):
    white = grey(~eye.vessels)
    vessels, kinds = read(white, result)
    assert np.array_equal(vessels, eye.vessels)
    assert kinds == [DARK]
    black = np.where(eye.fov, white, np.uint8(0))
    assert not read_reference(black, result)[0][~eye.fov].any()
    vessels, kinds = read(black, result)
    assert dice(vessels, eye.vessels) > 0.99
    assert kinds == [DARK]


def test_a_dark_surround_leaves_no_ring_where_the_tracings_field_is_smaller(eye, result):
    y, x = np.ogrid[:420, :500]
    middle_y, middle_x = (np.mean(np.nonzero(eye.fov), axis=1)).tolist()
    radius = math.sqrt(np.count_nonzero(eye.fov) / math.pi) - 3
    own = eye.fov & (np.hypot(y - middle_y, x - middle_x) < radius)
    vessels, _ = read(np.where(own & ~eye.vessels, np.uint8(255), np.uint8(0)), result)
    assert np.count_nonzero(eye.fov & ~own) > 0.1 * np.count_nonzero(eye.vessels)
    assert np.count_nonzero(vessels & ~eye.vessels) < 0.03 * np.count_nonzero(eye.vessels)
    # Labels 0 outside, 1 ground, 2 vessel are the same case.
    labels = (1 + eye.vessels.astype(np.uint8)) * eye.fov
    vessels, kinds = read(labels, result)
    assert dice(vessels, eye.vessels) > 0.99
    assert kinds == []


def test_marks_outside_the_field_are_told_of_from_5_percent(eye, result):
    inside = np.count_nonzero(eye.vessels)
    outside_y, outside_x = np.nonzero(~eye.fov)
    for share, kinds in ((0.04, []), (0.1, [OUTSIDE])):
        number = round(inside * share / (1 - share))
        source = grey(eye.vessels)
        source[outside_y[:number], outside_x[:number]] = 255
        assert read(source, result)[1] == kinds
        comparison = compare(result, source)
        assert comparison.scores() == compare(result, grey(eye.vessels)).scores()
    assert "10%" in comparison.notes[0]


def test_a_field_that_fills_the_frame(eye, result):
    whole = replace(result, fov=np.ones_like(eye.fov))
    assert np.array_equal(read(grey(eye.vessels), whole)[0], eye.vessels)
    assert np.array_equal(read(grey(~eye.vessels), whole)[0], eye.vessels)


# Files that are none


def refusal(source, result):
    with pytest.raises(ImageError) as caught:
        compare(result, source)
    text = str(caught.value)
    assert text.endswith(".") and ". " not in text and "\n" not in text  # one sentence
    return text


def test_what_is_no_picture_is_refused_by_the_reader(result, tmp_path):
    assert "cannot be identified" in refusal(b"PDF", result)
    assert "does not exist" in refusal(tmp_path / "nothing.png", result)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((500, 420), "turned by 90 degrees"),
        ((840, 1000), "scaled"),
        ((336, 400), "scaled"),
        ((101, 120), "scaled"),  # rounded
        ((420, 499), "uncropped"),
        ((400, 400), "uncropped"),
    ],
)
def test_another_size_is_refused_and_named(result, shape, words):
    text = refusal(np.zeros(shape, np.uint8), result)
    assert f"{shape[1]} x {shape[0]} pixels, the photograph 500 x 420" in text
    assert words in text


@pytest.mark.parametrize("seed", range(4))
def test_photographs_are_refused(seed):
    eye = draw_fundus(seed, (300, 330))
    result = segmentation_of(eye)
    image = eye.image
    others = [image, encoded(image, "JPEG"), 255 - image, image // 5, *np.moveaxis(image, 2, 0), image[:, ::-1]]
    painted = [render.overlay(image, eye.vessels), compare(result, grey(eye.vessels)).error_map()]
    for source in (*others, *painted, draw_fundus(seed + 9, (300, 330)).image):
        assert "looks like a photograph" in refusal(source, result)


@pytest.mark.parametrize(
    ("source", "shade"),
    [
        (lambda eye: grey(eye.fov & False), "black"),
        (lambda eye: grey(eye.fov | True), "white"),
        (lambda eye: np.full(eye.image.shape, (255, 40, 0), np.uint8), "of one colour"),
        (lambda eye: grey(eye.fov), "white"),
        (lambda eye: grey(~eye.fov), "black"),
        (lambda eye: encoded(grey(eye.fov), "JPEG"), "white"),
        (lambda eye: np.dstack([np.zeros_like(eye.image), grey(eye.vessels)]), "black"),  # black ink, transparent paper
        (lambda eye: encoded(eye.vessels.astype(np.uint16)), "black"),  # labels 0 and 1 of 16 bit
    ],
)
def test_a_blank_and_a_mask_of_the_field_are_refused(eye, result, source, shade):
    assert f"marks no vessel, it is {shade} all over" in refusal(source(eye), result)


def test_a_photograph_without_a_field_is_refused(eye, result):
    assert "no field of view" in refusal(grey(eye.vessels), replace(result, fov=eye.fov & False))


# Real references


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "number", "qualities"), [("drive", 4, (30, 75, 95)), ("chase_db1", 2, (30, 75, 95)), ("hrf", 1, (30,))]
)
def test_real_tracings_are_read_and_real_photographs_refused(real, name, number, qualities):
    folder = real / name / "train"
    for line in (folder / "metadata.jsonl").read_text().splitlines()[:number]:
        row = json.loads(line)
        image = read_image(folder / row["image_file_name"])
        truth = read_image(folder / row["mask_file_name"])[..., 0] > 127
        fov = read_image(folder / row["fov_file_name"])[..., 0] > 127
        result = Segmentation(image, np.zeros(fov.shape, np.float32), fov, 0.5)
        vessels, notes = read_reference(folder / row["mask_file_name"], result)
        assert np.array_equal(vessels, truth)
        assert notes == ()
        for quality in qualities:
            vessels, kinds = read(encoded(grey(truth), "JPEG", quality=quality), result)
            assert dice(vessels, truth & fov) > 0.999
            assert kinds == [SHADES]
        assert "photograph" in refusal(folder / row["image_file_name"], result)
        assert "not of the field" in refusal(folder / row["fov_file_name"], result)
