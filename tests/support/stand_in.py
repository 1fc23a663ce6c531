"""Stand-ins for weights and photographs."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
from scipy import ndimage

from resegnet.config import Config
from resegnet.segmenter import prepare_input
from support import PATIENCE_S
from support.synthetic import draw_fundus


class DarkOnGreen:
    """A network that finds what is darker than its surroundings in the green channel.

    It counts its calls, and waits in each while `go_on` is cleared.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        self.calls += 1
        self.go_on.wait(PATIENCE_S)
        green = rgb[:, 1]
        return np.clip(0.5 + 8 * (ndimage.uniform_filter(green, (0, 15, 15)) - green), 0, 1).astype(np.float32)


class GreenTwice:
    """In place of a network of two looks: the green channel is every probability."""

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        return rgb[:, 1]

    def look_twice(self, rgb: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rgb[:, 1], np.repeat(context[:, 1:2], 4, axis=1)


class TwoLooksOnGreen(DarkOnGreen):
    """The same as a network of two looks: arteries above and veins below, a disc on the left, a fovea on the right.

    It finds no disc while `finds_disc` is False.
    """

    finds_disc = True

    def look_twice(self, rgb: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        side = context.shape[-1]
        down, right = (np.arange(side) + 0.5) / side, (np.arange(side) + 0.5) / side
        upper = np.where(down < 0.5, 0.9, 0.1)[:, None] + np.zeros(side)
        disc = (np.hypot(down[:, None] - 0.5, right - 0.3) < 0.07) & self.finds_disc
        fovea = np.hypot(down[:, None] - 0.54, right - 0.6) < 0.03
        planes = np.stack([upper, 1 - upper, disc, fovea]).astype(np.float32)
        return self(rgb), np.repeat(planes[None], len(context), axis=0)


def stored_records() -> dict[str, dict]:
    """Return `config`, `training` and `metrics` of a release of one run, whatever release is bundled today."""
    return {name: stored_record(name) for name in ("config", "training", "metrics")}


def stored_record(name: str) -> dict:
    """Return one of the records in `tests/support/records`."""
    return json.loads((Path(__file__).parent / "records" / f"{name}.json").read_text())


def small_photographs(input_size: int, count: int = 2) -> list[np.ndarray]:
    """Return synthetic photographs as the network gets them, (S, S, 3) uint8."""
    return [
        prepare_input(draw_fundus(seed, (128, 128)).image, Config(input_size=input_size))[0] for seed in range(count)
    ]
