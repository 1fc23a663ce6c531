"""The vessels of a synthetic eye: trees of arteries and veins, grown in millimetres on the retina."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.interpolate import CubicSpline

_STEP = 0.06  # between the points of a vessel, mm
_CELL = 0.12  # side of a cell of the grid in which a growing vessel looks for others nearby, mm
_THINNEST = 0.020  # thinner capillaries are not visible in a photograph, mm

# The lower trunks, (x, y) in mm from the centre of the disc, towards the macula and down: the arcades bend round the
# macula, the nasal trunks run straight.
_ARCADE = ((0, 0), (0.05, 0.7), (0.4, 1.5), (1.35, 2.3), (3.0, 2.8), (5.0, 2.75), (7.2, 2.2), (9.6, 1.6))
_NASAL = ((0, 0), (-0.3, 0.7), (-1.05, 1.5), (-2.2, 2.4), (-3.8, 3.5), (-5.6, 4.5))


@dataclass(frozen=True)
class Vessel:
    """The centreline of a vessel and its width.

    `points` is (N, 2) float, (x, y) in mm from the centre of the disc; x grows towards the macula, y downwards.
    `widths` is (N,) float, mm. `generation` is 0 for a trunk, 1 to 3 for a branch.
    """

    points: np.ndarray
    widths: np.ndarray
    is_vein: bool
    generation: int


def grow_vessels(rng: np.random.Generator, fovea: tuple[float, float]) -> list[Vessel]:
    """Grow the trees of arteries and veins: a pair of trunks to each quadrant, and three generations of branches."""
    grower = _Grower(rng, fovea)
    for is_vein in (True, False):
        for down in (-1, 1):
            spread = rng.normal(-0.12 if is_vein else 0.3, 0.12)  # artery and vein of a pair run side by side
            for trunk, width, aside in ((_ARCADE, 0.150, (-0.4, 1.0)), (_NASAL, 0.115, (-0.9, 0.0))):
                knots = np.array(trunk) * (1, rng.normal(1, 0.06)) + spread * np.array(aside)
                knots[0] = rng.normal((-0.03, 0.0), 0.03)
                grower.trunk(knots * (1, down), width, is_vein)
        for heading in rng.normal([0.35, -0.35, math.pi - 0.3, math.pi + 0.3], 0.15):
            start = (0.25 * math.cos(heading), 0.25 * math.sin(heading))
            grower.branch(start, heading, rng.uniform(0.04, 0.065), is_vein, parent=-1, generation=1)
    return grower.vessels


class _Grower:
    """Grows vessels step by step, so that veins keep away from veins, and arteries from arteries."""

    def __init__(self, rng: np.random.Generator, fovea: tuple[float, float]) -> None:
        self.rng = rng
        self.fovea = fovea
        self.tortuosity = rng.uniform(0.5, 1.5)
        self.vessels: list[Vessel] = []
        self.taken: dict[tuple[bool, int, int], int] = {}  # cell of the grid to the first vessel in it

    def trunk(self, knots: np.ndarray, width: float, is_vein: bool) -> None:
        """Add a trunk along knots, (N, 2) in mm, that begins `width` mm wide, and its branches."""
        rng = self.rng
        knots = knots + rng.normal(0, 0.1, knots.shape) * np.linspace(0, 1.5, len(knots))[:, None]
        along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(knots, axis=0).T))])
        s = np.arange(0, along[-1], _STEP)
        points = CubicSpline(along, knots)(s)
        for wave in (0.25, 0.9):  # mm, for short and for long bends
            bend = ndimage.gaussian_filter1d(rng.normal(size=points.shape), wave / _STEP, axis=0)
            points += bend * (0.16 * self.tortuosity * wave / bend.std()) * np.minimum(1, s / 1.0)[:, None]
        width *= rng.normal(1, 0.08) * (1.0 if is_vein else 0.78)
        self._keep(points, width * (1 - 0.62 * s / s[-1]), is_vein, parent=-1, generation=0)

    def branch(
        self,
        start: tuple[float, float],
        heading: float,
        width: float,
        is_vein: bool,
        parent: int,
        generation: int,
    ) -> None:
        """Add a branch that leaves `parent` at `start`, (x, y) in mm, towards `heading`, radians, and its branches."""
        rng = self.rng
        x, y = start
        points = [(x, y)]
        bend = 0.0
        inwards = False
        steps = int(width * rng.uniform(65, 120) / _STEP) + 1
        for i, kick in enumerate(rng.normal(0, 0.12 * self.tortuosity, steps)):
            to_fovea = math.hypot(self.fovea[0] - x, self.fovea[1] - y)
            ahead = _turn(heading, math.atan2(self.fovea[1] - y, self.fovea[0] - x))
            if i % 8 == 0:
                inwards = to_fovea < 3.4 and abs(ahead) < 1.6
                width = min(width, 0.055) if inwards else width
            # There are no vessels in the fovea, and none that circle it.
            if to_fovea < 0.4 or (to_fovea < 1.3 and abs(ahead) > 0.9) or math.hypot(x - 2.5, y) > 10:
                break
            # Inside the arcades vessels run towards the macula, outside towards the periphery.
            wanted = 0.07 * ahead if inwards else 0.045 * _turn(heading, math.atan2(y, x - 2.2))
            bend = 0.75 * bend + kick
            heading += 0.35 * bend + wanted
            if i > 5:
                left, right = (self._is_near(x, y, heading + probe, 0.3, is_vein) for probe in (0.9, -0.9))
                heading += 0.09 * (right - left)
            near = self.taken.get(_cell(x, y, heading, 0.2, is_vein), parent)
            if near != parent or (i > 8 and self._is_near(x, y, heading, 0.2, is_vein)):
                break
            x += _STEP * math.cos(heading)
            y += _STEP * math.sin(heading)
            points.append((x, y))
        if len(points) > max(7, 14 * width / _STEP):  # a branch that soon met another vessel is dropped
            widths = np.maximum(width * np.linspace(1, 0, len(points)) ** 0.45, _THINNEST)
            self._keep(np.array(points), widths, is_vein, parent, generation)

    def _is_near(self, x: float, y: float, heading: float, distance: float, is_vein: bool) -> bool:
        """Tell whether a vessel of the same kind is in the cell that lies `distance` mm ahead."""
        return _cell(x, y, heading, distance, is_vein) in self.taken

    def _keep(self, points: np.ndarray, widths: np.ndarray, is_vein: bool, parent: int, generation: int) -> None:
        """Add a vessel, and grow its branches up to the third generation."""
        rng = self.rng
        index = len(self.vessels)
        self.vessels.append(Vessel(points, widths, is_vein, generation))
        for column, row in np.floor(points / _CELL).astype(int).tolist():
            self.taken.setdefault((is_vein, column, row), index)
        if generation == 3:
            return
        side = 1 if rng.random() < 0.5 else -1
        position = rng.uniform(1.0, 1.6) if generation == 0 else rng.uniform(0.3, 0.9)  # mm; none on the disc
        while (i := int(position / _STEP)) < len(points) - 4:
            ratio = rng.uniform(0.4, 0.85)
            width = widths[i] * ratio
            if width > _THINNEST * 1.1:
                dx, dy = points[i + 2] - points[i - 2]
                heading = math.atan2(dy, dx) + side * (1.35 - 0.8 * ratio + rng.normal(0, 0.12))
                self.branch(tuple(points[i]), heading, width, is_vein, index, generation + 1)
            side = -side if rng.random() < 0.75 else side
            position += rng.gamma(3, (0.33, 0.30, 0.30)[generation])


def _cell(x: float, y: float, heading: float, distance: float, is_vein: bool) -> tuple[bool, int, int]:
    """Return the cell of the grid that lies `distance` mm ahead, for vessels of this kind."""
    return (
        is_vein,
        math.floor((x + distance * math.cos(heading)) / _CELL),
        math.floor((y + distance * math.sin(heading)) / _CELL),
    )


def _turn(heading: float, wanted: float) -> float:
    """Return the turn from one heading to another, radians in [-pi, pi]."""
    return math.remainder(wanted - heading, 2 * math.pi)
