"""The truth of synthetic photographs: arteries, veins, disc, fovea, eye and calibres fit what the pictures show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree
from support.synthetic import draw_fundus

from resegnet.results.anatomy import disc_of, tell_eye

SEEDS = range(6)
SIZE = (384, 400)


@pytest.fixture(scope="module")
def eyes():
    return [draw_fundus(seed, SIZE) for seed in SEEDS]


def in_view(eye, points, margin=4):
    rows, columns = np.rint(points).astype(int).T
    inside = ndimage.binary_erosion(eye.fov, iterations=margin)
    near = (rows >= 0) & (columns >= 0) & (rows < eye.fov.shape[0]) & (columns < eye.fov.shape[1])
    near[near] = inside[rows[near], columns[near]]
    return near


def test_arteries_and_veins_make_up_the_vessels_and_cross(eyes):
    for eye in eyes:
        assert np.array_equal(eye.arteries | eye.veins, eye.vessels)
        both = eye.arteries & eye.veins
        assert 0 < both.sum() < 0.15 * eye.vessels.sum()
        assert min(eye.arteries.sum(), eye.veins.sum()) > 0.25 * eye.vessels.sum()


def test_veins_are_darker_and_wider_than_arteries(eyes):
    for eye in eyes:
        green = eye.image[..., 1].astype(float)
        detail = green - ndimage.gaussian_filter(green, 8)
        wide = ndimage.distance_transform_edt(eye.vessels) >= 1.5
        assert detail[wide & eye.veins & ~eye.arteries].mean() < detail[wide & eye.arteries & ~eye.veins].mean()
        trunks = {kind: [p.widths[0] for p in eye.paths if p.generation == 0 and p.is_vein == kind] for kind in (0, 1)}
        assert len(trunks[0]) == len(trunks[1]) == 4
        assert np.mean(trunks[0]) < np.mean(trunks[1])


def test_paths_run_along_the_middle_of_the_masks_and_have_their_width(eyes):
    for eye in eyes:
        for is_vein, mask in ((True, eye.veins), (False, eye.arteries)):
            half = ndimage.distance_transform_edt(mask)
            mine = [path for path in eye.paths if path.is_vein == is_vein]
            # The ends are cut off straight.
            points = np.concatenate([path.points[1:-1] for path in mine])
            widths = np.concatenate([path.widths[1:-1] for path in mine])
            seen = (widths > 2) & in_view(eye, points)
            rows, columns = np.rint(points[seen]).astype(int).T
            assert len(rows) > 300
            assert mask[rows, columns].all()
            # Half a pixel of the mask, and half a pixel of rounding the place.
            assert (half[rows, columns] > widths[seen] / 2 - 1.1).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(584, 565), (1100, 1120)])
def test_the_mask_is_as_wide_as_its_paths(size):
    eye = draw_fundus(4, size)
    trunks = [path for path in eye.paths if path.generation == 0]
    errors = []
    for path in trunks:
        mask = eye.veins if path.is_vein else eye.arteries
        others = [other for other in eye.paths if other is not path and other.is_vein == path.is_vein]
        away = cKDTree(np.concatenate([other.points for other in others])).query(path.points)[0]
        alone = (away > 2.5 * path.widths[0]) & in_view(eye, path.points, 12)
        for at in np.flatnonzero(alone)[3:-3:4]:
            across = np.gradient(path.points, axis=0)[at][::-1] * (-1, 1)
            across /= np.hypot(*across)
            chord = path.points[at] + np.linspace(-1, 1, 401)[:, None] * across * path.widths[0]
            covered = ndimage.map_coordinates(mask.astype(np.uint8), chord.T, order=0)
            errors.append(covered.mean() * 2 * path.widths[0] - path.widths[at])
    assert len(errors) > 30
    assert abs(np.mean(errors)) < 0.15


def test_the_disc_has_its_centre_and_diameter_and_is_bright(eyes):
    whole = 0
    for eye in eyes:
        found = disc_of(eye.disc)
        if found is None or (ndimage.binary_dilation(eye.disc, iterations=2) & ~eye.fov).any():
            continue
        whole += 1
        assert found.diameter == pytest.approx(eye.disc_diameter, rel=0.02)
        assert np.hypot(*np.subtract(found.centre, eye.disc_centre)) < 0.03 * eye.disc_diameter
        assert np.median(eye.image[eye.disc & ~eye.vessels]) > np.median(eye.image[eye.fov & ~eye.disc]) + 20
    assert whole >= 3


def test_the_fovea_is_dark_and_without_vessels(eyes):
    seen = 0
    for eye in eyes:
        if not in_view(eye, np.array([eye.fovea]), 20).all():
            continue
        seen += 1
        rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
        away = np.hypot(rows - eye.fovea[0], columns - eye.fovea[1]) / eye.disc_diameter
        assert not eye.vessels[away < 0.15].any()
        ring = (away > 0.8) & (away < 1.0) & ~eye.vessels & eye.fov
        assert eye.image[..., 1][away < 0.15].mean() < eye.image[..., 1][ring].mean()
    assert seen >= 3


def test_the_eye_is_the_one_that_the_places_tell(eyes):
    assert {eye.eye for eye in eyes} == {"right", "left"}
    for eye in eyes:
        assert tell_eye(eye.disc_centre, eye.fovea, eye.disc_diameter) == eye.eye


def test_another_size_has_the_same_eye_in_its_own_pixels():
    small, large = draw_fundus(2, (300, 310)), draw_fundus(2, (600, 620))
    assert large.eye == small.eye
    assert large.disc_diameter == pytest.approx(2 * small.disc_diameter)
    for name in ("disc_centre", "fovea"):
        assert np.add(getattr(large, name), 0.5) == pytest.approx(2 * np.add(getattr(small, name), 0.5))
    trunks = ([path for path in eye.paths if path.generation == 0] for eye in (small, large))
    for one, other in zip(*trunks, strict=True):
        assert other.points + 0.5 == pytest.approx(2 * (one.points + 0.5))
        wide = one.widths > 1.6  # no vessel is drawn finer
        assert other.widths[wide] == pytest.approx(2 * one.widths[wide] - 0.2)  # the pen has a width of its own
