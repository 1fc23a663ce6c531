"""Compare a segmentation with a person's reference of the same photograph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from resegnet.errors import ImageError
from resegnet.fov import find_fov
from resegnet.image import read_image
from resegnet.results.render import error_map

if TYPE_CHECKING:
    from resegnet.image import ImageSource
    from resegnet.results.segmentation import Segmentation

# Scores of a comparison, in the order in which they are shown.
_SCORES = ("f1", "recall", "specificity", "precision", "accuracy", "auroc", "mcc", "cldice")

# Share of the field of view above which a mask gets no skeleton: it has no centrelines of vessels then, and a skeleton
# takes up to 39 s (8 megapixels). On HRF, a threshold of 0.02 covers a share of 0.23 and takes 3 s.
_MAX_VESSEL = 0.5

# Least share of vessel inside the field that tells a reference from a blank: 20 pixels of DRIVE, 500 of HRF.
_MIN_VESSEL = 1e-4

# Up to so many grey levels or colours are labels, more are shades. A JPEG of quality 98 turns two grey levels into 8 or
# 9, one of quality 95 into 17; a reference scaled to its half has 5. Artery and vein maps have up to 5 colours,
# smoothed or compressed ones have hundreds.
_LABEL_LEVELS, _LABEL_COLORS = 4, 16

# Levels that differ from the background by less than this share of the greatest difference count as background: a JPEG
# of quality 100 has such levels.
_NEAR_BACKGROUND = 0.1

# A picture with more levels than labels have is accepted if its background is plain, black or white to within 32, and
# its lines are strong. Colour photographs have no such background: inside the field of 184 photographs of the training
# sets the median is 89 or more in the brightest channel and 83 or less in the darkest (a single channel may pass:
# saturated red, dark blue). Shades are the share of the middle half of the range among all that differs from the
# background: 0.07 for DRIVE's references as JPEG of quality 30, up to 0.73 blurred by 1.5 px, and 0.96 or more for most
# photographs after their own background is subtracted.
_PLAIN, _MIN_CONTRAST, _MAX_SHADES = 32, 64, 0.9


@dataclass(frozen=True, eq=False)
class Comparison:
    """A segmentation and a person's reference of the same photograph. Pixels inside `segmentation.fov` count.

    Attributes
    ----------
    segmentation : Segmentation
    reference : (H, W) bool
        The person's vessels, in the photograph's frame.
    notes : tuple of str
        Sentences for a user on how the reference was understood.
    """

    segmentation: Segmentation
    reference: np.ndarray
    notes: tuple[str, ...] = ()

    def at(self, threshold: float) -> Comparison:
        """Return the comparison of the same reference with the segmentation at another threshold in [0, 1].

        Raises
        ------
        ArgumentError
            If `threshold` is outside [0, 1].
        """
        return replace(self, segmentation=self.segmentation.at(threshold))

    def scores(self) -> dict[str, float]:
        """Count the scores at the segmentation's threshold, inside its field of view.

        Returns
        -------
        dict
            `f1` (Dice), `sensitivity`, `specificity`, `precision`, `accuracy`, `auroc` and `cldice` in [0, 1], `mcc`
            in [-1, 1]; nan where a score is undefined, see `resegnet.results.metrics.scores`. `auroc` does not depend
            on the threshold. `cldice` is nan too if the mask covers more than half of the field, as it does at
            threshold 0: such a mask has no centrelines.

        Raises
        ------
        ArgumentError
            If the reference does not have the photograph's size, or the field of view has no pixel.
        """
        from resegnet.results.metrics import count_picture, scores

        result = self.segmentation
        is_sparse = np.count_nonzero(result.mask) <= _MAX_VESSEL * np.count_nonzero(result.fov)
        counts = count_picture(result.probability, self.reference, result.fov, result.threshold, bool(is_sparse))
        values = scores(counts)
        return {"sensitivity" if key == "recall" else key: values[key] for key in _SCORES}

    def error_map(self) -> np.ndarray:
        """Draw hits, misses and false alarms, (H, W, 3) uint8 RGB; see `resegnet.results.render.error_map`."""
        return error_map(self.segmentation.image, self.segmentation.mask, self.reference, self.segmentation.fov)


def compare(segmentation: Segmentation, reference: ImageSource) -> Comparison:
    """Compare a segmentation with a person's reference.

    Parameters
    ----------
    segmentation : Segmentation
    reference
        Path, bytes, binary file, Pillow image or array, of the photograph's size; see `read_reference`.

    Raises
    ------
    ImageError
        If the reference cannot be read or is none. Its message is a sentence for a user.
    """
    vessels, notes = read_reference(reference, segmentation)
    return Comparison(segmentation, vessels, notes)


def read_reference(source: ImageSource, segmentation: Segmentation) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a person's reference of the photograph that was segmented.

    Pixels that differ from the background are vessels, and the background is the median colour well inside the field of
    view. Dark vessels on white are therefore understood like bright ones on black, and labels by number or colour
    (arteries, veins) count as vessels whatever their value. A picture with more levels than labels have, as smoothing
    or JPEG leaves them, is cut at half of the greatest difference.

    Parameters
    ----------
    source
        Path, bytes, binary file, Pillow image or array, see `resegnet.image.read_image`.
    segmentation : Segmentation
        Result for the photograph. Its size and field of view are used, its probability is not.

    Returns
    -------
    vessels : (H, W) bool
        In the photograph's frame. Vessels outside the field of view are True as well, unless most of the surround has
        the colour of the vessels.
    notes : tuple of str
        Sentences for a user on how the file was understood. Empty for plain white vessels on black.

    Raises
    ------
    ImageError
        If the file is no readable picture, has another size, is a photograph or blank; or if the photograph has no
        field of view. Its message is a sentence for a user.
    """
    fov = segmentation.fov
    if not fov.any():
        raise ImageError(
            "The photograph has no field of view in which a reference can be compared; expected a fundus photograph: "
            "choose another."
        )
    pixels = read_image(source)
    _check_size(pixels.shape[:2], fov.shape)
    core = _core(fov)
    inner = pixels[core]
    background = np.median(inner, axis=0).astype(np.uint8)
    difference = _difference(pixels, background)
    vessels, notes = _cut(pixels, core, background, difference)
    if np.count_nonzero(vessels & core) < max(1, _MIN_VESSEL * len(inner)):
        shade = "white" if background.min() > 127 else "black" if background.max() < 128 else "of one colour"
        raise ImageError(
            f"The reference marks no vessel, it is {shade} all over the field of view; expected bright vessels on "
            "black or dark ones on white, in 8 bit: choose the reference of the vessels, not of the field."
        )
    if pixels[vessels & core].mean() < background.mean():
        notes.append("The reference is dark on a bright background, so it was inverted.")
    return _without_surround(vessels, fov, notes), tuple(notes)


def _cut(
    pixels: np.ndarray, core: np.ndarray, background: np.ndarray, difference: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Return the pixels that differ from the background as labels or as a drawing do, (H, W) bool, and notes on it."""
    inner_difference = difference[core]
    top = int(inner_difference.max())
    count, coloured = _count_colors(pixels[core])
    if _are_labels(count, coloured, inner_difference, top):
        vessels = difference > top * _NEAR_BACKGROUND
        count, coloured = _count_colors(pixels[vessels & core])
        if count <= 1:
            return vessels, []
        return vessels, [
            f"The reference shows vessels in {count} {'colours' if coloured else 'grey levels'}, as maps of arteries "
            "and veins do; all of them were taken for vessels."
        ]
    if _is_drawn(inner_difference, background, top):
        return difference > top / 2, [
            "The reference has shades between vessel and background, as smoothing or JPEG compression leaves them; it "
            "was cut half-way."
        ]
    raise ImageError(
        "The reference looks like a photograph, with many colours or grey levels; expected vessels drawn in one colour "
        "on plain black or white: choose the picture of the reference alone."
    )


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
        f"The reference has {width} x {height} pixels, the photograph {wide} x {tall}; expected the same size: "
        f"{remedy}."
    )


def _core(fov: np.ndarray) -> np.ndarray:
    """Return the field of view without a margin of some 2 % of its width, (H, W) bool.

    The rim of a reference's own field may lie a bit further in than ours. A picture of the field of view alone, chosen
    by mistake, is blank inside the margin.
    """
    side_px = np.count_nonzero(fov) ** 0.5
    # The width of the filter is twice the margin. The margin is 12 px in all but tiny fields, since JPEG spreads a rim
    # over blocks of 8 px.
    width_px = max(3, round(side_px / 25), min(24, round(side_px / 4)))
    core = ndimage.uniform_filter(fov.astype(np.float32), width_px, mode="nearest") > 0.999
    return core if core.any() else fov


def _difference(pixels: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Return the difference of each pixel from the background, (H, W) uint8, in the channel where it is greatest."""
    greatest = np.zeros(pixels.shape[:2], np.uint8)
    for channel, level in enumerate(background):
        values = pixels[..., channel]
        np.maximum(greatest, np.where(values > level, values - level, level - values), out=greatest)
    return greatest


def _count_colors(pixels: np.ndarray) -> tuple[int, bool]:
    """Count the colours of (N, 3) pixels, in a sample if that has more than labels have; tell if any is no grey."""
    for step in (101, 1):  # a sample is enough for photographs and JPEG
        red, green, blue = pixels[::step].astype(np.uint32).T
        colors = np.unique(red << 16 | green << 8 | blue)
        if len(colors) > _LABEL_COLORS:
            break
    red, green, blue = colors >> 16, colors >> 8 & 255, colors & 255
    return len(colors), bool(((red != green) | (green != blue)).any())


def _are_labels(count: int, coloured: bool, difference: np.ndarray, top: int) -> bool:
    """Return whether so many colours are labels, on a background that fills most of the field."""
    few = count <= _LABEL_LEVELS or (count <= _LABEL_COLORS and (coloured or top <= _LABEL_COLORS))
    return few and bool(np.count_nonzero(difference <= top * _NEAR_BACKGROUND) > len(difference) / 2)


def _is_drawn(difference: np.ndarray, background: np.ndarray, top: int) -> bool:
    """Return whether many shades are those of a drawing: plain background, strong lines, few shades between the two."""
    is_plain = background.max() <= _PLAIN or background.min() >= 255 - _PLAIN
    if not is_plain or top < _MIN_CONTRAST:
        return False
    drawn = np.count_nonzero(difference > top / 4)
    lines = np.count_nonzero(difference > top * 3 / 4)
    return bool(drawn - lines <= _MAX_SHADES * drawn)


def _without_surround(vessels: np.ndarray, fov: np.ndarray, notes: list[str]) -> np.ndarray:
    """Remove a surround in the colour of the vessels; otherwise add a note if many vessels lie outside the field."""
    outside = int(np.count_nonzero(vessels & ~fov))
    if outside > 0.5 * np.count_nonzero(~fov):
        # The reference's own field of view is found like that of a photograph. Without it a ring at its rim would count
        # as a vessel (worst of 55 references inverted on black: Dice 0.82, with it 0.98).
        picture = np.where(vessels, np.uint8(0), np.uint8(255))
        return vessels & fov & find_fov(np.repeat(picture[:, :, None], 3, axis=2))
    share = outside / max(1, int(np.count_nonzero(vessels)))
    if share > 0.05:
        notes.append(f"In the reference, {share:.0%} of the vessels lie outside the field of view and do not count.")
    return vessels
