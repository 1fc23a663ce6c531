"""The page in a real browser, from the photograph to its files: Debian's Chromium, headless, driven by Playwright."""

import io
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import PATIENCE_S
from support.browser import (
    MEASURED,
    SHOWN,
    actual_size,
    assert_overlay_is,
    canvas,
    pixels,
    press,
    save,
    settle,
    threshold_of,
    transfer,
    upload,
)
from support.synthetic import draw_fundus

from resegnet.results.compare import compare
from resegnet.results.export import summary
from resegnet.results.render import OVERLAY_COLOR, OVERLAY_OPACITY, magma

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_picture_follows_the_slider_and_the_files_are_what_is_shown(open_page, segmenter, photographs, network):
    page = open_page()
    truth = segmenter(photographs[0])
    calls = network.calls
    upload(page, photographs[0])
    assert network.calls == calls + 1
    actual_size(page)
    assert threshold_of(page) == 0.6137
    assert_overlay_is(page, truth)
    assert page.inner_text(".share strong") == f"{truth.measure()['vessel_density']:.1%}"
    name, mask = save(page, "mask")
    assert name == "my eye_mask_0.6137.png"
    np.testing.assert_array_equal(pixels(mask), truth.mask.astype(np.uint8) * 255)

    page.wait_for_selector(MEASURED)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.evaluate("document.querySelector('#viewer .viewer').viewer.restMs = 1e6")  # the thumb never rests
    for keys in (["ArrowLeft"], ["ArrowLeft"] * 12, ["Home"], ["End"]):
        press(page, "#viewer-threshold", *keys)
        moved = truth.at(threshold_of(page))
        assert_overlay_is(page, moved)
        assert page.inner_text(".share strong") == f"{moved.measure()['vessel_density']:.1%}"
    assert requests == []
    assert moved.threshold == 1
    page.fill(".viewer .exact", "0.55")
    settle(page)
    moved = truth.at(0.55)
    assert moved.mask.sum() > 1.2 * truth.mask.sum()
    assert_overlay_is(page, moved)
    assert requests == []

    name, mask = save(page, "mask")
    assert name == "my eye_mask_0.55.png"
    np.testing.assert_array_equal(pixels(mask), moved.mask.astype(np.uint8) * 255)
    np.testing.assert_array_equal(pixels(save(page, "overlay")[1]), moved.overlay())
    name, probability = save(page, "probability")
    assert name == "my eye_probability.png"
    assert np.abs(pixels(probability) / 65535 - truth.probability).max() < 1e-5
    name, numbers = save(page, "numbers")
    assert name == "my eye_numbers_0.55.json"
    assert json.loads(numbers)["measures"]["vessel_area_px"] == moved.mask.sum()
    name, archive = save(page, "all as ZIP")
    assert name == "my eye_resegnet_0.55.zip"
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        assert zipped.read("my eye_mask.png") == mask
        assert len(zipped.namelist()) == 6
    name, report = save(page, "report (PDF)")
    assert name == "my eye_report_0.55.pdf"
    assert f"({moved.measure()['fractal_d0']:.3f}) Tj".encode() in report
    assert save(page, "table (CSV)")[0] == "my eye_table_0.55.csv"

    page.get_by_role("button", name="Reset").click()
    settle(page)
    assert threshold_of(page) == 0.6137
    assert_overlay_is(page, truth)
    assert network.calls == calls + 1


def test_colour_and_opacity_are_those_of_the_saved_overlay(open_page, segmenter, photographs):
    page = open_page()
    upload(page, photographs[0])
    actual_size(page)
    page.get_by_role("button", name="magenta").click()
    press(page, ".viewer .opacity", *["ArrowLeft"] * 9)  # 0.85 to 0.4
    result = segmenter(photographs[0])
    drawn = canvas(page, "paint", result.mask.shape)[result.mask]
    assert (drawn[:, 3] == 102).all()
    assert np.abs(drawn[:, :3].astype(int) - (255, 79, 216)).max() <= 1  # a canvas keeps colours premultiplied
    expected = result.overlay(color=(255, 79, 216), opacity=0.4)
    np.testing.assert_array_equal(pixels(save(page, "overlay")[1]), expected)


def measures_of(page):
    return {
        box.get_attribute("data-measure"): box.text_content()
        for box in page.locator("div:not([hidden]) > [data-measure]").all()
    }


def shown_numbers(numbers):
    return {
        "vessel_density": f"{numbers['vessel_density']:.1%}",
        "skeleton_length_px": f"{numbers['skeleton_length_px']:,.0f} px",
        "calibre_mean_px": f"{numbers['calibre_mean_px']:.2f} px",
        "tortuosity": f"{numbers['tortuosity']:.3f}",
        "fractal_d0": f"{numbers['fractal_d0']:.3f}",
        "branch_points": f"{numbers['branch_points']:.0f}",
        "end_points": f"{numbers['end_points']:.0f}",
    }


def test_the_numbers_follow_the_threshold_once_the_thumb_rests(open_page, segmenter, photographs):
    page = open_page()
    result = segmenter(photographs[0])
    upload(page, photographs[0])
    page.wait_for_selector(MEASURED)
    assert measures_of(page) == shown_numbers(result.measure())
    assert not page.get_by_text("Branch points").is_visible()
    page.get_by_text("Less reliable").click()
    assert page.get_by_text("Branch points").is_visible()

    press(page, "#viewer-threshold", *["ArrowLeft"] * 12)
    page.wait_for_selector(MEASURED)
    moved = result.at(threshold_of(page))
    assert measures_of(page) == shown_numbers(moved.measure()) != shown_numbers(result.measure())

    page.fill(".viewer .um", "8.5")
    numbers = moved.measure(8.5)
    assert measures_of(page)["calibre_mean_px"] == f"{numbers['calibre_mean_um']:.1f} µm"
    assert measures_of(page)["skeleton_length_px"] == f"{numbers['skeleton_length_um'] / 1000:.1f} mm"
    saved = json.loads(save(page, "numbers")[1])["measures"]
    assert saved["calibre_mean_um"] == pytest.approx(numbers["calibre_mean_um"])
    page.fill(".viewer .um", "-3")
    assert measures_of(page) == shown_numbers(moved.measure())

    press(page, "#viewer-threshold", "Home")  # 0: all is vessel
    page.wait_for_selector(".measures .reason:not([hidden])")
    assert measures_of(page)["tortuosity"] == "\u2013"
    upload(page, photographs[1])
    page.wait_for_selector(MEASURED)
    assert measures_of(page) == shown_numbers(segmenter(photographs[1]).measure())
    assert not page.is_visible(".measures .reason")


def test_views(open_page, segmenter, photographs):
    page = open_page()
    result = segmenter(photographs[0])
    upload(page, photographs[0])
    actual_size(page)

    page.get_by_role("button", name="Mask", exact=True).click()
    settle(page)
    mask = canvas(page, "paint", result.mask.shape)
    np.testing.assert_array_equal(mask[result.mask], 255)
    assert not mask[~result.mask].any()
    assert not canvas(page, "photo", result.mask.shape)[:, :, :3].any()  # black behind it

    page.get_by_role("button", name="Probability", exact=True).click()
    settle(page)
    drawn = canvas(page, "paint", result.mask.shape).astype(int)
    flat = result.fov & (drawn[:, :, :3] != OVERLAY_COLOR).any(axis=2)  # all but the contour of the mask
    assert flat.sum() > 0.8 * result.fov.sum()
    drawn = drawn[flat][:, :3]
    expected = magma()[np.round(result.probability * 255).astype(int)].astype(int)[flat]
    assert np.abs(drawn - expected).max() <= 8  # levels are 1/200 apart, the colours 1/255
    assert page.locator(".legend:not(.calibre-legend, .zone-legend)").inner_text().split() == ["0", "1"]

    for name in ("Arteries/veins", "Optic disc", "Fovea"):  # this model does not tell
        assert not page.get_by_role("button", name=name, exact=True).is_visible()
    page.get_by_role("button", name="Before/after").click()
    press(page, ".viewer .divider", "ArrowRight", "ArrowRight")
    assert page.get_attribute(".viewer .divider", "aria-valuenow") == "54"
    assert page.evaluate("getComputedStyle(document.querySelector('.paint')).clipPath") == "inset(0px 0px 0px 54%)"


def test_a_photograph_larger_than_the_screen_keeps_its_share_of_vessels(open_page, segmenter, tmp_path):
    path = tmp_path / "large.png"
    Image.fromarray(draw_fundus(4, (1500, 1800)).image).save(path)
    page = open_page()
    upload(page, path)
    result = segmenter(path)
    scale, opaque = page.evaluate(
        """() => {
          const canvas = document.querySelector(".viewer canvas.paint");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let sum = 0;
          for (let k = 3; k < data.length; k += 4) sum += data[k];
          return [canvas.height / 1500, sum / 255];
        }"""
    )
    assert scale < 0.5
    assert opaque / scale**2 == pytest.approx(OVERLAY_OPACITY * result.mask.sum(), rel=0.01)


def test_zoom_by_keys_and_buttons(open_page, photographs):
    page = open_page()
    upload(page, photographs[0])
    fitted = page.inner_text(".viewer .scale")
    press(page, ".viewer .sheet", "1")
    assert page.inner_text(".viewer .scale") == "100 %"
    press(page, ".viewer .sheet", "+", "+")
    assert page.inner_text(".viewer .scale") == "225 %"
    press(page, ".viewer .sheet", "0")
    assert page.inner_text(".viewer .scale") == fitted
    page.get_by_role("button", name="Zoom in").click()
    assert page.inner_text(".viewer .scale") != fitted


def test_a_16_bit_tiff_is_shown(open_page, segmenter, photographs, tmp_path):
    eight_bit = np.array(Image.open(photographs[0]))
    tifffile.imwrite(tmp_path / "eye.tif", eight_bit.astype(np.uint16) * 256 + 99, photometric="rgb")
    page = open_page()
    upload(page, tmp_path / "eye.tif")
    actual_size(page)
    photo = canvas(page, "photo", eight_bit.shape[:2])[:, :, :3]
    assert np.abs(photo.astype(int) - eight_bit).mean() < 3  # JPEG, for the screen only
    assert_overlay_is(page, segmenter(eight_bit))


@pytest.mark.parametrize(("type_", "target"), [("drop", ".viewer .stage"), ("drop", "#foot"), ("paste", "body")])
def test_a_photograph_may_be_dropped_or_pasted(open_page, segmenter, photographs, type_, target):
    page = open_page()
    transfer(page, photographs[0], type_, target)
    page.wait_for_selector(SHOWN)
    assert page.inner_text(".viewer .name") == "my eye.png"
    transfer(page, photographs[1], type_, target)  # and another over it
    page.wait_for_function(
        "share => document.querySelector('.share strong').textContent === share",
        arg=f"{segmenter(photographs[1]).measure()['vessel_density']:.1%}",
    )


def test_an_example_is_one_click(open_page, segmenter):
    page = open_page()
    page.get_by_role("button", name="Example: synthetic orange").click()
    page.wait_for_selector(SHOWN)
    assert page.inner_text(".viewer .name") == "synthetic_orange.jpg"
    density = segmenter("examples/synthetic_orange.jpg").measure()["vessel_density"]
    assert page.inner_text(".share strong") == f"{density:.1%}"


def test_a_first_visit_shows_what_the_page_does_and_which_examples_are_synthetic(open_page):
    page = open_page()
    pair = page.locator(".first .pair")
    before, after = pixels(pair.screenshot()), []
    for key in ("Home", "End"):
        press(page, ".first input", key)
        after.append(pixels(pair.screenshot()).astype(int))
    colored, plain = after
    cyan = (colored[:, :, 2] - colored[:, :, 0] > 60).mean(), (plain[:, :, 2] - plain[:, :, 0] > 60).mean()
    assert cyan[0] > 0.05 > 0.001 > cyan[1]
    half = before.shape[1] // 2 - 25
    np.testing.assert_array_equal(before[:, 25:half], plain[:, 25:half])
    np.testing.assert_array_equal(before[:, -half:-25], colored[:, -half:-25])
    assert page.locator(".examples button").all_inner_texts() == ["photograph", *["synthetic"] * 3]


def test_the_snippets_of_the_api_tab_run_as_they_stand(open_page, segmenter, photographs, reference, tmp_path, url):
    page = open_page(viewport={"width": 390, "height": 844})
    page.get_by_role("tab", name="API").click()
    page.wait_for_function("(url) => document.querySelector('#programs pre')?.innerText.includes(url)", arg=url[:-1])
    assert url + "gradio_api/mcp/" in page.inner_text("#programs")
    python, curl = (page.locator("#programs pre code").nth(number).text_content() for number in range(2))
    with Image.open(photographs[0]) as image:
        image.save(tmp_path / "photograph.jpg")
    shutil.copy(reference, tmp_path / "manual_segmentation.png")
    result = segmenter(tmp_path / "photograph.jpg")
    density = summary(result.at(0.4))["measures"]["vessel_density"]
    f1 = compare(result, reference).scores()["f1"]
    commands = [([sys.executable, "-c", python], (density, f1))]
    if shutil.which("curl"):
        commands.append((["bash", "-c", curl], (density,)))
    for command, expected in commands:
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
        assert run.returncode == 0, run.stderr
        for number in expected:
            assert str(number) in run.stdout
