"""The choice of the model on the page in a real browser."""

from __future__ import annotations

import json

import pytest
from support.browser import (
    MEASURED,
    SHOWN,
    actual_size,
    assert_accessible,
    assert_overlay_is,
    press,
    save,
    settle,
    threshold_of,
    upload,
)
from support.stand_in import DarkOnGreen

from resegnet import Config, Segmenter
from resegnet.errors import WeightsError
from resegnet.web.models import Release, describe
from resegnet.web.numbers import SHOWN_MEASURES

pytestmark = [pytest.mark.browser, pytest.mark.slow]

OTHER = Config(input_size=256, threshold=0.55)


@pytest.fixture(scope="module")
def others():
    """A model with a lower threshold, and one that cannot be loaded."""

    def fail():
        raise WeightsError("its file was altered")

    other = Segmenter(DarkOnGreen(), OTHER, "other")
    return [Release("other", OTHER, None, lambda: other), Release("broken", OTHER, None, fail)]


@pytest.fixture(scope="module")
def url(segmenter, others, tmp_path_factory):
    from resegnet.web.layout import build_app, launch_options

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        patch.setattr("resegnet.web.layout.MEASURED_MODEL", "other")
        page = build_app(segmenter, others=others)
        _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
        yield address
        page.close()


def choose(page, name):
    page.get_by_label("Model", exact=True).select_option(name)
    page.wait_for_selector(SHOWN)
    settle(page)


def model_of(page):
    return page.get_by_label("Model", exact=True).input_value()


def test_another_model_segments_the_open_photograph_anew_and_holds(
    open_page, segmenter, others, photographs, reference
):
    page = open_page()
    assert model_of(page) == "a/model@v1"
    assert page.inner_text(".model .line") == describe(segmenter)
    upload(page, photographs[0])
    page.set_input_files(".viewer .pick-reference", reference)
    page.wait_for_selector(".reference[data-reference=shown]")
    page.get_by_role("button", name="Overlay", exact=True).click()
    actual_size(page)
    assert_overlay_is(page, segmenter(photographs[0]))

    choose(page, "other")
    result = others[0].load()(photographs[0])
    assert result.mask.sum() > segmenter(photographs[0]).mask.sum()
    assert threshold_of(page) == 0.55
    assert_overlay_is(page, result)  # still the overlay, at 1:1
    assert page.get_attribute(".reference", "data-reference") == "shown"
    press(page, "#viewer-threshold", "ArrowLeft")
    page.wait_for_selector(MEASURED)
    numbers = json.loads(save(page, "numbers (JSON)")[1])
    assert (numbers["model"], numbers["threshold"]) == ("other", threshold_of(page))
    moved = result.at(threshold_of(page))
    assert page.inner_text(".tiles [data-measure=skeleton_length_px]") == (
        f"{moved.measure()['skeleton_length_px']:,.0f} px"
    )

    page.get_by_label("Model", exact=True).select_option("broken")
    page.get_by_text("The model broken cannot be loaded: its file was altered.").wait_for()
    page.wait_for_selector(SHOWN)
    assert model_of(page) == "other"

    page.reload()
    page.wait_for_selector(SHOWN)
    settle(page)
    assert (model_of(page), threshold_of(page)) == ("other", 0.55)


def test_agreement_is_told_of_the_model_that_was_measured(open_page, photographs):
    page = open_page()
    upload(page, photographs[0])
    page.get_by_text("Less reliable").click()
    assert not page.locator(".icc").locator("visible=true").all()
    choose(page, "other")
    page.wait_for_selector(MEASURED)
    told = page.locator(".tiles .icc").locator("visible=true").all_inner_texts()
    in_order = sorted(SHOWN_MEASURES, key=lambda shown: not shown["reliable"])  # the less reliable ones come last
    measured = [shown["icc"] for shown in in_order if not shown["needs_anatomy"]]  # the model tells no arteries
    assert told == [f"ICC {least:.2f} to {greatest:.2f}" for least, greatest in measured]


def test_two_photographs_side_by_side_are_of_one_model(open_page, others, photographs):
    page = open_page()
    for path in photographs:
        upload(page, path)
    page.locator(".bar").get_by_role("button", name="Side by side").click()
    caption = page.locator(".beside .caption span")
    caption.get_by_text("threshold 0.6137, ").wait_for()
    choose(page, "other")
    caption.get_by_text("threshold 0.55, ").wait_for()
    share = others[0].load()(photographs[0]).measure()["vessel_density"]
    assert caption.inner_text() == f"threshold 0.55, {share:.1%} vessel"
    assert_accessible(page)


def test_a_batch_uses_the_chosen_model_and_its_rows_open_with_it(open_page, photographs):
    page = open_page()
    page.get_by_label("Model", exact=True).select_option("other")
    page.get_by_role("tab", name="Batch").click()
    page.get_by_text("Model: other, chosen on the tab Segment.").wait_for()
    page.get_by_text("Recommended: 0.55.").wait_for()
    assert page.input_value("#batch input[type=number]") == "0.55"
    page.set_input_files("#batch input[type=file]", [photographs[0]])
    page.locator("#batch .file").wait_for()
    page.get_by_role("button", name="Find the vessels").click()
    page.wait_for_function("() => document.querySelector('#batch [role=status]')?.textContent.startsWith('1 of 1')")

    page.get_by_role("tab", name="Segment").click()
    page.get_by_label("Model", exact=True).select_option("a/model@v1")
    page.get_by_role("tab", name="Batch").click()
    page.get_by_text("Recommended: 0.6137.").wait_for()
    press(page, "#batch [data-row='0']", "Enter")
    page.wait_for_selector(SHOWN)
    assert (model_of(page), threshold_of(page)) == ("other", 0.55)
