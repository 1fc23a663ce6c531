"""Views of the page in a real browser, and what is drawn over them; the network is one of two looks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw
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
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter
from resegnet.results.compare import compare
from resegnet.results.render import DISC_COLOR, KIND_COLORS, OVERLAY_COLOR, SAFE_KIND_COLORS, magma
from resegnet.results.zones import ZONE_B, ZONE_C
from resegnet.web.layers import SHOWN_ZONES
from resegnet.web.numbers import SHOWN_MEASURES, write_measure

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


@pytest.fixture(scope="module")
def spokes(tmp_path_factory):
    """Two files of one picture, in which seven vessels of each kind leave the disc."""
    image = Image.new("RGB", (480, 420))
    draw = ImageDraw.Draw(image)
    draw.ellipse((40, 10, 440, 410), fill=(190, 120, 60))
    for angle in (20, 45, 70, 90, 110, 135, 160):
        for turned in np.radians((angle, -angle)):
            ends = [(160 + away * np.cos(turned), 210 + away * np.sin(turned)) for away in (40, 105)]
            draw.line(ends, fill=(90, 40, 20), width=6)
    folder = tmp_path_factory.mktemp("spokes")
    for name in ("one.png", "other.png"):
        image.save(folder / name)
    return [folder / "one.png", folder / "other.png"]


@pytest.fixture
def without_disc(network):
    """Calls to this make the network find no disc, until the test ends."""
    yield lambda: setattr(network, "finds_disc", False)
    network.finds_disc = True


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


def test_arteries_and_veins_of_two_photographs_side_by_side(open_page, segmenter, tmp_path):
    paths = [tmp_path / "left.png", tmp_path / "right.png"]
    for seed, path in enumerate(paths, 1):
        Image.fromarray(draw_fundus(seed, (300, 360)).image).save(path)
    page = open_page(viewport={"width": 1440, "height": 1000})
    for path in paths:
        upload(page, path)
    click(page, "Arteries/veins")
    click(page, "Optic disc")
    page.locator(".bar").get_by_role("button", name="Side by side").click()
    page.wait_for_selector(".beside .caption span:not(:empty)")
    page.wait_for_function("() => !document.querySelector('.pair-numbers').textContent.includes('…')")
    actual_size(page)
    result = segmenter(paths[0])
    drawn = canvas(page, "paint", result.mask.shape, ".beside")
    np.testing.assert_array_equal(drawn[:, :, 3] > 0, result.mask)
    for kind, name in ((1, "artery"), (2, "vein")):
        assert (result.kinds == kind).sum() > 300
        assert (drawn[result.kinds == kind] == (*KIND_COLORS[name], 255)).all()
    marks = canvas(page, "marks", result.mask.shape, ".beside")[:, :, :3].astype(int)
    green = (np.abs(marks - DISC_COLOR) < 45).all(axis=2)
    rim = result.disc.mask ^ ndimage.binary_erosion(result.disc.mask, iterations=2)
    assert (green & ndimage.binary_dilation(rim)).sum() > 0.9 * np.pi * result.disc.diameter
    assert not green[~ndimage.binary_dilation(rim, iterations=2)].any()


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


def test_the_zones_are_rings_round_the_disc_as_they_are_measured(open_page, segmenter, spokes, without_disc):
    page = open_page()
    upload(page, spokes[0])
    actual_size(page)
    assert not page.is_visible(".zone-legend")
    click(page, "Zones B and C")
    click(page, "Mask")
    result = segmenter(spokes[0])
    drawn = canvas(page, "marks", result.mask.shape)[:, :, :3].astype(int)
    height, width = result.mask.shape
    rows, columns = np.mgrid[:height, :width]
    away = np.hypot(rows - result.disc.centre[0], columns - result.disc.centre[1])
    borders = {"zone B": ZONE_B.borders_px(result.disc), "zone C": ZONE_C.borders_px(result.disc)[1:]}
    assert [shown["title"] for shown in SHOWN_ZONES] == list(borders)
    for shown, least in zip(SHOWN_ZONES, (0.9, 0.3), strict=True):  # the rings of zone C are dashed
        colored = (np.abs(drawn - ImageColor.getrgb(shown["color"])) < 60).all(axis=2)
        near = [np.abs(away - border) < 2.5 for border in borders[shown["title"]]]
        assert not colored[~np.any(near, axis=0)].any()
        for ring in near:
            directions = np.degrees(np.arctan2(rows - result.disc.centre[0], columns - result.disc.centre[1])) // 2
            assert len(np.unique(directions[ring & colored])) > least * len(np.unique(directions[ring]))
    assert page.locator(".zone-legend span").all_inner_texts() == [
        "zone B\n0.5 to 1 disc diameters from the disc",
        "zone C\n0.5 to 2 disc diameters from the disc",
    ]

    without_disc()
    upload(page, spokes[1])
    assert not page.get_by_role("button", name="Zones B and C").is_visible()
    assert not page.is_visible(".zone-legend")
    assert not canvas(page, "marks", result.mask.shape).any()


def test_numbers_of_arteries_and_veins_are_those_of_measure_or_say_why_there_is_none(
    open_page, segmenter, spokes, photographs, without_disc
):
    page = open_page()

    def assert_numbers_are_shown(path):
        """Compare the panel with `measure`; return what it says of each number that is undefined."""
        upload(page, path)
        page.wait_for_selector(MEASURED)
        measures = segmenter(path).measure()
        said = {}
        for shown in SHOWN_MEASURES:
            key = shown["key"]
            value = page.locator(f".tiles [data-measure={key}]")
            why = page.locator(f".tiles [data-measure={key}] + .why")
            number = None if key in measures.undefined else measures[key]
            assert value.text_content() == write_measure(shown, number, None), key
            assert value.evaluate("(box) => box.parentElement.hidden") is False
            assert why.is_visible() == (number is None)
            if number is None:
                said[key] = why.inner_text()
        return said

    assert not page.is_visible(".viewer .model")  # the page was started with a model that is no bundled one
    kinds = ("crae_px", "crve_px", "avr")
    assert assert_numbers_are_shown(spokes[0]) == {}
    eye = page.locator(".numbers dt:text('Eye') + dd")
    assert eye.inner_text() == segmenter(spokes[0]).eye == "left"
    few = "Fewer than six {} cross zone B."
    names = ("arteries", "veins", "arteries or veins")
    undefined = segmenter(photographs[0]).measure().undefined
    expected = {key: few.format(name) for key, name in zip(kinds, names, strict=True) if key in undefined}
    assert {"crae_px", "avr"} <= expected.keys()
    assert assert_numbers_are_shown(photographs[0]) == expected
    without_disc()
    keys = (*kinds, "disc_diameter_px", "disc_fovea_distance_dd")
    assert assert_numbers_are_shown(spokes[1]) == dict.fromkeys(keys, "The optic disc was not found.")
    assert eye.inner_text() == "unknown (no optic disc found)"
