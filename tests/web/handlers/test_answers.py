"""Answers of the handlers to the browser: counts, scores, measures, and sentences for what is wrong."""

import numpy as np
import pytest
from gradio import EventData
from gradio.exceptions import Error
from PIL import Image
from support.handlers import FITTED, settings, unpack

from resegnet.results.compare import compare
from resegnet.web.handlers import Handlers
from resegnet.web.models import Models
from resegnet.web.numbers import SHOWN_MEASURES

# Answers for the browser


def test_counts_and_files_tell_the_whole_result(segmenter, photograph):
    shown, files = Handlers(Models(segmenter), []).show(photograph, ["earlier.png"], settings(None, request=12))
    result = segmenter(photograph)
    assert files == ["earlier.png", photograph]
    assert (shown["request"], shown["photo"]) == (12, photograph)
    assert (shown["height"], shown["width"], shown["name"]) == (150, 180, "my eye.png")
    assert shown["stops"][shown["fitted"]] == FITTED
    for k in (0, 60, shown["fitted"], 200):
        assert sum(shown["counts"][k:]) == result.at(shown["stops"][k]).mask.sum()
    with Image.open(shown["photograph"]["path"]) as image:
        assert np.abs(np.asarray(image, int) - result.image).mean() < 3
    with open(shown["levels"]["path"], "rb") as file:
        levels = unpack(file.read(), (150, 180))
    np.testing.assert_array_equal(levels > shown["fitted"], result.mask)


def test_a_file_that_is_no_picture_gives_its_sentence_and_opens_nothing(segmenter, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    answer, files = Handlers(Models(segmenter), []).show(str(tmp_path / "notes.txt"), ["earlier.png"], settings(None))
    assert answer.keys() == {"request", "error"}
    assert answer["error"].startswith("'notes.txt' cannot be identified; expected a JPEG")
    assert files == ["earlier.png"]


def test_a_request_without_a_file_gives_a_sentence(segmenter, photograph):
    handlers = Handlers(Models(segmenter), [])
    assert handlers.show(None, ["earlier.png"], settings(None))[0]["error"].startswith("No file was received")
    answer, files = handlers.show_reference(None, [photograph], settings(photograph))
    assert answer["reference"]["error"].startswith("No file was received") and files == [photograph]


def test_warnings_of_the_photograph_are_shown(segmenter, tmp_path):
    Image.new("RGB", (200, 200), (40, 90, 200)).save(tmp_path / "sky.png")
    shown, _ = Handlers(Models(segmenter), []).show(str(tmp_path / "sky.png"), [], None)
    assert shown["warnings"]
    assert shown["warnings"] == list(segmenter(tmp_path / "sky.png").warnings)


def test_a_prepared_example_takes_no_forward_pass(segmenter, network, photograph):
    handlers = Handlers(Models(segmenter), [photograph])
    handlers.prepare_examples()
    calls = network.calls
    shown, files = handlers.show_example([], settings(None), EventData(None, {"index": 0}))
    assert files == [photograph]
    assert network.calls == calls == 1
    assert shown == Handlers(Models(segmenter), []).show(photograph, [], settings(None))[0]


@pytest.mark.parametrize("data", [{"index": 1}, {"index": -1}, {"index": "0"}, {}, None])
def test_an_unknown_example_gives_a_sentence(segmenter, photograph, data):
    answer, files = Handlers(Models(segmenter), [photograph]).show_example([], settings(None), EventData(None, data))
    assert answer["error"].startswith("The example is ")
    assert files == []


# Comparison


def test_a_reference_comes_with_its_counts_and_scores(segmenter, photograph, reference):
    handlers = Handlers(Models(segmenter), [])
    shown, files = handlers.show(photograph, [], None)
    answer, files = handlers.show_reference(reference, files, settings(photograph))
    assert files == [photograph, reference]
    comparison = compare(segmenter(photograph), reference)
    sent = answer["reference"]
    for k in (0, 60, shown["fitted"]):
        hits = comparison.reference & segmenter(photograph).at(shown["stops"][k]).mask
        assert sum(sent["counts"][k:]) == hits.sum()
    scores = comparison.scores()
    assert sent["auroc"] == scores["auroc"]
    assert sent["cldice"] == {"threshold": FITTED, "value": scores["cldice"]}
    refined = handlers.refine(files, settings(photograph, reference=reference, threshold=0.55))
    assert refined == {"threshold": 0.55, "value": comparison.at(0.55).scores()["cldice"]}
    assert refined["value"] != scores["cldice"]


def test_a_turned_manual_segmentation_is_asked_about(segmenter, photograph, reference, tmp_path):
    handlers = Handlers(Models(segmenter), [])
    answer, _ = handlers.show_reference(reference, [photograph], settings(photograph))
    assert answer["reference"]["doubt"] is None
    with Image.open(reference) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "turned.png")
    answer, _ = handlers.show_reference(str(tmp_path / "turned.png"), [photograph], settings(photograph))
    assert answer["reference"]["doubt"].endswith("is it neither turned nor flipped?")


def test_a_rejected_reference_gives_its_sentence(segmenter, photograph, tmp_path):
    Image.new("L", (20, 20), 255).save(tmp_path / "small.png")
    answer, files = Handlers(Models(segmenter), []).show_reference(
        str(tmp_path / "small.png"), [photograph], settings(photograph)
    )
    assert "20 x 20" in answer["reference"]["error"]
    assert files == [photograph]


# Measures, and photographs that were deleted


def test_measures_are_those_of_the_threshold_on_the_page(segmenter, photograph):
    handlers = Handlers(Models(segmenter), [])
    answer = handlers.measure([photograph], settings(photograph, threshold=0.55))
    expected = segmenter(photograph).at(0.55).measure()
    assert answer["measures"] == {key: expected[key] for key in answer["measures"]}
    assert answer["measures"].keys() == {shown["key"] for shown in SHOWN_MEASURES if not shown["needs_anatomy"]}
    assert (answer["photo"], answer["threshold"], answer["reason"]) == (photograph, 0.55, None)
    all_vessel = handlers.measure([photograph], settings(photograph, threshold=0))
    assert all_vessel["measures"] is None and "More than half" in all_vessel["reason"]


def test_a_deleted_photograph_is_not_measured_and_raises_no_alarm(segmenter):
    answer = Handlers(Models(segmenter), []).measure([], settings("deleted.png"))
    assert answer["measures"] is None and "no longer on the server" in answer["reason"]


def test_what_was_closed_meanwhile_is_not_asked_for(segmenter, photograph):
    handlers = Handlers(Models(segmenter), [])
    assert handlers.refine([photograph], settings(None, threshold=None)) is None
    assert handlers.measure([photograph], settings(None, threshold=None))["measures"] is None


def test_a_deleted_photograph_gives_a_sentence(segmenter, tmp_path):
    gone = str(tmp_path / "gone.png")
    for use in (Handlers(Models(segmenter), []).save, Handlers(Models(segmenter), []).refine):
        with pytest.raises(Error, match="deletes photographs after an hour"):
            use([gone], settings(gone))
