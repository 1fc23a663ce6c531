"""Help with the threshold, shortcuts and uploads of the page in a real browser."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from support.browser import SHOWN, actual_size, press, settle, threshold_of, upload
from support.dicom import dicom

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_threshold_that_is_kept_holds_for_the_next_photograph_and_the_batch(open_page, photographs):
    page = open_page()
    upload(page, photographs[0])
    press(page, "#viewer-threshold", *["ArrowLeft"] * 10)
    chosen = threshold_of(page)
    assert chosen < 0.6
    page.get_by_role("button", name="Keep this threshold").click()
    page.get_by_role("button", name="New photograph").click()
    upload(page, photographs[1])
    assert threshold_of(page) == chosen
    page.get_by_role("tab", name="Batch").click()
    page.wait_for_function(
        "(chosen) => Number(document.querySelector('#batch input[type=number]')?.value) === chosen", arg=chosen
    )
    assert "Recommended: 0.6137." in page.locator("#batch").inner_text()
    page.fill("#batch input[type=number]", "0.3")
    page.keyboard.press("Tab")
    page.get_by_role("tab", name="Segment").click()
    page.get_by_role("tab", name="Batch").click()
    page.wait_for_timeout(500)
    assert page.input_value("#batch input[type=number]") == "0.3"  # what was chosen there stays
    page.get_by_role("tab", name="Segment").click()
    page.get_by_role("button", name="Keep this threshold").click()
    page.get_by_role("button", name="New photograph").click()
    upload(page, photographs[0])
    assert threshold_of(page) == 0.6137


def test_the_curve_and_the_pointer_tell_what_a_threshold_would_do(open_page, segmenter, photographs):
    page = open_page()
    upload(page, photographs[0])
    actual_size(page)
    result = segmenter(photographs[0])
    points = page.get_attribute(".density polyline", "points").split()
    x, y = np.array([point.split(",") for point in points], float).T
    shares = np.array([result.at(k / 200).mask.sum() for k in range(201)]) / result.fov.sum()
    top = 2.5 * result.mask.sum() / result.fov.sum()
    expected = 1 - np.minimum(1, shares / top)
    stops = sorted([*np.arange(201) / 200, 0.6137])
    np.testing.assert_allclose(y[[k for k, stop in enumerate(stops) if stop != 0.6137]], expected, atol=1e-6)
    assert len(x) == 202

    box = page.locator(".viewer .sheet").bounding_box()
    height, width = result.mask.shape
    left, above = box["x"] + (box["width"] - width) / 2, box["y"] + (box["height"] - height) / 2
    inside = np.zeros_like(result.fov)
    inside[100:-100, 100:-100] = True
    for where in (result.mask & inside, result.fov & ~result.mask & inside):
        row, column = np.argwhere(where)[50]
        page.mouse.move(left + column + 0.5, above + row + 0.5)
        told = float(page.inner_text(".viewer .under").removeprefix("probability "))
        near = result.probability[row - 1 : row + 2, column - 1 : column + 2]  # the picture may lie half a pixel off
        assert near.min() - 0.006 <= told <= near.max() + 1e-3
    page.mouse.move(left + 2, above + 2)
    assert page.inner_text(".viewer .under") == "outside the field of view"


def test_letters_change_views_and_threshold_and_can_be_switched_off(open_page, photographs):
    page = open_page()
    upload(page, photographs[0])
    actual_size(page)
    for key, view in (("m", "mask"), ("p", "probability"), ("b", "compare"), ("a", "compare"), ("o", "overlay")):
        page.keyboard.press(key)
        assert page.get_attribute(".viewer", "data-view") == view  # this model tells no arteries
    before = threshold_of(page)
    page.keyboard.press("[")
    settle(page)
    assert threshold_of(page) < before
    assert page.is_visible(".viewer .paint")
    page.keyboard.down("h")
    assert not page.is_visible(".viewer .paint")
    page.keyboard.up("h")
    assert page.is_visible(".viewer .paint")

    page.keyboard.press("?")
    page.wait_for_selector(".shortcuts[open]")
    page.keyboard.press("m")
    page.get_by_label("Use the letters as shortcuts").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("m")
    assert page.get_attribute(".viewer", "data-view") == "overlay"
    page.fill(".viewer .exact", "0.5")  # and in a box for numbers nothing is a shortcut
    assert threshold_of(page) == 0.5


def test_an_upload_that_is_cancelled_is_not_sent_on(open_page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.bmp")
    page = open_page()
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.set_input_files(".viewer .pick", tmp_path / "noise.bmp")
    with page.expect_event("requestfailed", lambda request: "/upload" in request.url):
        page.locator(".viewer .busy").get_by_role("button", name="Cancel").click()
    assert page.locator(".viewer > .error").is_hidden()


def test_a_typed_scale_stays_for_photographs_of_its_size_and_that_of_a_file_does_not(open_page, photographs, tmp_path):
    pixels = np.asarray(Image.open(photographs[0]).convert("RGB"))
    (tmp_path / "scaled.dcm").write_bytes(dicom(pixels, PixelSpacing=[0.006, 0.006]))
    for name in ("one.png", "two.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    page = open_page()

    def scale_of(name):
        page.set_input_files(".viewer .pick", tmp_path / name)
        page.wait_for_function("(name) => document.querySelector('.viewer .name').textContent === name", arg=name)
        return page.input_value(".viewer .um")

    assert scale_of("scaled.dcm") == "6"
    assert scale_of("one.png") == ""  # of the same size, but of another camera for all we know
    page.fill(".viewer .um", "7")
    assert scale_of("two.png") == "7"
    assert scale_of("scaled.dcm") == "6"


def test_an_upload_tells_how_much_is_sent(open_page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.bmp")
    page = open_page()
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 700_000}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.evaluate(
        """() => {
          window.told = [];
          const box = document.querySelector(".sent");
          new MutationObserver(() => told.push(box.textContent)).observe(box, { childList: true });
        }"""
    )
    page.set_input_files(".viewer .pick", tmp_path / "noise.bmp")
    page.wait_for_selector(SHOWN)
    shares = [int(text[:-2]) for text in page.evaluate("told") if text.endswith(" %")]
    assert shares == sorted(shares)
    assert any(0 < share < 100 for share in shares)
