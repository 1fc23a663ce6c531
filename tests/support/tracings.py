"""Predictions of drawn vessels, and tracings of them."""

import numpy as np

from resegnet.results.segmentation import Segmentation


def segmentation_of(drawn, seed=0, threshold=0.4):
    """A noisy prediction of a drawn truth."""
    noise = np.random.default_rng(seed).normal(0, 0.2, drawn.fov.shape)
    probability = np.clip(0.2 + 0.5 * drawn.vessels + noise, 0, 1).astype(np.float32)
    return Segmentation(drawn.image, probability, drawn.fov, threshold)


def dice(one, other):
    """Return twice what two masks share, of what both have."""
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def grey(vessels):
    return np.where(vessels, np.uint8(255), np.uint8(0))
