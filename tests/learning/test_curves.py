"""The learning curves show what the metrics hold."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from resegnet.learning.curves import _PANEL_HEIGHT, write_curves

LINES = [
    {"epoch": epoch, "loss": 2.0 / epoch, "learning_rate": 1e-3, "seconds": 3.0}
    | ({"validation_f1": 0.5 + epoch / 50, "validation_f1_hrf": 0.4} if epoch % 2 else {})
    for epoch in range(1, 12)
]


def drawn(lines, path) -> np.ndarray:
    write_curves(lines, path)
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def heights(picture: np.ndarray, panel: int) -> tuple[int, int]:
    """Row of the first and of the last point of a panel's black curve."""
    part = picture[panel * _PANEL_HEIGHT : (panel + 1) * _PANEL_HEIGHT]
    black = (part[44:-36, 86:880] < 60).all(axis=2)
    columns = np.flatnonzero(black.any(axis=0))
    return tuple(int(np.flatnonzero(black[:, column]).mean()) for column in (columns[0], columns[-1]))


def test_a_falling_loss_falls_and_a_rising_score_rises(tmp_path):
    picture = drawn(LINES, tmp_path / "curves.png")
    (loss_before, loss_after), (f1_before, f1_after) = heights(picture, 0), heights(picture, 1)
    assert loss_after > loss_before + 100  # rows count downwards
    assert f1_after < f1_before - 50
    again = drawn([*LINES[:-1], LINES[-1] | {"validation_f1_hrf": 0.9}], tmp_path / "again.png")
    assert (picture[_PANEL_HEIGHT : 2 * _PANEL_HEIGHT] != again[_PANEL_HEIGHT : 2 * _PANEL_HEIGHT]).any()
    assert (picture[:_PANEL_HEIGHT] == again[:_PANEL_HEIGHT]).all()


@pytest.mark.parametrize(
    "lines",
    [
        LINES[:1],
        [{"epoch": 1, "loss": 0.0}],
        [{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": 1e9, "validation_f1": None}],
        [{"epoch": epoch, "loss": 0.5} for epoch in range(1, 300)],
    ],
)
def test_any_run_can_be_drawn(tmp_path, lines):
    assert drawn(lines, tmp_path / "curves.png").std() > 0


def test_without_an_epoch_there_is_no_picture(tmp_path):
    write_curves([], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
