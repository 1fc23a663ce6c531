"""The page in a real browser: Debian's Chromium, headless, driven by Playwright."""

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright
from scipy import ndimage

from resegnet import Config, Segmenter
from resegnet.learning.synthetic import draw_fundus

pytestmark = pytest.mark.browser

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 30_000  # on a busy machine; nothing waits for it when all goes well


@pytest.fixture(scope="module")
def calls():
    """One entry for each forward pass."""
    return []


@pytest.fixture(scope="module")
def segmenter(calls):
    def dark_on_green(rgb):
        calls.append(rgb.shape)
        green = rgb[:, 1]
        return np.clip(0.5 + 8 * (ndimage.uniform_filter(green, (0, 15, 15)) - green), 0, 1).astype(np.float32)

    # Between two steps of the slider, which must not round the fitted threshold.
    return Segmenter(dark_on_green, Config(input_size=256, threshold=0.6137), "a/model@v1")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two drawn photographs under one name."""
    paths = []
    for seed in (1, 2):
        paths.append(tmp_path_factory.mktemp("photographs") / "my eye.png")
        Image.fromarray(draw_fundus(seed, (584, 700)).image).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def chromium():
    if shutil.which(CHROMIUM) is None and "CI" not in os.environ:  # CI installs it, and fails without
        pytest.skip(f"no {CHROMIUM}; apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, url):
    """A function that opens the page as a new visitor; at the end, none had an error or asked the outside."""
    contexts, errors, outside = [], [], []

    def note_request(request):
        if not request.url.startswith((url, "data:", "blob:" + url)):
            outside.append(request.url)

    def open_(**options):
        contexts.append(chromium.new_context(accept_downloads=True, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", note_request)
        page.goto(url)
        page.wait_for_selector("#photograph input[type=file]", state="attached")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []
    assert outside == []


def upload(page, path):
    page.set_input_files("#photograph input[type=file]", path)
    page.wait_for_selector("#overlay img")
    page.wait_for_selector("#threshold input[type=range]")


def threshold_of(page):
    return float(page.input_value("#threshold input[type=number]"))


def press(page, *keys):
    """Move the slider by the keyboard and wait for the new picture."""
    for key in keys:
        before = page.get_attribute("#overlay img", "src")
        page.focus("#threshold input[type=range]")
        page.keyboard.press(key)
        page.wait_for_function("old => document.querySelector('#overlay img').src !== old", arg=before)


def shown_picture(page):
    """The picture on the page as the browser got it."""
    response = page.request.get(page.get_attribute("#overlay img", "src"))
    return np.array(Image.open(io.BytesIO(response.body())))


def save(page, button):
    """Click a button that saves; gives the file's name and its pixels."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    with Image.open(download.value.path()) as image:
        return download.value.suggested_filename, np.array(image)


def assert_shows(page, result):
    """The page shows the overlay of `result` at the photograph's own size, but for what JPEG takes away."""
    shown = shown_picture(page)
    assert shown.shape == result.image.shape
    # A fundus has more red than blue, the colour of the overlay more blue than red.
    inside = ndimage.binary_erosion(result.fov, iterations=5)
    coloured = (shown[:, :, 2] > shown[:, :, 0]) & inside
    expected = result.mask & inside
    assert np.count_nonzero(coloured != expected) < 0.02 * np.count_nonzero(expected)


def test_from_a_photograph_to_its_files(open_page, segmenter, photographs, calls):
    page = open_page()
    truth = segmenter(photographs[0])
    calls.clear()
    upload(page, photographs[0])

    assert threshold_of(page) == 0.6137
    assert_shows(page, truth)
    assert f"{truth.measure()['vessel_density']:.1%}" in page.inner_text("#numbers")
    name, mask = save(page, "Save mask")
    assert name == "my eye_mask_0.6137.png"
    np.testing.assert_array_equal(mask, truth.mask.astype(np.uint8) * 255)

    press(page, "ArrowLeft", "ArrowLeft", "ArrowLeft")
    moved = truth.at(threshold_of(page))
    assert moved.threshold < 0.6
    assert moved.mask.sum() > 1.05 * truth.mask.sum()  # more than `assert_shows` lets pass
    assert_shows(page, moved)
    assert f"{moved.measure()['vessel_density']:.1%}" in page.inner_text("#numbers")
    name, mask = save(page, "Save mask")
    assert name == f"my eye_mask_{moved.threshold:.4g}.png"
    np.testing.assert_array_equal(mask, moved.mask.astype(np.uint8) * 255)
    np.testing.assert_array_equal(save(page, "Save overlay")[1], moved.overlay())
    before = page.get_attribute("#overlay img", "src")
    name, probability = save(page, "Save probability")
    assert name == "my eye_probability.png"
    assert np.abs(probability / 65535 - truth.probability).max() < 1e-5

    page.fill("#threshold input[type=number]", "")  # on the way to another number
    page.wait_for_function("old => document.querySelector('#overlay img').src !== old", arg=before)
    assert_shows(page, truth)

    page.click("#threshold button")  # reset
    page.wait_for_function("document.querySelector('#threshold input[type=number]').value === '0.6137'")
    np.testing.assert_array_equal(save(page, "Save mask")[1], truth.mask.astype(np.uint8) * 255)
    assert len(calls) == 1


def test_a_text_file_shows_its_sentence_and_the_next_photograph_works(open_page, photographs, tmp_path):
    page = open_page()
    upload(page, photographs[0])
    (tmp_path / "notes.txt").write_text("no picture")
    page.get_by_role("button", name="Clear").first.click()
    page.wait_for_selector("#overlay img", state="detached")
    page.set_input_files("#photograph input[type=file]", tmp_path / "notes.txt")
    message = page.wait_for_selector("#message [role=alert]").inner_text()
    assert message.startswith("'notes.txt' cannot be identified; expected a JPEG, PNG, TIFF")
    assert not page.is_visible("#threshold")
    page.click("#examples button >> nth=0")
    page.wait_for_selector("#overlay img")
    page.wait_for_selector("#message [role=alert]", state="detached")


def test_two_visitors_do_not_mix(open_page, segmenter, photographs):
    """Files of one name, opened by one visitor after the other; then the first goes on."""
    first, second = open_page(), open_page()
    upload(first, photographs[0])
    upload(second, photographs[1])
    press(first, "ArrowRight")
    result = segmenter(photographs[0]).at(threshold_of(first))
    np.testing.assert_array_equal(save(first, "Save mask")[1] > 0, result.mask)
    np.testing.assert_array_equal(save(second, "Save mask")[1] > 0, segmenter(photographs[1]).mask)
    assert threshold_of(second) == 0.6137


def test_phone_width_does_not_scroll_sideways(open_page, photographs):
    page = open_page(viewport={"width": 390, "height": 844})
    upload(page, photographs[0])
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#overlay img").bounding_box()["width"] > 300
