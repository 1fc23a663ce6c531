"""Two photographs side by side in a real browser."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from support.browser import (
    MEASURED,
    SHOWN,
    actual_size,
    assert_accessible,
    assert_overlay_is,
    canvas,
    press,
    settle,
    threshold_of,
    upload,
    whole_canvas,
)
from support.synthetic import draw_fundus

pytestmark = [pytest.mark.browser, pytest.mark.slow]

OPENED = ".beside .caption span:not(:empty)"


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """Two photographs, and the first one enlarged twice."""
    folder = tmp_path_factory.mktemp("eyes")
    for seed, name in enumerate(("left", "right"), 1):
        Image.fromarray(draw_fundus(seed, (300, 360)).image).save(folder / f"{name}.png")
    with Image.open(folder / "left.png") as image:
        image.resize((720, 600), Image.Resampling.BICUBIC).save(folder / "large.png")
    return [folder / f"{name}.png" for name in ("left", "right", "large")]


def open_two(page, first, second):
    """Open two photographs; the second stays on the page."""
    for path in (first, second):
        upload(page, path)
        page.wait_for_function("(name) => document.querySelector('.viewer .name').textContent === name", arg=path.name)
    settle(page)


def table(page):
    rows = page.locator(".pair-numbers tr").all_inner_texts()
    return [[cell.strip() for cell in row.split("\t")] for row in rows]


def shown_row(title, results, text):
    return [title, *(text(result.measure()) for result in results)]


def test_the_second_pane_shows_the_other_photograph_and_both_are_measured(open_page, segmenter, eyes):
    page = open_page(viewport={"width": 1440, "height": 1000})
    upload(page, eyes[0])
    toggle = page.locator(".bar").get_by_role("button", name="Side by side")
    assert not toggle.is_visible()
    open_two(page, *eyes[:2])
    toggle.click()
    page.wait_for_selector(OPENED)
    actual_size(page)
    left, right = segmenter(eyes[0]), segmenter(eyes[1])
    assert_overlay_is(page, right)
    drawn = canvas(page, "paint", left.mask.shape, ".beside")
    np.testing.assert_array_equal(drawn[:, :, 3] > 0, left.mask)
    assert page.inner_text(".beside .caption p").split("\n")[0] == "left.png"

    press(page, "#viewer-threshold", *["ArrowLeft"] * 12)  # of the open photograph only
    moved = right.at(threshold_of(page))
    assert_overlay_is(page, moved)
    np.testing.assert_array_equal(canvas(page, "paint", left.mask.shape, ".beside"), drawn)
    assert page.inner_text(OPENED).startswith("threshold 0.6137, ")
    page.wait_for_selector(MEASURED)
    page.wait_for_function("() => !document.querySelector('.pair-numbers').textContent.includes('…')")
    for results in ((moved, left), (moved, left.at(moved.threshold))):
        rows = table(page)
        assert rows[0] == ["Measure", "right.png", "left.png"]
        assert rows[1] == ["Threshold", *(f"{result.threshold:.4g}" for result in results)]
        assert shown_row("Vessel density", results, lambda numbers: f"{numbers['vessel_density']:.1%}") in rows
        assert shown_row("Length", results, lambda numbers: f"{numbers['skeleton_length_px']:,.0f} px") in rows
        assert shown_row("Tortuosity", results, lambda numbers: f"{numbers['tortuosity']:.3f}") in rows
        if results[1] is left:
            page.get_by_role("button", name=f"Use {moved.threshold:.4g}").click()
            page.wait_for_function("() => !document.querySelector('.pair-numbers').textContent.includes('…')")
    np.testing.assert_array_equal(canvas(page, "paint", left.mask.shape, ".beside")[:, :, 3] > 0, results[1].mask)

    page.get_by_role("button", name="Mask", exact=True).click()
    settle(page)
    mask = canvas(page, "paint", left.mask.shape, ".beside")
    assert (mask[results[1].mask] == 255).all()
    page.keyboard.press("Escape")
    page.wait_for_selector(".beside", state="detached")
    assert not page.is_visible(".pair-numbers")
    actual_size(page)
    np.testing.assert_array_equal(canvas(page, "paint", moved.mask.shape)[:, :, 3] > 0, moved.mask)


def shown_parts(page):
    """(2, H, W, 3) pixels of both panes, and how much they differ; the photographs are alike but for their size."""
    panes = np.stack([whole_canvas(page, "photo", pane)[:, :, :3].astype(int) for pane in (".pane", ".beside")])
    return panes, np.abs(panes[0] - panes[1]).mean()


def test_zoom_and_pan_in_one_pane_move_both(open_page, eyes):
    page = open_page()
    open_two(page, eyes[0], eyes[2])
    page.keyboard.press("s")
    page.wait_for_selector(OPENED)
    settle(page)
    start, _ = shown_parts(page)
    before = start
    box = page.locator(".beside-sheet").bounding_box()
    x, y = box["x"] + 0.7 * box["width"], box["y"] + 0.4 * box["height"]

    def wheel_over_the_second():
        page.mouse.move(x, y)
        page.keyboard.down("Control")
        page.mouse.wheel(0, -100)
        page.keyboard.up("Control")

    def drag_the_second():
        page.mouse.down()
        page.mouse.move(x - 60, y + 40, steps=4)
        page.mouse.up()

    for act in (
        lambda: page.get_by_role("button", name="Zoom in").click(),
        wheel_over_the_second,
        drag_the_second,
        lambda: press(page, ".beside-sheet", "+", "ArrowRight"),
        lambda: press(page, ".viewer .sheet", "ArrowUp", "ArrowUp"),
    ):
        act()
        page.wait_for_timeout(100)
        settle(page)
        panes, difference = shown_parts(page)
        assert difference < 0.5 * np.abs(panes - before).mean(axis=(1, 2, 3)).min()  # both moved, to the same place
        before = panes
    page.get_by_role("button", name="Fit").click()
    settle(page)
    np.testing.assert_array_equal(shown_parts(page)[0], start)


def test_keys_alone_open_reach_and_close_the_second_pane(open_page, eyes):
    page = open_page()
    open_two(page, *eyes[:2])
    focused = "((node) => node.className || node.textContent.trim())(document.activeElement)"
    page.keyboard.press("s")
    page.wait_for_selector(OPENED)
    page.keyboard.press("?")
    page.wait_for_selector(".shortcuts[open]")
    page.keyboard.press("Escape")  # of the list only
    page.wait_for_selector(".shortcuts:not([open])", state="attached")
    assert page.is_visible(".beside")
    page.focus(".viewer .sheet")
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Close"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "beside-sheet"
    label = page.get_attribute(".beside-sheet", "aria-label")
    assert label.startswith("left.png, its vessels coloured; ") and label.endswith("at threshold 0.6137")
    press(page, ".beside [data-do=beside]", "Enter")
    page.wait_for_selector(".beside", state="detached")
    assert page.evaluate("document.activeElement.ariaLabel") == "Side by side"

    page.get_by_role("button", name="Side by side: left.png").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(OPENED)
    assert 0 <= page.locator(".viewer .stage").bounding_box()["y"] < 300  # the strip is below it
    assert page.evaluate("document.activeElement.ariaLabel") == "Side by side"
    page.get_by_role("button", name="Again: left.png").click()  # it cannot be beside itself
    page.wait_for_function("() => document.querySelector('.viewer .name').textContent === 'left.png'")
    page.wait_for_selector(".beside", state="detached")


def test_a_reload_and_back_restore_both_panes(open_page, segmenter, eyes):
    page = open_page()
    open_two(page, *eyes[:2])
    page.keyboard.press("s")
    page.wait_for_selector(OPENED)
    mask = segmenter(eyes[0]).mask
    address = page.url
    for leave_and_return in (page.reload, lambda: (page.goto("about:blank"), page.go_back())):
        leave_and_return()
        page.wait_for_selector(OPENED)
        assert page.url == address
        assert page.locator(".caption b").all_inner_texts() == ["right.png", "left.png"]
        actual_size(page)
        np.testing.assert_array_equal(canvas(page, "paint", mask.shape, ".beside")[:, :, 3] > 0, mask)

    page.keyboard.press("Escape")
    page.reload()
    page.wait_for_selector(SHOWN)
    settle(page)
    assert not page.is_visible(".beside")  # what was closed stays closed


def test_a_photograph_that_was_deleted_is_told_in_its_pane(open_page, eyes):
    page = open_page()
    open_two(page, *eyes[:2])
    page.evaluate(
        """() => {
          const { viewer } = document.querySelector("#viewer .viewer"), { besideSettings } = viewer;
          viewer.besideSettings = () => ({ ...besideSettings(), photo: "deleted.png" });
        }"""
    )
    page.keyboard.press("s")
    page.wait_for_function("() => document.querySelector('.waiting')?.textContent.includes('no longer on the server')")
    page.locator(".beside").get_by_role("button", name="Close").click()
    assert page.is_visible(".share")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_two_panes_are_accessible_and_fit_the_screen(open_page, eyes, width, scheme):
    phone = {"is_mobile": True, "has_touch": True} if width == 390 else {}
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 844}, **phone)
    open_two(page, *eyes[:2])
    page.get_by_role("button", name="Side by side: left.png").click()
    page.wait_for_selector(OPENED)
    press(page, "#viewer-threshold", "ArrowLeft")
    for view in ("Before/after", "Probability"):
        page.get_by_role("button", name=view, exact=True).click()
        settle(page)
        assert_accessible(page)
    first, second = (page.locator(sheet).bounding_box() for sheet in (".viewer .sheet", ".beside-sheet"))
    assert (first["width"], first["height"]) == (second["width"], second["height"])
    assert first["width"] > (340 if width == 390 else 400)
    assert (second["y"] > first["y"] + first["height"]) == (width == 390)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut_off = """() => [...document.querySelectorAll(".pane .caption")].flatMap((caption) => {
      const [text, ...lines] = caption.querySelectorAll("p, b, span");
      const low = text.scrollHeight > caption.clientHeight;
      return lines.filter((line) => low || line.scrollWidth > line.clientWidth).map((line) => line.textContent);
    })"""
    assert page.locator(".caption").get_by_role("button", name="Use ").is_visible()
    assert page.evaluate(cut_off) == []
    if width == 390:
        heights = [
            button.bounding_box()["height"]
            for button in page.locator(".caption button, .strip button, .zoom button").all()
            if button.is_visible()
        ]
        assert len(heights) > 8 and min(heights) >= 44
