"""Learning curves of a run, drawn from its metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from resegnet.io import png, write_atomically

# Curves by panel: title, and the keys of `metrics.jsonl` that start with one of these words.
_PANELS = {"Loss": ("loss",), "Validation scores": ("validation_",), "Learning rate": ("learning_rate",)}
_WIDTH, _PANEL_HEIGHT = 1200, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 330, 44, 36  # margins of a panel, px
# Distinct for colour-blind readers (Okabe and Ito 2008), the first one dark.
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C6D1F")
_GREY = "#9a9a9a"


@dataclass(frozen=True)
class _Panel:
    """One diagram: where it lies in the picture, and what its corners mean."""

    top: int
    epochs: int
    lowest: float
    highest: float

    @property
    def bottom(self) -> int:
        return self.top + _PANEL_HEIGHT - _TOP - _BOTTOM

    def place(self, epoch: float, value: float) -> tuple[float, float]:
        """Return x and y, px."""
        right = (epoch - 1) / max(1, self.epochs - 1)
        up = (value - self.lowest) / (self.highest - self.lowest)
        return _LEFT + right * (_WIDTH - _LEFT - _RIGHT), self.bottom - up * (self.bottom - self.top)


def write_curves(lines: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw loss, validation scores and learning rate against the epoch.

    Parameters
    ----------
    lines
        Content of `metrics.jsonl`: a record for each epoch, with `epoch`. Some epochs may lack validation scores.
    path
        PNG file to write. Nothing is written without lines.
    """
    if not lines:
        return
    picture = Image.new("RGB", (_WIDTH, _PANEL_HEIGHT * len(_PANELS)), "white")
    canvas = ImageDraw.Draw(picture)
    for number, (title, words) in enumerate(_PANELS.items()):
        keys = dict.fromkeys(key for line in lines for key in line if key.startswith(words))
        points = {key: [(line["epoch"], line[key]) for line in lines if _is_finite(line.get(key))] for key in keys}
        curves = {key: found for key, found in points.items() if found}
        _draw_panel(canvas, number * _PANEL_HEIGHT + _TOP, round(lines[-1]["epoch"]), title, curves)
    write_atomically(path, png(np.asarray(picture)))


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _draw_panel(
    canvas: ImageDraw.ImageDraw,
    top: int,
    epochs: int,
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
) -> None:
    small, large = ImageFont.load_default(15), ImageFont.load_default(19)
    canvas.text((_LEFT, top - 34), title, "black", large)
    if not curves:
        canvas.text((_LEFT, top + 10), "none in this run yet", _GREY, small)
        return
    values = [value for points in curves.values() for _, value in points]
    ticks = _ticks(min(values), max(values))
    panel = _Panel(top, epochs, ticks[0], ticks[-1])
    for tick in ticks:
        (left, y), (right, _) = panel.place(1, tick), panel.place(max(2, panel.epochs), tick)
        canvas.line((left, y, right, y), "#e2e2e2")
        canvas.text((left - 8, y), f"{tick:.3g}", _GREY, small, anchor="rm")
    for epoch in {1, panel.epochs}:
        canvas.text((panel.place(epoch, ticks[0])[0], panel.bottom + 6), f"epoch {epoch}", _GREY, small, anchor="mt")
    # The names stand beside the ends of their curves, in the order of these.
    names = sorted(curves, key=lambda key: -curves[key][-1][1])
    step = min(20, (panel.bottom - panel.top) / len(names))
    for place, name in enumerate(names):
        colour = _COLOURS[list(curves).index(name) % len(_COLOURS)]
        points = [panel.place(*point) for point in curves[name]]
        canvas.line(points, colour, 3 if name in ("loss", "validation_f1") else 2)
        for x, y in points if len(points) < 40 else ():
            canvas.ellipse((x - 3, y - 3, x + 3, y + 3), colour)
        label = f"{name.removeprefix('validation_')} {curves[name][-1][1]:.4g}"
        canvas.text((_WIDTH - _RIGHT + 16, panel.top + place * step), label, colour, small)


def _ticks(lowest: float, highest: float) -> list[float]:
    """Return about five round numbers that enclose a range."""
    span = max(highest - lowest, 1e-9, 1e-3 * abs(highest))
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * 5 >= span)
    first = math.floor(lowest / step)
    last = max(first + 1, math.ceil(highest / step))
    return [number * step for number in range(first, last + 1)]
