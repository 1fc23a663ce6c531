"""The result of segmenting one photograph."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from resegnet.errors import ArgumentError, short_repr
from resegnet.io import png
from resegnet.results.anatomy import ARTERY, VEIN, Anatomy, Disc, Eye, Place
from resegnet.results.render import (
    KIND_COLORS,
    OVERLAY_COLOR,
    OVERLAY_OPACITY,
    SAFE_KIND_COLORS,
    calibre_map,
    kinds_map,
    overlay,
)

if TYPE_CHECKING:
    from resegnet.image import ImageSource
    from resegnet.quality import PhotographWarning
    from resegnet.results.centrelines import Centrelines, Trace
    from resegnet.results.compare import Comparison
    from resegnet.results.measures import Measures

NOTEBOOK_PX = 1024  # longer side, at most, of the picture that a notebook shows


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """The vessels of one photograph. Every array has the photograph's own frame, pixel for pixel.

    Two results are equal if all their values are. Notebooks show the overlay.

    Attributes
    ----------
    image : (H, W, 3) uint8, RGB
        The photograph as it was read.
    probability : (H, W) float32 in [0, 1]
        Probability of a vessel.
    fov : (H, W) bool
        True inside the field of view.
    threshold : float in [0, 1]
        Probability from which a pixel is a vessel.
    warnings : tuple of PhotographWarning
        Sentences about the photograph for a user. Each is a str with a `code` and a `kind`, see `resegnet.quality`.
    model : str
        Name of the release that made the result.
    anatomy : Anatomy or None
        What the network said of arteries, veins, optic disc and fovea. None if it says nothing of them, or was told to
        leave them out.
    um_per_px : float, optional
        Micrometres on the retina for a pixel, from a DICOM file; None if unknown.
    """

    image: np.ndarray
    probability: np.ndarray
    fov: np.ndarray
    threshold: float
    warnings: tuple[PhotographWarning, ...] = ()
    model: str = ""
    anatomy: Anatomy | None = None
    um_per_px: float | None = None

    @property
    def mask(self) -> np.ndarray:
        """Vessel mask, (H, W) bool: probability at or above the threshold, inside the field of view."""
        return (self.probability >= self.threshold) & self.fov

    @property
    def arteries(self) -> np.ndarray | None:
        """Mask of the arteries, (H, W) bool, a part of `mask`; None without anatomy. Crossings are in `veins` too."""
        return None if self.kinds is None else self.kinds & ARTERY != 0

    @property
    def veins(self) -> np.ndarray | None:
        """Mask of the veins, (H, W) bool, a part of `mask`; None without anatomy. Crossings are in `arteries` too."""
        return None if self.kinds is None else self.kinds & VEIN != 0

    @cached_property
    def kinds(self) -> np.ndarray | None:
        """Kind of each pixel, (H, W) uint8: 0 no vessel, 1 artery, 2 vein, 3 both. None without anatomy.

        See `resegnet.results.kinds.tell_kinds`.
        """
        if self.anatomy is None:
            return None
        from resegnet.results.kinds import tell_kinds

        return tell_kinds(self.mask, self._trace.tree, self.anatomy)

    @property
    def kind_probability(self) -> np.ndarray | None:
        """Probability of an artery and of a vein, (2, H, W) float32 in [0, 1]; None without anatomy.

        It tells the kind of vessels, and means nothing where there are none.
        """
        return None if self.anatomy is None else self.anatomy.kind_probability()

    @property
    def disc(self) -> Disc | None:
        """The optic disc: centre, diameter and mask. None if it was not found, or without anatomy."""
        return None if self.anatomy is None else self.anatomy.disc

    @property
    def fovea(self) -> Place | None:
        """Row and column of the fovea, float px; None if it was not found, or without anatomy."""
        return None if self.anatomy is None else self.anatomy.fovea

    @property
    def eye(self) -> Eye | None:
        """The eye, "right" or "left", if the photograph is not mirrored; None where disc or fovea is unknown."""
        return None if self.anatomy is None else self.anatomy.eye

    @cached_property
    def centrelines(self) -> Centrelines:
        """The centrelines of the vessels, see `resegnet.results.centrelines`."""
        from resegnet.results.centrelines import measure_trace

        return measure_trace(self._trace, self.fov)

    @cached_property
    def _trace(self) -> Trace:
        """The centrelines before they are measured. The kinds of the vessels need no more."""
        from resegnet.results.centrelines import trace_vessels

        return trace_vessels(self.mask, self.fov)

    def at(self, threshold: float) -> Segmentation:
        """Return the same result at another threshold in [0, 1], without running the network again.

        Raises
        ------
        ArgumentError
            If `threshold` is not a number from 0 to 1.
        """
        value: object = threshold  # a caller may pass anything
        if not isinstance(value, Real) or not 0 <= threshold <= 1:
            raise ArgumentError(f"threshold is {short_repr(threshold)}, expected a number from 0 to 1.")
        return replace(self, threshold=float(threshold))

    def overlay(self, color: tuple[int, int, int] = OVERLAY_COLOR, opacity: float = OVERLAY_OPACITY) -> np.ndarray:
        """Draw the vessels on the photograph.

        Parameters
        ----------
        color
            RGB, 0 to 255.
        opacity
            From 0 (nothing drawn) to 1 (plain colour).

        Returns
        -------
        (H, W, 3) uint8, RGB

        Raises
        ------
        ArgumentError
            If the opacity is out of range.
        """
        return overlay(self.image, self.mask, color, opacity)

    def calibre_map(self) -> np.ndarray:
        """Draw what `measure` measures: centrelines coloured by calibre, branch points as rings.

        Returns
        -------
        (H, W, 3) uint8, RGB
            See `resegnet.results.render.calibre_map`.
        """
        return calibre_map(self.image, self.mask, self.fov)

    def kinds_map(self, safe_colors: bool = False) -> np.ndarray | None:
        """Draw arteries red, veins blue, crossings white, the disc and the fovea on the dimmed photograph.

        Parameters
        ----------
        safe_colors
            Arteries are orange, which colour-blind people tell from blue and from the background.

        Returns
        -------
        (H, W, 3) uint8, RGB
            None without anatomy.
        """
        if self.kinds is None:
            return None
        colors = SAFE_KIND_COLORS if safe_colors else KIND_COLORS
        return kinds_map(self.image, self.kinds, self.fov, self.disc, self.fovea, colors)

    def measure(self, um_per_px: float | None = None) -> Measures:
        """Measure area, length, branching, calibre, tortuosity and fractal dimension of the vessels.

        Where the result tells arteries from veins, also measure each kind apart, and in zones round the optic disc.

        Parameters
        ----------
        um_per_px
            Micrometres on the retina for a pixel, of a calibrated camera. Adds a value in micrometres for each in
            pixels. None takes the scale of the photograph's DICOM file, if it has one.

        Returns
        -------
        Measures
            A dict of str to float: numbers of the whole field and of its quadrants; nan where one is undefined, with
            the reason in `undefined`. Names and definitions: `resegnet.results.measure.measure_mask` and
            `measure_anatomy`.

        Raises
        ------
        ArgumentError
            If `um_per_px` is not a positive number.
        """
        from resegnet.results.measure import measure

        return measure(self, um_per_px)

    def compare(self, reference: ImageSource) -> Comparison:
        """Compare the vessel mask with a person's reference of the same photograph.

        Parameters
        ----------
        reference
            Picture of the photograph's size in any form that `resegnet.read_image` takes. Vessels may be bright on
            dark, dark on bright, or labels; see `resegnet.results.compare.read_reference`.

        Returns
        -------
        Comparison
            Its `scores()` are sensitivity, specificity, Dice (F1) and more; its `error_map()` is a picture.

        Raises
        ------
        ImageError
            If the reference cannot be read, has another size or shows no vessels.
        """
        from resegnet.results.compare import compare

        return compare(self, reference)

    def save(self, folder: str | os.PathLike[str], name: str = "photograph") -> dict[str, Path]:
        """Write vessel mask, probability, overlay and a summary into a folder, which is created if necessary.

        Parameters
        ----------
        folder
            Existing files of the same names in it are replaced.
        name
            Start of the file names; characters that are not safe in a file name become "_".

        Returns
        -------
        dict of str to Path
            `mask` (8-bit PNG, 0 or 255), `probability` (16-bit PNG, times 65,535), `overlay` (RGB PNG) and `summary`
            (JSON with threshold, model, warnings, measures, disc, fovea and eye). With anatomy also `kinds` (PNG of the
            values 0 to 3, as in the attribute) and `kinds_map` (RGB PNG).

        Raises
        ------
        OSError
            If the folder cannot be created or written to.
        """
        from resegnet.results.export import save

        return save(self, folder, name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Segmentation):
            return NotImplemented
        return self._small_values() == other._small_values() and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("image", "probability", "fov")
        )

    def __hash__(self) -> int:
        return hash(self._small_values())  # equal results have equal hashes; arrays would take long to hash

    def __repr__(self) -> str:
        height, width = self.fov.shape
        in_field = np.count_nonzero(self.fov)
        share = (
            f"{np.count_nonzero(self.mask) / in_field:.1%} of the field is vessel" if in_field else "no field of view"
        )
        count = len(self.warnings)
        return (
            f"Segmentation({width} x {height} px, threshold {self.threshold:.4g}, model {self.model!r}, {share}, "
            f"{count} warning{'' if count == 1 else 's'})"
        )

    def _repr_png_(self) -> bytes:
        """Return the overlay as PNG, reduced to 1024 px or less, for a notebook."""
        picture = Image.fromarray(self.overlay())
        picture.thumbnail((NOTEBOOK_PX, NOTEBOOK_PX), Image.Resampling.LANCZOS)
        return png(np.asarray(picture))

    def _small_values(self) -> tuple[object, ...]:
        return self.fov.shape, self.threshold, self.warnings, self.model, self.anatomy, self.um_per_px
