"""Pictures for the model card, made from free photographs: what a model finds, and how it fails."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from resegnet.image import read_image
from resegnet.releases.records import format_score
from resegnet.segmenter import Segmenter

DARKENED = 0.12
PICTURE_WIDTH_PX = 1200
_GAP_PX = 8


def card_pictures(segmenter: Segmenter, examples: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """Make them from the free photographs: what a model finds, and how it fails.

    Parameters
    ----------
    segmenter
        With the model that is to be published.
    examples
        The folder `examples/` of the repository.

    Returns
    -------
    pictures, captions
        JPEG files, at most 1200 px wide, and what each shows, both by path in the repository.

    Raises
    ------
    resegnet.image.ImageError
        If a photograph is missing there or cannot be read.
    """
    examples = Path(examples)
    photograph = read_image(examples / "retina_cc0.jpg")
    found = segmenter(photograph)
    dark = segmenter(np.round(photograph * np.float32(DARKENED)).astype(np.uint8))
    drawn = segmenter(examples / "synthetic_orange.jpg")
    errors = drawn.compare(examples / "synthetic_orange_vessels.png")
    kept = (found.mask & dark.mask).sum() / max(found.mask.sum(), 1)
    warned = f"It warns: {' '.join(dark.warnings)}" if dark.warnings else "It does not warn."
    scores = errors.scores()
    shown = {
        "pictures/photograph_and_vessels.jpg": (
            (photograph, found.overlay()),
            "A photograph of a healthy eye (Mikael Häggström, CC0), and in cyan what this model finds in it.",
        ),
        "pictures/errors_on_a_drawn_eye.jpg": (
            (drawn.image, errors.error_map()),
            "A drawn eye (CC0), of which every vessel is known, and where this model errs in it. White: vessel, found. "
            f"Orange: vessel, missed. Blue: called a vessel, but is none. Sensitivity {format_score(scores['sensitivity'])}, "
            f"precision {format_score(scores['precision'])}. It shows kinds of errors, not how frequent they are in real "
            "eyes.",
        ),
        "pictures/dark_photograph.jpg": (
            (dark.image, dark.overlay()),
            f"The photograph of the healthy eye darkened to {DARKENED:.0%} of its brightness. Of what this model "
            f"called vessel in good light, it finds {kept:.0%} again. {warned}",
        ),
    }
    return (
        {path: _side_by_side(*pair) for path, (pair, _) in shown.items()},
        {path: caption for path, (_, caption) in shown.items()},
    )


def _side_by_side(left: np.ndarray, right: np.ndarray) -> bytes:
    """Two pictures (H, W, 3) uint8 of one size as a JPEG."""
    height, width = left.shape[:2]
    shown_width = min(width, (PICTURE_WIDTH_PX - _GAP_PX) // 2)
    shown_height = round(height * shown_width / width)
    sheet = Image.new("RGB", (2 * shown_width + _GAP_PX, shown_height), "white")
    for pixels, x in ((left, 0), (right, shown_width + _GAP_PX)):
        shown = Image.fromarray(pixels).resize((shown_width, shown_height), Image.Resampling.LANCZOS)
        sheet.paste(shown, (x, 0))
    file = io.BytesIO()
    # Full colour resolution: the vessels' colour is one or two pixels wide.
    sheet.save(file, "JPEG", quality=88, subsampling=0)
    return file.getvalue()
