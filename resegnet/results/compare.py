"""A segmentation against a person's reference of the same photograph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from resegnet.errors import ImageError
from resegnet.fov import find_fov
from resegnet.image import read_image
from resegnet.results.render import error_map

if TYPE_CHECKING:
    from resegnet.results.segmentation import Segmentation

# Scores of a comparison, in the order in which they are shown.
_SCORES = ("f1", "recall", "specificity", "precision", "accuracy", "auroc", "mcc", "cldice")

# A mask that covers more of the field has no centre lines of vessels, and its skeleton takes up to 39 s (8 megapixels);
# on HRF, threshold 0.02 covers 0.23 of the field and takes 3 s.
_MOST_VESSEL = 0.5

# Share of the field's inner part that tells a reference from a blank: 20 pixels of DRIVE, 500 of HRF.
_LEAST_VESSEL = 1e-4

# Levels of what is no plain black and white. A JPEG of quality 98 makes 8 to 9 grey levels of two, one of 95 17; a
# reference scaled to its half makes 5, so that more than 4 are shades and not labels. Artery and vein maps have up to 5
# colours; once smoothed or compressed they have hundreds.
_LABEL_LEVELS, _LABEL_COLORS = 4, 16

# Levels so near to the ground's, as a share of the greatest difference, are the ground: a JPEG of quality 100 has such.
_NEAR_GROUND = 0.1

# More levels than labels have are accepted on plain ground, black or white to within 32, with strong lines. Colour
# photographs have no such ground: in the inner field of 184 of the training sets' the median is 89 or more in the
# brightest channel and 83 or less in the darkest (one channel alone may pass: saturated red, dark blue). Shades are the
# share of the middle half of the range among all that stands out from the ground: 0.07 for DRIVE's references as JPEG of
# quality 30, up to 0.73 blurred by 1.5 px, and 0.96 or more for what is left of most photographs once their own ground
# is taken off.
_GROUND, _LEAST_CONTRAST, _MOST_SHADES = 32, 64, 0.9


@dataclass(frozen=True)
class Comparison:
    """A segmentation and a person's reference, in the photograph's frame; what counts is inside `segmentation.fov`."""

    segmentation: Segmentation
    reference: np.ndarray  # (H, W) bool, the person's vessels, of the photograph's size
    notes: tuple[str, ...] = ()  # how the reference's file was understood, sentences for a user

    def at(self, threshold: float) -> Comparison:
        """The same reference against the segmentation at another threshold in [0, 1].

        Raises
        ------
        ValueError
            If `threshold` is outside [0, 1].
        """
        return replace(self, segmentation=self.segmentation.at(threshold))

    def scores(self) -> dict[str, float]:
        """Scores at the segmentation's threshold, inside its field of view.

        Returns
        -------
        dict
            `f1` (Dice), `sensitivity`, `specificity`, `precision`, `accuracy`, `auroc` and `cldice` in [0, 1], `mcc`
            in [-1, 1]; nan where a score is not defined, see `resegnet.results.metrics.scores`. `auroc` is of the
            probability and the same at every threshold. `cldice` is nan also where the mask covers more than half of
            the field, as it does at threshold 0: that has no centre lines.

        Raises
        ------
        ValueError
            If the reference is not of the photograph's size, or the field of view has no pixel.
        """
        from resegnet.results.metrics import count_picture, scores

        result = self.segmentation
        is_sparse = np.count_nonzero(result.mask) <= _MOST_VESSEL * np.count_nonzero(result.fov)
        counts = count_picture(result.probability, self.reference, result.fov, result.threshold, bool(is_sparse))
        values = scores(counts)
        return {"sensitivity" if key == "recall" else key: values[key] for key in _SCORES}

    def error_map(self) -> np.ndarray:
        """Hits, misses and false alarms, (H, W, 3) uint8 RGB; see `resegnet.results.render.error_map`."""
        return error_map(self.segmentation.image, self.segmentation.mask, self.reference, self.segmentation.fov)


def compare(segmentation: Segmentation, reference: Any) -> Comparison:
    """Hold a segmentation against a person's reference.

    Parameters
    ----------
    segmentation : Segmentation
    reference
        Path, bytes, binary file, Pillow image or array, of the photograph's size; see `read_reference`.

    Raises
    ------
    resegnet.image.ImageError
        If the reference cannot be read or is none; its text is fit to be shown.
    """
    vessels, notes = read_reference(reference, segmentation)
    return Comparison(segmentation, vessels, notes)


def read_reference(source: Any, segmentation: Segmentation) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a person's reference of the photograph that was segmented.

    Vessel is what differs from the ground, and the ground is the median colour well inside the field of view. So dark
    vessels on white are understood as bright ones on black are, and labels by number or colour (arteries, veins) count
    as vessels whatever their value. Where there are more levels than labels have, as smoothing or JPEG leaves them, the
    cut is at half of the greatest difference.

    Parameters
    ----------
    source
        Path, bytes, binary file, Pillow image or array, see `resegnet.image.read_image`.
    segmentation : Segmentation
        Of the photograph; its size and field of view are used, its probability is not.

    Returns
    -------
    vessels : (H, W) bool
        In the photograph's frame. What is traced outside the field of view is True as well, unless most of the
        surround has the vessels' colour.
    notes : tuple of str
        What a user should know of how the file was understood. Empty for plain white vessels on black.

    Raises
    ------
    resegnet.image.ImageError
        If the file is no readable picture, of another size, a photograph or blank; or if the photograph has no field
        of view. One sentence.
    """
    fov = segmentation.fov
    if not fov.any():
        raise ImageError(
            "The photograph has no field of view that a reference could be compared in; expected a fundus photograph: "
            "choose another."
        )
    pixels = read_image(source)
    _check_size(pixels.shape[:2], fov.shape)
    core = _core(fov)
    inner = pixels[core]
    ground = np.median(inner, axis=0).astype(np.uint8)
    difference = _difference(pixels, ground)
    inner_difference = difference[core]
    top = int(inner_difference.max())
    count, coloured = _count_colors(inner)

    notes = []
    if _are_labels(count, coloured, inner_difference, top):
        vessels = difference > top * _NEAR_GROUND
        count, coloured = _count_colors(pixels[vessels & core])
        if count > 1:
            notes.append(
                f"The reference shows vessels in {count} {'colours' if coloured else 'grey levels'}, as maps of arteries "
                "and veins do; all of them were taken for vessels."
            )
    elif _is_drawn(inner_difference, ground, top):
        vessels = difference > top / 2
        notes.append(
            "The reference has shades between vessel and background, as smoothing or JPEG compression leaves them; it "
            "was cut half-way."
        )
    else:
        raise ImageError(
            "The reference looks like a photograph, with many colours or grey levels; expected vessels drawn in one "
            "colour on plain black or white: choose the picture of the reference alone."
        )

    if np.count_nonzero(vessels & core) < max(1, _LEAST_VESSEL * len(inner)):
        shade = "white" if ground.min() > 127 else "black" if ground.max() < 128 else "of one colour"
        raise ImageError(
            f"The reference marks no vessel, it is {shade} all over the field of view; expected bright vessels on black "
            "or dark ones on white, in 8 bit: choose the reference of the vessels, not of the field."
        )
    if pixels[vessels & core].mean() < ground.mean():
        notes.append("The reference is dark on a bright background, so it was inverted.")
    return _without_surround(vessels, fov, notes), tuple(notes)


def _check_size(got: tuple[int, int], expected: tuple[int, int]) -> None:
    if got == expected:
        return
    (height, width), (tall, wide) = got, expected
    if got == expected[::-1]:
        remedy = "it is turned by 90 degrees, so turn it back"
    elif width != wide and height != tall and abs(width / wide - height / tall) <= 1 / min(expected):
        remedy = "it was scaled, so export it again at the photograph's own size"
    else:
        remedy = "choose the reference of this very photograph, uncropped"
    raise ImageError(
        f"The reference has {width} x {height} pixels, the photograph {wide} x {tall}; expected the same size: {remedy}."
    )


def _core(fov: np.ndarray) -> np.ndarray:
    """The field without a margin of some 2 % of its width, (H, W) bool: a reference's own rim may lie a bit further in.

    A reference of the rim, or a mask of the field of view chosen by mistake, is blank there.
    """
    side_px = np.count_nonzero(fov) ** 0.5
    # Twice the margin, which is 12 px or more in all but tiny fields: JPEG spreads a rim over its blocks of 8 px.
    width_px = max(3, round(side_px / 25), min(24, round(side_px / 4)))
    core = ndimage.uniform_filter(fov.astype(np.float32), width_px, mode="nearest") > 0.999
    return core if core.any() else fov


def _difference(pixels: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """How far each pixel is from the ground, in the channel where it is furthest: (H, W) uint8."""
    most = np.zeros(pixels.shape[:2], np.uint8)
    for channel, level in enumerate(ground):
        values = pixels[..., channel]
        np.maximum(most, np.where(values > level, values - level, level - values), out=most)
    return most


def _count_colors(pixels: np.ndarray) -> tuple[int, bool]:
    """Number of colours of (N, 3) pixels, at least that of a sample if it exceeds labels; whether any is no grey."""
    for step in (101, 1):  # a sample tells photographs and JPEG at once
        red, green, blue = pixels[::step].astype(np.uint32).T
        colors = np.unique(red << 16 | green << 8 | blue)
        if len(colors) > _LABEL_COLORS:
            break
    red, green, blue = colors >> 16, colors >> 8 & 255, colors & 255
    return len(colors), bool(((red != green) | (green != blue)).any())


def _are_labels(count: int, coloured: bool, difference: np.ndarray, top: int) -> bool:
    """Whether so many colours are labels, on a ground that fills most of the field."""
    few = count <= _LABEL_LEVELS or (count <= _LABEL_COLORS and (coloured or top <= _LABEL_COLORS))
    return few and np.count_nonzero(difference <= top * _NEAR_GROUND) > len(difference) / 2


def _is_drawn(difference: np.ndarray, ground: np.ndarray, top: int) -> bool:
    """Whether many shades are those of a drawing: plain ground, strong lines and few shades between the two."""
    plain = ground.max() <= _GROUND or ground.min() >= 255 - _GROUND
    if not plain or top < _LEAST_CONTRAST:
        return False
    outstanding = np.count_nonzero(difference > top / 4)
    lines = np.count_nonzero(difference > top * 3 / 4)
    return outstanding - lines <= _MOST_SHADES * outstanding


def _without_surround(vessels: np.ndarray, fov: np.ndarray, notes: list[str]) -> np.ndarray:
    """Drop a surround in the vessels' colour; else note if much is traced outside the field of view."""
    outside = vessels & ~fov
    traced = np.count_nonzero(outside)
    if traced > 0.5 * np.count_nonzero(~fov):
        # The reference's own field, found as a photograph's is: else a ring at its rim would count as a vessel (worst
        # of 55 inverted on black: Dice to the truth 0.82, so 0.98).
        picture = np.where(vessels, np.uint8(0), np.uint8(255))
        return vessels & fov & find_fov(np.repeat(picture[:, :, None], 3, axis=2))
    share = traced / max(1, np.count_nonzero(vessels))
    if share > 0.05:
        notes.append(f"Of what is traced, {share:.0%} lies outside the field of view and does not count.")
    return vessels
