"""Arteries and veins in zones round the disc: drawn vessels of known width, synthetic eyes, PVBM."""

import itertools
import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from support.synthetic import draw_fundus

from resegnet.geometry import Geometry
from resegnet.results import export
from resegnet.results.anatomy import Anatomy, Disc, disc_of
from resegnet.results.equivalents import ARTERY_COEFFICIENT, VEIN_COEFFICIENT, central_equivalent
from resegnet.results.measure import measure_anatomy, measure_mask
from resegnet.results.measures import Undefined
from resegnet.results.segmentation import Segmentation
from resegnet.results.zones import ZONE_B, ZONE_C

SIDE, CENTRE, DIAMETER = 600, (300.2, 299.7), 100.0
FOV = np.ones((SIDE, SIDE), bool)
DISC = Disc(CENTRE, DIAMETER, np.hypot(*(np.mgrid[:SIDE, :SIDE].T - CENTRE).T) < DIAMETER / 2)
FOVEA = (CENTRE[0], CENTRE[1] + 2.5 * DIAMETER)


def spoke(angle, width, start=30.0, stop=290.0):
    """A straight vessel from the disc outwards; `angle` in degrees, 0 towards the fovea, 90 downwards."""
    down, right = (np.mgrid[:SIDE, :SIDE].T - CENTRE).T
    along = down * math.sin(math.radians(angle)) + right * math.cos(math.radians(angle))
    aside = right * math.sin(math.radians(angle)) - down * math.cos(math.radians(angle))
    return (along > start) & (along < stop) & (np.abs(aside) < width / 2)


def spokes(widths, first):
    mask = np.zeros((SIDE, SIDE), bool)
    for number, width in enumerate(widths):
        mask |= spoke(first + 45 * number, width)
    return mask


ARTERIES, VEINS = (9.0, 8.0, 7.0, 6.5, 6.0, 5.5, 4.0), (13.0, 12.0, 11.0, 9.0, 8.0, 7.5, 5.0)


@pytest.fixture(scope="module")
def drawn_spokes():
    return spokes(ARTERIES, 7), spokes(VEINS, 29)


@pytest.fixture(scope="module")
def numbers(drawn_spokes):
    return measure_anatomy(*drawn_spokes, FOV, DISC, FOVEA, um_per_px=4.0)


# Zones


def test_zones_are_rings_of_their_own():
    zone_b, zone_c = (zone.mask(FOV.shape, DISC) for zone in (ZONE_B, ZONE_C))
    # From 0.5 to 1 and to 2 diameters from the margin is 1 to 1.5 and to 2.5 from the centre.
    assert zone_b.sum() == pytest.approx(math.pi * DIAMETER**2 * (1.5**2 - 1), rel=0.005)
    assert zone_c.sum() == pytest.approx(math.pi * DIAMETER**2 * (2.5**2 - 1), rel=0.005)
    assert (zone_c & zone_b).sum() == zone_b.sum() < zone_c.sum()
    assert not (zone_c & DISC.mask).any()
    for row, column in itertools.product((150, 195, 205, 400), (299, 320, 455)):
        away = math.dist((row, column), CENTRE) - DIAMETER / 2
        assert zone_b[row, column] == (50 <= away < 100)
        assert zone_c[row, column] == (50 <= away < 200)


def test_vessels_are_cut_off_at_the_borders_of_a_zone(drawn_spokes, numbers):
    arteries, veins = drawn_spokes
    for zone, length in (("zone_b", 50), ("zone_c", 150)):
        for kind, mask in (("artery_", arteries), ("vein_", veins), ("", arteries | veins)):
            count = 7 if kind else 14
            assert numbers[f"{zone}_{kind}skeleton_length_px"] == pytest.approx(count * length, rel=0.02)
            assert numbers[f"{zone}_{kind}segments"] == count
            assert numbers[f"{zone}_{kind}tortuosity"] == pytest.approx(1, abs=0.003)
            assert numbers[f"{zone}_{kind}end_points"] == numbers[f"{zone}_{kind}branch_points"] == 0
            ring = {"zone_b": ZONE_B, "zone_c": ZONE_C}[zone].mask(FOV.shape, DISC)
            assert numbers[f"{zone}_{kind}vessel_area_px"] == (mask & ring).sum()
            assert numbers[f"{zone}_{kind}vessel_density"] == (mask & ring).sum() / ring.sum()
        assert numbers[f"{zone}_artery_calibre_mean_px"] == pytest.approx(np.mean(ARTERIES), abs=0.3)
        assert numbers[f"{zone}_vein_calibre_mean_px"] == pytest.approx(np.mean(VEINS), abs=0.3)


def test_each_zone_has_its_own_numbers():
    bent = spoke(40, 7, stop=155) | spoke(200, 11, start=160)
    numbers = measure_anatomy(bent, spoke(120, 5), FOV, DISC, FOVEA)
    assert numbers["zone_b_artery_calibre_mean_px"] == pytest.approx(7, abs=0.4)
    assert numbers["zone_c_artery_calibre_mean_px"] == pytest.approx((7 * 50 + 11 * 90) / 140, abs=0.6)
    assert numbers["zone_b_artery_segments"] == 1
    assert numbers["zone_c_artery_segments"] == 2


def test_a_vessel_that_comes_back_is_measured_twice_in_the_zone():
    turned = spoke(0, 6, 120, 280) | spoke(40, 6, 120, 280)
    away = np.hypot(*(np.mgrid[:SIDE, :SIDE].T - CENTRE).T)
    angle = np.degrees(np.arctan2(*(np.mgrid[:SIDE, :SIDE].T - CENTRE).T))
    turned |= (np.abs(away - 280) < 3) & (angle > 0) & (angle < 40)
    numbers = measure_anatomy(turned, spoke(180, 6), FOV, DISC, FOVEA)
    assert numbers["artery_segments"] == 1
    assert numbers["zone_c_artery_segments"] == 2
    assert numbers["zone_c_artery_tortuosity"] == pytest.approx(1, abs=0.003)


def test_each_kind_has_the_numbers_of_its_mask(drawn_spokes, numbers):
    for kind, mask in zip(("artery", "vein"), drawn_spokes, strict=True):
        alone = measure_mask(mask, FOV)
        for key in ("vessel_area_px", "vessel_density", "calibre_median_px", "tortuosity", "end_points", "fractal_d1"):
            assert numbers[f"{kind}_{key}"] == alone[key]


# Equivalents


def by_hand(widths, coefficient):
    """Knudtson's formula for six widths, written out."""
    a, b, c, d, e, f = sorted(widths)
    first = sorted(coefficient * (one**2 + other**2) ** 0.5 for one, other in ((a, f), (b, e), (c, d)))
    second = coefficient * (first[0] ** 2 + first[2] ** 2) ** 0.5
    return coefficient * (first[1] ** 2 + second**2) ** 0.5


def test_equivalents_are_those_of_the_published_formula():
    random = np.random.default_rng(4)
    for _ in range(20):
        widths = random.uniform(3, 30, 6)
        for coefficient in (ARTERY_COEFFICIENT, VEIN_COEFFICIENT):
            assert central_equivalent(widths, coefficient) == pytest.approx(by_hand(widths, coefficient), rel=1e-12)
    assert (ARTERY_COEFFICIENT, VEIN_COEFFICIENT) == (0.88, 0.95)
    assert central_equivalent([3, *widths, 2], 0.88) == pytest.approx(by_hand(widths, 0.88))  # the six largest
    assert math.isnan(central_equivalent([], 0.88))


@pytest.mark.filterwarnings("ignore:scipy.misc is deprecated:DeprecationWarning")
@pytest.mark.parametrize("count", range(1, 7))
def test_equivalents_are_those_of_pvbm(count):
    from PVBM.CentralRetinalAnalysis import CREVBMs

    peer, random = CREVBMs(), np.random.default_rng(count)
    for _ in range(10):
        widths = random.uniform(3, 30, count)
        ours = central_equivalent(widths, ARTERY_COEFFICIENT), central_equivalent(widths, VEIN_COEFFICIENT)
        theirs = (peer.central_equivalent(widths, rule) for rule in (peer.crae_knudtson, peer.crve_knudtson))
        assert ours == pytest.approx(tuple(theirs), rel=1e-9)


def test_drawn_vessels_have_their_equivalents(numbers):
    assert numbers["crae_vessels"] == numbers["crve_vessels"] == 6
    crae, crve = by_hand(ARTERIES[:6], 0.88), by_hand(VEINS[:6], 0.95)
    assert numbers["crae_px"] == pytest.approx(crae, rel=0.03)
    assert numbers["crve_px"] == pytest.approx(crve, rel=0.03)
    assert numbers["avr"] == pytest.approx(crae / crve, rel=0.03)
    assert numbers["avr"] == numbers["crae_px"] / numbers["crve_px"]
    assert numbers["crae_um"] == 4 * numbers["crae_px"]


@pytest.mark.parametrize(("parting", "counted"), [(115, (9, 9, 8, 8, 8, 8)), (138, (12, 8, 8, 8, 8, 8))])
def test_a_stem_does_not_count_together_with_its_branches(parting, counted):
    away = np.hypot(*(np.mgrid[:SIDE, :SIDE].T - CENTRE).T)
    angle = np.degrees(np.arctan2(*(np.mgrid[:SIDE, :SIDE].T - CENTRE).T)) % 360
    fork = (np.abs(away - parting) < 5) & (angle > 290) & (angle < 310)
    stem = spoke(300, 12, stop=parting) | spoke(310, 9, start=parting) | spoke(290, 9, start=parting) | fork
    others = spokes((8.0,) * 5, 20)
    numbers = measure_anatomy(others | stem, others, FOV, DISC, FOVEA)
    assert numbers["crae_px"] == pytest.approx(by_hand(counted, 0.88), rel=0.03)


def test_fewer_than_six_vessels_have_no_equivalent(drawn_spokes):
    _, veins = drawn_spokes
    numbers = measure_anatomy(spokes(ARTERIES[:5], 7), veins, FOV, DISC, FOVEA, 4.0)
    assert numbers["crae_vessels"] == 5
    for key in ("crae_px", "avr", "crae_um"):
        assert math.isnan(numbers[key])
        assert numbers.undefined[key] == "few_zone_b_vessels"
    assert not math.isnan(numbers["crve_px"])


# Places


def test_distance_and_angles_of_drawn_places(numbers):
    assert numbers["disc_diameter_px"] == 100
    assert numbers["disc_fovea_distance_px"] == pytest.approx(250)
    assert numbers["disc_fovea_distance_dd"] == pytest.approx(2.5)
    assert numbers["disc_fovea_distance_um"] == pytest.approx(1000)
    arteries = spoke(70, 9) | spoke(-55, 9) | spoke(40, 6) | spoke(-30, 5) | spoke(130, 12) | spoke(10, 12)
    veins = spoke(62, 12) | spoke(-80, 12)
    for turned in (0, 15):
        fovea = np.add(CENTRE, 250 * np.array([math.sin(math.radians(turned)), math.cos(math.radians(turned))]))
        angles = measure_anatomy(arteries, veins, FOV, DISC, tuple(fovea))
        assert angles["vein_arcade_angle_deg"] == pytest.approx(142, abs=1)
        # Neither the thinner vessels of the macula, nor the wide ones of the nasal side and on the line to the fovea.
        assert angles["artery_arcade_angle_deg"] == pytest.approx(125, abs=1)


# Undefined


@pytest.mark.slow
def test_every_nan_has_its_reason_and_the_keys_stay(drawn_spokes, numbers):
    arteries, veins = drawn_spokes
    empty, half = np.zeros_like(arteries), np.zeros_like(FOV)
    half[240:360] = True
    far = Disc((-400.0, 300.0), 100.0, empty)
    cases = {
        "no_disc": measure_anatomy(arteries, veins, FOV, None, FOVEA, 4.0),
        "no_fovea": measure_anatomy(arteries, veins, FOV, DISC, None, 4.0),
        "zone_outside_field": measure_anatomy(arteries, veins, half, DISC, FOVEA, 4.0),
        "no_segment": measure_anatomy(empty, empty, FOV, DISC, FOVEA, 4.0),
        "far": measure_anatomy(arteries, veins, FOV, far, FOVEA, 4.0),
        "no_field": measure_anatomy(arteries, veins, empty, DISC, FOVEA, 4.0),
    }
    for case in cases.values():
        assert list(case) == list(numbers)
        assert {type(value) for value in case.values()} == {float}
        assert set(case.undefined) == {key for key, value in case.items() if math.isnan(value)}
        assert set(case.undefined.values()) <= set(Undefined)
    expected = {
        ("no_disc", "avr"): "no_disc",
        ("no_disc", "zone_b_segments"): "no_disc",
        ("no_disc", "disc_fovea_distance_dd"): "no_disc",
        ("no_fovea", "artery_arcade_angle_deg"): "no_fovea",
        ("no_fovea", "disc_fovea_distance_um"): "no_fovea",
        ("zone_outside_field", "crae_px"): "zone_outside_field",
        ("no_segment", "vein_arcade_angle_deg"): "no_arcade",
        ("no_segment", "zone_c_vein_calibre_mean_px"): "no_segment",
        ("no_segment", "artery_fractal_d0"): "few_pixels",
        ("no_segment", "crve_um"): "few_zone_b_vessels",
        ("far", "zone_b_vessel_density"): "zone_outside_field",
        ("far", "avr"): "zone_outside_field",
        ("no_field", "artery_vessel_density"): "no_field",
    }
    for (case, key), reason in expected.items():
        assert cases[case].undefined[key] == reason, (case, key)
    assert not numbers.undefined
    assert cases["far"]["zone_b_coverage"] == 0
    assert 0 < cases["zone_outside_field"]["zone_b_coverage"] < 0.5


@pytest.mark.parametrize(("shown", "is_cut"), [(100, False), (98, False), (90, True), (60, True), (30, True)])
@pytest.mark.parametrize("by", ["frame", "field"])
def test_of_a_disc_that_the_rim_cuts_off_nothing_is_measured(drawn_spokes, shown, is_cut, by):
    first = round(CENTRE[1] + DIAMETER / 2) - shown
    fov, disc = FOV.copy(), DISC.mask.copy()
    fov[:, :first] = disc[:, :first] = False
    masks = [*drawn_spokes, fov, disc]
    if by == "frame":
        masks = [mask[:, first:] for mask in masks]
    *vessels, field, disc = masks
    fovea = FOVEA if by == "field" else (FOVEA[0], FOVEA[1] - first)
    numbers = measure_anatomy(*vessels, field, disc_of(disc), fovea)
    about_the_disc = [key for key in numbers if key.startswith(("zone_", "crae", "crve", "avr", "disc_"))]
    reasons = {numbers.undefined.get(key) for key in (*about_the_disc, "vein_arcade_angle_deg")}
    assert (reasons == {"disc_cut_off"}) == is_cut
    assert ("disc_cut_off" in reasons) == is_cut
    if not is_cut:
        assert numbers["disc_diameter_px"] == pytest.approx(DIAMETER, rel=0.01)
    assert not math.isnan(numbers["vein_calibre_mean_px"])


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match="The veins has the shape"):
        measure_anatomy(FOV, FOV[1:], FOV, DISC, FOVEA)
    with pytest.raises(ValueError, match="micrometres per pixel"):
        measure_anatomy(FOV, FOV, FOV, DISC, FOVEA, 0.0)


# Results


def test_a_result_that_tells_kinds_has_their_numbers_and_reasons(drawn_spokes):
    arteries, veins = drawn_spokes
    arteries = arteries & ~spoke(7 + 45 * 3, 30)  # six are left
    rows, columns = np.mgrid[:SIDE, :SIDE]
    fovea = np.hypot(rows - FOVEA[0], columns - FOVEA[1]) < 14
    planes = np.stack([arteries, veins, DISC.mask, fovea]).astype(np.float32)
    anatomy = Anatomy(planes, Geometry.around(FOV, SIDE))
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    result = Segmentation(image, (arteries | veins).astype(np.float32), FOV, 0.5, anatomy=anatomy)
    numbers = result.measure(um_per_px=2.0)
    plain = replace(result, anatomy=None).measure(um_per_px=2.0)
    assert {key: numbers[key] for key in plain} == plain
    assert list(numbers)[: list(numbers).index("artery_vessel_area_px")] == [
        key for key in plain if not key.endswith(("_um", "_um2"))
    ]
    traced = measure_anatomy(arteries, veins, FOV, DISC, FOVEA, 2.0)
    assert set(numbers) == set(plain) | set(traced)
    for key in ("crae_px", "crve_um", "avr", "disc_fovea_distance_px", "zone_c_vein_vessel_density"):
        assert numbers[key] == pytest.approx(traced[key], rel=0.03), key
    assert not numbers.undefined
    blind = replace(result, anatomy=replace(anatomy, planes=planes * np.float32([1, 1, 0, 1])[:, None, None]))
    written = json.loads(json.dumps(export.summary(blind, 2.0)))
    assert written["measures"]["crae_um"] is None
    assert written["undefined"]["crae_um"] == written["undefined"]["zone_b_coverage"] == "no_disc"
    assert pickle.loads(pickle.dumps(blind.measure())).undefined == blind.measure().undefined


# Synthetic eyes


def true_equivalent(eye, is_vein, coefficient):
    """From the paths: vessels counted where they cross the circle half-way across zone B."""
    middle, calibres = 1.25 * eye.disc_diameter, []
    for path in eye.paths:
        away = np.hypot(*(path.points - eye.disc_centre).T)
        zone = (away >= eye.disc_diameter) & (away < 1.5 * eye.disc_diameter)
        if path.is_vein == is_vein and zone.any() and away[zone].min() <= middle <= away[zone].max():
            calibres.append(np.median(path.widths[zone]))
    return by_hand(sorted(calibres)[-6:], coefficient)


def true_arcade_angle(eye, is_vein):
    down, right = np.subtract(eye.fovea, eye.disc_centre)
    sides = []
    for path in eye.paths:
        if path.generation == 0 and path.is_vein == is_vein:
            place = path.points - eye.disc_centre
            at = np.argmin(np.abs(np.hypot(*place.T) - 1.5 * eye.disc_diameter))
            angle = math.degrees(math.atan2(*place[at])) - math.degrees(math.atan2(down, right))
            sides.append(abs(math.remainder(angle, 360)))
    return sum(sorted(sides)[:2])  # the other two trunks are nasal


@pytest.mark.slow
def test_synthetic_eyes_have_their_avr_and_arcades():
    errors = {"crae_px": [], "crve_px": [], "avr": [], "arcade_angle_deg": []}
    for seed in range(2, 12):
        eye = draw_fundus(seed, (1168, 1130))
        disc = Disc(eye.disc_centre, eye.disc_diameter, eye.disc)
        numbers = measure_anatomy(eye.arteries, eye.veins, eye.fov, disc, eye.fovea)
        assert numbers["zone_b_coverage"] > 0.9
        assert numbers["disc_fovea_distance_px"] == math.dist(eye.disc_centre, eye.fovea)
        crae, crve = true_equivalent(eye, False, 0.88), true_equivalent(eye, True, 0.95)
        for key, true in (("crae_px", crae), ("crve_px", crve), ("avr", crae / crve)):
            errors[key].append(abs(numbers[key] / true - 1))
        for kind, is_vein in (("artery", False), ("vein", True)):
            errors["arcade_angle_deg"].append(
                abs(numbers[f"{kind}_arcade_angle_deg"] - true_arcade_angle(eye, is_vein))
            )
    # Where arteries lie upon each other, an equivalent is wrong; a quarter of a pixel is 5 % of the thinnest artery.
    for key, usual, most in (("crae_px", 0.03, 0.2), ("crve_px", 0.03, 0.06), ("avr", 0.02, 0.15)):
        assert np.median(errors[key]) < usual, (key, errors[key])
        assert np.max(errors[key]) < most, (key, errors[key])
    assert np.quantile(errors["arcade_angle_deg"], 0.9) < 3, errors["arcade_angle_deg"]
