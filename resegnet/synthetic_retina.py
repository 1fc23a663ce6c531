"""The retina of a synthetic eye without its vessels: tint, choroid, nerve fibres, macula, lesions, optic disc."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.special import expit

from resegnet.synthetic_frame import Frame

_WORKING_SIDE = 700  # the background is computed at this many pixels a side, since it holds no finer detail

# Mean RGB of the retina for a few cameras and eyes: pink, orange, red, brown, dark.
_TINTS = ((206, 88, 62), (208, 108, 62), (196, 62, 34), (160, 60, 14), (136, 62, 18))


@dataclass(frozen=True)
class DiscShape:
    """The outline of the optic disc: a wavy oval, a little higher than wide."""

    radius: float  # mm
    phases: tuple[float, float]  # of the waves, radians

    def outwards(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return how far out points in mm lie: 0 at the centre, 1 on the outline."""
        angle = np.arctan2(y, x)
        wobble = 1 + 0.03 * np.cos(2 * angle + self.phases[0]) + 0.02 * np.cos(3 * angle + self.phases[1])
        return np.hypot(x * 1.07, y) / (self.radius * wobble)

    def covers(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return which points in mm lie on the disc, bool."""
        return self.outwards(x, y) <= 1

    def diameter_mm(self) -> float:
        """Return the diameter of a circle of the same area."""
        angle = np.linspace(0, 2 * math.pi, 720, endpoint=False)
        reach = 1 / self.outwards(np.cos(angle), np.sin(angle))  # from the centre to the outline
        return 2 * math.sqrt(np.mean(reach**2))


def draw_retina(rng: np.random.Generator, frame: Frame, fovea: tuple[float, float]) -> tuple[np.ndarray, DiscShape]:
    """Draw the retina without its vessels, (H, W, 3) float32, about 0 to 255; return it with its disc."""
    shrink = min(1.0, _WORKING_SIDE / max(frame.size))
    shape = (round(frame.size[0] * shrink), round(frame.size[1] * shrink))
    mm = frame.px_per_mm * shrink  # samples per mm
    x, y = frame.grid_mm(shape)
    from_disc = np.hypot(x, y)
    texture_rng = rng.spawn(1)[0]  # takes a number per sample, which must not shift the stream of the other parts

    tint = np.array(_TINTS[rng.integers(len(_TINTS))]) * rng.normal(1, 0.06) * rng.normal(1, (0.02, 0.06, 0.1))
    shade = 0.04 * _noise(texture_rng, shape, 4.0 * mm) + 0.025 * _noise(texture_rng, shape, 1.2 * mm)
    grain = _noise(texture_rng, shape, 0.12 * mm) + 0.8 * _noise(texture_rng, shape, 0.3 * mm)
    shade = shade + rng.uniform(0.012, 0.03) * grain
    retina = tint * (1 + shade[..., None] * (0.6, 1.0, 1.2))

    # Choroidal vessels show through lightly pigmented retinas as a blurred, bright net, except at the macula.
    ridges = 1 - np.abs(_noise(texture_rng, shape, 0.75 * mm)) - 0.4 * np.abs(_noise(texture_rng, shape, 0.4 * mm))
    away = 1 - np.exp(-(((x - fovea[0]) ** 2 + (y - fovea[1]) ** 2) / (2 * 2.2**2)))
    patches = expit(1.5 * _noise(texture_rng, shape, 4.0 * mm))
    choroid = np.clip(ridges, -1.0, 1.0) * away * patches * rng.choice([0.03, 0.07, 0.16], p=[0.45, 0.35, 0.2])
    retina *= 1 + choroid[..., None] * (0.75, 1.1, 0.9)

    # Nerve fibres are fine rays from the disc, brightest above and below it.
    angle = np.arctan2(y, x)
    rays = ndimage.gaussian_filter1d(rng.normal(size=2048), 2.0, mode="wrap")
    rays = (rays / rays.std()).astype(np.float32)[((angle / (2 * math.pi) + 0.5) * 2047).astype(int)]
    sheen = np.sin(angle) ** 2 * np.exp(-((from_disc - 1.6) ** 2) / (2 * 1.0**2)) * rng.uniform(0.2, 1.0)
    retina += (sheen * (9 + 4 * rays))[..., None] * (0.35, 0.8, 0.7)

    # The macula is a wide soft shadow with a darker pit, in some eyes with a glint in it.
    to_fovea = np.hypot(x - fovea[0], (y - fovea[1]) * 1.08)
    pit = rng.uniform(0.12, 0.24) * np.exp(-(to_fovea**2) / (2 * 0.85**2))
    pit = pit + rng.uniform(0.1, 0.22) * np.exp(-(to_fovea**2) / (2 * 0.33**2))
    retina *= 1 - pit[..., None] * (0.55, 1.0, 0.9)
    if rng.random() < 0.3:
        retina += (np.exp(-(to_fovea**2) / (2 * 0.05**2)) * 40)[..., None]

    _draw_lesions(rng, retina, x, y, fovea)
    disc = _draw_disc(rng, retina, x, y, tint)

    # The light falls off to the rim, is stronger on one side, and in some eyes has a bright crescent at the rim.
    across = np.hypot(x - frame.middle_mm[0], y - frame.middle_mm[1]) / frame.radius_mm
    lean = rng.uniform(0, 2 * math.pi)
    slope = ((x - frame.middle_mm[0]) * math.cos(lean) + (y - frame.middle_mm[1]) * math.sin(lean)) / frame.radius_mm
    light = 1.05 - rng.uniform(0.12, 0.38) * across**2.5 + rng.uniform(0.0, 0.14) * slope
    retina *= light[..., None]
    if rng.random() < 0.4:
        crescent = np.clip(across - 0.88, 0, 0.12) / 0.12 * np.clip(slope, 0, 1) ** 2
        retina += (crescent * rng.uniform(15, 60))[..., None] * (0.9, 1.0, 0.75)

    if shrink == 1:
        return retina.astype(np.float32), disc
    height, width = frame.size
    bands = [
        Image.fromarray(np.ascontiguousarray(retina[..., i], np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for i in range(3)
    ]
    return np.stack([np.asarray(band) for band in bands], axis=-1), disc


def _draw_disc(
    rng: np.random.Generator, retina: np.ndarray, x: np.ndarray, y: np.ndarray, tint: np.ndarray
) -> DiscShape:
    """Draw the optic disc and its cup onto the retina, in place, and return its outline."""
    radius = rng.normal(0.88, 0.06)
    disc = DiscShape(radius, (rng.uniform(0, 6), rng.uniform(0, 6)))
    angle, outwards = np.arctan2(y, x), disc.outwards(x, y)
    # Light scatters round the disc, and many eyes show a ring of thin tissue at its temporal edge.
    retina *= 1 + (0.16 * np.exp(-(((outwards - 0.9) / 0.7) ** 2)))[..., None] * (0.6, 1.0, 1.0)
    ring = np.exp(-(((outwards - 1.1) / 0.09) ** 2)) * np.clip(0.4 + 0.6 * np.cos(angle), 0, 1)
    retina *= 1 + rng.choice([-0.14, 0.0, 0.22]) * ring[..., None]

    rim = np.minimum(245, tint * (1.12, 1.65, 1.8) + (12, 16, 10))
    cup = np.minimum(255, rim * (1.02, 1.12, 1.3) + (4, 8, 14))
    cup_radius = rng.uniform(0.3, 0.58)
    in_cup = expit((cup_radius - np.hypot(x - 0.1, y) / radius) / 0.055)
    # The rim is pinker at the nasal side, where most fibres enter.
    colour = rim * (1 + 0.1 * np.clip(x / radius, -1, 1))[..., None] * (0.6, 1.0, 1.0) + rim * (0.4, 0, 0)
    colour = colour + in_cup[..., None] * (cup - colour)
    inside = expit((1 - outwards) / rng.uniform(0.025, 0.055))[..., None]
    retina += inside * (colour - retina)
    return disc


def _draw_lesions(
    rng: np.random.Generator, retina: np.ndarray, x: np.ndarray, y: np.ndarray, fovea: tuple[float, float]
) -> None:
    """Draw a few small haemorrhages and yellow deposits onto the retina of a quarter of the eyes, in place."""
    if rng.random() > 0.25:
        return
    for _ in range(rng.integers(3, 14)):
        spot_x, spot_y, size = *rng.normal(fovea, 2.2), rng.uniform(0.03, 0.1)
        spot = np.exp(-((((x - spot_x) ** 2 + (y - spot_y) ** 2) / size**2) ** 2))
        retina *= 1 - rng.uniform(0.25, 0.5) * spot[..., None] * (0.6, 1.0, 0.9)
    middle = rng.normal(fovea, 1.2)
    for _ in range(rng.integers(0, 16)):
        spot_x, spot_y, size = *rng.normal(middle, 0.5), rng.uniform(0.03, 0.08)
        spot = np.exp(-((((x - spot_x) ** 2 + (y - spot_y) ** 2) / size**2) ** 2))
        retina += rng.uniform(20, 60) * spot[..., None] * (0.8, 1.0, 0.35)


def _noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Return smooth noise of unit variance, `shape` float32, whose bumps are about `scale` samples wide."""
    step = max(1.0, scale / 3)
    coarse = rng.normal(size=[math.ceil(side / step) + 4 for side in shape]).astype(np.float32)
    coarse = ndimage.gaussian_filter(coarse, scale / 2 / step)
    height, width = coarse.shape
    full = Image.fromarray(coarse).resize((round(width * step), round(height * step)), Image.Resampling.BICUBIC)
    noise = np.asarray(full)[: shape[0], : shape[1]]
    return (noise - noise.mean()) / max(float(noise.std()), 1e-6)
