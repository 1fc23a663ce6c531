"""Pictures for the model card, made from free photographs: what the model finds, and how it fails."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from resegnet.image import read_image
from resegnet.releases.records import format_score
from resegnet.segmenter import Segmenter

DARKENED = 0.12  # factor on the pixel values of the dark photograph
PICTURE_WIDTH_PX = 1200
_GAP_PX = 8
FOUND = "pictures/photograph_and_vessels.jpg"


def card_pictures(segmenter: Segmenter, examples: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """Make pictures from the free photographs: what the model finds, and how it fails.

    Parameters
    ----------
    segmenter
        Segmenter of the release to publish.
    examples
        The folder `examples/` of the repository.

    Returns
    -------
    pictures : dict[str, bytes]
        JPEG files of at most 1200 px width, by path in the repository.
    captions : dict[str, str]
        Caption of each picture, by the same paths.

    Raises
    ------
    ImageError
        If a photograph is missing in `examples` or cannot be read.
    """
    examples = Path(examples)
    photograph = read_image(examples / "retina_cc0.jpg")
    found = segmenter(photograph)
    dark = segmenter(np.round(photograph * np.float32(DARKENED)).astype(np.uint8))
    synthetic = segmenter(examples / "synthetic_orange.jpg")
    errors = synthetic.compare(examples / "synthetic_orange_vessels.png")
    kept = (found.mask & dark.mask).sum() / max(found.mask.sum(), 1)
    warned = f"The warning reads: {' '.join(dark.warnings)}" if dark.warnings else "There is no warning."
    scores = errors.scores()
    shown = {
        FOUND: (
            (photograph, found.overlay()),
            "Left: photograph of a healthy eye (Mikael Häggström, CC0). Right: in cyan, the vessels that this model "
            "finds.",
        ),
        "pictures/errors_on_a_synthetic_photograph.jpg": (
            (synthetic.image, errors.error_map()),
            "Left: synthetic photograph (CC0), whose vessels are known exactly. Right: what this model finds and "
            "misses. White: vessel that is found. Orange: vessel that is missed. Blue: no vessel, but marked as one. "
            f"Sensitivity {format_score(scores['sensitivity'])}, precision {format_score(scores['precision'])}. The "
            "picture shows kinds of errors, not how often they occur in real photographs.",
        ),
        "pictures/dark_photograph.jpg": (
            (dark.image, dark.overlay()),
            f"The photograph of the healthy eye, darkened to {DARKENED:.0%} of its brightness. The model finds "
            f"{kept:.0%} of the vessel pixels that it finds in the original photograph. {warned}",
        ),
    }
    return (
        {path: _side_by_side(*pair) for path, (pair, _) in shown.items()},
        {path: caption for path, (_, caption) in shown.items()},
    )


def _side_by_side(left: np.ndarray, right: np.ndarray) -> bytes:
    """Place two pictures, (H, W, 3) uint8 of the same size, side by side in a JPEG file."""
    height, width = left.shape[:2]
    shown_width = min(width, (PICTURE_WIDTH_PX - _GAP_PX) // 2)
    shown_height = round(height * shown_width / width)
    sheet = Image.new("RGB", (2 * shown_width + _GAP_PX, shown_height), "white")
    for pixels, x in ((left, 0), (right, shown_width + _GAP_PX)):
        shown = Image.fromarray(pixels).resize((shown_width, shown_height), Image.Resampling.LANCZOS)
        sheet.paste(shown, (x, 0))
    file = io.BytesIO()
    # No chroma subsampling: the coloured lines of thin vessels are one or two pixels wide.
    sheet.save(file, "JPEG", quality=88, subsampling=0)
    return file.getvalue()
