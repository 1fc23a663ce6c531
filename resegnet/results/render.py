"""Draw overlays, error maps, calibre maps, arteries and veins, in colours that colour-blind people can tell apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from resegnet.errors import ArgumentError
from resegnet.results.anatomy import ARTERY, VEIN, Disc, Place

# Cyan is opposite to the orange of a fundus. Its CIEDE2000 distance to orange field, dark field, bright disc and
# vessel, for normal, protanopic, deuteranopic and tritanopic eyes (Machado et al. 2009, 10.1109/TVCG.2009.113), is 39
# or more in all sixteen cases; the least distance of green is 10, of white 16, of red 4, of yellow 3.
OVERLAY_COLOR = (0, 220, 255)
OVERLAY_OPACITY = 0.85  # over dark vessels 0.7 looks dull; 1 would hide where two vessels cross

# Colours of `error_map`. By the same measure any two of these, or one and the grey behind, are 30 or more apart.
ERROR_COLORS = {"hit": (255, 255, 255), "miss": (255, 140, 0), "false alarm": (0, 150, 255)}

# Colours of `kinds_map`: the usual pair, and one that all eyes tell apart. By the same measure any two of a set are 33
# or more apart, and 28 or more from the grey behind, but 17 for the usual red, which protanopic eyes see as dark.
KIND_COLORS = {"artery": (255, 80, 80), "vein": (70, 130, 255), "both": (255, 255, 255)}
SAFE_KIND_COLORS = {"artery": (255, 140, 0), "vein": (0, 150, 255), "both": (255, 255, 255)}
DISC_COLOR = (200, 230, 120)  # of disc and fovea

# Colours of `calibre_map`: branch points, and the grey level of centrelines without a calibre.
BRANCH_POINT_COLOR = (0, 220, 255)
_UNMEASURED = 150
_CALIBRE_COLORS_FROM = 90  # first colour of "magma" that stands out from the dimmed photograph

_GREY_MAX = 100  # brightest grey of the dimmed photograph; outside the field of view half of it

# Every sixteenth colour of matplotlib's "magma" (S. van der Walt and N. Smith, CC0). Linear interpolation between them
# is within 2.3 grey levels of the original. Its lightness rises steadily, and its first colour is nearly black.
_MAGMA = (
    (0, 0, 4), (10, 8, 34), (29, 17, 71), (54, 16, 107), (81, 18, 124), (106, 28, 129), (131, 38, 129),
    (156, 46, 127), (183, 55, 121), (207, 64, 112), (229, 80, 100), (244, 105, 92), (251, 135, 97),
    (254, 165, 113), (254, 194, 135), (253, 224, 161), (252, 253, 191),
)  # fmt: skip
_MAGMA_AT = (0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255)


def overlay(
    image: np.ndarray,
    mask: np.ndarray,
    color: tuple[int, int, int] = OVERLAY_COLOR,
    opacity: float = OVERLAY_OPACITY,
) -> np.ndarray:
    """Draw the vessels on the photograph; pixels outside the mask stay as they are.

    Parameters
    ----------
    image : (H, W, 3) uint8, RGB
    mask : (H, W) bool
    color : RGB, 0 to 255
    opacity : float in [0, 1]

    Returns
    -------
    (H, W, 3) uint8, RGB

    Raises
    ------
    ArgumentError
        If sizes differ or the opacity is out of range.
    """
    _check_size(image, mask=mask)
    if not 0 <= opacity <= 1:
        raise ArgumentError(f"opacity is {opacity}, expected a number from 0 (nothing drawn) to 1 (plain colour).")
    drawn = image.copy()
    pixels = drawn.reshape(-1, 3)
    vessels = np.flatnonzero(mask)  # indexing by one number a pixel is twice as fast as by a mask of two dimensions
    blend = opacity * np.array(color, np.float32) + (1 - opacity) * pixels[vessels].astype(np.float32)
    pixels[vessels] = np.round(blend).astype(np.uint8)
    return drawn


def error_map(image: np.ndarray, mask: np.ndarray, reference: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """Draw hits, misses and false alarms inside the field of view on the dimmed photograph, in `ERROR_COLORS`.

    Parameters
    ----------
    image : (H, W, 3) uint8, RGB
    mask, reference, fov : (H, W) bool

    Returns
    -------
    (H, W, 3) uint8, RGB

    Raises
    ------
    ArgumentError
        If sizes differ.
    """
    _check_size(image, mask=mask, reference=reference, fov=fov)
    drawn = _dim(image, fov)
    drawn[mask & reference & fov] = ERROR_COLORS["hit"]
    drawn[~mask & reference & fov] = ERROR_COLORS["miss"]
    drawn[mask & ~reference & fov] = ERROR_COLORS["false alarm"]
    return drawn


def calibre_map(image: np.ndarray, mask: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """Draw what `resegnet.results.measure` measures: centrelines coloured by calibre, branch points as rings.

    The photograph behind is dimmed. The colour scale, at the lower left, is "magma" without its darkest colours, from 0
    to the 98th percentile of this picture's calibres. Centrelines are grey where no calibre is measured, which is near
    branch points and near the rim of the field of view.

    Parameters
    ----------
    image : (H, W, 3) uint8, RGB
    mask, fov : (H, W) bool

    Returns
    -------
    (H, W, 3) uint8, RGB

    Raises
    ------
    ArgumentError
        If sizes differ.
    """
    from resegnet.results.centrelines import find_centrelines  # needs SciPy, which `import resegnet` does without

    _check_size(image, mask=mask, fov=fov)
    lines = find_centrelines(mask, fov)
    measured = ~np.isnan(lines.calibres_px)
    widest_px = float(np.percentile(lines.calibres_px[measured], 98)) if measured.any() else 1.0
    scale = magma()[_CALIBRE_COLORS_FROM:]
    colors = np.full((len(measured), 3), _UNMEASURED, np.uint8)
    shares = np.minimum(lines.calibres_px[measured] / widest_px, 1)
    colors[measured] = scale[np.round(shares * (len(scale) - 1)).astype(int)]

    drawn = _dim(image, fov)
    height, width = mask.shape
    unit = max(height, width) / 1000  # so that lines show on a screen that fits the whole picture
    reach = round(unit)
    rows, columns = np.round(lines.points).astype(int).T
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            drawn[np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)] = colors
    picture = Image.fromarray(drawn)
    draw = ImageDraw.Draw(picture)
    for row, column in lines.branch_points:
        draw.circle((column, row), 5 * unit, outline=BRANCH_POINT_COLOR, width=max(1, round(unit)))
    _draw_scale(draw, scale, f"calibre 0 to {widest_px:.3g} px", unit, height)
    return np.array(picture)


def kinds_map(
    image: np.ndarray,
    kinds: np.ndarray,
    fov: np.ndarray,
    disc: Disc | None = None,
    fovea: Place | None = None,
    colors: Mapping[str, tuple[int, int, int]] = KIND_COLORS,
) -> np.ndarray:
    """Draw arteries, veins, their crossings, the outline of the disc and a cross at the fovea on the dimmed photograph.

    Parameters
    ----------
    image : (H, W, 3) uint8, RGB
    kinds : (H, W) uint8
        0 no vessel, 1 artery, 2 vein, 3 both.
    fov : (H, W) bool
    disc, fovea
        None draws none.
    colors
        RGB by `artery`, `vein` and `both`: `KIND_COLORS` or `SAFE_KIND_COLORS`.

    Returns
    -------
    (H, W, 3) uint8, RGB

    Raises
    ------
    ArgumentError
        If sizes differ.
    """
    _check_size(image, kinds=kinds != 0, fov=fov)
    drawn = _dim(image, fov)
    for kind, name in ((ARTERY, "artery"), (VEIN, "vein"), (ARTERY | VEIN, "both")):
        drawn[kinds == kind] = colors[name]
    height, width = fov.shape
    unit = max(height, width) / 1000
    picture = Image.fromarray(drawn)
    draw = ImageDraw.Draw(picture)
    if disc is not None:
        from skimage.measure import find_contours  # `import resegnet` does without

        for outline in find_contours(np.pad(disc.mask, 1).astype(np.uint8), 0.5):
            places = [(column - 1, row - 1) for row, column in outline.tolist()]
            draw.line(places, fill=DISC_COLOR, width=max(1, round(2 * unit)))
    if fovea is not None:
        row, column = fovea
        for down, right in ((0, 8 * unit), (8 * unit, 0)):
            ends = (column - right, row - down, column + right, row + down)
            draw.line(ends, fill=DISC_COLOR, width=max(1, round(2 * unit)))
    return np.array(picture)


def magma() -> np.ndarray:
    """Return the colours of a probability map, (256, 3) uint8 RGB, from probability 0 to 1."""
    levels = np.arange(256)
    table = np.stack([np.interp(levels, _MAGMA_AT, channel) for channel in zip(*_MAGMA, strict=True)], axis=1)
    return np.round(table).astype(np.uint8)


def _draw_scale(draw: ImageDraw.ImageDraw, colors: np.ndarray, title: str, unit: float, height: int) -> None:
    """Draw a horizontal colour scale with a title at the lower left of a picture of `height` px."""
    left, top, length, thickness = (round(unit * part) for part in (20, height / unit - 40, 200, 20))
    for step in range(length):
        red, green, blue = colors[step * len(colors) // length].tolist()
        draw.line(((left + step, top), (left + step, top + thickness)), fill=(red, green, blue))
    draw.text((left, top - 4 * unit), title, fill=(255, 255, 255), anchor="lb", font_size=max(8, 20 * unit))


def _dim(image: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """Return the photograph in dark grey, to draw on, (H, W, 3) uint8."""
    grey = image.mean(axis=2, dtype=np.float32)
    # The mean level of a fundus is low. Stretched to its 98th percentile it stays visible when dimmed.
    bright = max(float(np.percentile(grey[fov], 98)), 1.0) if fov.any() else 255.0
    grey = np.minimum(grey * (_GREY_MAX / bright), _GREY_MAX)
    grey[~fov] /= 2
    return np.repeat(np.round(grey).astype(np.uint8)[:, :, None], 3, axis=2)


def _check_size(image: np.ndarray, **masks: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ArgumentError(
            f"image has the shape {image.shape} and the type {image.dtype}, expected (H, W, 3) uint8 RGB."
        )
    for name, mask in masks.items():
        if mask.shape != image.shape[:2] or mask.dtype != bool:
            raise ArgumentError(
                f"{name} has the shape {mask.shape} and the type {mask.dtype} for an image of {image.shape[:2]}, "
                "expected bool of the image's height and width."
            )
