"""Synthetic fundus photographs with the exact masks of their vessels, arteries, veins, optic disc and fovea.

They serve tests, examples that anybody may copy, and training runs without data. The eye is laid out in millimetres on
the retina, so that vessels, disc and macula keep their true proportions at every field of view and size; a camera then
maps it to pixels. The sizes of the parts are those of adult eyes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from resegnet.errors import ArgumentError
from resegnet.synthetic_frame import Frame
from resegnet.synthetic_retina import draw_retina
from resegnet.synthetic_vessels import Vessel, grow_vessels

MIN_SIDE, MAX_SIDE = 128, 4000

_THINNEST_PX = 1.25  # no vessel is drawn finer
_OUTLINE = 0.6  # by which Pillow's polygons are wider than their corners say, parts of a pixel


@dataclass(frozen=True)
class VesselPath:
    """The centreline of a vessel of a synthetic photograph.

    `points` is (N, 2) float, row and column in px; `widths` is (N,) float, px. `generation` is 0 for a trunk.
    """

    points: np.ndarray
    widths: np.ndarray
    is_vein: bool
    generation: int


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
    arteries, veins
        (H, W) bool. Together they are `vessels`; a crossing belongs to both.
    disc
        (H, W) bool, True on the optic disc, never outside `fov`.
    disc_centre
        Row and column of the centre of the whole disc, px; pixel (0, 0) has its middle at (0.0, 0.0). It may lie
        outside the picture.
    disc_diameter
        Diameter of a circle with the area of the whole disc, px.
    fovea
        Row and column, px. It may lie outside the picture.
    eye
        "right" or "left".
    paths
        Centreline and width of each vessel that was drawn, before pixels; also of its parts outside the field.
    """

    image: np.ndarray
    vessels: np.ndarray
    fov: np.ndarray
    arteries: np.ndarray
    veins: np.ndarray
    disc: np.ndarray
    disc_centre: tuple[float, float]
    disc_diameter: float
    fovea: tuple[float, float]
    eye: Literal["right", "left"]
    paths: tuple[VesselPath, ...]


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
    retina, disc = draw_retina(retina_rng, frame, fovea)
    image = _photograph(camera_rng, retina, depth, reflex, fov, frame)
    field = fov >= 0.5
    mask, arteries, veins = (plane & field for plane in _divide(coverage))
    return SyntheticFundus(
        image=image,
        vessels=mask,
        fov=field,
        arteries=arteries,
        veins=veins,
        disc=disc.covers(*frame.grid_mm(frame.size)) & field,
        disc_centre=frame.place((0.0, 0.0)),
        disc_diameter=disc.diameter_mm() * frame.px_per_mm,
        fovea=frame.place(fovea),
        eye="right" if frame.macula_on_the_left else "left",
        paths=tuple(_path(vessel, frame) for vessel in vessels if _is_drawn(vessel, frame)),
    )


def _choose_frame(rng: np.random.Generator, size: tuple[int, int], fovea: tuple[float, float]) -> Frame:
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
    return Frame(size, middle_px, middle_mm, radius_px, float(radius_mm), bool(rng.random() < 0.5))


def _draw_fov(rng: np.random.Generator, frame: Frame) -> np.ndarray:
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


def _draw_vessels(vessels: list[Vessel], frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the vessels on pixels.

    Returns
    -------
    coverage
        (3, H, W) float32 in [0, 1], the share of a pixel that vessels, arteries and veins cover.
    depth
        (2, H, W) float32 in [0, 1], the amount of blood that light passes in veins and in arteries.
    reflex
        (H, W) float32 in [0, 1], the light streak along the middle of wide vessels.
    """
    height, width = frame.size
    fine = _fineness(frame)
    scale = frame.px_per_mm * fine
    canvases = [Image.new("L", (width * fine, height * fine)) for _ in range(6)]
    covered, arteries, veins, reflexes, vein_depth, artery_depth = map(ImageDraw.Draw, canvases)
    strips = []
    for vessel in vessels:
        if not _is_drawn(vessel, frame):
            continue
        middle = frame.to_px(vessel.points) * fine
        # A person would not trace less than a pixel, and the mask must not break up into specks.
        half = np.maximum(vessel.widths * scale, _THINNEST_PX * fine)[:, None] / 2
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
        ribbon(veins if is_vein else arteries, middle, side, 1.0)
        if strip_width > 0.05:
            ribbon(reflexes, middle, side * 0.3, min(1.0, strip_width / 0.11) * (0.35 if is_vein else 1.0))
    *coverage, reflex, vein, artery = (
        np.asarray(canvas.reduce(fine) if fine > 1 else canvas, np.float32) / 255 for canvas in canvases
    )
    return np.stack(coverage), np.stack([vein, artery]), reflex


def _fineness(frame: Frame) -> int:
    """Return the number of parts of a pixel's side in which vessels are drawn."""
    return 3 if max(frame.size) <= 800 else 2 if max(frame.size) <= 2000 else 1


def _is_drawn(vessel: Vessel, frame: Frame) -> bool:
    """Tell whether a vessel is wide enough for this camera."""
    return bool(vessel.widths[0] * frame.px_per_mm >= 0.85)


def _divide(coverage: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vessels, arteries and veins, (H, W) bool, of the shares that each covers, (3, H, W)."""
    vessels, arteries, veins = coverage >= 0.5
    # A pixel that the walls of two vessels cover by half together belongs to the one that covers more of it.
    unclaimed = vessels & ~arteries & ~veins
    arterial = coverage[1] > coverage[2]
    return vessels, arteries | (unclaimed & arterial), veins | (unclaimed & ~arterial)


def _path(vessel: Vessel, frame: Frame) -> VesselPath:
    """Return a vessel as it is drawn, in px."""
    points = frame.to_px(vessel.points)[:, ::-1] - 0.5
    widths = np.maximum(vessel.widths * frame.px_per_mm, _THINNEST_PX) + _OUTLINE / _fineness(frame)
    return VesselPath(points, widths, vessel.is_vein, vessel.generation)


# --- camera


def _photograph(
    rng: np.random.Generator,
    retina: np.ndarray,
    depth: np.ndarray,
    reflex: np.ndarray,
    fov: np.ndarray,
    frame: Frame,
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
