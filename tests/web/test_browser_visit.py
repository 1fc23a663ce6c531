"""Photographs of a visit, and the Batch tab beside the viewer, in a real browser."""

from __future__ import annotations

import pytest
from PIL import Image
from support.browser import SHOWN, press, settle, threshold_of, transfer, upload
from support.synthetic import draw_fundus

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """Three photographs with different names and shares of vessels."""
    folder = tmp_path_factory.mktemp("eyes")
    for seed, name in enumerate(("left", "right", "third"), 1):
        Image.fromarray(draw_fundus(seed, (300 + 10 * seed, 360)).image).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in ("left", "right", "third")]


def name_of(page):
    return page.inner_text(".viewer .name")


def test_the_strip_goes_back_and_a_reload_keeps_the_photograph(open_page, segmenter, eyes):
    page = open_page()
    upload(page, eyes[0])
    assert not page.is_visible(".strip")
    upload(page, eyes[1])
    page.get_by_role("button", name="Again: left.png").click()
    page.wait_for_function("() => document.querySelector('.viewer .name').textContent === 'left.png'")
    share = f"{segmenter(eyes[0]).measure()['vessel_density']:.1%}"
    assert page.inner_text(".share strong") == share

    page.reload()
    page.wait_for_selector(SHOWN)
    assert name_of(page) == "left.png"
    assert page.inner_text(".share strong") == share
    page.get_by_role("button", name="Again: right.png").click()
    page.wait_for_function("() => document.querySelector('.viewer .name').textContent === 'right.png'")

    page.get_by_role("button", name="New photograph").click()  # what was closed stays closed
    page.reload()
    page.get_by_role("button", name="Again: right.png").wait_for()
    page.wait_for_selector(".viewer[data-state=empty]:not([data-busy])")
    page.get_by_role("button", name="Again: left.png").click()
    page.wait_for_selector(SHOWN)
    assert name_of(page) == "left.png"

    other = open_page()  # another visitor's tab finds nothing
    other.wait_for_timeout(500)
    assert other.get_attribute(".viewer", "data-state") == "empty"


def test_a_batch_sorts_opens_its_rows_and_takes_files_anywhere(open_page, segmenter, eyes):
    page = open_page()
    page.get_by_role("tab", name="Batch").click()
    page.wait_for_selector("#batch input[type=file]", state="attached")
    for number, path in enumerate(eyes, 1):
        transfer(page, path, "paste" if number == 2 else "drop", "#batch .lines")
        page.wait_for_function("(count) => document.querySelectorAll('#batch .file').length === count", arg=number)
    page.fill("#batch input[type=number]", "0.5533")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Find the vessels").click()
    page.wait_for_function("() => document.querySelector('#batch [role=status]')?.textContent.startsWith('3 of 3')")

    def names():
        settle(page)
        return page.locator("#batch .lines tbody .name").all_inner_texts()

    results = {path.name: segmenter(path).at(0.5533).measure() for path in eyes}
    for title, key in (("Vessel density", "vessel_density"), ("Length, px", "skeleton_length_px")):
        expected = sorted(results, key=lambda name: -results[name][key])
        page.get_by_role("button", name=title).click()
        assert names() == expected
        page.get_by_role("button", name=title).click()
        assert names() == expected[::-1]
    page.get_by_role("button", name="Photograph", exact=True).click()
    assert names() == ["left.png", "right.png", "third.png"]
    assert page.locator("#batch th[aria-sort=ascending]").inner_text().startswith("Photograph")

    press(page, "#batch [data-row='1']", "Enter")
    page.wait_for_selector(SHOWN)
    assert name_of(page) == "right.png"
    assert threshold_of(page) == 0.555  # the nearest stop
    (right,) = (path for path in eyes if path.name == "right.png")
    assert page.inner_text(".share strong") == f"{segmenter(right).at(0.555).measure()['vessel_density']:.1%}"
    page.get_by_role("tab", name="Batch").click()
    assert page.input_value("#batch input[type=number]") == "0.5533"
    page.get_by_role("tab", name="Segment").click()
