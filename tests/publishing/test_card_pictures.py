"""The pictures of the model card, and their captions."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resegnet import Config, ImageError, Segmenter, read_image
from resegnet.publishing.pictures import PICTURE_WIDTH_PX, card_pictures
from resegnet.results.render import ERROR_COLORS

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_pictures_are_shown_by_their_captions(card):
    assert "## Pictures" not in card()
    text = card(pictures={"pictures/an eye.jpg": "What it finds."})
    assert "![an eye](<pictures/an%20eye.jpg>)\n\nPicture 1. What it finds." in text


@pytest.mark.slow
def test_card_pictures_show_the_photograph_and_the_answer():
    config = Config(input_size=256)
    # Calls dark green pixels vessel, which gives hits, misses and false alarms.
    segmenter = Segmenter(lambda rgb: (rgb[:, 1] < 0.25).astype(np.float32), config)
    pictures, captions = card_pictures(segmenter, EXAMPLES)
    assert pictures.keys() == captions.keys()
    sheets = {name: np.asarray(Image.open(io.BytesIO(content))) for name, content in pictures.items()}
    for content, sheet in zip(pictures.values(), sheets.values(), strict=True):
        assert content.startswith(b"\xff\xd8") and len(content) < 500_000
        assert 1000 < sheet.shape[1] <= PICTURE_WIDTH_PX
        assert (sheet[:, sheet.shape[1] // 2] > 200).all()  # the gap between the two pictures
    errors = sheets["pictures/errors_on_a_synthetic_photograph.jpg"].astype(int)
    for color in ERROR_COLORS.values():
        assert (np.abs(errors - color).max(axis=2) < 40).sum() > 50
    left = sheets["pictures/photograph_and_vessels.jpg"][:, :500].mean()
    dark = sheets["pictures/dark_photograph.jpg"][:, :500].mean()
    assert dark == pytest.approx(0.12 * left, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "share"), [(lambda rgb: rgb[:, 1] >= 0, "100%"), (lambda rgb: rgb[:, 1] > 0.3, "0%")]
)
def test_captions_tell_what_was_found_in_the_dark(network, share):
    segmenter = Segmenter(lambda rgb: network(rgb).astype(np.float32), Config(input_size=256))
    _, captions = card_pictures(segmenter, EXAMPLES)
    dark = captions["pictures/dark_photograph.jpg"]
    assert "darkened to 12% of" in dark and f"The model finds {share} of the vessel pixels" in dark
    photograph = read_image(EXAMPLES / "retina_cc0.jpg")
    warnings = segmenter(np.round(photograph * 0.12).astype(np.uint8)).warnings
    assert warnings and all(warning in dark for warning in warnings)
    scores = segmenter(EXAMPLES / "synthetic_orange.jpg").compare(EXAMPLES / "synthetic_orange_vessels.png").scores()
    assert f"Sensitivity {scores['sensitivity']:.3f}" in captions["pictures/errors_on_a_synthetic_photograph.jpg"]


def test_pictures_need_the_free_photographs(tmp_path):
    with pytest.raises(ImageError, match="retina_cc0"):
        card_pictures(Segmenter(lambda rgb: rgb[:, 1], Config(input_size=64)), tmp_path)
