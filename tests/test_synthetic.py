"""Synthetic photographs are reproducible, and their masks lie exactly on the vessels that they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from support.tracings import dice

from resegnet.image import read_image
from resegnet.synthetic import draw_fundus

SEEDS = range(3)


@pytest.fixture(scope="module")
def drawn():
    return [draw_fundus(seed, (384, 400)) for seed in SEEDS]


def test_same_seed_and_size_give_the_same_bytes(drawn):
    again = draw_fundus(0, (384, 400))
    for name in ("image", "vessels", "fov"):
        assert getattr(again, name).tobytes() == getattr(drawn[0], name).tobytes()
    assert dice(drawn[0].vessels, drawn[1].vessels) < 0.5


@pytest.mark.parametrize("size", [(128, 128), (128, 300), (300, 128), (584, 565), (700, 1010)])
def test_sizes(size):
    fundus = draw_fundus(3, size)
    assert fundus.image.shape == (*size, 3) and fundus.image.dtype == np.uint8
    assert fundus.vessels.shape == fundus.fov.shape == size
    assert fundus.vessels.dtype == fundus.fov.dtype == bool
    assert 0.04 < fundus.vessels.sum() / fundus.fov.sum() < 0.17


@pytest.mark.parametrize("size", [(127, 300), (300, 4001), (0, 0)])
def test_sizes_out_of_range(size):
    with pytest.raises(ValueError, match="from 128 to 4000"):
        draw_fundus(0, size)


def test_another_size_gives_the_same_eye(drawn):
    twice = draw_fundus(0, (768, 800))
    halved = np.asarray(Image.fromarray(twice.image).reduce(2), float)
    fov = ndimage.binary_erosion(drawn[0].fov, iterations=3)
    assert np.abs(halved - drawn[0].image)[fov].mean() < 8
    assert dice(twice.fov[::2, ::2], drawn[0].fov) > 0.99
    wide = ndimage.binary_opening(drawn[0].vessels, np.ones((3, 3)))  # the smaller photograph widens the finest vessels
    twice_near = ndimage.binary_dilation(twice.vessels.reshape(384, 2, 400, 2).any(axis=(1, 3)))
    assert (wide & twice_near).sum() > 0.99 * wide.sum()


def test_truth_lies_on_the_dark_lines_to_the_pixel(drawn):
    for fundus in drawn:
        green = fundus.image[..., 1].astype(float)
        detail = green - ndimage.gaussian_filter(green, 8)
        inside = ndimage.binary_erosion(fundus.fov, iterations=12)

        def darkness(shift, detail=detail, inside=inside, fundus=fundus):
            vessels = np.roll(fundus.vessels, shift, (0, 1))
            return detail[inside & ~vessels].mean() - detail[inside & vessels].mean()

        shifts = [(dy, dx) for dy in (-2, -1, 0, 1, 2) for dx in (-2, -1, 0, 1, 2)]
        assert max(shifts, key=darkness) == (0, 0)
        assert darkness((0, 0)) > 4


@pytest.mark.slow
def test_density_is_that_of_real_eyes():
    density = [f.vessels.sum() / f.fov.sum() for f in (draw_fundus(seed) for seed in range(20, 24))]
    assert 0.08 < np.mean(density) < 0.14
    assert min(density) > 0.07 and max(density) < 0.16


def test_vessels_taper_and_hang_together(drawn):
    for fundus in drawn:
        pieces, count = ndimage.label(fundus.vessels, np.ones((3, 3)))
        assert np.bincount(pieces.ravel())[1:].max() > 0.97 * fundus.vessels.sum(), count
        half_width = ndimage.distance_transform_edt(fundus.vessels)
        assert half_width.max() >= 2 * np.median(half_width[fundus.vessels])


def test_field_is_lit_and_round_and_its_surround_dark(drawn):
    for fundus in drawn:
        assert not (fundus.vessels & ~fundus.fov).any()
        surround = ~ndimage.binary_dilation(fundus.fov, iterations=6)
        assert fundus.image[surround].max() < 40
        lit = fundus.image[ndimage.binary_erosion(fundus.fov, iterations=6)]
        assert np.percentile(lit[:, 0], 1) > 40
        assert lit[:, 0].mean() > lit[:, 1].mean() > lit[:, 2].mean()  # red before green before blue
        width = np.ptp(np.nonzero(fundus.fov.any(axis=0))[0]) + 1
        assert fundus.fov.sum() == pytest.approx(np.pi / 4 * width**2, rel=0.06)


def test_wide_frames_cut_the_field_off_in_some_eyes_and_not_in_others():
    cut = []
    for seed in range(3, 9):
        fov = draw_fundus(seed, (200, 280)).fov
        assert fov[0].any() == fov[-1].any()
        cut.append(bool(fov[0].any()))
    assert 0 < sum(cut) < len(cut)


def test_the_examples_are_what_their_page_says():
    examples = Path(__file__).parents[1] / "examples"
    fundus = draw_fundus(31, (584, 565))
    assert dice(read_image(examples / "synthetic_orange_vessels.png")[..., 0] > 127, fundus.vessels) > 0.999
    assert np.abs(read_image(examples / "synthetic_orange.jpg").astype(int) - fundus.image).mean() < 4
    for path in examples.glob("*.jpg"):
        assert path.stat().st_size < 400_000 and path.name in (examples / "README.md").read_text("utf-8")
