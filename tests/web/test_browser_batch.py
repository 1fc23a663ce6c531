"""The Batch tab in a real browser: from several photographs to their table and files."""

import time
import zipfile

import numpy as np
import pytest
from support.browser import pixels, press, start_batch

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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
