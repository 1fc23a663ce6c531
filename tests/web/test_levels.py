"""The levels of the threshold that the page shows."""

import numpy as np
import pytest
from support.handlers import unpack

from resegnet import Segmentation
from resegnet.web.levels import pack, probability_levels, slider_stops


def test_levels_give_the_mask_at_every_stop_to_the_last_pixel():
    stops = slider_stops(0.5334)
    assert len(stops) == 202
    edges = np.float32(stops)
    probability = np.concatenate([edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(1))])
    probability = np.stack([probability, np.random.default_rng(0).random(len(probability), np.float32)])
    fov = np.random.default_rng(1).random(probability.shape) < 0.7
    result = Segmentation(np.zeros((*fov.shape, 3), np.uint8), probability, fov, 0.5)
    levels = unpack(pack(probability_levels(result, stops)), fov.shape)
    for k, stop in enumerate(stops):
        np.testing.assert_array_equal(levels > k, result.at(stop).mask)


@pytest.mark.parametrize("fitted", [0.5, 1e-6, 1 - 1e-6, 0.35])
def test_the_fitted_threshold_is_a_stop_and_all_fit_into_a_byte(fitted):
    stops = slider_stops(fitted)
    assert fitted in stops
    assert stops == sorted(set(stops))
    assert (stops[0], stops[-1]) == (0, 1)
    assert len(stops) <= 255
