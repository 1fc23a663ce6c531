"""The ZIP of a batch: what is in it while the batch goes on, and what a full disk gives."""

from __future__ import annotations

import errno
import zipfile

import gradio as gr
import pytest

from resegnet.errors import OutputError
from resegnet.web import batch
from resegnet.web.batch import Batches
from resegnet.web.models import Models
from resegnet.web.recent import RecentResults


@pytest.fixture
def batches(segmenter, tmp_path):
    (tmp_path / "gradio").mkdir()
    return Batches(RecentResults(Models(segmenter)))


def run(batches, photograph):
    *_, (done, *_) = batches.run([photograph], 0.55, False)
    return done


def test_files_of_the_photograph_that_is_being_done_are_left_out(batches, photograph):
    done = run(batches, photograph)
    for name in ("masks/.0123456789abcdef.tmp", "masks/next.png", "overlays/next.jpg"):
        (done.folder / name).write_bytes(b"half a picture")
    with zipfile.ZipFile(batches.save(done)) as archive:
        assert set(archive.namelist()) == {
            "masks/my eye.png",
            "overlays/my eye.jpg",
            "results.csv",
            "results.parquet",
        }


def test_a_late_cancel_does_not_lock_the_tab(batches, photograph):
    done = run(batches, photograph)
    batch, _, progress, start, cancel, _ = batches.cancel(done)
    assert batch is done and "1 of 1 photograph done." in progress
    assert start["interactive"] and not cancel["interactive"]


def test_a_file_that_was_deleted_costs_its_line_only(batches, photograph, tmp_path):
    *_, (done, table, *_) = batches.run([str(tmp_path / "gone.png"), photograph], 0.55, False)
    assert [outcome.error is None for outcome in done.outcomes] == [False, True]
    assert "deleted after an hour" in table


def test_a_full_disk_gives_a_sentence_that_names_no_folder(batches, photograph, monkeypatch, tmp_path):
    done = run(batches, photograph)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(batch, "write_tables", full)
    with pytest.raises(gr.Error, match="no room") as caught:
        batches.save(done)
    assert str(tmp_path) not in str(caught.value)
    assert not list((tmp_path / "gradio").rglob("resegnet_batch.zip"))

    def full_folder(_: object) -> None:
        raise OutputError(f"{tmp_path} cannot be written to (No space left on device)")

    monkeypatch.setattr(batch, "make_folder", full_folder)
    with pytest.raises(gr.Error, match="no room") as caught:
        run(batches, photograph)
    assert str(tmp_path) not in str(caught.value)
