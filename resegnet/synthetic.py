"""Synthetic fundus photographs with the exact masks of their vessels.

They serve tests, examples that anybody may copy, and training runs without data. The eye is laid out in millimetres on
the retina, so that vessels, disc and macula keep their true proportions at every field of view and size; a camera then
maps it to pixels. The sizes of the parts are those of adult eyes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.special import expit

from resegnet.errors import ArgumentError
from resegnet.synthetic_vessels import Vessel, grow_vessels

MIN_SIDE, MAX_SIDE = 128, 4000

_WORKING_SIDE = 700  # the background is computed at this many pixels a side, since it holds no finer detail

# Mean RGB of the retina for a few cameras and eyes: pink, orange, red, brown, dark.
_TINTS = ((206, 88, 62), (208, 108, 62), (196, 62, 34), (160, 60, 14), (136, 62, 18))


@dataclass(frozen=True)
class SyntheticFundus:
    """A synthetic photograph with its exact masks.

    Attributes
    ----------
    image
        (H, W, 3) uint8 RGB.
    vessels
        (H, W) bool, True where vessels cover at least half of the pixel, never outside `fov`.
    fov
        (H, W) bool, True in the lit field of view.
    """

    image: np.ndarray
    vessels: np.ndarray
    fov: np.ndarray


@dataclass(frozen=True)
class _Frame:
    """The part of the retina that the camera sees, and the map from millimetres to pixels and back."""

    size: tuple[int, int]  # (H, W), px
    middle_px: tuple[float, float]  # (x, y) of the centre of the field
    middle_mm: tuple[float, float]
    radius_px: float
    radius_mm: float
    macula_on_the_left: bool

    @property
    def px_per_mm(self) -> float:
        return self.radius_px / self.radius_mm

    def to_px(self, points: np.ndarray) -> np.ndarray:
        """Map points, (N, 2) in mm, to (x, y) in pixels."""
        shifted = (points - self.middle_mm) * self.px_per_mm
        if self.macula_on_the_left:
            shifted = shifted * (-1, 1)
        return shifted + self.middle_px

    def grid_mm(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y in mm of the pixel centres of this frame, resampled to `shape`; both `shape` float32."""
        height, width = self.size
        x = (np.arange(shape[1], dtype=np.float32) + 0.5) * (width / shape[1]) - self.middle_px[0]
        y = (np.arange(shape[0], dtype=np.float32) + 0.5) * (height / shape[0]) - self.middle_px[1]
        if self.macula_on_the_left:
            x = -x
        x, y = np.meshgrid(x / self.px_per_mm + self.middle_mm[0], y / self.px_per_mm + self.middle_mm[1])
        return x.astype(np.float32), y.astype(np.float32)


def draw_fundus(seed: int, size: tuple[int, int] = (584, 565)) -> SyntheticFundus:
    """Draw a synthetic photograph of an eye.

    Parameters
    ----------
    seed
        Selects the eye and the camera. The same seed and size give the same bytes; another size gives the same eye with
        another texture.
    size
        Height and width in pixels, each from 128 to 4000.

    Raises
    ------
    ArgumentError
        If the size is outside that range.
    """
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise ArgumentError(
            f"size is {size}; expected height and width from {MIN_SIDE} to {MAX_SIDE} pixels: choose them so."
        )
    # Each part has a random stream of its own, so that a change in one part leaves the others unchanged.
    frame_rng, vessel_rng, retina_rng, camera_rng = np.random.default_rng(seed).spawn(4)
    fovea = (vessel_rng.normal(4.6, 0.15), vessel_rng.normal(0.35, 0.15))
    frame = _choose_frame(frame_rng, size, fovea)
    fov = _draw_fov(frame_rng, frame)
    vessels = grow_vessels(vessel_rng, fovea)
    coverage, depth, reflex = _draw_vessels(vessels, frame)
    retina = _draw_retina(retina_rng, frame, fovea)
    image = _photograph(camera_rng, retina, depth, reflex, fov, frame)
    return SyntheticFundus(image, (coverage >= 0.5) & (fov >= 0.5), fov >= 0.5)


def _choose_frame(rng: np.random.Generator, size: tuple[int, int], fovea: tuple[float, float]) -> _Frame:
    height, width = size
    radius_px = rng.uniform(0.465, 0.49) * min(size)
    if rng.random() < 0.5:  # larger, so that a wide frame cuts it off at top and bottom
        radius_px = min(rng.uniform(1.08, 1.25) * radius_px, 0.49 * width)
    shift = 0.006 * min(size)
    middle_px = (width / 2 + rng.normal(0, shift), height / 2 + rng.normal(0, shift))
    # Most fields have 45 degrees, others 50 or 35; they are centred on the macula, between macula and disc, or on the
    # disc.
    radius_mm = rng.choice([6.4, 7.0, 5.2], p=[0.6, 0.2, 0.2])
    towards_macula = rng.choice([0.95, 0.6, 0.15], p=[0.4, 0.4, 0.2])
    middle_mm = (
        fovea[0] * towards_macula + rng.normal(0, 0.25),
        fovea[1] * towards_macula + rng.normal(0, 0.25),
    )
    return _Frame(size, middle_px, middle_mm, radius_px, float(radius_mm), bool(rng.random() < 0.5))


def _draw_fov(rng: np.random.Generator, frame: _Frame) -> np.ndarray:
    """Draw the lit part of each pixel, (H, W) float32 in [0, 1]: a circle, and on some cameras a tab at its edge."""
    height, width = frame.size
    y, x = np.ogrid[:height, :width]
    x = (x + 0.5 - frame.middle_px[0]).astype(np.float32)
    y = (y + 0.5 - frame.middle_px[1]).astype(np.float32)
    fov = np.clip(frame.radius_px - np.hypot(x, y) + 0.5, 0, 1)
    if rng.random() < 0.4:
        angle = math.radians(rng.uniform(35, 50))
        tab_x, tab_y = frame.radius_px * math.cos(angle), -frame.radius_px * math.sin(angle)
        fov = np.maximum(fov, np.clip(0.045 * frame.radius_px - np.hypot(x - tab_x, y - tab_y) + 0.5, 0, 1))
    return fov


# --- vessels


def _draw_vessels(vessels: list[Vessel], frame: _Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the vessels on pixels.

    Returns
    -------
    coverage
        (H, W) float32 in [0, 1], the share of a pixel that vessels cover.
    depth
        (2, H, W) float32 in [0, 1], the amount of blood that light passes in veins and in arteries.
    reflex
        (H, W) float32 in [0, 1], the light streak along the middle of wide vessels.
    """
    height, width = frame.size
    fine = 3 if max(frame.size) <= 800 else 2 if max(frame.size) <= 2000 else 1
    scale = frame.px_per_mm * fine
    canvases = [Image.new("L", (width * fine, height * fine)) for _ in range(4)]
    covered, reflexes, vein_depth, artery_depth = map(ImageDraw.Draw, canvases)
    strips = []
    for vessel in vessels:
        if vessel.widths[0] * frame.px_per_mm < 0.85:  # too fine for this camera
            continue
        middle = frame.to_px(vessel.points) * fine
        # A person would not trace less than a pixel, and the mask must not break up into specks.
        half = np.maximum(vessel.widths * scale, 1.25 * fine)[:, None] / 2
        tangent = np.gradient(middle, axis=0)
        normal = tangent[:, ::-1] * (-1, 1) / np.maximum(np.hypot(*tangent.T), 1e-9)[:, None]
        for start in range(0, len(middle) - 1, 8):
            along = slice(start, start + 9)
            strips.append((float(vessel.widths[start]), middle[along], normal[along] * half[along], vessel.is_vein))
    strips.sort(key=lambda strip: strip[0])  # wide strips cover thin ones, so that a branch does not notch its parent

    def ribbon(draw: ImageDraw.ImageDraw, middle: np.ndarray, side: np.ndarray, level: float) -> None:
        outline = np.concatenate([middle + side, (middle - side)[::-1]])
        # Pillow's coordinates begin at the centre of the first pixel, and it paints the outline as well.
        draw.polygon((outline - 0.5).ravel().tolist(), fill=round(255 * level))

    # Three steps approximate the length of the path through a round vessel.
    for part, level in ((1.0, 0.55), (0.78, 0.8), (0.5, 1.0)):
        for strip_width, middle, side, is_vein in strips:
            strength = min(1.0, 0.2 + 0.8 * strip_width / 0.1)
            ribbon(vein_depth if is_vein else artery_depth, middle, side * part, level * strength)
    for strip_width, middle, side, is_vein in strips:
        ribbon(covered, middle, side, 1.0)
        if strip_width > 0.05:
            ribbon(reflexes, middle, side * 0.3, min(1.0, strip_width / 0.11) * (0.35 if is_vein else 1.0))
    coverage, reflex, *depth = (
        np.asarray(canvas.reduce(fine) if fine > 1 else canvas, np.float32) / 255 for canvas in canvases
    )
    return coverage, np.stack(depth), reflex


# --- retina and camera


def _noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Return smooth noise of unit variance, `shape` float32, whose bumps are about `scale` samples wide."""
    step = max(1.0, scale / 3)
    coarse = rng.normal(size=[math.ceil(side / step) + 4 for side in shape]).astype(np.float32)
    coarse = ndimage.gaussian_filter(coarse, scale / 2 / step)
    height, width = coarse.shape
    full = Image.fromarray(coarse).resize((round(width * step), round(height * step)), Image.Resampling.BICUBIC)
    noise = np.asarray(full)[: shape[0], : shape[1]]
    return (noise - noise.mean()) / max(float(noise.std()), 1e-6)


def _draw_retina(rng: np.random.Generator, frame: _Frame, fovea: tuple[float, float]) -> np.ndarray:
    """Draw the retina without its vessels, (H, W, 3) float32, about 0 to 255."""
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
    _draw_disc(rng, retina, x, y, tint)

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
        return retina.astype(np.float32)
    height, width = frame.size
    bands = [
        Image.fromarray(np.ascontiguousarray(retina[..., i], np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for i in range(3)
    ]
    return np.stack([np.asarray(band) for band in bands], axis=-1)


def _draw_disc(rng: np.random.Generator, retina: np.ndarray, x: np.ndarray, y: np.ndarray, tint: np.ndarray) -> None:
    """Draw the optic disc and its cup onto the retina, in place."""
    radius = rng.normal(0.88, 0.06)
    angle = np.arctan2(y, x)
    wobble = 1 + 0.03 * np.cos(2 * angle + rng.uniform(0, 6)) + 0.02 * np.cos(3 * angle + rng.uniform(0, 6))
    outwards = np.hypot(x * 1.07, y) / (radius * wobble)  # a little higher than wide
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


def _photograph(
    rng: np.random.Generator,
    retina: np.ndarray,
    depth: np.ndarray,
    reflex: np.ndarray,
    fov: np.ndarray,
    frame: _Frame,
) -> np.ndarray:
    """Photograph the retina: apply the light that blood absorbs, the blur of the lens and the noise of the sensor.

    Parameters
    ----------
    rng
        Random stream of the camera.
    retina
        (H, W, 3) float32, about 0 to 255.
    depth, reflex
        As `_draw_vessels` returns them.
    fov
        (H, W) float32 in [0, 1], the lit part of each pixel.
    frame
        The camera's frame.

    Returns
    -------
    image
        (H, W, 3) uint8 RGB.
    """
    contrast = rng.uniform(0.65, 1.05)
    blur = max(0.5, frame.radius_px * rng.uniform(0.002, 0.0038))
    grain = rng.uniform(0.015, 0.04)
    grain_scale = max(0.5, 0.0016 * frame.radius_px)
    surround = rng.uniform(0, 7)
    image = np.empty((*frame.size, 3), np.uint8)
    # Blood absorbs little red and much green; veins, poorer in oxygen, absorb more of both.
    shared = ndimage.gaussian_filter(rng.normal(size=frame.size).astype(np.float32), grain_scale)
    shared /= shared.std()
    for band, (vein, artery) in enumerate(((0.40, 0.17), (0.78, 0.55), (0.62, 0.45))):
        light = retina[..., band] * np.exp(-contrast * (vein * depth[0] + artery * depth[1]))
        light += reflex * (0.15, 0.14, 0.1)[band] * np.minimum(retina[..., band], np.median(retina[::8, ::8, band]))
        light = ndimage.gaussian_filter(light, blur) * fov
        own = ndimage.gaussian_filter(rng.normal(size=frame.size).astype(np.float32), 0.6 * grain_scale)
        noise = 0.6 * shared + 0.6 * own / own.std()
        light += noise * grain * np.sqrt(np.maximum(light, 1) * 90)
        image[..., band] = np.clip(np.rint(light + surround * (1 - fov)), 0, 255)
    return image
