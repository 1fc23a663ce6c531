"""Fixtures of the tests in a browser: Debian's Chromium, headless, driven by Playwright."""

from __future__ import annotations

import os
import shutil

import pytest
from PIL import Image
from support.browser import CHROMIUM, FLAGS, PATIENCE_MS
from support.synthetic import draw_fundus


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two synthetic photographs with the same name."""
    paths = []
    for seed in (1, 2):
        paths.append(tmp_path_factory.mktemp("photographs") / "my eye.png")
        Image.fromarray(draw_fundus(seed, (400, 480)).image).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The exact vessels of the first photograph."""
    path = tmp_path_factory.mktemp("reference") / "by hand.png"
    Image.fromarray(draw_fundus(1, (400, 480)).vessels).save(path)
    return path


@pytest.fixture(scope="module")
def chromium():
    if shutil.which(CHROMIUM) is None and "CI" not in os.environ:  # CI installs it, and fails without
        pytest.skip(f"no {CHROMIUM}; apt-get install chromium")
    from playwright.sync_api import sync_playwright  # other tests of this folder need no browser

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, url):
    """A function that opens the page as a new visitor. No page may log an error or call another host."""
    contexts, errors, outside = [], [], []

    def note_request(request):
        if not request.url.startswith((url, "data:", "blob:" + url)):
            outside.append(request.url)

    def note_error(text):
        # Message of gradio about its own stream when a page is loaded again.
        if not text.startswith("AbortError: signal is aborted") and "Connection errored out" not in text:
            errors.append(text)

    def open_(**options):
        contexts.append(
            chromium.new_context(**{"accept_downloads": True, "viewport": {"width": 1280, "height": 900}} | options)
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: note_error(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: note_error(str(error)))
        page.on("request", note_request)
        page.goto(url)
        page.wait_for_selector(".viewer .drop button")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []
    assert outside == []


@pytest.fixture
def slow(network):
    """Hold the network until `slow.set()`."""
    network.go_on.clear()
    yield network.go_on
    network.go_on.set()
