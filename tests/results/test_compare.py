"""A segmentation against a reference: scores of known masks, and every way a reference's file may come."""

import io
import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn import metrics as sklearn_metrics
from support.synthetic import draw_fundus

from resegnet.errors import ImageError
from resegnet.image import read_image
from resegnet.results import render
from resegnet.results.compare import Comparison, compare, read_reference
from resegnet.results.segmentation import Segmentation

NAMES = ["f1", "sensitivity", "specificity", "precision", "accuracy", "auroc", "mcc", "cldice"]
SHADES, DARK, LABELS, OUTSIDE = "cut half-way", "was inverted", "all of them were taken", "outside the field of view"


def segmentation_of(drawn, seed=0, threshold=0.4):
    """A noisy prediction of a drawn truth."""
    noise = np.random.default_rng(seed).normal(0, 0.2, drawn.fov.shape)
    probability = np.clip(0.2 + 0.5 * drawn.vessels + noise, 0, 1).astype(np.float32)
    return Segmentation(drawn.image, probability, drawn.fov, threshold)


@pytest.fixture(scope="module")
def eye():
    return draw_fundus(5, (420, 500))


@pytest.fixture(scope="module")
def result(eye):
    return segmentation_of(eye)


@pytest.fixture
def bars():
    """12 x 20, field without the outer ring; truth two lines of 8, prediction one of 10 on the first of them."""
    probability = np.full((12, 20), 0.125, np.float32)
    probability[3, 4:14] = 0.75
    probability[0] = 1
    fov, reference = np.zeros((12, 20), bool), np.zeros((12, 20), bool)
    fov[1:-1, 1:-1] = True
    reference[3, 4:12] = reference[8, 4:12] = True
    reference[-1] = True
    return Comparison(Segmentation(np.zeros((12, 20, 3), np.uint8), probability, fov, 0.5), reference)


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, kind, **options)
    return file.getvalue()


def grey(vessels):
    return np.where(vessels, np.uint8(255), np.uint8(0))


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def read(source, result):
    """Mask inside the field and which kinds of note there are."""
    vessels, notes = read_reference(source, result)
    assert (vessels.dtype, vessels.shape) == (bool, result.fov.shape)
    assert all(note.endswith(".") for note in notes)
    kinds = [kind for note in notes for kind in (SHADES, DARK, LABELS, OUTSIDE) if kind in note]
    assert len(kinds) == len(notes)
    return vessels & result.fov, kinds


# Scores


def test_scores_of_masks_counted_by_hand(bars):
    # Field of 180: 8 hits, 2 false alarms, 8 misses, 162 of the rest.
    scores = bars.scores()
    assert list(scores) == NAMES
    assert scores == {
        "f1": pytest.approx(16 / 26),
        "sensitivity": 0.5,
        "specificity": pytest.approx(162 / 164),
        "precision": 0.8,
        "accuracy": pytest.approx(170 / 180),
        # 16 x 164 pairs: half of the vessels win against 162 and tie with 2, half tie with 162 and lose to 2.
        "auroc": pytest.approx((8 * 162 + 8 * 2 / 2 + 8 * 162 / 2) / (16 * 164)),
        "mcc": pytest.approx((8 * 162 - 2 * 8) / math.sqrt(10 * 16 * 164 * 170)),
        # Lines are their own skeletons: 8 of 10 lie on the truth, 8 of 16 on the prediction.
        "cldice": pytest.approx(2 * 0.8 * 0.5 / 1.3),
    }


@pytest.mark.parametrize("threshold", [0, 0.15, 0.4, 1])
def test_scores_agree_with_scikit_learn(eye, result, threshold):
    comparison = compare(result, grey(eye.vessels)).at(threshold)
    scores = comparison.scores()
    truth, probability = eye.vessels[eye.fov], result.probability[eye.fov]
    mask = probability >= threshold
    assert scores["f1"] == pytest.approx(sklearn_metrics.f1_score(truth, mask))
    assert scores["sensitivity"] == pytest.approx(sklearn_metrics.recall_score(truth, mask))
    assert scores["specificity"] == pytest.approx(sklearn_metrics.recall_score(~truth, ~mask))
    assert scores["precision"] == pytest.approx(sklearn_metrics.precision_score(truth, mask))
    assert scores["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, mask))
    assert scores["auroc"] == pytest.approx(sklearn_metrics.roc_auc_score(truth, probability), abs=1e-4)
    if threshold:
        assert scores["mcc"] == pytest.approx(sklearn_metrics.matthews_corrcoef(truth, mask))


def test_at_threshold_0_every_pixel_is_called_vessel(bars):
    nothing = replace(bars.segmentation, probability=np.zeros((12, 20), np.float32))
    for segmentation, auroc in ((bars.segmentation, bars.scores()["auroc"]), (nothing, 0.5)):
        scores = replace(bars, segmentation=segmentation).at(0).scores()
        assert (scores["sensitivity"], scores["specificity"]) == (1, 0)
        assert scores["precision"] == scores["accuracy"] == pytest.approx(16 / 180)
        assert scores["auroc"] == auroc
        assert math.isnan(scores["mcc"]) and math.isnan(scores["cldice"])


def test_cldice_is_given_up_to_half_of_the_field(bars):
    probability = np.zeros((12, 20), np.float32)
    probability[1:6] = 1  # 5 of the 10 rows of the field
    half = replace(bars, segmentation=replace(bars.segmentation, probability=probability))
    assert half.scores()["cldice"] > 0
    probability[6, 1] = 1
    scores = half.scores()
    assert math.isnan(scores["cldice"])
    assert scores["accuracy"] == pytest.approx((8 + 90 - 9) / 180)
    assert scores["sensitivity"] == 0.5


def test_a_perfect_prediction_scores_1_throughout(eye, result):
    same = compare(replace(result, probability=eye.vessels.astype(np.float32)), grey(eye.vessels))
    assert same.notes == ()
    assert same.scores() == dict.fromkeys(NAMES, 1.0)


def test_another_threshold_keeps_tracing_and_notes(eye, result):
    comparison = compare(result, grey(~eye.vessels))
    other = comparison.at(0.7)
    assert other.reference is comparison.reference
    assert other.notes == comparison.notes != ()
    assert other != comparison
    assert (comparison.segmentation.threshold, other.segmentation.threshold) == (0.4, 0.7)
    assert other.scores()["specificity"] > comparison.scores()["specificity"]
    assert other.scores()["auroc"] == comparison.scores()["auroc"]
    with pytest.raises(ValueError, match="threshold is 40"):
        comparison.at(40)


def test_error_map_is_that_of_the_mask_inside_the_field(bars):
    colors = bars.error_map()
    counts = {name: np.count_nonzero((colors == color).all(axis=2)) for name, color in render.ERROR_COLORS.items()}
    assert counts == {"hit": 8, "miss": 8, "false alarm": 2}


@pytest.mark.parametrize("threshold", [0, 0.5])
def test_a_tracing_of_another_size_made_by_hand_is_refused(bars, threshold):
    with pytest.raises(ValueError, match="shape"):
        replace(bars.at(threshold), reference=bars.reference[1:]).scores()


def test_reading_a_tracing_does_not_load_the_training_libraries():
    code = "import sys, resegnet.results.compare; sys.exit(any(m in sys.modules for m in ('datasets', 'evaluate')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
    assert set(kinds) - {LABELS} == ({SHADES, DARK} if inverted else {SHADES}) or quality == 98


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
