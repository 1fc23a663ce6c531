"""Comparison with a manual segmentation in a real browser."""

import json

import numpy as np
import pytest
from PIL import Image
from support.browser import (
    SHOWN,
    actual_size,
    assert_overlay_is,
    canvas,
    pixels,
    press,
    save,
    settle,
    threshold_of,
    upload,
)

from resegnet.results.compare import compare
from resegnet.results.render import ERROR_COLORS

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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
    message = page.wait_for_selector(".reference [role=alert]").inner_text()
    assert "20 x 20" in message and "480 x 400" in message
    assert scores_of(page) == before
