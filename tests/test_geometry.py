"""The transform to the network's frame and back returns every pixel to its place."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from resegnet.geometry import Geometry, as_network_input


def field(height: int, width: int, row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


FIELDS = {
    "whole circle": field(584, 565, 290, 280, 268),
    "off centre": field(400, 900, 200, 640, 150),
    "cut at top and bottom": field(700, 1000, 350, 500, 420),
    "cut at one side": field(600, 500, 300, 80, 290),
    "fills the frame": np.ones((480, 640), bool),
    "no field at all": np.zeros((120, 90), bool),
}


@pytest.mark.parametrize("fov", FIELDS.values(), ids=FIELDS)
def test_there_and_back_leaves_a_ramp_where_it_was(fov):
    height, width = fov.shape
    geometry = Geometry.around(fov, 768)
    # The ramp is linear in both directions, so that a shift shows as a difference.
    ramp = (np.mgrid[:height, :width][0] / height + np.mgrid[:height, :width][1] / width).astype(np.float32) / 2
    back = geometry.to_original(geometry.to_input(ramp))
    assert back.shape == fov.shape
    assert back.dtype == np.float32
    # Pixels near the frame and the box are left out, since the black outside bleeds into them.
    rows, columns = np.flatnonzero(fov.any(axis=1)), np.flatnonzero(fov.any(axis=0))
    if rows.size == 0:
        rows, columns = np.arange(height), np.arange(width)
    inner = np.s_[rows[0] + 6 : rows[-1] - 6, columns[0] + 6 : columns[-1] - 6]
    one_pixel = 0.5 / max(height, width)
    difference = (back - ramp)[inner]
    assert abs(difference.mean()) < 0.01 * one_pixel
    assert np.abs(difference).max() < 0.3 * one_pixel  # a triangle filter on whole pixels is off by that much


@pytest.mark.parametrize("fov", FIELDS.values(), ids=FIELDS)
def test_a_plane_is_scaled_without_new_values(fov):
    geometry = Geometry.around(fov, 160)
    left = np.zeros(fov.shape, np.uint8)
    left[:, : fov.shape[1] // 2] = 7
    scaled = geometry.to_input_nearest(left)
    assert scaled.shape == (160, 160) and set(np.unique(scaled)) <= {0, 7}
    assert np.mean((scaled > 0) == (geometry.to_input(left / 7) > 0.5)) > 0.99


@pytest.mark.parametrize("fov", FIELDS.values(), ids=FIELDS)
def test_the_pixels_of_a_part_are_where_the_part_is_scaled_to(fov):
    geometry = Geometry.around(fov, 160)
    square = np.add.outer(np.arange(160) * 1000, np.arange(160)) + 1  # each pixel says where it lies
    inside = geometry.to_input_nearest(np.ones(fov.shape, np.uint8)) > 0
    for part in ((slice(0, 160), slice(0, 160)), (slice(40, 71), slice(100, 103)), (slice(150, 170), slice(0, 9))):
        rows, columns, places = geometry.pixels_of(part)
        back = np.zeros(fov.shape, square.dtype)
        back[rows, columns] = square[part][places]
        again = geometry.to_input_nearest(back)[part]
        shown = again > 0
        assert np.array_equal(shown, inside[part])
        shifts = np.array(np.divmod(again[shown] - 1, 1000)) - np.divmod(square[part][shown] - 1, 1000)
        assert np.abs(shifts).max(initial=0) <= max(1, 160 / geometry.box[2])


@pytest.mark.parametrize("fov", FIELDS.values(), ids=FIELDS)
def test_the_aspect_is_kept_and_the_field_fits(fov):
    geometry = Geometry.around(fov, 512)
    top, left, side = geometry.box
    rows, columns = np.nonzero(fov if fov.any() else np.ones_like(fov))
    assert top <= rows.min()
    assert left <= columns.min()
    assert top + side > rows.max()
    assert left + side > columns.max()
    assert side <= 1.03 * max(np.ptp(rows) + 1, np.ptp(columns) + 1) + 1
    scaled = geometry.to_input(fov)
    assert scaled.shape == (512, 512)


@pytest.mark.parametrize(("field_px", "side"), [(100, 128), (200, 224), (250, 256), (252, 288), (400, 320)])
def test_a_small_field_is_not_enlarged(field_px, side):
    geometry = Geometry.around(np.ones((field_px, 40), bool), 320, smallest=128)
    assert geometry.input_size == side
    assert geometry.to_input(np.ones((field_px, 40), bool)).shape == (side, side)


@pytest.mark.parametrize("field_px", [130, 190, 313])
def test_a_field_between_the_sizes_passes_pixel_for_pixel(field_px):
    fov = np.zeros((320, 360), bool)
    fov[2 : 2 + field_px, 9 : 9 + field_px] = True
    geometry = Geometry.around(fov, 320, smallest=128)
    picture = np.random.default_rng(0).integers(0, 256, (320, 360, 3), np.uint8)
    square = geometry.to_input(picture)
    top, left, side = geometry.box
    assert side == geometry.input_size
    assert np.array_equal(square[2 - top, 9 - left], picture[2, 9])
    back = geometry.to_original(square[:, :, 1].astype(np.float32))
    assert np.array_equal(back[fov], picture[:, :, 1][fov])


def test_colours_keep_their_order_and_range():
    image = np.zeros((300, 300, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 200, 120, 40
    geometry = Geometry.around(np.ones((300, 300), bool), 256)
    pixels = geometry.to_input(image)
    assert pixels.dtype == np.uint8
    assert pixels[128, 128].tolist() == [200, 120, 40]
    rgb = as_network_input(pixels)
    assert rgb.shape == (3, 256, 256)
    assert rgb.dtype == np.float32
    assert rgb[:, 128, 128] == pytest.approx(np.array([200, 120, 40]) / 255)


def test_thin_vessels_of_a_large_photograph_survive_the_round_trip():
    # Nearest-neighbour scaling loses 7 px lines in a field of 3300 px, as HRF has.
    truth = np.zeros((2336, 3504), bool)
    for k in range(20):
        truth[:, 150 + 160 * k : 157 + 160 * k] = True
    fov = field(2336, 3504, 1168, 1752, 1650)
    geometry = Geometry.around(fov, 1024)
    back = geometry.to_original(geometry.to_input(truth)) >= 0.5
    dice = 2 * (back & truth & fov).sum() / ((back & fov).sum() + (truth & fov).sum())
    assert dice > 0.95


@pytest.mark.parametrize(("input_size", "kept"), [(640, 0.9), (400, 0.75)])
def test_fine_vessels_keep_their_contrast(input_size, kept):
    """Lines are two pixels wide and apart. Linear sampling keeps 0.81 of their contrast at 640 px, 0.67 at 400 px."""
    picture = np.full((560, 560, 3), 140, np.uint8)
    picture[:, 1::4] = picture[:, 2::4] = 100
    scaled = Geometry((560, 560), (0, 0, 560), input_size).to_input(picture)[50:-50, 50:-50]
    assert scaled.std() > kept * picture.std()


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1), (3, 5000)])
def test_odd_shapes_cost_no_memory(size):
    geometry = Geometry.around(np.ones(size, bool), 256)
    tracemalloc.start()
    pixels = geometry.to_input(np.full((*size, 3), 9, np.uint8))
    back = geometry.to_original(np.full((256, 256), 0.5, np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels.shape == (256, 256, 3)
    assert back.shape == size
    assert (back == 0.5).all()
    assert peak < 5e6
