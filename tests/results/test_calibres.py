"""Width along drawn vessels: thin, winding, with holes, side by side, mirrored."""

import math

import numpy as np
import pytest
from support.strokes import line, stroke, wave

from resegnet.results.centrelines import find_centrelines
from resegnet.results.measure import measure_mask


def calibres(mask):
    widths = find_centrelines(mask, np.ones_like(mask)).calibres_px
    return widths[~np.isnan(widths)]


def between(first, last, width, side=160):
    first, last = np.array(first), np.array(last)
    return stroke(first + np.linspace(0, 1, 400)[:, None] * (last - first), width, side)


def test_a_diagonal_of_one_pixel_is_as_wide_as_a_pixel_everywhere():
    places = np.arange(50, 350)
    mask = np.zeros((400, 400), bool)
    mask[places, places] = True
    assert set(calibres(mask)) <= {1.0, 1.25, 1.5}


def test_a_vessel_that_winds_more_finely_than_lines_are_smoothed_keeps_its_width():
    mask = np.pad(stroke(wave(20, 100), 4), ((0, 2700), (0, 2700)))  # a field of 3400 px is smoothed by 10 px
    widths = calibres(mask)
    assert widths.min() > 2
    assert widths.mean() == pytest.approx(4, abs=0.5)


@pytest.mark.parametrize(
    "vessels",
    [
        [((138, 36), (61, 116), 4), ((49, 127), (27, 83), 8), ((136, 37), (39, 26), 8)],
        [((20, 55), (126, 91), 11), ((128, 93), (22, 132), 6), ((27, 137), (85, 134), 10)],
        [((119, 33), (55, 94), 10), ((69, 62), (93, 109), 5), ((58, 90), (116, 107), 9)],
    ],
)
def test_a_chord_along_another_vessel_is_no_calibre(vessels):
    mask = np.logical_or.reduce([between(*vessel) for vessel in vessels])
    assert calibres(mask).max() < 2.5 * max(width for _, _, width in vessels)


def test_a_hole_of_few_pixels_parts_no_vessel_and_an_island_does():
    mask = np.zeros((400, 400), bool)
    mask[188:213, 50:350] = True
    whole = measure_mask(mask)
    holes = mask.copy()
    holes[200, 120] = holes[205:207, 200:202] = False
    numbers = measure_mask(holes)
    assert numbers["vessel_area_px"] == whole["vessel_area_px"] - 5
    for key in ("segments", "branch_points", "skeleton_length_px", "calibre_mean_px"):
        assert numbers[key] == whole[key], key
    mask[196:205, 150:250] = False
    assert [measure_mask(mask)[key] for key in ("segments", "branch_points")] == [4, 2]


@pytest.mark.parametrize(("angle", "count"), [(20, 2), (30, 2), (40, 2), (45, 2), (70, 1), (90, 1)])
def test_a_crossing_makes_one_branch_point_or_at_a_small_angle_two(angle, count):
    numbers = measure_mask(stroke(line(0), 3) | stroke(line(angle), 3))
    assert [numbers["branch_points"], numbers["segments"]] == [count, count + 3]
    assert not math.isnan(numbers["calibre_mean_px"])
