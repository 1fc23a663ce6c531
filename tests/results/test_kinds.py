"""Arteries and veins of drawn vessels whose kinds are known."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from support.colours import EYES, distance
from support.tracings import dice

from resegnet.geometry import Geometry
from resegnet.results import render
from resegnet.results.anatomy import ARTERY, VEIN, Anatomy
from resegnet.results.centrelines import find_centrelines
from resegnet.results.kinds import find_crossings, find_joints, tell_kinds
from resegnet.results.render import DISC_COLOR, KIND_COLORS, SAFE_KIND_COLORS
from resegnet.results.segmentation import Segmentation

SIZE = (300, 400)
Points = list[tuple[float, float]]


def draw(points: Points, width: float) -> np.ndarray:
    """Return a line through points (row, column) as a mask of SIZE."""
    at = np.linspace(0, len(points) - 1, 4000)
    rows, columns = (np.interp(at, np.arange(len(points)), axis) for axis in np.transpose(points))
    line = np.zeros(SIZE, bool)
    line[np.rint(rows).astype(int), np.rint(columns).astype(int)] = True
    return ndimage.distance_transform_edt(~line) < width / 2


def anatomy_of(arteries: np.ndarray, veins: np.ndarray, sure: float = 0.9) -> Anatomy:
    """Return what a network says that sees both at half the size: 1 - `sure` where there is none of a kind."""
    geometry = Geometry(SIZE, (-50, 0, 400), 200)
    planes = np.zeros((4, 200, 200), np.float32)
    for plane, mask in zip(planes, (arteries, veins), strict=False):
        plane[:] = 1 - sure + (2 * sure - 1) * geometry.to_input(ndimage.binary_dilation(mask, iterations=2))
    return Anatomy(planes, geometry)


def kinds_of(mask: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    return tell_kinds(mask, find_centrelines(mask, np.ones_like(mask)), anatomy)


@pytest.mark.parametrize("angle", [25, 60, 90])
def test_crossing_vessels_keep_their_kinds_and_share_the_crossing(angle: float) -> None:
    reach = 120 * np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle))])
    middle = np.array([150, 200])
    artery, vein = draw([(150, 60), (150, 340)], 7), draw([tuple(middle - reach), tuple(middle + reach)], 9)
    kinds = kinds_of(artery | vein, anatomy_of(artery, vein))
    assert (kinds[artery ^ vein] != 0).all()
    assert not kinds[~(artery | vein)].any()
    far = ndimage.distance_transform_edt(~(artery & vein)) > 9
    assert (kinds[artery & ~vein & far] == ARTERY).all()
    assert (kinds[vein & ~artery & far] == VEIN).all()
    both = kinds == ARTERY | VEIN
    assert both[150, 200]
    assert not both[far].any()


def unsure_right_of(column: int, anatomy: Anatomy) -> Anatomy:
    """Return what a network says that takes all to the right of a column, px, for a vein, but hardly."""
    planes = anatomy.planes.copy()
    planes[0, :, column // 2 :], planes[1, :, column // 2 :] = 0.47, 0.53
    return replace(anatomy, planes=planes)


def test_an_unsure_stretch_follows_the_vessel_that_carries_on_through_the_crossing() -> None:
    artery, vein = draw([(150, 60), (150, 340)], 7), draw([(40, 200), (260, 200)], 7)
    anatomy = unsure_right_of(210, anatomy_of(artery, vein))
    kinds = kinds_of(artery | vein, anatomy)
    assert (kinds[150, 220:330] == ARTERY).all()
    alone = artery & (np.arange(400) > 215)
    assert (kinds_of(alone, anatomy)[alone] == VEIN).all()


def test_an_unsure_stretch_follows_its_fork_and_is_not_what_it_crosses() -> None:
    fork = draw([(150, 60), (150, 200), (90, 340)], 7) | draw([(150, 200), (210, 340)], 7)
    nothing = np.zeros(SIZE, bool)
    kinds = kinds_of(fork, unsure_right_of(200, anatomy_of(fork, nothing)))
    assert (kinds[fork] == ARTERY).all()
    vein = draw([(40, 120), (260, 120)], 7)
    artery = draw([(150, 60), (150, 340)], 7)
    blind = anatomy_of(nothing, vein)
    blind.planes[:2, 70:80] = 0.5  # along the artery
    kinds = kinds_of(artery | vein, blind)
    assert (kinds[150, 140:330] == ARTERY).all()


def test_branches_of_a_fork_are_told_each_on_its_own() -> None:
    stem, branch = draw([(150, 60), (150, 200), (60, 340)], 7), draw([(150, 200), (240, 340)], 7)
    lines = find_centrelines(stem | branch, np.ones(SIZE, bool))
    assert len(lines.lengths_px) == 3
    assert not find_crossings(lines, find_joints(lines))
    kinds = kinds_of(stem | branch, anatomy_of(stem, branch & ~stem))
    assert kinds[150, 100] == kinds[100, 278] == ARTERY
    assert kinds[200, 278] == VEIN


def test_nodes_are_where_segments_meet() -> None:
    mask = draw([(150, 60), (150, 340)], 7) | draw([(40, 200), (260, 200)], 9)
    lines = find_centrelines(mask, np.ones(SIZE, bool))
    assert lines.nodes.shape == (4, 2)
    assert sorted(lines.nodes.ravel()) == [-1, -1, -1, -1, 0, 0, 0, 0]
    assert lines.node_points[0] == pytest.approx((150, 200), abs=1)
    assert 9 <= lines.node_calibres_px[0] <= math.hypot(7, 9) + 1.5  # a disc in the crossing touches its four corners
    (crossing,) = find_crossings(lines, find_joints(lines))
    assert crossing.nodes == (0,) and len(crossing.pairs) == 2
    for one, other in crossing.pairs:  # each pair lies on one line
        assert (np.abs(lines.middles[one] - lines.middles[other]) < 3).any()


def test_specks_without_a_centreline_are_told_by_their_own_pixels() -> None:
    artery = draw([(150, 60), (150, 340)], 7)
    speck = np.zeros(SIZE, bool)
    speck[60:64, 100:104] = True
    kinds = kinds_of(artery | speck, anatomy_of(artery, speck))
    assert (kinds[speck] == VEIN).all()
    assert (kinds[artery] == ARTERY).all()


def test_a_speck_votes_as_a_whole_and_apart_from_its_neighbours() -> None:
    specks = np.zeros(SIZE, bool)
    specks[60:64, 100:104] = specks[60:64, 106:110] = True
    anatomy = anatomy_of(np.zeros(SIZE, bool), np.zeros(SIZE, bool))
    anatomy.planes[0, 54:58, 49:51] = 0.9  # the left half of the first speck, in the square of half the size
    anatomy.planes[1, 54:58, 51:53] = 0.4  # its right half says the other kind, less surely
    anatomy.planes[1, 54:58, 53:56] = 0.95
    kinds = kinds_of(specks, anatomy)
    assert np.array_equal(kinds != 0, specks)
    assert (kinds[60:64, 100:104] == ARTERY).all()
    assert (kinds[60:64, 106:110] == VEIN).all()


def test_an_empty_mask_has_no_kinds() -> None:
    nothing = np.zeros(SIZE, bool)
    assert not kinds_of(nothing, anatomy_of(nothing, nothing)).any()


def test_pixels_take_the_kind_of_the_centreline_that_is_nearest_inside_the_vessel() -> None:
    mask = np.zeros(SIZE, bool)
    mask[100:116, 100:300] = True
    mask[108, 110:300] = False  # a wall
    mask[99, 99] = True  # touches by its corner alone
    artery, vein = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    artery[103, 104:296] = vein[112, 104:296] = True
    anatomy = anatomy_of(artery, vein, sure=0.6)  # the pixels leave it to the vote
    kinds = tell_kinds(mask, find_centrelines(artery | vein, np.ones(SIZE, bool)), anatomy)
    assert np.array_equal(kinds != 0, mask)
    assert (kinds[100:108, 112:300] == ARTERY).all()
    assert (kinds[109:116, 112:300] == VEIN).all()
    assert kinds[99, 99] == ARTERY


def test_an_artery_and_a_vein_that_touch_each_keep_their_side() -> None:
    artery, vein = draw([(150, 60), (150, 340)], 9), draw([(158, 60), (158, 340)], 9)
    mask = artery | vein
    lines = find_centrelines(mask, np.ones(SIZE, bool))
    assert len(lines.lengths_px) == 1  # they share it
    geometry = Geometry(SIZE, (-50, 0, 400), 200)
    anatomy = Anatomy(np.zeros((4, 200, 200), np.float32), geometry)
    above = np.broadcast_to(np.arange(300)[:, None] < 154, SIZE)
    anatomy.planes[:2] = geometry.to_input(above) * 0.9 + 0.05, geometry.to_input(~above) * 0.9 + 0.05
    kinds = tell_kinds(mask, lines, anatomy)
    # To a pixel of the square, which is two px.
    assert (kinds[146:152, 70:330] == ARTERY).all()
    assert (kinds[156:162, 70:330] == VEIN).all()


def test_pixels_of_a_thin_vessel_have_one_kind_whatever_they_say() -> None:
    thin = draw([(150, 60), (150, 340)], 4)
    anatomy = anatomy_of(thin, np.zeros(SIZE, bool))
    anatomy.planes[:2, :, 100:110] = [[[0.05]], [[0.95]]]
    assert (kinds_of(thin, anatomy)[thin] == ARTERY).all()


def test_pixels_that_say_little_do_not_speckle_a_wide_vessel() -> None:
    wide = draw([(150, 60), (150, 340)], 15)
    anatomy = anatomy_of(wide, np.zeros(SIZE, bool))
    noise = np.random.default_rng(0).normal(0, 0.1, (200, 200)).clip(-0.19, 0.19)
    anatomy.planes[:2] = 0.5 + noise, 0.5 - noise
    anatomy.planes[:2, 90:110, 40:160:7] = [[[0.05]], [[0.95]]]  # single columns that are sure
    assert len(np.unique(kinds_of(wide, anatomy)[wide])) == 1


def test_vessels_that_cross_at_a_small_angle_both_pass() -> None:
    reach = 120 * np.array([math.sin(math.radians(20)), math.cos(math.radians(20))])
    middle = np.array([150, 200])
    artery, vein = draw([(150, 60), (150, 340)], 9), draw([tuple(middle - reach), tuple(middle + reach)], 9)
    anatomy = anatomy_of(artery, vein)
    both = anatomy.planes[:2].min(axis=0) > 0.5
    anatomy.planes[:2, both] = 0.5  # the network wavers where they share their pixels
    kinds = kinds_of(artery | vein, anatomy)
    for bit in (ARTERY, VEIN):
        assert ndimage.label(kinds & bit != 0, np.ones((3, 3)))[1] == 1


def test_a_vessel_of_two_pixels_is_not_wide_in_a_small_photograph() -> None:
    geometry = Geometry((100, 100), (0, 0, 100), 640)
    mask = np.zeros((100, 100), bool)
    mask[50:52, 10:90] = True
    planes = np.zeros((4, 640, 640), np.float32)
    planes[:2] = [[[0.95]], [[0.05]]]
    planes[:2, :, 300:340] = [[[0.05]], [[0.95]]]
    assert (kinds_of(mask, Anatomy(planes, geometry))[mask] == ARTERY).all()


def test_pixels_that_are_likely_of_both_kinds_are_both_in_a_wide_vessel() -> None:
    wide = draw([(150, 60), (150, 340)], 15)
    anatomy = anatomy_of(wide, np.zeros(SIZE, bool))
    anatomy.planes[:2, :, 95:105] = 0.9
    kinds = kinds_of(wide, anatomy)
    assert (kinds[145:156, 195:205] == ARTERY | VEIN).all()
    assert (kinds[145:156, 60:180] == ARTERY).all()


def test_a_result_tells_its_kinds_at_its_threshold() -> None:
    artery, vein = draw([(100, 60), (100, 340)], 7), draw([(200, 60), (200, 340)], 7)
    probability = np.where(artery, 0.9, np.where(vein, 0.6, 0)).astype(np.float32)
    result = Segmentation(
        np.zeros((*SIZE, 3), np.uint8), probability, np.ones(SIZE, bool), 0.5, anatomy=anatomy_of(artery, vein)
    )
    assert np.array_equal(result.arteries, artery) and np.array_equal(result.veins, vein)
    fewer = result.at(0.7)
    assert np.array_equal(fewer.arteries, artery) and not fewer.veins.any()
    assert result.kind_probability.shape == (2, *SIZE) and result.kind_probability.dtype == np.float32
    assert result.kind_probability[0][artery].min() > 0.8 and result.kind_probability[0][vein].max() < 0.2
    assert result.at(0.7) != result and result.at(0.5) == result
    without = replace(result, anatomy=None)
    assert without != result
    for name in ("arteries", "veins", "kinds", "kind_probability", "disc", "fovea", "eye"):
        assert getattr(without, name) is None


def test_disc_and_fovea_lie_in_the_photograph() -> None:
    geometry = Geometry((600, 800), (-100, 0, 800), 200)
    planes = np.zeros((4, 200, 200), np.float32)
    rows, columns = np.indices((600, 800))
    planes[2] = geometry.to_input(np.hypot(rows - 310, columns - 600) < 50)
    planes[3] = geometry.to_input(np.exp(-0.5 * (np.hypot(rows - 340, columns - 350) / 15) ** 2))
    anatomy = Anatomy(planes, geometry)
    assert anatomy.disc is not None
    assert anatomy.disc.mask.shape == (600, 800)
    assert anatomy.disc.centre == pytest.approx((310, 600), abs=0.6)
    assert anatomy.disc.diameter == pytest.approx(100, rel=0.02)
    assert anatomy.fovea == pytest.approx((340, 350), abs=0.6)
    assert anatomy.eye == "right"
    assert Anatomy(planes[..., ::-1].copy(), geometry).eye == "left"
    assert Anatomy(np.zeros_like(planes), geometry).eye is None
    planes[3] *= 0.5
    planes[3] += geometry.to_input(np.exp(-0.5 * (np.hypot(rows - 310, columns - 640) / 15) ** 2))  # beside the disc
    assert Anatomy(planes, geometry).fovea == pytest.approx((340, 350), abs=0.6)


@pytest.mark.parametrize("centre", [(25, 600), (310, 790), (599, 10)])
def test_a_disc_that_the_frame_cuts_is_what_the_frame_shows_of_it(
    centre: tuple[int, int],
) -> None:
    geometry = Geometry((600, 800), (-100, 0, 800), 200)
    rows, columns = np.indices((800, 800))  # the square
    whole = np.hypot(rows - 100 - centre[0], columns - centre[1]) < 50
    planes = np.zeros((4, 200, 200), np.float32)
    planes[2] = whole.reshape(200, 4, 200, 4).mean((1, 3))
    disc = Anatomy(planes, geometry).disc
    truth = whole[100:700]
    assert dice(disc.mask, truth) > 0.97
    assert disc.centre == pytest.approx(np.argwhere(truth).mean(axis=0), abs=1)


def test_pictures_and_files_show_what_was_told(tmp_path) -> None:
    artery, vein = draw([(150, 60), (150, 340)], 7), draw([(40, 200), (260, 200)], 9)
    anatomy = anatomy_of(artery, vein)
    anatomy.planes[2, 90:110, 30:50] = 1
    image = np.full((*SIZE, 3), 90, np.uint8)
    whole = np.ones(SIZE, bool)
    result = Segmentation(image, (artery | vein).astype(np.float32), whole, 0.5, anatomy=anatomy)
    paths = result.save(tmp_path, "eye")
    assert sorted(path.name for path in paths.values()) == sorted(path.name for path in tmp_path.iterdir())
    with Image.open(paths["kinds"]) as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), result.kinds)
        shown = np.asarray(picture.convert("RGB"))
    assert shown[150, 300].tolist() == [255, 0, 0] and shown[60, 200].tolist() == [0, 0, 255]
    with Image.open(paths["kinds_map"]) as picture:
        assert np.array_equal(np.asarray(picture), result.kinds_map())
    for safe, colors in ((False, KIND_COLORS), (True, SAFE_KIND_COLORS)):
        drawn = result.kinds_map(safe)
        assert tuple(drawn[150, 300]) == colors["artery"] and tuple(drawn[60, 200]) == colors["vein"]
        assert tuple(drawn[150, 200]) == colors["both"]
        assert len({tuple(color) for color in drawn[~result.mask & ~result.disc.mask]}) <= 2  # grey, and the outline
        outline = (drawn == DISC_COLOR).all(axis=2)
        assert outline.sum() > 2 * result.disc.diameter
        assert not outline[ndimage.binary_erosion(result.disc.mask, iterations=3)].any()
    numbers = json.loads(paths["summary"].read_text())
    assert numbers["disc"]["diameter_px"] == result.disc.diameter
    assert (numbers["disc"]["row"], numbers["disc"]["column"]) == result.disc.centre
    assert numbers["fovea"] is None and numbers["eye"] is None
    plain = replace(result, anatomy=None)
    assert set(plain.save(tmp_path, "plain")) == {"mask", "probability", "overlay", "summary"}
    assert plain.kinds_map() is None


@pytest.mark.parametrize("eye", EYES)
def test_the_safe_colours_are_told_apart_by_all_eyes(eye: str) -> None:
    colors = [*SAFE_KIND_COLORS.values(), (render._GREY_MAX,) * 3]
    assert min(distance(one, other, eye) for one, other in itertools.combinations(colors, 2)) > 30
