"""What a user should know about a photograph before trusting the vessels found in it.

Each rule is one measured number against one limit. The limits stand where the rules tell usable photographs of four
cameras (DRIVE, CHASE_DB1, HRF and IDRiD, training parts) from everyday pictures and from the same photographs darkened,
blurred or flattened; the comments give both sides. They catch gross faults and are no clinical grading of quality.
"""

from __future__ import annotations

import numpy as np

from resegnet.fov import check_image, fit_rim

NOT_FUNDUS = (
    "This does not look like a colour fundus photograph. The vessels found in it mean nothing unless it is one: "
    "check that the right file was chosen, in its original colours."
)
CUT_OFF = (
    "A large part of the round field of view lies outside the picture. Vessels are found in what is there, but counts, "
    "areas and lengths do not compare with those of a whole field."
)
TOO_DARK = (
    "The photograph is very dark. Thin vessels are probably missed: take it again with more light if that is possible."
)
OVEREXPOSED = (
    "Much of the photograph is overexposed. No vessels can be found where it is white: take it again with less light "
    "if that is possible."
)
POOR_CONTRAST = (
    "The vessels hardly stand out from their background (haze, cataract or poor light can cause this). Expect missed "
    "vessels, thin ones first."
)
BLURRED = (
    "The photograph is blurred, or too small to show thin vessels. Expect missed thin vessels, and widths that come "
    "out too large."
)

MEASURED_FIELD_PX = 384  # least diameter of the field on the copy that is measured: thin vessels are 1 px wide there


def find_warnings(image: np.ndarray, fov: np.ndarray) -> list[str]:
    """Find what speaks against trusting a segmentation of this photograph.

    Parameters
    ----------
    image
        (H, W, 3) uint8, RGB.
    fov
        (H, W) bool, the field of view in the same frame, as `resegnet.fov.find_fov` gives it.

    Returns
    -------
    warnings
        Sentences fit to show to a user, most serious first: some of this module's constants. Empty if all is well.
        `NOT_FUNDUS` stands alone, because the other rules mean nothing for other pictures.

    Raises
    ------
    TypeError
        If `image` is not a uint8 array or `fov` is not a bool array.
    ValueError
        If `image` is not (H, W, 3), or the two differ in height or width.
    """
    check_image(image)
    if not isinstance(fov, np.ndarray) or fov.dtype != bool:
        got = f"an array of {fov.dtype}" if isinstance(fov, np.ndarray) else type(fov).__name__
        raise TypeError(f"Got {got} as the field of view, expected a bool array: use resegnet.fov.find_fov.")
    if fov.shape != image.shape[:2]:
        raise ValueError(
            f"Got a field of view of shape {fov.shape} for an image of shape {image.shape}, expected "
            f"{image.shape[:2]}: find the field on the same image."
        )
    if not fov.any():
        return [NOT_FUNDUS]

    rim = fit_rim(fov)
    small, inside, diameter = _measured_copy(image, fov, rim)
    pixels = small[::3, ::3][inside[::3, ::3]]  # a ninth tells the same as all
    if len(pixels) == 0:
        return [NOT_FUNDUS]
    contrast, sharpness = _vessel_contrast(small[..., 1], inside, diameter)
    if not _has_fundus_colours(pixels) or contrast > 0.28:
        # Darkest structures of vessel size: 0.03 to 0.23 of their surroundings on photographs of the retina, 0.33 and
        # more on everyday pictures that happen to be red or brown (a cat, a cup of coffee).
        return [NOT_FUNDUS]

    found = []
    # The share of the round field that the frame leaves: 1 for a whole circle, about 0.92 for IDRiD and 0.83 for HRF,
    # whose cameras always cut top and bottom; 0.75 is a circle that lost 30 % of its width on one side.
    if rim is None or np.count_nonzero(fov) / (np.pi * rim[2] * rim[3]) < 0.75:
        found.append(CUT_OFF)
    # The bright end of the brightest channel: 102 and more on the training photographs; at 80 two thirds of the eight
    # bits lie idle and the green channel, which shows the vessels, has some 20 grey levels left.
    if np.percentile(_brightest(pixels), 95) < 80:
        found.append(TOO_DARK)
    # Red saturates on many good photographs, green on none: at most 2 % of the field, on a lesion or the disc.
    if (pixels[:, 1] >= 250).mean() > 0.1:
        found.append(OVEREXPOSED)
    # 0.09 to 0.21 on the labelled photographs; less than the limit on 4 of 516 of IDRiD (dense haze).
    if contrast < 0.055:
        found.append(POOR_CONTRAST)
    # 0.57 and more on the training photographs; 0.50 and less once blurred with a sigma of 1/250 of the frame, about a
    # third of a main vessel. In a field of fewer than 256 pixels thin vessels are narrower than half a pixel.
    if sharpness < 0.55 or diameter < 256:
        found.append(BLURRED)
    return found


def _measured_copy(
    image: np.ndarray, fov: np.ndarray, rim: tuple[float, float, float, float] | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """The field, MEASURED_FIELD_PX to twice that wide: (h, w, 3) float32 in [0, 255], (h, w) bool, its diameter."""
    rows, cols = np.flatnonzero(fov.any(axis=1)), np.flatnonzero(fov.any(axis=0))
    top, left, bottom, right = rows[0], cols[0], rows[-1] + 1, cols[-1] + 1
    diameter = 2 * max(rim[2:]) if rim else float(max(bottom - top, right - left))
    step = max(1, min(int(diameter // MEASURED_FIELD_PX), bottom - top, right - left))
    height, width = (bottom - top) // step, (right - left) // step
    # Up to nine samples a pixel are enough to keep noise and aliasing down.
    places = [step // 2] if step < 2 else sorted({0, step // 2, step - 1})
    small = np.zeros((height, width, 3), np.float32)
    for y in places:
        for x in places:
            small += image[top + y :: step, left + x :: step][:height, :width]
    inside = fov[top + step // 2 :: step, left + step // 2 :: step][:height, :width]
    return small / len(places) ** 2, inside, diameter / step


def _has_fundus_colours(pixels: np.ndarray) -> bool:
    """Whether (N, 3) pixels have the colours of a retina: orange to red nearly everywhere, and not grey.

    Blood and pigment absorb blue and green, so red leads on at least 95 % of every training photograph, and the
    saturation's median is 0.50 to 0.99; grey pictures have 0, most everyday colour pictures less than 0.27.
    """
    pixels = pixels[pixels[:, 1] < 250]  # light that blew out all channels has no colour to judge
    if len(pixels) == 0:
        return False
    brightest, darkest = _brightest(pixels), -_brightest(-pixels)
    saturation = (brightest - darkest) / (brightest + 1)
    return bool((pixels[:, 0] >= brightest).mean() > 0.85 and np.median(saturation) > 0.3)


def _brightest(pixels: np.ndarray) -> np.ndarray:
    """Largest channel of (N, 3) pixels; many times quicker than max(axis=1)."""
    return np.maximum(np.maximum(pixels[:, 0], pixels[:, 1]), pixels[:, 2])


def _vessel_contrast(green: np.ndarray, inside: np.ndarray, diameter: float) -> tuple[float, float]:
    """How dark vessels are, and how sharp: two numbers from octaves of blur of the green channel.

    Contrast is the depth of the darkest 3 % of the field below their surroundings, relative to the surroundings, so
    that light does not count. Sharpness is the depth of the darkest 3 % in the octave of thin vessels over that in the
    next, so that contrast does not count either; blur takes from the finer octave first. 0 where nothing is measured.
    """
    from scipy import ndimage  # takes longer to import than the rest of the package

    middle = np.median(green[::3, ::3][inside[::3, ::3]])
    filled = np.where(inside, green, middle)  # no black surround may leak into the field
    sigma = 0.0018 * diameter  # a seventh of a main vessel's width, which is about 1/80 of the field
    # Each octave from the one before, a Gaussian of a Gaussian being one; from the second on, half the pixels do.
    fine = ndimage.gaussian_filter(filled, sigma, truncate=3)[::2, ::2]
    thin = ndimage.gaussian_filter(fine, 3**0.5 * sigma / 2, truncate=3)
    thick = ndimage.gaussian_filter(thin, 12**0.5 * sigma / 2, truncate=3)
    box_px = max(1, round(4 * sigma * 12**0.5))  # as wide as the next Gaussian, 8 sigma, and far quicker
    broad = ndimage.uniform_filter(filled[::2, ::2], box_px)
    core = ndimage.uniform_filter(inside[::2, ::2].astype(np.float32), box_px) > 0.95  # off the rim, which is filled
    core[:, 1::2] = False  # every other column tells the same as all
    fine, thin, thick, broad = (layer[core] for layer in (fine, thin, thick, broad))
    if len(broad) == 0:
        return 0.0, 0.0
    surroundings = broad + 8  # grey levels; noise of a dark photograph is not contrast
    contrast, finer, coarser = (
        float(np.percentile((light - dark) / surroundings, 97))
        for light, dark in ((broad, fine), (thin, fine), (thick, thin))
    )
    return contrast, finer / coarser if coarser > 1e-4 else 0.0
