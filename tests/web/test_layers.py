"""Layers that the page draws over a photograph."""

from __future__ import annotations

import numpy as np
import pytest

from resegnet.geometry import Geometry
from resegnet.results.anatomy import Anatomy
from resegnet.results.segmentation import Segmentation
from resegnet.results.zones import ZONES
from resegnet.web.layers import find_shapes

SIDE = 640


@pytest.mark.parametrize(("column", "is_whole"), [(320, True), (30, False)])
def test_zones_are_drawn_round_a_whole_disc_alone(column, is_whole):
    fov = np.ones((SIDE, SIDE), bool)
    planes = np.zeros((4, SIDE, SIDE), np.float32)
    planes[2] = np.hypot(*(np.mgrid[:SIDE, :SIDE].T - (320, column)).T) < 50
    anatomy = Anatomy(planes, Geometry.around(fov, SIDE))
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    result = Segmentation(image, planes[0], fov, 0.5, (), "user/model", anatomy=anatomy)
    disc = find_shapes(result)["disc"]
    assert disc["outline"]
    assert disc["zones"] == ([zone.borders_px(result.disc) for zone in ZONES] if is_whole else [])
