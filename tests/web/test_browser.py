"""The page in a real browser: Debian's Chromium, headless, driven by Playwright."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import PATIENCE_S
from support.browser import (
    MEASURED,
    SHOWN,
    actual_size,
    assert_accessible,
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
from resegnet.results.render import ERROR_COLORS, OVERLAY_COLOR, OVERLAY_OPACITY, magma
from resegnet.web.files import sweep

tifffile = pytest.importorskip("tifffile")  # comes with scikit-image

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# From the photograph to its files


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


def test_a_synthetic_example_is_compared_with_its_truth_in_one_click(open_page, segmenter):
    page = open_page()
    page.get_by_role("button", name="Example: retina cc0").click()
    page.wait_for_selector(SHOWN)
    assert not page.get_by_role("button", name="Compare with the known truth").is_visible()
    page.get_by_role("button", name="Example: synthetic orange").click()
    page.get_by_role("button", name="Compare with the known truth").click()
    page.wait_for_selector(".reference[data-reference=shown]")
    expected = compare(segmenter("examples/synthetic_orange.jpg"), "examples/synthetic_orange_vessels.png")
    settle(page)
    assert scores_of(page) == shown_scores(expected)
    assert not page.get_by_role("button", name="Compare with the known truth").is_visible()


# Comparison


def scores_of(page):
    rows = page.locator(".reference tr").all_inner_texts()
    return dict(row.split("\t") for row in rows)


def shown_scores(comparison):
    names = {"f1": "F1 (Dice)", "sensitivity": "Sensitivity", "specificity": "Specificity", "precision": "Precision",
             "mcc": "MCC", "cldice": "clDice", "auroc": "AUROC"}  # fmt: skip
    return {title: f"{comparison.scores()[name]:.3f}" for name, title in names.items()}


def test_comparison_with_the_exact_truth_follows_the_slider(open_page, segmenter, photographs, reference):
    page = open_page()
    upload(page, photographs[0])
    page.set_input_files(".viewer .pick-reference", reference)
    page.wait_for_selector(".reference[data-reference=shown]")
    comparison = compare(segmenter(photographs[0]), reference)
    settle(page)
    assert scores_of(page) == shown_scores(comparison)

    press(page, "#viewer-threshold", *["ArrowLeft"] * 10)
    comparison = comparison.at(threshold_of(page))
    page.wait_for_function("() => !document.querySelector('.reference tbody').textContent.includes('…')")
    assert scores_of(page) == shown_scores(comparison)

    actual_size(page)
    result = comparison.segmentation
    drawn = canvas(page, "paint", result.mask.shape)
    truth = comparison.reference & result.fov
    for kind, where in [
        ("hit", result.mask & truth),
        ("miss", ~result.mask & truth),
        ("false alarm", result.mask & ~truth),
    ]:
        assert where.sum() > 50
        np.testing.assert_array_equal(drawn[where], [(*ERROR_COLORS[kind], 255)] * where.sum())
    assert not drawn[~(result.mask | truth)].any()
    words = [text.rstrip("0123456789, px") for text in page.locator(".legend > span").all_text_contents()]
    assert words == ["agreed(hit)", "missed(miss)", "extra(false alarm)"]

    dot = page.locator(".curve circle")
    assert float(dot.get_attribute("cx")) / 200 == pytest.approx(comparison.scores()["sensitivity"], abs=1e-6)
    assert 1 - float(dot.get_attribute("cy")) / 200 == pytest.approx(comparison.scores()["precision"], abs=1e-6)

    _, error_map = save(page, "error map")
    np.testing.assert_array_equal(pixels(error_map), comparison.error_map())
    _, numbers = save(page, "numbers")
    assert json.loads(numbers)["comparison"]["f1"] == comparison.scores()["f1"]

    page.get_by_role("button", name="Remove").click()
    page.wait_for_selector(".reference[data-reference=none]")
    settle(page)
    assert page.get_attribute(".viewer", "data-view") == "overlay"
    assert_overlay_is(page, result)  # at the threshold that was chosen


def test_a_reference_of_another_size_is_rejected_and_the_photograph_stays(open_page, photographs, tmp_path):
    Image.new("L", (20, 20), 255).save(tmp_path / "small.png")
    page = open_page()
    upload(page, photographs[0])
    page.set_input_files(".viewer .pick-reference", tmp_path / "small.png")
    message = page.wait_for_selector(".reference [role=alert]").inner_text()
    assert "20 x 20" in message and "480 x 400" in message
    assert page.is_visible(".viewer .share")
    assert not page.is_visible(".viewer .scores")


def test_a_turned_manual_segmentation_is_asked_about(open_page, photographs, reference, tmp_path):
    with Image.open(reference) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "turned.png")
    page = open_page()
    upload(page, photographs[0])
    page.set_input_files(".viewer .pick-reference", tmp_path / "turned.png")
    assert "neither turned nor flipped" in page.wait_for_selector(".reference .doubt").inner_text()
    page.set_input_files(".viewer .pick-reference", reference)
    page.wait_for_selector(".reference .doubt", state="hidden")


def test_a_rejected_reference_leaves_the_one_before(open_page, photographs, reference, tmp_path):
    Image.new("L", (20, 20), 255).save(tmp_path / "small.png")
    page = open_page()
    upload(page, photographs[0])
    page.set_input_files(".viewer .pick-reference", reference)
    page.wait_for_selector(".reference[data-reference=shown]")
    before = scores_of(page)
    page.set_input_files(".viewer .pick-reference", tmp_path / "small.png")
    page.wait_for_selector(".reference [role=alert]")
    assert scores_of(page) == before


# Errors, cancelling, two visitors


def test_a_text_file_shows_its_sentence_and_leaves_what_was_there(open_page, segmenter, photographs, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    page = open_page()
    for _ in range(2):  # the same sentence twice is shown twice
        page.set_input_files(".viewer .pick", tmp_path / "notes.txt")
        message = page.wait_for_selector(".viewer > [role=alert]").inner_text()
        assert message.startswith("'notes.txt' cannot be identified; expected a JPEG, PNG, TIFF")
        page.wait_for_selector(".viewer:not([data-busy])")
        assert not page.is_visible("#viewer-threshold")
    upload(page, photographs[0])
    assert not page.is_visible(".viewer > [role=alert]")
    press(page, "#viewer-threshold", "ArrowRight")
    page.set_input_files(".viewer .pick", tmp_path / "notes.txt")
    page.wait_for_selector(".viewer > [role=alert]")
    result = segmenter(photographs[0]).at(threshold_of(page))
    assert result.threshold > 0.6137
    np.testing.assert_array_equal(pixels(save(page, "mask")[1]) > 0, result.mask)


def test_a_download_that_failed_can_be_tried_again(open_page, segmenter, photographs):
    page = open_page()
    upload(page, photographs[0])
    page.evaluate(
        """() => {
          const { viewer } = document.querySelector("#viewer .viewer"), { settings } = viewer;
          viewer.settings = () => ({ ...settings(), photo: "deleted.png" });
          viewer.mend = () => { viewer.settings = settings; };
        }"""
    )
    page.get_by_role("button", name="Download mask").click()
    page.wait_for_selector(".toast-body")
    page.wait_for_selector("[data-save=mask]:not([data-saving])")
    page.evaluate("document.querySelector('#viewer .viewer').viewer.mend()")
    np.testing.assert_array_equal(pixels(save(page, "mask")[1]) > 0, segmenter(photographs[0]).mask)


def test_a_server_that_does_not_answer_frees_the_button_after_a_minute(open_page, photographs):
    page = open_page()
    upload(page, photographs[0])
    held = []
    page.route("**/queue/join**", lambda route: held.append(route))
    page.clock.install()
    page.get_by_role("button", name="Download mask").click()
    page.wait_for_selector("[data-save=mask][data-saving]")
    page.clock.run_for(59_000)
    assert page.is_visible("[data-save=mask][data-saving]")
    page.clock.run_for(2_000)
    assert page.is_visible("[data-save=mask]:not([data-saving])")


def test_a_threshold_that_was_typed_does_not_stay_in_the_box_of_the_next_photograph(open_page, segmenter, photographs):
    page = open_page()
    upload(page, photographs[0])
    page.fill(".viewer .exact", "0.55")
    page.keyboard.press("Enter")  # the box keeps the focus
    settle(page)
    assert threshold_of(page) == 0.55
    transfer(page, photographs[1], "drop", ".viewer .stage")
    share = f"{segmenter(photographs[1]).measure()['vessel_density']:.1%}"
    page.wait_for_function("(share) => document.querySelector('.share strong').textContent === share", arg=share)
    assert threshold_of(page) == 0.6137
    assert save(page, "mask")[0] == "my eye_mask_0.6137.png"


@pytest.fixture
def slow(network):
    """Hold the network until `slow.set()`."""
    network.go_on.clear()
    yield network.go_on
    network.go_on.set()


def new_photograph(folder, seed):
    """Draw a photograph that no test opened before."""
    Image.fromarray(draw_fundus(seed, (400, 480)).image).save(folder / f"new {seed}.png")
    return folder / f"new {seed}.png"


def begin(page, photograph):
    page.set_input_files(".viewer .pick", photograph)
    page.wait_for_function("() => document.querySelector('.doing').textContent === 'Finding the vessels'")


def test_who_waits_sees_how_many_are_before_them(open_page, slow, tmp_path):
    first, second = open_page(), open_page()
    begin(first, new_photograph(tmp_path, 11))
    second.set_input_files(".viewer .pick", new_photograph(tmp_path, 12))
    second.wait_for_function("() => document.querySelector('.doing').innerText === 'Waiting, 1 before you'")
    assert second.locator(".doing").bounding_box()["height"] > 10
    slow.set()
    second.wait_for_selector(SHOWN)


@pytest.mark.parametrize("button", ["Cancel", "New photograph"])
def test_what_was_cancelled_does_not_come_back(open_page, segmenter, photographs, slow, tmp_path, button):
    page = open_page()
    if button == "New photograph":
        slow.set()
        upload(page, photographs[0])
        slow.clear()
    begin(page, new_photograph(tmp_path, 5 if button == "Cancel" else 6))
    page.get_by_role("button", name=button).click()
    page.wait_for_selector(".viewer[data-state=empty]:not([data-busy])")
    slow.set()
    page.wait_for_timeout(1500)
    assert page.get_attribute(".viewer", "data-state") == "empty"
    upload(page, photographs[1])
    assert page.inner_text(".share strong") == f"{segmenter(photographs[1]).measure()['vessel_density']:.1%}"


def test_files_of_what_was_cancelled_are_deleted_too(open_page, slow, network, tmp_path):
    page = open_page()
    calls = network.calls
    begin(page, new_photograph(tmp_path, 9))
    while network.calls == calls:
        page.wait_for_timeout(50)
    page.get_by_role("button", name="Cancel").click()
    slow.set()
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    assert list(folder.rglob("new 9.png"))
    sweep(folder, time.time() + 1)
    assert not list(folder.rglob("new 9.png"))


def test_errors_show_in_full_screen_too(open_page, photographs):
    page = open_page()
    upload(page, photographs[0])
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_selector(".viewer[data-full]")
    page.wait_for_function("() => document.querySelector('.stage').clientWidth > 0.7 * innerWidth")
    top = page.locator(".viewer").bounding_box()
    assert (top["x"], top["y"], top["width"]) == (0, 0, page.evaluate("innerWidth"))
    page.evaluate("document.querySelector('#viewer .viewer').viewer.settings = () => ({ photo: 'of another' })")
    page.get_by_role("button", name="Download mask").click()
    toast = page.wait_for_selector(".toast-body")
    assert "deletes photographs after an hour" in toast.inner_text()
    box = toast.bounding_box()
    at = [box["x"] + 30, box["y"] + 20]
    assert page.evaluate("([toast, at]) => toast.contains(document.elementFromPoint(...at))", [toast, at])
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_selector(".viewer:not([data-full])")


def test_of_two_photographs_the_last_is_shown(open_page, segmenter, slow, tmp_path):
    first, second = new_photograph(tmp_path, 7), new_photograph(tmp_path, 8)
    page = open_page()
    begin(page, first)
    begin(page, second)
    slow.set()
    page.wait_for_selector(SHOWN)
    assert page.inner_text(".viewer .name") == "new 8.png"
    page.wait_for_timeout(1000)
    assert page.inner_text(".viewer .name") == "new 8.png"
    np.testing.assert_array_equal(pixels(save(page, "mask")[1]) > 0, segmenter(second).mask)


def test_a_result_that_arrives_late_does_not_mix_with_the_one_on_the_page(open_page, segmenter, photographs):
    """The server is done with the second photograph; its files are still on their way."""
    page = open_page()
    upload(page, photographs[0])
    held = []
    page.route("**/levels.bin", lambda route: held.append(route))
    page.set_input_files(".viewer .pick", photographs[1])
    while not held:
        page.wait_for_timeout(50)
    assert page.get_attribute(".viewer", "data-busy") == ""
    page.get_by_role("button", name="Cancel").click()
    held[0].continue_()
    page.wait_for_timeout(500)
    np.testing.assert_array_equal(pixels(save(page, "mask")[1]) > 0, segmenter(photographs[0]).mask)


def test_two_visitors_do_not_mix(open_page, segmenter, photographs):
    """Files of one name, opened by one visitor after the other; then the first goes on."""
    first, second = open_page(), open_page()
    upload(first, photographs[0])
    upload(second, photographs[1])
    press(first, "#viewer-threshold", "ArrowRight")
    result = segmenter(photographs[0]).at(threshold_of(first))
    np.testing.assert_array_equal(pixels(save(first, "mask")[1]) > 0, result.mask)
    np.testing.assert_array_equal(pixels(save(second, "mask")[1]) > 0, segmenter(photographs[1]).mask)
    assert threshold_of(second) == 0.6137


def test_while_busy_nothing_of_the_photograph_before_can_be_saved(open_page, photographs, slow, tmp_path):
    page = open_page()
    slow.set()
    upload(page, photographs[0])
    slow.clear()
    begin(page, new_photograph(tmp_path, 13))
    for name in ("Download all as ZIP", "Download mask", "Choose a manual segmentation"):
        assert page.get_by_role("button", name=name).is_disabled()
    assert float(page.evaluate("getComputedStyle(document.querySelector('.numbers .share')).opacity")) < 0.5
    slow.set()
    page.wait_for_selector(SHOWN)
    assert page.get_by_role("button", name="Download mask").is_enabled()


# Many photographs


def test_several_photographs_on_segment_are_offered_to_batch(open_page, photographs, tmp_path):
    page = open_page()
    with zipfile.ZipFile(tmp_path / "eyes.zip", "w") as archive:
        archive.write(photographs[0], "eye.png")
    page.set_input_files(".viewer .pick", tmp_path / "eyes.zip")
    assert "'eyes.zip'" in page.wait_for_selector(".batch-offer").inner_text()
    page.get_by_role("button", name="Not now").click()
    assert not page.is_visible(".batch-offer")
    (tmp_path / "other.png").write_bytes(photographs[1].read_bytes())
    page.set_input_files(".viewer .pick", [photographs[0], tmp_path / "other.png"])
    page.get_by_role("button", name="Open in Batch").click()
    page.wait_for_function("() => document.querySelectorAll('#batch .file').length === 2")
    assert not page.is_visible(".viewer > [role=alert]")


def start_batch(page, paths):
    page.get_by_role("tab", name="Batch").click()
    page.set_input_files("#batch input[type=file]", paths)
    page.wait_for_function("(count) => document.querySelectorAll('#batch .file').length === count", arg=len(paths))
    page.get_by_role("button", name="Find the vessels").click()


@pytest.mark.parametrize("width", [390, 1280])
def test_a_batch_fills_its_table_can_be_cancelled_and_what_is_done_is_saved(
    open_page, segmenter, network, photographs, tmp_path, width
):
    page = open_page(viewport={"width": width, "height": 844})
    folder = tmp_path / "eyes"
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(4)]
    for path in paths:
        path.write_bytes(photographs[0].read_bytes())
    held, wait = [], network.go_on.wait

    def hold(seconds):  # from the third photograph on
        held.append(seconds)
        if len(held) > 2:
            wait(seconds)

    network.go_on.wait = hold
    network.go_on.clear()
    try:
        start_batch(page, paths)
        page.wait_for_selector("#batch .lines tbody tr:nth-child(2)")
        page.wait_for_function("() => document.querySelector('#batch [role=status]').textContent.startsWith('2 of 4')")
        assert page.get_by_role("button", name="Find the vessels").is_disabled()
        page.get_by_role("button", name="Cancel").click()
        page.wait_for_function("() => document.querySelector('#batch [role=status]').textContent.includes('stopping')")
    finally:
        network.go_on.wait = wait
        network.go_on.set()
    page.wait_for_function("() => document.querySelector('#batch [role=status]').textContent.includes('cancelled')")
    share = f"{segmenter(photographs[0]).measure()['vessel_density']:.1%}"
    assert page.locator("#batch .lines td:nth-child(4)").all_inner_texts() == [share] * 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    with page.expect_download() as download:
        page.get_by_role("button", name="Results as ZIP").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = archive.namelist()
        assert len(archive.read("results.csv").splitlines()) == 1 + 3
        mask = archive.read("masks/0.png")
    assert sorted(names) == [*(f"masks/{number}.png" for number in range(3)),
                             *(f"overlays/{number}.jpg" for number in range(3)),
                             "results.csv", "results.parquet"]  # fmt: skip
    np.testing.assert_array_equal(pixels(mask) > 0, segmenter(photographs[0]).mask)

    page.get_by_role("button", name="Find the vessels").click()  # and once more, to its end
    page.wait_for_selector("#batch .lines tbody tr:nth-child(4)")
    page.wait_for_function("() => document.querySelector('#batch [role=status]').textContent.includes('4 of 4')")


def test_who_leaves_the_page_ends_the_batch(open_page, network, photographs, tmp_path, slow, monkeypatch):
    paths = [tmp_path / f"{number}.png" for number in range(30)]
    for path in paths:
        path.write_bytes(photographs[0].read_bytes())
    page = open_page()
    calls = network.calls
    start_batch(page, paths)
    while network.calls == calls:
        page.wait_for_timeout(50)
    page.close()
    monkeypatch.setattr(network.go_on, "wait", lambda seconds: time.sleep(0.5))  # for each photograph from now on
    slow.set()
    seen = -1
    while seen < network.calls:
        seen = network.calls
        time.sleep(5)
    assert network.calls - calls < 30


# Looks


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
    pytest.importorskip("axe_playwright_python", reason="axe-playwright-python brings axe-core")
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


def test_the_drop_zone_of_batch_speaks_as_the_other_and_takes_more_files(open_page, photographs, tmp_path):
    page = open_page()
    page.get_by_role("tab", name="Batch").click()
    words = page.wait_for_selector("#batch [data-testid=upload-text]").inner_text().split("\n")
    assert words[0].strip() == "Drop fundus photographs here" and words[-1].strip() == "Choose files"
    assert not page.get_by_role("button", name="Choose more files").is_visible()
    page.set_input_files("#batch input[type=file]", photographs[0])
    page.wait_for_selector("#batch .file")
    (tmp_path / "other.png").write_bytes(photographs[1].read_bytes())
    with page.expect_file_chooser() as chooser:
        press(page, "#batch .add", "Enter")
    chooser.value.set_files(tmp_path / "other.png")
    page.wait_for_function("() => document.querySelectorAll('#batch .file').length === 2")


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
