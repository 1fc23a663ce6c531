"""Errors, waiting, cancelling and a second visitor in a real browser."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from support.browser import SHOWN, begin, new_photograph, pixels, press, save, settle, threshold_of, transfer, upload

from resegnet.web.files import sweep

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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
