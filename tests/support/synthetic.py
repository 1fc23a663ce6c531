"""Synthetic photographs for tests, computed once in a process."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from resegnet import synthetic


@functools.cache
def _computed(seed: int, size: tuple[int, int]) -> synthetic.SyntheticFundus:
    return synthetic.draw_fundus(seed, size)


def draw_fundus(seed: int, size: tuple[int, int] = (584, 565)) -> synthetic.SyntheticFundus:
    """Return what `resegnet.synthetic.draw_fundus` returns, in arrays of the caller's own."""
    eye = _computed(seed, size)
    return replace(eye, **{name: value.copy() for name, value in vars(eye).items() if isinstance(value, np.ndarray)})
