"""Records of releases: text in them stays text, and the origin of the threshold is told as it was."""

from __future__ import annotations

import copy
import json
import re

import pytest
from support.stand_in import stored_record

from resegnet.errors import ReleaseError
from resegnet.hub import BUNDLED_RELEASES
from resegnet.releases.records import (
    as_number,
    escape_markdown,
    format_count,
    format_score,
    one_line,
    read_record,
    teacher_record,
    teacher_releases,
    threshold_origin,
    was_trained_on,
)

ONE_RUN = {
    "options": {"dataset": ["drive"], "validation_fraction": 0.25, "start_from": ""},
    "train_ids": ["a", "b", "c"],
    "validation_ids": ["x", "y"],
}
# Trained further on all photographs, without validation.
FINE_TUNED = {
    "options": {"dataset": ["drive"], "validation_fraction": 0, "start_from": "release"},
    "train_ids": ["a", "b", "c", "x", "y"],
    "validation_ids": [],
    "earlier": ONE_RUN,
}
FITTED = "The threshold was fitted on 2 validation photographs"
UNKNOWN = "The records do not name the photographs that the threshold was fitted on."


def changed(record: dict, **values: object) -> dict:
    return copy.deepcopy(record) | values


@pytest.mark.parametrize("name", BUNDLED_RELEASES)
def test_the_threshold_of_a_bundled_release_has_a_known_origin(name):
    sentence = threshold_origin(json.loads((BUNDLED_RELEASES[name] / "training.json").read_text()))
    assert re.match(r"The threshold was fitted on \d+ validation photographs[ ;]", sentence)
    assert "do not tell" not in sentence


def test_the_threshold_of_a_release_of_six_runs():
    assert threshold_origin(stored_record("training_of_six_runs")) == (
        "The threshold was fitted on 9 validation photographs before the model was trained on them, and was not "
        "changed afterwards."
    )


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        (ONE_RUN, f"{FITTED} that the model was not trained on."),
        (changed(ONE_RUN, validation_ids=["x"]), f"{FITTED[:-1].replace('2', '1')} that the model was not trained on."),
        (FINE_TUNED, f"{FITTED} before the model was trained on them, and was not changed afterwards."),
        (
            changed(FINE_TUNED, train_ids=["a", "x"]),
            f"{FITTED} before the model was trained on 1 of them, and was not changed afterwards.",
        ),
        (
            changed(FINE_TUNED, train_ids=["a"], labelled_ids=["y"]),
            f"{FITTED} before the model was trained on 1 of them, and was not changed afterwards.",
        ),
        (
            changed(ONE_RUN, earlier=changed(ONE_RUN, train_ids=["x"])),
            f"{FITTED}; the model had already been trained on 1 of them.",
        ),
        (changed(FINE_TUNED, train_ids=["a"]), f"{FITTED} that the model was not trained on."),
        (
            changed(ONE_RUN, options={"start_from": "theirs"}),
            f"{FITTED}; the records do not tell whether the model was trained on them.",
        ),
        (
            changed(FINE_TUNED, train_ids=None),
            f"{FITTED}; the records do not tell whether the model was trained on them.",
        ),
        (changed(FINE_TUNED, earlier={}), UNKNOWN),
        (changed(FINE_TUNED, options={}), UNKNOWN),
        ({}, UNKNOWN),
        ({"validation_ids": 3, "train_ids": "x", "options": [1], "earlier": ["x"]}, UNKNOWN),
    ],
)
def test_the_threshold_of_other_records(training, sentence):
    assert threshold_origin(training) == sentence


def test_the_threshold_is_told_by_content_where_two_data_sets_have_the_same_ids():
    """The parent's data set numbers its photographs as the new one does."""
    first = {"options": {"start_from": ""}, "train_ids": ["0", "1"], "train_sha256": ["a", "b"]}
    second = {"options": {"start_from": "first"}, "train_ids": ["1"], "train_sha256": ["c"], "earlier": first}
    second |= {"validation_ids": ["0"], "validation_sha256": ["d"]}
    assert threshold_origin(second).endswith("validation photograph that the model was not trained on.")
    second["validation_sha256"] = ["b"]
    assert threshold_origin(second).endswith("the model had already been trained on 1 of them.")
    second |= {"validation_sha256": ["d"], "anatomy_train_ids": ["0"]}
    assert threshold_origin(second).endswith("validation photograph that the model was not trained on.")
    assert threshold_origin(second | {"anatomy_train_sha256": ["d"]}).endswith("been trained on 1 of them.")


def test_the_record_of_a_teacher_says_whether_all_that_it_learned_from_is_known():
    known = {"options": {"dataset": ["drive"]}, "train_ids": ["0"], "train_sha256": ["a"]}
    assert teacher_record("one", known) == {"name": "one", "trained_on": ["drive"], "sha256": ["a"]}
    student = known | {"options": {"dataset": ["hrf"], "extra": ["idrid"]}, "labelled_ids": ["1"]}
    for unknown in (changed(known, options={"dataset": ["hrf"], "start_from": "theirs"}), student):
        record = teacher_record("two", unknown)
        assert record["trained_on_complete"] is False and "sha256" not in record
        run = {"options": {"dataset": ["hrf"], "teacher": ["two"]}, "teachers": [record]}
        assert teacher_releases(run) == {"two": False} and was_trained_on("les_av", run) is None


@pytest.mark.parametrize("content", [None, "[]", "3", "{", "<html>"])
def test_a_record_that_is_not_a_json_object_is_refused(tmp_path, content):
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ReleaseError, match=r"metrics\.json .*: write or download the release again\.$"):
        read_record(path)


def test_numbers_and_texts_are_formatted_without_trust():
    assert [format_score(value) for value in (0.12345, 1, "x", None, float("nan"), True)] == ["0.123", "1.000", *"----"]
    assert [format_count(value) for value in (12345, None, [1])] == ["12,345", "-", "-"]
    assert as_number(10**400) is None
    assert one_line(" a\n\u202eb\ud800 ") == "a b" and one_line("\0") == "unnamed"
    assert escape_markdown("a|b <i> $x$ \\(y\\) `c`") == r"a\|b &lt;i&gt; &#36;x&#36; &#92;(y&#92;) \`c\`"
