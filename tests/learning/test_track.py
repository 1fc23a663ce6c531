"""A dashboard gets the metrics of each epoch, and none is opened unless asked for. trackio itself is a stand-in."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from resegnet.errors import MissingExtraError, TrainingError
from resegnet.learning import track as module
from resegnet.learning.track import tracked


@pytest.fixture
def calls(monkeypatch):
    """Calls that trackio gets, in order."""
    made = []

    def init(**given):
        if given["project"] == "a/b":
            raise ValueError("Invalid project name\nand more")
        made.append(given)
        return SimpleNamespace(
            log=lambda metrics, step: made.append((step, metrics)), finish=lambda: made.append("finished")
        )

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=init))
    monkeypatch.setattr(module, "require", lambda *_: None)
    return made


def test_each_epoch_is_sent_and_the_run_is_closed(calls):
    with tracked("eyes", "", "first", {"epochs": 2}) as log:
        log({"loss": 0.5}, 1)
    (opened, *sent) = calls
    assert (opened["project"], opened["name"], opened["config"]) == ("eyes", "first", {"epochs": 2})
    assert opened["space_id"] is None and opened["resume"] == "allow"
    assert sent == [(1, {"loss": 0.5}), "finished"]


def test_a_run_that_fails_is_closed_too(calls):
    with pytest.raises(KeyboardInterrupt), tracked("eyes", "me/space", "first", {}):
        raise KeyboardInterrupt
    assert calls[0]["space_id"] == "me/space" and calls[-1] == "finished"


def test_nothing_is_opened_without_a_project(calls):
    with tracked("", "", "first", {}) as log:
        log({"loss": 0.5}, 1)
    assert not calls


def test_what_trackio_refuses_is_told_in_one_sentence(calls):
    told = r"--track a/b: trackio cannot start \(Invalid project name\)\. Train without"
    with pytest.raises(TrainingError, match=told), tracked("a/b", "", "first", {}):
        pass


def test_a_missing_trackio_names_its_extra(monkeypatch):
    monkeypatch.setattr("resegnet.errors.is_installed", lambda package: package != "trackio")
    told = r'--track needs it: run `pip install "resegnet\[track\]"`'
    with pytest.raises(MissingExtraError, match=told), tracked("eyes", "", "first", {}):
        pass
