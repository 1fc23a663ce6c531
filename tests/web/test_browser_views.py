"""Views of the page in a real browser, and what is drawn over them; the network is one of two looks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from support.browser import (
    MEASURED,
    actual_size,
    canvas,
    pixels,
    press,
    save,
    settle,
    threshold_of,
    upload,
)
from support.stand_in import TwoLooksOnGreen

from resegnet import Config, Segmenter
from resegnet.results.compare import compare
from resegnet.results.render import DISC_COLOR, KIND_COLORS, OVERLAY_COLOR, SAFE_KIND_COLORS, magma

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CONFIG = Config(
    encoder="two-looks",
    encoder_depth=2,
    decoder_channels=(16, 16),
    input_size=256,
    threshold=0.6137,
    context_size=96,
    context_channels=(32, 16, 16),
)


@pytest.fixture(scope="module")
def network():
    return TwoLooksOnGreen()


@pytest.fixture(scope="module")
def segmenter(network):
    return Segmenter(network, CONFIG, "two/looks@v1")


def click(page, name):
    page.get_by_role("button", name=name, exact=True).click()
    settle(page)


def rounded(number):
    """Round to one digit as browsers do, halves up."""
    return np.floor(float(number) * 10 + 0.5) / 10


def assert_kinds_are(page, result, colors):
    drawn = canvas(page, "paint", result.mask.shape)
    np.testing.assert_array_equal(drawn[:, :, 3] > 0, result.mask)
    for kind, name in ((1, "artery"), (2, "vein"), (3, "both")):
        where = result.kinds == kind
        assert (drawn[where] == (*colors[name], 255)).all()
    assert page.locator(".legend:not(.calibre-legend) b").all_inner_texts() == [
        f"{(result.kinds == kind).sum():,} px" for kind in (1, 2, 3)
    ]


def test_arteries_and_veins_follow_the_threshold_once_the_thumb_rests(open_page, segmenter, photographs):
    page = open_page()
    upload(page, photographs[0])
    page.wait_for_selector(MEASURED)
    actual_size(page)
    click(page, "Arteries/veins")
    page.wait_for_selector(MEASURED)
    settle(page)
    result = segmenter(photographs[0])
    assert (result.kinds == 1).sum() > 500 < (result.kinds == 2).sum()
    assert_kinds_are(page, result, KIND_COLORS)
    click(page, "Orange and blue")
    assert_kinds_are(page, result, SAFE_KIND_COLORS)

    press(page, "#viewer-threshold", *["ArrowLeft"] * 12)
    page.wait_for_selector(MEASURED)
    settle(page)
    moved = result.at(threshold_of(page))
    assert moved.mask.sum() > result.mask.sum()
    assert_kinds_are(page, moved, SAFE_KIND_COLORS)
    name, picture = save(page, "arteries and veins")
    assert name.startswith("my eye_arteries_veins_")
    np.testing.assert_array_equal(pixels(picture), moved.kinds_map(safe_colors=True))
    assert b"/Subtype /Image" in save(page, "report (PDF)")[1]
    assert page.locator(".numbers dl").inner_text().endswith(segmenter(photographs[0]).eye)


def test_disc_fovea_and_field_are_drawn_over_any_view(open_page, segmenter, photographs):
    page = open_page()
    upload(page, photographs[0])
    actual_size(page)
    result = segmenter(photographs[0])
    assert not canvas(page, "marks", result.mask.shape).any()
    click(page, "Mask")
    click(page, "Optic disc")
    click(page, "Fovea")
    green = (np.abs(canvas(page, "marks", result.mask.shape)[:, :, :3].astype(int) - DISC_COLOR) < 45).all(axis=2)
    rim = result.disc.mask ^ ndimage.binary_erosion(result.disc.mask, iterations=2)
    from_fovea = np.hypot(*(np.indices(green.shape) - np.array(result.fovea)[:, None, None]))
    near = ndimage.binary_dilation(rim, iterations=2) | (from_fovea < 12)
    assert (green & ndimage.binary_dilation(rim)).sum() > 0.9 * np.pi * result.disc.diameter
    assert green[from_fovea < 3].any()
    assert not green[~near].any()
    click(page, "Optic disc")
    click(page, "Fovea")
    assert not canvas(page, "marks", result.mask.shape).any()

    click(page, "Outline of the field")
    white = (canvas(page, "marks", result.mask.shape)[:, :, :3] > 240).all(axis=2)
    border = ndimage.binary_dilation(result.fov, iterations=3) & ~ndimage.binary_erosion(result.fov, iterations=3)
    assert white.sum() > 300
    assert not white[~border].any()


def test_the_calibre_map_lies_on_the_centrelines(open_page, segmenter, photographs):
    page = open_page()
    upload(page, photographs[0])
    actual_size(page)
    click(page, "Calibre map")
    press(page, "#viewer-threshold", "ArrowLeft")
    page.wait_for_selector(MEASURED)
    settle(page)
    lines = segmenter(photographs[0]).at(threshold_of(page)).centrelines
    drawn = canvas(page, "marks", segmenter(photographs[0]).mask.shape)
    rows, columns = np.floor(lines.points + 0.5).astype(int).T
    assert (drawn[rows, columns, 3] > 100).mean() > 0.99
    near = np.zeros(drawn.shape[:2], bool)
    near[rows, columns] = True
    assert not drawn[~ndimage.binary_dilation(near, iterations=3)].any()
    measured = np.sort(lines.calibres_px[~np.isnan(lines.calibres_px)].astype(np.float32))
    widest = measured[int(0.98 * (len(measured) - 1))]
    assert page.inner_text(".calibre-legend .widest") == f"{rounded(widest):.1f} px"
    thick = (lines.calibres_px >= widest).nonzero()[0]
    colors = drawn[rows[thick], columns[thick], :3].astype(int)
    assert (np.abs(colors - magma()[-1]).max(axis=1) < 30).mean() > 0.5
    page.fill(".viewer .um", "8.5")
    assert page.inner_text(".calibre-legend .widest") == f"{rounded(widest * 8.5):.1f} \xb5m"


def test_the_probability_view_shows_where_the_threshold_cuts(open_page, segmenter, photographs):
    page = open_page()
    upload(page, photographs[0])
    actual_size(page)
    click(page, "Probability")
    press(page, "#viewer-threshold", *["ArrowLeft"] * 5)
    mask = segmenter(photographs[0]).at(threshold_of(page)).mask
    contour = np.zeros_like(mask)
    contour[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    contour[:-1] |= mask[:-1] ^ mask[1:]
    drawn = canvas(page, "paint", mask.shape)[:, :, :3]
    np.testing.assert_array_equal((drawn == OVERLAY_COLOR).all(axis=2), contour)
    tick = float(page.evaluate("getComputedStyle(document.querySelector('.legend .tick')).getPropertyValue('--at')"))
    assert tick == pytest.approx(threshold_of(page), abs=1e-3)


def test_the_manual_segmentation_is_a_view_and_legends_count(open_page, segmenter, photographs, reference):
    page = open_page()
    upload(page, photographs[0])
    actual_size(page)
    assert not page.get_by_role("button", name="Manual", exact=True).is_visible()
    page.set_input_files(".viewer .pick-reference", reference)
    page.wait_for_selector(".reference[data-reference=shown]")
    settle(page)
    comparison = compare(segmenter(photographs[0]), reference)
    result = comparison.segmentation
    truth = comparison.reference & result.fov
    counts = [(result.mask & truth).sum(), (~result.mask & truth).sum(), (result.mask & ~truth).sum()]
    assert page.locator(".legend:not(.calibre-legend) b").all_inner_texts() == [f"{count:,} px" for count in counts]
    click(page, "Manual")
    drawn = canvas(page, "paint", truth.shape)
    np.testing.assert_array_equal(drawn[:, :, 3] > 0, truth)
    assert (drawn[truth] == 255).all()
    click(page, "Remove")
    assert page.get_attribute(".viewer", "data-view") == "overlay"
