"""Helpers for tests of the page in a browser."""

from __future__ import annotations

import base64

import numpy as np
from PIL import Image

from resegnet.results.render import OVERLAY_OPACITY
from support import PATIENCE_S
from support.files import pixels as pixels
from support.synthetic import draw_fundus

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
PATIENCE_MS = 250 * PATIENCE_S

MEASURED = ".viewer .measures[aria-busy=false]"
SHOWN = ".viewer[data-state=shown]:not([data-busy])"


def upload(page, path):
    page.set_input_files(".viewer .pick", path)
    page.wait_for_selector(SHOWN)
    settle(page)


def settle(page):
    """Wait until the changes are drawn."""
    page.evaluate(
        """(patience) => new Promise((done, fail) => {
          setTimeout(() => fail(new Error(`no frame was drawn within ${patience} ms`)), patience);
          requestAnimationFrame(() => requestAnimationFrame(done));
        })""",
        PATIENCE_MS,
    )


def actual_size(page):
    """One pixel of the photograph on one of the screen."""
    page.click("[data-zoom=one]")
    settle(page)


def canvas(page, name, shape, pane=".viewer"):
    """(H, W, 4) pixels of a canvas where the photograph lies; it is shown at 1:1 and whole."""
    image = whole_canvas(page, name, pane)
    height, width = image.shape[:2]
    top, left = (height - shape[0] + 1) // 2, (width - shape[1] + 1) // 2
    assert top >= 0 and left >= 0
    inside = image[top : top + shape[0], left : left + shape[1]]
    assert image.any(axis=2).sum() == inside.any(axis=2).sum()  # nothing beside the photograph
    return inside


def whole_canvas(page, name, pane=".viewer"):
    """(H, W, 4) pixels of a canvas."""
    width, height, pixels = page.evaluate(
        """([name, pane]) => {
          const canvas = document.querySelector(`${pane} canvas.${name}`);
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let text = "";
          for (let k = 0; k < data.length; k += 32768) text += String.fromCharCode(...data.subarray(k, k + 32768));
          return [canvas.width, canvas.height, btoa(text)];
        }""",
        [name, pane],
    )
    return np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(height, width, 4)


def assert_overlay_is(page, result):
    """The coloured pixels are those of the mask, in the chosen colour and opacity."""
    drawn = canvas(page, "paint", result.mask.shape)
    np.testing.assert_array_equal(drawn[:, :, 3] > 0, result.mask)
    assert (drawn[result.mask][:, 3] == round(255 * OVERLAY_OPACITY)).all()


def threshold_of(page):
    return float(page.input_value(".viewer .exact"))


def press(page, selector, *keys):
    page.focus(selector)
    for key in keys:
        page.keyboard.press(key)
    settle(page)


def save(page, button):
    """Click a download button; return the file's name and content."""
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Download {button}").click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def transfer(page, path, type_, target):
    """Drop a file on an element, or paste it, as a browser does."""
    page.evaluate(
        """([bytes, name, type, target]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name));
          const options = { bubbles: true, cancelable: true, dataTransfer: transfer, clipboardData: transfer };
          const event = type === "paste" ? new ClipboardEvent(type, options) : new DragEvent(type, options);
          document.querySelector(target).dispatchEvent(event);
        }""",
        [list(path.read_bytes()), path.name, type_, target],
    )


def assert_accessible(page):
    """axe-core finds nothing serious, nor worse."""
    from axe_playwright_python.sync_playwright import Axe

    # Half-way through a fade, a button that is being switched on has neither its old nor its new contrast.
    page.add_style_tag(content="*, *::before, *::after { transition: none !important; animation: none !important; }")
    page.wait_for_timeout(100)

    found = Axe().run(page).response["violations"]
    serious = [
        (rule["id"], node["html"][:200])
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
    assert serious == []


def new_photograph(folder, seed):
    """Draw a photograph that no test opened before."""
    Image.fromarray(draw_fundus(seed, (400, 480)).image).save(folder / f"new {seed}.png")
    return folder / f"new {seed}.png"


def begin(page, photograph):
    page.set_input_files(".viewer .pick", photograph)
    page.wait_for_function("() => document.querySelector('.doing').textContent === 'Finding the vessels'")


def start_batch(page, paths):
    page.get_by_role("tab", name="Batch").click()
    page.set_input_files("#batch input[type=file]", paths)
    page.wait_for_function("(count) => document.querySelectorAll('#batch .file').length === count", arg=len(paths))
    page.get_by_role("button", name="Find the vessels").click()
