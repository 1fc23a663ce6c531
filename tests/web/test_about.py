"""The About text says what the records of the release say, and no more."""

from __future__ import annotations

import json

import pytest
from support.stand_in import stored_records

from resegnet import Config, Segmenter
from resegnet.web.about import about

RECORDS = stored_records()
DRIVE_ROW = f"| DRIVE | 20 | {RECORDS['metrics']['drive']['pooled']['f1']:.3f} |"


@pytest.fixture
def tell(tmp_path):
    """A function that returns the About text of a release with these records; None leaves the file out."""

    def told(**records):
        for name, record in (RECORDS | records).items():
            path = tmp_path / f"{name}.json"
            path.unlink(missing_ok=True)
            if record is not None:
                path.write_text(record if isinstance(record, str) else json.dumps(record))
        return about(Segmenter(lambda rgb: rgb[:, 1], Config(), folder=tmp_path))

    return told


def training(**options):
    return RECORDS["training"] | {"options": RECORDS["training"]["options"] | options}


def test_a_data_set_is_called_unseen_only_if_the_records_say_so(tell):
    assert "LES-AV (not trained on)" in tell(training=training(start_from=""))
    assert "DRIVE (not trained on)" in tell(training=training(start_from="", dataset=["hrf"]))
    for record in (training(start_from="release"), training(start_from="", dataset=[]), {}, None):
        assert "not trained on)" not in tell(training=record)


BROKEN = [None, "", "{", "[]", "null", "[" * 100_000, {}]


@pytest.mark.parametrize("broken", [*BROKEN, {"options": []}, {"options": {"dataset": 3}}])
def test_a_broken_training_record_is_left_out(tell, broken):
    text = tell(training=broken)
    assert DRIVE_ROW in text and "Trained on" not in text


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_scores_are_left_out(tell, broken):
    text = tell(metrics=broken)
    assert "without a record of its scores" in text and "### Trained on" in text and "| [DRIVE](" in text


@pytest.mark.parametrize("report", [None, 3, [], {}, {"pooled": None}, {"pooled": {"f1": "high"}, "count": "x"}])
def test_a_set_without_scores_shows_dashes(tell, report):
    text = tell(metrics={"hrf": report, "drive": RECORDS["metrics"]["drive"]})
    assert "| HRF | - | - | - | - | - | - |" in text
    assert DRIVE_ROW in text


def test_names_stay_text(tell):
    text = tell(metrics={"<b>|x": {"count": 1}}, training=training(dataset=["<i>"]))
    assert "<b>" not in text and "<i>" not in text
    assert "| &lt;b&gt;\\|x (not trained on) | 1 |" in text


def test_a_set_with_disc_and_fovea_alone_is_not_among_the_scores_of_vessels(tell):
    text = tell(metrics={"idrid_disc": {"places": {"count": 3}}, "drive": RECORDS["metrics"]["drive"]})
    assert DRIVE_ROW in text and "IDRiD (masks of the optic disc)" not in text
