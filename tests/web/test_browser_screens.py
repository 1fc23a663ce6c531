"""The page on screens of every size, on paper and with few colours, and its accessibility, in a real browser."""

import re
import zlib
from contextlib import suppress

import numpy as np
import pytest
from support.browser import SHOWN, assert_accessible, begin, new_photograph, pixels, settle, start_batch, upload

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("width", [360, 390, 768])
def test_narrow_screens_do_not_scroll_sideways(open_page, photographs, reference, width):
    page = open_page(viewport={"width": width, "height": 844}, device_scale_factor=2, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.is_visible("[data-do=take]")
    upload(page, photographs[0])
    page.set_input_files(".viewer .pick-reference", reference)
    page.wait_for_selector(".reference[data-reference=shown]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".viewer .stage").bounding_box()["width"] > 0.85 * width
    page.get_by_role("tab", name="About").click()
    page.wait_for_selector("#about h3")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.fixture
def phone(open_page):
    """A function that opens the page on a phone of this size."""
    return lambda width, height: open_page(
        viewport={"width": width, "height": height}, device_scale_factor=2, is_mobile=True, has_touch=True
    )


def test_fingers_find_the_controls_and_an_example_its_picture(phone):
    page = phone(390, 600)
    page.locator(".examples button").first.scroll_into_view_if_needed()
    page.get_by_role("button", name="Example: retina cc0").click()
    page.wait_for_selector(SHOWN)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.get_by_role("button", name="Example: synthetic pink").click()
    page.wait_for_function("() => document.querySelector('.viewer .name').textContent === 'synthetic_pink.jpg'")
    assert 0 <= page.locator(".viewer .stage").bounding_box()["y"] < 300
    heights = page.evaluate(
        """() => [...document.querySelectorAll(".viewer button, .viewer input:not([type=file])")]
          .filter((node) => node.checkVisibility())
          .map((node) => [node.outerHTML, node.getBoundingClientRect().height])"""
    )
    assert len(heights) > 20
    assert [html for html, height in heights if height < 44] == []


@pytest.mark.parametrize(("width", "height"), [(390, 844), (844, 390)])
def test_on_a_phone_the_picture_is_large_and_full_screen_has_the_threshold(phone, photographs, width, height):
    page = phone(width, height)
    upload(page, photographs[0])
    box = page.locator(".viewer .stage").bounding_box()
    assert max(box["width"] / width, box["height"] / height) > 0.9
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_selector(".viewer[data-full]")
    page.wait_for_timeout(300)
    slider = page.locator("#viewer-threshold").bounding_box()
    assert slider["y"] + slider["height"] <= page.evaluate("innerHeight")
    assert page.locator(".viewer .stage").bounding_box()["height"] > 0.5 * height


def test_printed_the_photograph_keeps_its_shape_and_the_controls_are_left_out(open_page, photographs):
    page = open_page()
    upload(page, photographs[0])
    content = page.pdf(format="A4", print_background=True)
    streams = re.findall(rb"stream\r?\n(.*?)endstream", content, re.DOTALL)
    pages = []
    for stream in streams:
        with suppress(zlib.error):  # fonts and pictures have other encodings
            pages.append(zlib.decompress(stream))
    drawn = [
        (float(match[1]), -float(match[2]))
        for page_ in pages
        for match in re.finditer(rb"([\d.]+) 0 0 (-[\d.]+) [\d.]+ [\d.]+ cm\n[^\n]*\n/G\d+ gs\n/X\d+ Do", page_)
    ]
    sizes = re.findall(rb"/Subtype /Image\n/Width (\d+)\n/Height (\d+)", content)
    assert len(drawn) == 3  # photograph, vessels and layers
    wide, high = map(int, sizes[0])
    for width, height in drawn:
        assert width / height == pytest.approx(wide / high, rel=0.01)
    page.emulate_media(media="print")
    for hidden in (".viewer .bar", ".viewer .files", ".viewer .examples", "[role=tablist]"):
        assert not page.is_visible(hidden)
    assert page.locator("footer").count() == 0  # gradio's
    for shown in (".viewer .name", ".viewer .share", ".viewer .exact", "#foot"):
        assert page.is_visible(shown)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_cancel_can_be_read_under_the_pointer(open_page, slow, tmp_path, scheme):
    page = open_page(color_scheme=scheme)
    begin(page, new_photograph(tmp_path, 14 if scheme == "light" else 15))
    cancel = page.locator(".viewer .busy").get_by_role("button", name="Cancel")
    cancel.hover()
    colors = cancel.evaluate("(node) => [getComputedStyle(node).color, getComputedStyle(node).backgroundColor]")
    front, back = (np.array([int(value) for value in re.findall(r"\d+", color)[:3]]) / 255 for color in colors)
    light, dark = (float(((c + 0.055) / 1.055) ** 2.4 @ [0.2126, 0.7152, 0.0722]) for c in (front, back))
    assert (light + 0.05) / (dark + 0.05) > 4.5
    slow.set()
    page.wait_for_selector(SHOWN)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(open_page, photographs, reference, scheme):
    """Contrast of 4.5 or more (WCAG 2.1, AA) of every text on the page."""
    page = open_page(color_scheme=scheme)
    upload(page, photographs[0])
    page.set_input_files(".viewer .pick-reference", reference)
    page.wait_for_selector(".reference[data-reference=shown]")
    texts = page.evaluate(
        """() => {
          const rgba = (text) => {  // "rgb(1, 2, 3)", "rgba(1, 2, 3, 0.5)" or "color(srgb 0.1 0.2 0.3 / 0.5)"
            const [r, g, b, alpha = 1] = text.match(/[\\d.]+/g).map(Number);
            return [...[r, g, b].map((v) => (text.startsWith("color") ? 255 * v : v)), alpha];
          };
          const over = (top, below) => [0, 1, 2].map((k) => top[k] * top[3] + below[k] * (1 - top[3])).concat(1);
          const behind = (node) => {
            const own = rgba(getComputedStyle(node).backgroundColor);
            return own[3] === 1 ? own : over(own, node.parentElement ? behind(node.parentElement) : [255, 255, 255, 1]);
          };
          const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
          const found = [];
          for (const node of document.querySelectorAll("#title *, [role=tab], .viewer *, #foot *, footer *")) {
            const own = [...node.childNodes].filter((child) => child.nodeType === Node.TEXT_NODE);
            const text = own.map((child) => child.textContent).join("").trim();
            if (!text || !node.checkVisibility() || node.closest("svg, :disabled, .divider, .busy, .drop")) continue;
            const back = behind(node), front = over(rgba(getComputedStyle(node).color), back);
            const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
            found.push([text, (a + 0.05) / (b + 0.05)]);
          }
          return found;
        }"""
    )
    assert len(texts) > 25
    assert [(text, round(contrast, 2)) for text, contrast in texts if contrast < 4.5] == []
    # The browser draws sliders and scroll bars for the same theme.
    assert (page.evaluate("getComputedStyle(document.body).colorScheme") == "dark") == (scheme == "dark")


def test_a_tablet_shows_two_cards_in_a_row_and_all_controls_of_the_picture_in_one(open_page, photographs):
    page = open_page(viewport={"width": 820, "height": 1180})
    upload(page, photographs[0])
    for row in (".numbers", ".files"), (".look", ".layers"), (".views", ".zoom"):
        left, right = (page.locator(f".viewer {part}").bounding_box() for part in row)
        assert left["x"] + left["width"] <= right["x"]
        assert max(left["y"], right["y"]) < min(left["y"] + left["height"], right["y"] + right["height"])
    assert page.evaluate("document.documentElement.scrollWidth") <= 820


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_axe_finds_nothing_serious(open_page, photographs, reference, tmp_path, width, scheme):
    phone = {"is_mobile": True, "has_touch": True} if width == 390 else {}
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 900}, **phone)
    assert_accessible(page)
    (tmp_path / "notes.txt").write_text("no picture")
    page.set_input_files(".viewer .pick", tmp_path / "notes.txt")
    page.wait_for_selector(".viewer > [role=alert]")
    page.wait_for_selector(".viewer:not([data-busy])")
    assert_accessible(page)
    page.set_input_files(".viewer .pick", photographs)
    page.wait_for_selector(".batch-offer")
    assert_accessible(page)
    upload(page, photographs[0])
    for view in ("Before/after", "Mask", "Probability", "Overlay"):
        page.get_by_role("button", name=view, exact=True).first.click()
        settle(page)
        assert_accessible(page)
    page.keyboard.press("?")
    assert_accessible(page)
    page.get_by_role("button", name="Close").click()
    page.set_input_files(".viewer .pick-reference", reference)
    page.wait_for_selector(".reference[data-reference=shown]")
    assert_accessible(page)
    page.get_by_role("tab", name="Batch").click()
    page.wait_for_selector("#batch input[type=file]", state="attached")
    assert_accessible(page)
    start_batch(page, [photographs[0]])
    page.wait_for_function("() => document.querySelector('#batch [role=status]')?.textContent.startsWith('1 of 1')")
    assert_accessible(page)
    for tab, selector in (("About", "#about h3"), ("API", "#programs h3")):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_selector(selector)
        assert_accessible(page)


def test_forced_colours_leave_the_swatches(open_page, photographs):
    page = open_page(forced_colors="active")
    upload(page, photographs[0])
    for name, color in (("magenta", (255, 79, 216)), ("green", (124, 255, 79))):
        swatch = pixels(page.get_by_role("button", name=name, exact=True).screenshot())
        assert tuple(swatch[swatch.shape[0] // 2, swatch.shape[1] // 2, :3]) == color


def test_everything_can_be_reached_and_is_named(open_page, photographs):
    page = open_page()
    upload(page, photographs[0])
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(".viewer button, .viewer input, .viewer [role=slider], .viewer img")]
          .filter((node) => node.checkVisibility() && !(node.ariaLabel || node.alt || node.querySelector("img")?.alt
            || node.textContent.trim() || node.labels?.length))
          .map((node) => node.outerHTML)"""
    )
    assert nameless == []
    label = page.get_attribute(".viewer .sheet", "aria-label")
    assert label.startswith("my eye.png, its vessels coloured; ")
    assert label.endswith("of the field of view is vessel at threshold 0.6137")
    page.focus(".viewer .views button")
    seen = set()
    for _ in range(60):
        seen.add(page.evaluate("((node) => node.id || node.textContent.trim())(document.activeElement)"))
        page.keyboard.press("Tab")
    assert {
        "Overlay",
        "Mask",
        "Fit",
        "viewer-threshold",
        "All as ZIP",
        "Choose a manual segmentation",
        "New photograph",
    } <= seen
