"""Fractal dimensions of sets whose dimension is known; and against PVBM on the same masks."""

import math

import numpy as np
import pytest
from PIL import Image
from PVBM.FractalAnalysis import MultifractalVBMs
from support.strokes import line, stroke
from support.synthetic import draw_fundus

from resegnet.results.fractal import fractal_dimensions

# Fractal dimension


def carpet(depth):
    mask = np.ones((1, 1), bool)
    for _ in range(depth):
        mask = np.block([[mask, mask, mask], [mask, np.zeros_like(mask), mask], [mask, mask, mask]])
    return mask


def triangle(depth):
    numbers = np.arange(2**depth)
    return (numbers[:, None] & numbers) == 0


def koch(depth, side=900):
    points = np.array([0, 1], complex)
    for _ in range(depth):
        third = np.diff(points) / 3
        bend = points[:-1] + third * (1 + np.exp(1j * np.pi / 3))
        parts = [points[:-1], points[:-1] + third, bend, points[1:] - third]
        points = np.append(np.stack(parts, axis=1).ravel(), 1)
    fine = np.interp(np.linspace(0, len(points) - 1, 20 * len(points)), np.arange(len(points)), points) * (side - 1)
    mask = np.zeros((side, side), bool)
    mask[fine.imag.astype(int), fine.real.astype(int)] = True
    return mask


FRACTALS = {
    "line": (np.eye(500, dtype=bool), 1),
    "oblique line": (stroke(line(20, 300), 1), 1),
    "square": (np.pad(np.ones((500, 500), bool), ((13, 40), (100, 2))), 2),
    "carpet": (carpet(6), math.log(8) / math.log(3)),
    "triangle": (triangle(9), math.log(3) / math.log(2)),
    "koch": (koch(6), math.log(4) / math.log(3)),
}


@pytest.mark.parametrize("name", FRACTALS)
def test_known_sets_have_their_dimension(name):
    mask, dimension = FRACTALS[name]
    assert fractal_dimensions(mask, np.ones_like(mask)) == pytest.approx([dimension] * 3, abs=0.05)


def test_the_border_of_the_field_does_not_change_the_dimension():
    y, x = np.mgrid[:600, :600]
    fov = np.hypot(y - 300, x - 300) < 280
    assert fractal_dimensions(fov, fov) == pytest.approx([2, 2, 2], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_no_dimension_is_larger_than_the_one_before(seed):
    eye = draw_fundus(seed)
    d0, d1, d2 = fractal_dimensions(eye.vessels, eye.fov)
    assert 1 < d2 <= d1 <= d0 < 2


def test_a_mirrored_and_a_turned_mask_have_the_same_dimensions():
    eye = draw_fundus(3, (1168, 1130))
    expected = fractal_dimensions(eye.vessels, eye.fov)
    for mask, fov in ((eye.vessels[:, ::-1], eye.fov[:, ::-1]), (eye.vessels.T, eye.fov.T)):
        assert fractal_dimensions(mask, fov) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("apart", [50, 80, 140])
def test_the_order_holds_where_there_are_few_vessels(apart):
    mask = np.zeros((400, 400), bool)
    mask[60::apart] = True
    mask[:, 200] = True
    d0, d1, d2 = fractal_dimensions(mask, np.ones_like(mask))
    assert 1 <= d2 <= d1 <= d0 < 2


@pytest.mark.data
def test_the_order_holds_for_a_sparse_tracing(real):
    start = real / "drive" / "train" / "drive_23_"
    masks = [np.asarray(Image.open(f"{start}{kind}.png").convert("L")) > 127 for kind in ("mask", "fov")]
    d0, d1, d2 = fractal_dimensions(*masks)
    assert 1.4 < d2 <= d1 <= d0 < 1.7


def test_a_field_without_enough_vessels_has_no_dimension():
    fov = np.ones((200, 200), bool)
    few = np.zeros_like(fov)
    few[100, 60:140] = True
    for mask, field in ((few, fov), (fov, np.zeros_like(fov)), (fov[:20, :20], fov[:20, :20])):
        assert np.isnan(fractal_dimensions(mask, field)).all()


# Against PVBM (Fhima et al. 2022, 10.1007/978-3-031-25066-8_15)


def test_fractal_dimensions_agree_with_pvbm(drawn):
    mask = drawn.vessels & drawn.fov
    pvbm = MultifractalVBMs(n_rotations=1, optimize=False, min_proba=0.0001, maxproba=0.9999)
    theirs = pvbm.compute_multifractals(mask.astype(float))[:3]
    assert fractal_dimensions(mask, drawn.fov) == pytest.approx(
        theirs, abs=0.15
    )  # their boxes are of 5 px to 0.6 of the picture
