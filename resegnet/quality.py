"""Warnings about a photograph that a user should know before trusting the vessels found in it.

Each rule compares measured numbers with limits, most of them one with one. The limits separate usable photographs of
four cameras (the training parts of DRIVE, CHASE_DB1, HRF and IDRiD) from everyday pictures, and from the same
photographs darkened, blurred or flattened; the comments give both sides. The rules catch gross faults; they do not
grade quality clinically.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from resegnet.errors import ArgumentError
from resegnet.fov import FieldOfView, check_image
from resegnet.softness import Edges, is_soft

Kind = Literal["quality", "privacy"]


class PhotographWarning(str):
    """A sentence about a photograph for the user. It is a `str`, so that it can be shown and compared as text.

    Attributes
    ----------
    code
        Stable name for programs, such as "too_dark". The sentence may change from version to version, the code does
        not.
    kind
        "quality" if the vessels found may be wrong; "privacy" if the picture may show whose eye it is.
    """

    code: str
    kind: Kind

    def __new__(cls, code: str, sentence: str, kind: Kind = "quality") -> PhotographWarning:
        warning = super().__new__(cls, sentence)
        warning.code = code
        warning.kind = kind
        return warning

    def __getnewargs__(self) -> tuple[str, str, Kind]:  # type: ignore[override]  # of `__new__`, for copies and pickles
        return self.code, str(self), self.kind


NOT_FUNDUS = PhotographWarning(
    "not_fundus",
    "This does not look like a colour fundus photograph. The vessels found in it mean nothing unless it is one: "
    "check that the right file was chosen, in its original colours.",
)
CUT_OFF = PhotographWarning(
    "cut_off",
    "A large part of the round field of view lies outside the picture. Vessels are found in what is there, but counts, "
    "areas and lengths do not compare with those of a whole field.",
)
TOO_DARK = PhotographWarning(
    "too_dark",
    "The photograph is very dark. Thin vessels are probably missed: take it again with more light if that is possible.",
)
OVEREXPOSED = PhotographWarning(
    "overexposed",
    "Much of the photograph is overexposed. No vessels can be found where it is white: take it again with less light "
    "if that is possible.",
)
POOR_CONTRAST = PhotographWarning(
    "poor_contrast",
    "The vessels hardly stand out from their background (haze, cataract or poor light can cause this). Expect missed "
    "vessels, thin ones first.",
)
BLURRED = PhotographWarning(
    "blurred",
    "The photograph is blurred, or too small to show thin vessels. Expect missed thin vessels, and widths that come "
    "out too large.",
)
BURNED_IN = PhotographWarning(
    "burned_in",
    "The DICOM file says that text, such as a name or a date, is part of the picture. Overlays show it too: cover it "
    "before you pass them on.",
    kind="privacy",
)
SOFT = PhotographWarning(
    "soft",
    "The photograph has more pixels than detail: the edges of its main vessels are half as wide as the vessels. Expect "
    "missed thin vessels. If it was enlarged, use the original.",
)
FEW_VESSELS = PhotographWarning(
    "few_vessels",
    "Hardly any vessel was found. If you see vessels in the photograph, they are missed: lower the threshold, and look "
    "at the overlay before you use any number.",
)
BRIGHT_SPOTS = PhotographWarning(
    "bright_spots",
    "There are bright spots in the photograph, from deposits in the retina or dust on the lens. Dark gaps between them "
    "may be marked as vessels: look at the overlay there.",
)
# All of them: first what only a file can tell, then what `find_warnings` finds.
WARNINGS = (
    *(BURNED_IN, NOT_FUNDUS, CUT_OFF, TOO_DARK, OVEREXPOSED, POOR_CONTRAST, BLURRED, SOFT, FEW_VESSELS, BRIGHT_SPOTS),
)

# Least diameter of the field on the copy that is measured, unless the photograph has fewer: thin vessels are 1 px wide.
MEASURED_FIELD_PX = 384


def find_warnings(
    image: np.ndarray, fov: FieldOfView, vessels: np.ndarray | None = None, edges: Edges | None = None
) -> list[PhotographWarning]:
    """Find the reasons not to trust a segmentation of this photograph.

    Parameters
    ----------
    image
        (H, W, 3) uint8, RGB.
    fov
        The field of view in the same frame, as `resegnet.fov.find_field_of_view` gives it.
    vessels
        (H, W) bool, the vessels found in it. None if they are not to be judged.
    edges
        Those of its vessels, from `resegnet.softness.measure_edges`. None if they are not to be judged.

    Returns
    -------
    warnings
        Sentences for the user, each with a code, the most serious first: some of `WARNINGS`. Empty if all is well.
        `NOT_FUNDUS` stands alone, because the other rules mean nothing for other pictures.

    Raises
    ------
    TypeError
        If `image` is not a uint8 array or `fov` is not a `FieldOfView`.
    ArgumentError
        If `image` is not (H, W, 3), or the two differ in height or width.
    """
    _check_pair(image, fov)
    if not fov.box.height:
        return [NOT_FUNDUS]

    small, inside, diameter = _measured_copy(image, fov)
    pixels = small[::3, ::3][inside[::3, ::3]]  # a ninth of the pixels gives the same numbers
    if len(pixels) == 0:
        return [NOT_FUNDUS]
    rim = fov.rim
    # A uniform red picture passes the tests of colour and contrast. The spread of brightness is 0.24 and more on
    # photographs of seven data sets, and at most 0.1 on a uniform colour with noise of 5 grey levels. A uniform disc
    # with a round rim is left to the rule of contrast: it may be a retina behind a cataract.
    if rim is None and _brightness_spread(pixels) < 0.15:
        return [NOT_FUNDUS]
    contrast, sharpness = _vessel_contrast(small[..., 1], inside, diameter)
    # Contrast of the darkest structures of vessel size: 0.03 to 0.43 on photographs of the retina, above 0.28 where
    # little but red light came back (47 of 194 of DR-HAGIS, ARIA and ORVS); 0.34 and more on everyday pictures that
    # happen to be red or brown (a cat, a cup of coffee). A round rim speaks for a retina.
    if not _has_fundus_colours(pixels, rim is not None) or contrast > (0.28 if rim is None else 0.5):
        return [NOT_FUNDUS]

    found = []
    # The share of the round field that the frame leaves: 1 for a whole circle, about 0.92 for IDRiD and 0.83 for HRF,
    # whose cameras always cut top and bottom; 0.75 is a circle that lost 30 % of its width on one side.
    if rim is None or np.count_nonzero(fov.mask) / (np.pi * rim.radius_y * rim.radius_x) < 0.75:
        found.append(CUT_OFF)
    # The 95th percentile of the brightest channel is 102 and more on the training photographs. At 80, two thirds of the
    # 8-bit range are unused, and the green channel, which shows the vessels, has some 20 grey levels left.
    if np.percentile(_brightest(pixels), 95) < 80:
        found.append(TOO_DARK)
    # Red saturates on many good photographs. Green saturates on at most 2 % of the field, on a lesion or the disc.
    if (pixels[:, 1] >= 250).mean() > 0.1:
        found.append(OVEREXPOSED)
    # 0.09 to 0.21 on 55 training photographs of three sets, and below the limit on 4 of 516 of IDRiD (dense haze).
    if contrast < 0.055:
        found.append(POOR_CONTRAST)
    # Sharpness is 0.57 and more on the training photographs, and 0.50 and less once they are blurred with a sigma of
    # 1/250 of the frame, about a third of a main vessel. In a field of less than 256 px, thin vessels are narrower than
    # half a pixel.
    if sharpness < 0.55 or diameter < 256:
        found.append(BLURRED)
    elif edges is not None and is_soft(edges):
        found.append(SOFT)
    # Traced vessels take up 0.044 of the field and more on 72 of 73 training photographs of six data sets, and 0.024 on
    # the other. Of 65 photographs of IDRiD, two are below the limit.
    if vessels is not None and np.count_nonzero(vessels & fov.mask) < 0.03 * np.count_nonzero(fov.mask):
        found.append(FEW_VESSELS)
    if _bright_share(small[..., 1], inside, diameter) > 0.0015:
        found.append(BRIGHT_SPOTS)
    return found


def _check_pair(image: np.ndarray, fov: FieldOfView) -> None:
    """Check the arguments of `find_warnings`."""
    check_image(image)
    if not isinstance(fov, FieldOfView):
        raise TypeError(
            f"Got {type(fov).__name__} as the field of view, expected a FieldOfView: use "
            "resegnet.fov.find_field_of_view."
        )
    if fov.mask.shape != image.shape[:2]:
        raise ArgumentError(
            f"Got a field of view of shape {fov.mask.shape} for an image of shape {image.shape}, expected "
            f"{image.shape[:2]}: find the field of view on the same image."
        )


def _measured_copy(image: np.ndarray, fov: FieldOfView) -> tuple[np.ndarray, np.ndarray, float]:
    """Copy the field at MEASURED_FIELD_PX to twice as many pixels of width.

    Returns
    -------
    small
        (h, w, 3) float32 RGB in [0, 255], the box of the field.
    inside
        (h, w) bool, the field on it.
    diameter
        Diameter of the whole field, px of the copy.
    """
    box, diameter = fov.box, fov.diameter
    step = max(1, min(int(diameter // MEASURED_FIELD_PX), box.height, box.width))
    height, width = box.height // step, box.width // step
    # Up to nine samples a pixel are enough to suppress noise and aliasing.
    offsets = [step // 2] if step < 2 else sorted({0, step // 2, step - 1})
    small = np.zeros((height, width, 3), np.float32)
    for y in offsets:
        for x in offsets:
            small += image[box.top + y :: step, box.left + x :: step][:height, :width]
    inside = fov.mask[box.top + step // 2 :: step, box.left + step // 2 :: step][:height, :width]
    return small / len(offsets) ** 2, inside, diameter / step


def _has_fundus_colours(pixels: np.ndarray, round_field: bool) -> bool:
    """Tell whether pixels, (N, 3) RGB in [0, 255], are orange to red nearly everywhere, as a retina is, and not grey.

    Blood and pigment absorb blue and green. Red is therefore the brightest channel on at least 95 % of most
    photographs, and the median saturation is 0.50 to 0.99; grey pictures have 0, most everyday colour pictures less
    than 0.27. In yellow or pale light (10 photographs of DR-HAGIS and ORVS) red is the brightest on as little as 49 %,
    at 0.8 of the brightest on 69 %, and the saturation is 0.255. That is accepted in a round field.
    """
    pixels = pixels[pixels[:, 1] < 250]  # where all channels are saturated there is no colour to judge
    if len(pixels) == 0:
        return False
    brightest, darkest = _brightest(pixels), -_brightest(-pixels)
    saturation = (brightest - darkest) / (brightest + 1)
    share, reddest, least = (0.8, 0.6, 0.25) if round_field else (1.0, 0.85, 0.3)
    return bool((pixels[:, 0] >= share * brightest).mean() > reddest and np.median(saturation) > least)


def _brightness_spread(pixels: np.ndarray) -> float:
    """Return the distance of the 5th and 95th percentile of brightness, relative to its median, of (N, 3) pixels."""
    low, middle, high = np.percentile(pixels.mean(axis=1), [5, 50, 95])
    return float((high - low) / (middle + 8))  # as in `_vessel_contrast`


def _brightest(pixels: np.ndarray) -> np.ndarray:
    """Return the largest channel of (N, 3) pixels, (N,); this is many times as fast as max(axis=1)."""
    return np.maximum(np.maximum(pixels[:, 0], pixels[:, 1]), pixels[:, 2])


def _bright_share(green: np.ndarray, inside: np.ndarray, diameter: float) -> float:
    """Measure how much of the field is far brighter than its surroundings, 0 to 1, the optic disc left out.

    At most 0.0009 on the training photographs of DRIVE and CHASE_DB1, where vessels reflect much light.

    Parameters
    ----------
    green
        (h, w) float32 in [0, 255].
    inside
        (h, w) bool, True inside the field.
    diameter
        Diameter of the field, px.
    """
    from scipy import ndimage  # takes longer to import than the rest of the package

    filled = np.where(inside, green, np.median(green[::3, ::3][inside[::3, ::3]]))
    spots = ndimage.gaussian_filter(filled, 0.0018 * diameter, truncate=3)
    box_px = max(3, round(0.05 * diameter))
    surroundings = ndimage.uniform_filter(ndimage.uniform_filter(filled, box_px), box_px)
    core = ndimage.uniform_filter(inside.astype(np.float32), box_px) > 0.95  # away from the rim, which is filled
    # The disc is the brightest place of its own size.
    step = max(1, box_px // 6)
    coarse = surroundings[::step, ::step]
    place = coarse - ndimage.uniform_filter(coarse, max(3, round(0.25 * diameter / step)))
    row, column = np.unravel_index(np.argmax(np.where(core[::step, ::step], place, -np.inf)), place.shape)
    rows, columns = np.ogrid[: green.shape[0], : green.shape[1]]
    core &= (rows - row * step) ** 2 + (columns - column * step) ** 2 > (0.11 * diameter) ** 2
    above = (spots - surroundings)[core]
    # The absolute limit, in grey levels, keeps the noise of a dark photograph from passing for spots.
    bright = (above > 0.4 * (surroundings[core] + 8)) & (above > 25)
    return float(bright.mean()) if len(bright) else 0.0


def _vessel_contrast(green: np.ndarray, inside: np.ndarray, diameter: float) -> tuple[float, float]:
    """Measure how dark and how sharp vessels are, from octaves of blur of the green channel.

    Parameters
    ----------
    green
        (h, w) float32 in [0, 255].
    inside
        (h, w) bool, True inside the field.
    diameter
        Diameter of the field, px.

    Returns
    -------
    contrast
        Depth of the darkest 3 % of the field below their surroundings, relative to the surroundings, so that the amount
        of light does not matter.
    sharpness
        Depth of the darkest 3 % in the octave of thin vessels, divided by that in the next octave, so that contrast
        does not matter either; blur weakens the finer octave first. Both are 0 where nothing can be measured.
    """
    from scipy import ndimage  # takes longer to import than the rest of the package

    middle = np.median(green[::3, ::3][inside[::3, ::3]])
    filled = np.where(inside, green, middle)  # keeps the black surround from leaking into the field
    sigma = 0.0018 * diameter  # a seventh of a main vessel's width, which is about 1/80 of the field
    # Each octave is made from the one before, since a Gaussian of a Gaussian is a Gaussian. From the second octave on,
    # half the pixels suffice.
    fine = ndimage.gaussian_filter(filled, sigma, truncate=3)[::2, ::2]
    thin = ndimage.gaussian_filter(fine, 3**0.5 * sigma / 2, truncate=3)
    thick = ndimage.gaussian_filter(thin, 12**0.5 * sigma / 2, truncate=3)
    box_px = max(1, round(4 * sigma * 12**0.5))  # as wide as the next Gaussian, 8 sigma, and far faster
    broad = ndimage.uniform_filter(filled[::2, ::2], box_px)
    core = (
        ndimage.uniform_filter(inside[::2, ::2].astype(np.float32), box_px) > 0.95
    )  # away from the rim, which is filled
    core[:, 1::2] = False  # every other column gives the same numbers
    fine, thin, thick, broad = (layer[core] for layer in (fine, thin, thick, broad))
    if len(broad) == 0:
        return 0.0, 0.0
    surroundings = broad + 8  # grey levels; they keep the noise of a dark photograph from passing for contrast
    contrast, finer, coarser = (
        float(np.percentile((light - dark) / surroundings, 97))
        for light, dark in ((broad, fine), (thin, fine), (thick, thin))
    )
    return contrast, finer / coarser if coarser > 1e-4 else 0.0
