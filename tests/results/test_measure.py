"""Numbers of drawn vessels whose length, width and course are known; and against PVBM on the same masks."""

import json
import math

import numpy as np
import pytest
from PVBM.helpers.tortuosity import compute_tortuosity
from skimage import morphology
from support.strokes import SIDE, arc, arc_and_chord, line, stroke, wave

from resegnet.results import export
from resegnet.results.centrelines import find_centrelines
from resegnet.results.measure import measure, measure_mask
from resegnet.results.render import BRANCH_POINT_COLOR, calibre_map
from resegnet.results.segmentation import Segmentation
from resegnet.results.thinning import thin

QUADRANTS = ("upper_left", "upper_right", "lower_left", "lower_right")


# Length, calibre, course


@pytest.mark.parametrize("angle", [0, 4, 13, 26.57, 38, 45, 71, 90, 133])
@pytest.mark.parametrize("width", [1.6, 2.3, 3, 5.2, 9.4])
def test_a_straight_line_has_its_length_and_width(width, angle):
    mask = stroke(line(angle), width)
    numbers = measure_mask(mask)
    assert numbers["skeleton_length_px"] == pytest.approx(240, rel=0.02)
    # A mask of whole pixels is up to one wider or narrower than what was drawn.
    direction = np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle))])
    along = (np.argwhere(mask) - SIDE / 2) @ direction
    assert numbers["calibre_mean_px"] == pytest.approx(np.count_nonzero(np.abs(along) < 100) / 200, abs=0.5)
    assert numbers["tortuosity"] == pytest.approx(1, abs=0.004)
    assert numbers["curvature_per_px"] < 0.008
    assert [numbers[key] for key in ("segments", "branch_points", "end_points")] == [1, 0, 2]


@pytest.mark.parametrize("width", [1.6, 2.3, 3, 5.2, 9.4, 14.7])
def test_calibre_is_the_width_that_was_drawn_whatever_the_angle(width):
    places = np.random.default_rng(2).random((9, 2))
    errors = []
    for angle, place in zip(np.arange(0, 90, 10), places, strict=True):
        numbers = measure_mask(stroke(line(angle, 120, 80 + place), width, side=160))
        errors.append(numbers["calibre_mean_px"] - width)
    assert abs(np.mean(errors)) < 0.25
    assert np.sqrt(np.mean(np.square(errors))) < 0.5


@pytest.mark.parametrize("width", [2.3, 5.2, 9.4])
@pytest.mark.parametrize(("radius", "angle"), [(50, 180), (60, 270), (120, 100)])
def test_an_arc_has_its_tortuosity_and_curvature(radius, angle, width):
    points = arc(radius, angle)
    length, chord = arc_and_chord(points)
    numbers = measure_mask(stroke(points, width))
    assert numbers["skeleton_length_px"] == pytest.approx(length, rel=0.02)
    assert numbers["tortuosity"] == pytest.approx(length / chord, rel=0.02)
    assert numbers["curvature_per_px"] == pytest.approx(1 / radius, rel=0.05)
    assert numbers["calibre_mean_px"] == pytest.approx(width, abs=0.5)


@pytest.mark.parametrize("turned", [0, 30, 90])
@pytest.mark.parametrize(("amplitude", "period"), [(6, 130), (15, 130), (12, 65)])
def test_a_wave_has_its_tortuosity(amplitude, period, turned):
    points = wave(amplitude, period, turned=turned)
    length, chord = arc_and_chord(points)
    numbers = measure_mask(stroke(points, 4.3))
    assert numbers["skeleton_length_px"] == pytest.approx(length, rel=0.02)
    assert numbers["tortuosity"] == pytest.approx(length / chord, rel=0.02)


def test_a_ring_that_nearly_closes_does_not_outweigh_all_other_vessels():
    ring = arc(40, 335)
    length, chord = arc_and_chord(ring)
    lines = [line(0, 240, (row, 160)) for row in (30, 60, 90, 230, 260, 290)]
    mask = np.logical_or.reduce([stroke(points, 3) for points in (ring, *lines)])
    numbers = measure_mask(mask)
    assert numbers["segments"] == 7 and length / chord > 13
    assert numbers["tortuosity"] == pytest.approx((6 * 240 + length) / (6 * 240 + chord), rel=0.03)


def test_tortuosity_is_that_of_all_segments_and_calibre_is_weighted_by_centreline():
    long, short = line(0, 240, (80, 160)), arc(40, 180, turned=0)
    mask = stroke(long, 3) | stroke(short, 9)
    numbers = measure_mask(mask)
    length, chord = arc_and_chord(short)
    assert numbers["segments"] == 2
    assert numbers["tortuosity"] == pytest.approx((240 + length) / (240 + chord), rel=0.02)
    assert numbers["calibre_mean_px"] == pytest.approx((240 * 3 + length * 9) / (240 + length), abs=0.5)
    assert numbers["calibre_median_px"] == pytest.approx(3, abs=0.5)
    share = length / (240 + length)
    assert numbers["calibre_sd_px"] == pytest.approx(6 * math.sqrt(share * (1 - share)), abs=0.5)


def test_calibre_follows_a_vessel_that_narrows():
    at = np.linspace(0, 1, 400)
    mask = np.zeros((SIDE, SIDE), bool)
    rows = np.arange(SIDE)[:, None]
    columns = np.arange(30, 290)
    half = (12 - 8 * (columns - 30) / 260) / 2
    mask[:, columns] = np.abs(rows - 160.2) <= half
    lines = find_centrelines(mask, np.ones_like(mask))
    assert np.bincount(lines.segments, weights=lines.steps_px) == pytest.approx(lines.lengths_px)
    measured = ~np.isnan(lines.calibres_px)
    expected = np.interp(lines.points[measured, 1], 30 + 260 * at, 12 - 8 * at)
    inner = (lines.points[measured, 1] > 45) & (lines.points[measured, 1] < 280)
    assert np.abs(lines.calibres_px[measured] - expected)[inner].max() < 1.1  # whole pixels wide, at most one off
    assert np.abs((lines.calibres_px[measured] - expected)[inner].mean()) < 0.3


def test_a_tracing_of_twice_the_size_has_the_same_course_and_twice_the_length(drawn):
    vessels, fov = drawn.vessels, drawn.fov
    whole = measure_mask(vessels, fov)
    double = measure_mask(*(np.kron(mask, np.ones((2, 2), bool)) for mask in (vessels, fov)))
    assert double["skeleton_length_px"] == pytest.approx(2 * whole["skeleton_length_px"], rel=0.03)
    assert double["calibre_mean_px"] == pytest.approx(2 * whole["calibre_mean_px"], rel=0.06)
    assert double["tortuosity"] == pytest.approx(whole["tortuosity"], rel=0.01)
    assert double["fractal_d0"] == pytest.approx(whole["fractal_d0"], abs=0.03)


# Branching


def test_a_fork_and_a_crossing_are_one_branch_point_each():
    down = line(90, 150, (85, 160))
    fork = stroke(down, 6)
    for angle in (50, 130):
        direction = np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle))])
        fork |= stroke(down[-1] + np.linspace(0, 110, 1000)[:, None] * direction, 4)
    numbers = measure_mask(fork)
    assert [numbers[key] for key in ("branch_points", "end_points", "segments")] == [1, 3, 3]
    assert numbers["skeleton_length_px"] == pytest.approx(370, rel=0.02)
    for width in (3, 6):
        numbers = measure_mask(stroke(line(10), width) | stroke(line(100), width))
        assert [numbers[key] for key in ("branch_points", "end_points", "segments")] == [1, 4, 4]
        assert numbers["skeleton_length_px"] == pytest.approx(480, rel=0.02)
        assert numbers["calibre_mean_px"] == pytest.approx(width, abs=0.5)


def test_spurs_and_specks_are_no_vessels_but_a_branch_is():
    trunk = stroke(line(0), 9)
    bumps = trunk.copy()
    for column in range(60, 260, 25):
        bumps[153 : 160 + 7 * (column % 2), column : column + 2] = True  # up to 3 px out of the trunk
    bumps |= stroke(np.array([[60.0, 60.0]]), 9)
    numbers = measure_mask(bumps)
    assert [numbers[key] for key in ("branch_points", "end_points", "segments")] == [0, 2, 1]
    assert numbers["skeleton_length_px"] == pytest.approx(240, rel=0.02)
    assert numbers["vessel_area_px"] == bumps.sum()
    branch = trunk | stroke(line(90, 60, (130, 160)), 3)
    numbers = measure_mask(branch)
    assert [numbers[key] for key in ("branch_points", "end_points", "segments")] == [1, 3, 3]


def test_a_ring_is_a_segment_without_ends():
    numbers = measure_mask(stroke(arc(80, 360), 5))
    assert [numbers[key] for key in ("branch_points", "end_points", "segments")] == [0, 0, 1]
    assert numbers["skeleton_length_px"] == pytest.approx(2 * math.pi * 80, rel=0.02)
    assert numbers["curvature_per_px"] == pytest.approx(1 / 80, rel=0.05)
    assert math.isnan(numbers["tortuosity"])


def test_the_rim_of_the_field_makes_neither_vessel_nor_end_nor_calibre():
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    fov = np.hypot(rows, columns) < 130
    vessel = stroke(line(30, 300), 8)
    assert measure_mask(~fov, fov)["skeleton_length_px"] == 0
    numbers = measure_mask(vessel, fov)
    assert [numbers[key] for key in ("branch_points", "end_points", "segments")] == [0, 0, 1]
    assert numbers["skeleton_length_px"] == pytest.approx(260, rel=0.03)
    assert numbers["calibre_mean_px"] == pytest.approx(8, abs=0.5)
    half = vessel & (columns < 0)
    assert measure_mask(half, fov)["end_points"] == 1
    # A vessel along the rim, of which the field shows a part only: no chord of it is a calibre.
    numbers = measure_mask(np.hypot(rows, columns) > 126, fov)
    assert math.isnan(numbers["calibre_mean_px"])


@pytest.mark.parametrize("width", [2, 3, 5, 8])
def test_a_vessel_across_the_field_has_no_ends_whatever_its_angle(width):
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    disc = np.hypot(rows, columns) < 130
    for angle in range(2, 180, 16):
        across = stroke(line(angle, 2 * SIDE), width)
        assert measure_mask(across, disc)["end_points"] == 0
        assert measure_mask(across)["end_points"] == 0


def test_thinning_is_that_of_scikit_image_and_keeps_diagonals():
    random = np.random.default_rng(5)
    for size in ((1, 1), (1, 9), (40, 60), (97, 83)):
        noise = random.random(size) > 0.45
        assert np.array_equal(thin(noise), morphology.thin(noise))
    for width in (1.6, 2.3, 3):
        assert thin(stroke(line(45), width)).sum() == pytest.approx(240 / math.sqrt(2), rel=0.03)


# Quadrants


def test_quadrants_lie_about_the_middle_of_the_field_and_add_up(drawn):
    moved = [np.pad(mask, ((30, 0), (0, 50))) for mask in (drawn.vessels, drawn.fov)]
    numbers = measure_mask(*moved)
    unmoved = measure_mask(drawn.vessels, drawn.fov)
    for key in ("field_area_px", "vessel_area_px", "branch_points", "end_points", "segments"):
        parts = [numbers[f"{quadrant}_{key}"] for quadrant in QUADRANTS]
        assert sum(parts) == numbers[key], key
        assert parts == [unmoved[f"{quadrant}_{key}"] for quadrant in QUADRANTS], key
    lengths = [numbers[f"{quadrant}_skeleton_length_px"] for quadrant in QUADRANTS]
    assert sum(lengths) == pytest.approx(numbers["skeleton_length_px"])
    areas = [numbers[f"{quadrant}_field_area_px"] for quadrant in QUADRANTS]
    assert max(areas) < 1.03 * min(areas)
    assert min(lengths) > 0


@pytest.mark.parametrize(
    ("quadrant", "row", "column"), [*zip(QUADRANTS, (80, 80, 240, 240), (80, 240, 80, 240), strict=True)]
)
def test_a_vessel_belongs_to_the_quadrant_that_it_lies_in(quadrant, row, column):
    numbers = measure_mask(stroke(line(30, 100, (row, column)), 5))
    for name in QUADRANTS:
        here = name == quadrant
        assert numbers[f"{name}_segments"] == here
        assert numbers[f"{name}_vessel_density"] == pytest.approx(4 * numbers["vessel_density"] * here)
        assert numbers[f"{name}_skeleton_length_px"] == pytest.approx(100 * here, rel=0.02)
        assert math.isnan(numbers[f"{name}_calibre_mean_px"]) != here
        assert numbers[f"{name}_tortuosity"] == pytest.approx(1 if here else math.nan, abs=0.01, nan_ok=True)


# Inputs and outputs


def test_the_same_keys_in_the_same_order_whatever_the_mask(drawn):
    full = measure_mask(drawn.vessels, drawn.fov)
    assert list(full)[:3] == ["field_area_px", "vessel_area_px", "vessel_density"]
    assert not any(math.isnan(value) for value in full.values())
    for shape in ((0, 0), (1, 1), (1, 9), (2, 2), (5, 7), (40, 40)):
        for filled in (False, True):
            numbers = measure_mask(np.full(shape, filled), np.ones(shape, bool))
            assert list(numbers) == list(full)
            assert {type(value) for value in numbers.values()} == {float}


def test_an_empty_mask_has_no_length_and_no_calibre():
    numbers = measure_mask(np.zeros((64, 64), bool))
    zero = ("vessel_area_px", "vessel_density", "skeleton_length_px", "branch_points", "end_points", "segments")
    assert [numbers[key] for key in zero] == [0] * 6
    undefined = (
        "calibre_mean_px",
        "calibre_median_px",
        "calibre_sd_px",
        "tortuosity",
        "curvature_per_px",
        "fractal_d0",
    )
    assert all(math.isnan(numbers[key]) for key in undefined)
    nowhere = measure_mask(np.ones((64, 64), bool), np.zeros((64, 64), bool))
    assert nowhere["vessel_area_px"] == 0
    assert math.isnan(nowhere["vessel_density"])


@pytest.mark.parametrize("shape", [(64, 64), (200, 300)])
def test_a_full_mask_is_no_vessel(shape):
    numbers = measure_mask(np.ones(shape, bool))
    assert numbers["vessel_density"] == 1
    assert [numbers[key] for key in ("skeleton_length_px", "branch_points", "end_points", "segments")] == [0] * 4
    assert math.isnan(numbers["calibre_mean_px"])


def test_noise_of_any_size_is_measured_without_a_warning():
    random = np.random.default_rng(11)
    for _ in range(60):
        shape = random.integers(1, 14, 2)
        mask, fov = random.random(shape) > random.random(), random.random(shape) > random.random() / 2
        numbers = measure_mask(mask, fov)
        assert numbers["vessel_area_px"] == (mask & fov).sum()
        assert not numbers["skeleton_length_px"] > 1.5 * numbers["vessel_area_px"]


def test_measuring_twice_gives_the_same_bits_and_leaves_the_masks_alone(drawn):
    vessels, fov = drawn.vessels.copy(), drawn.fov.copy()
    first, second = (json.dumps(measure_mask(vessels, fov)) for _ in range(2))
    assert first == second
    assert np.array_equal(vessels, drawn.vessels) and np.array_equal(fov, drawn.fov)


def test_micrometres_are_pixels_times_the_scale(drawn):
    pixels = measure_mask(drawn.vessels, drawn.fov)
    numbers = measure_mask(drawn.vessels, drawn.fov, um_per_px=8.5)
    assert {key: numbers[key] for key in pixels} == pixels
    assert numbers["skeleton_length_um"] == pytest.approx(8.5 * pixels["skeleton_length_px"])
    assert numbers["upper_left_calibre_mean_um"] == pytest.approx(8.5 * pixels["upper_left_calibre_mean_px"])
    assert numbers["vessel_area_um2"] == pytest.approx(8.5**2 * pixels["vessel_area_px"])
    assert numbers["curvature_per_um"] == pytest.approx(pixels["curvature_per_px"] / 8.5)
    in_pixels = [key for key in pixels if key.endswith("_px")]
    assert len(numbers) == len(pixels) + len(in_pixels)
    assert not any(key in numbers for key in ("tortuosity_um", "vessel_density_um", "fractal_d0_um"))


@pytest.mark.parametrize("scale", [0, -2, math.nan, math.inf, "5"])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ValueError, match="micrometres per pixel"):
        measure_mask(np.zeros((9, 9), bool), um_per_px=scale)


def test_what_is_no_mask_is_refused():
    mask = np.zeros((9, 9), bool)
    for wrong, fov in ((mask.astype(np.uint8), mask), (mask, mask[1:]), (mask, mask * 1.0), (mask[0], mask[0])):
        with pytest.raises(ValueError, match="two \\(H, W\\) bool"):
            measure_mask(wrong, fov)


@pytest.fixture
def result(drawn):
    return Segmentation(drawn.image, drawn.vessels.astype(np.float32), drawn.fov, 0.5, (), "user/model")


def test_a_segmentation_is_measured_at_its_threshold_and_in_micrometres(result, drawn):
    assert result.measure() == measure(result) == measure_mask(drawn.vessels, drawn.fov)
    assert result.measure(um_per_px=5.0) == measure_mask(drawn.vessels, drawn.fov, 5.0)


def test_the_summary_has_every_number_and_null_for_the_undefined(result):
    blank = Segmentation(result.image, np.zeros_like(result.probability), result.fov, 0.5)
    for segmentation in (result, blank):
        written = json.loads(export.json_bytes(export.summary(segmentation)))["measures"]
        measured = segmentation.measure()
        assert list(written) == list(measured)
        for key, value in measured.items():
            assert written[key] == (None if math.isnan(value) else value)


# The picture


def test_calibre_map_colours_centrelines_by_calibre_and_rings_branch_points():
    mask = (
        stroke(line(0, 240, (100, 160)), 3) | stroke(line(0, 240, (200, 160)), 12) | stroke(line(90, 60, (70, 200)), 3)
    )
    image = np.full((SIDE, SIDE, 3), 120, np.uint8)
    fov = np.ones_like(mask)
    drawn = calibre_map(image, mask, fov)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    grey = drawn[20, 20]
    assert np.ptp(grey.astype(int)) == 0
    thin_color, wide_color = drawn[100, 100], drawn[200, 100]
    assert wide_color.sum() > thin_color.sum() > grey.sum()
    ring = (drawn == BRANCH_POINT_COLOR).all(axis=2)
    assert np.abs(np.argwhere(ring).mean(axis=0) - (100, 200)).max() < 2
    assert len(np.unique(drawn[200, 60:260], axis=0)) <= 3
    result = Segmentation(image, mask.astype(np.float32), fov, 0.5)
    assert np.array_equal(result.calibre_map(), drawn)
    with pytest.raises(ValueError, match="mask has the shape"):
        calibre_map(image, mask[1:], fov)
    assert calibre_map(image, np.zeros_like(mask), fov).shape == image.shape


# Against PVBM (Fhima et al. 2022, 10.1007/978-3-031-25066-8_15)


def test_length_and_tortuosity_agree_with_pvbm(drawn):
    mask = drawn.vessels[150:420, 20:290]
    lines = find_centrelines(mask, np.ones_like(mask))
    median, _, lengths, _, _ = compute_tortuosity(thin(mask).astype(int))  # of segments of more than 10 px
    # PVBM counts steps from pixel to pixel, which make a line up to 8 % longer than it is.
    long = lines.lengths_px > 10
    assert 0.9 * np.sum(lengths) < lines.lengths_px[long].sum() < 1.05 * np.sum(lengths)
    assert median / 1.09 < np.median(lines.lengths_px[long] / lines.chords_px[long]) < median
