"""A run over a cohort that was interrupted, and what `--resume` does."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from support.cohort import ROOT, SLOW, table
from support.files import tree
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter
from resegnet.cohort import store
from resegnet.io import png


def test_a_run_in_which_everything_failed_can_be_started_again(segment, drawings, tmp_path, capsys):
    (tmp_path / "eye.png").write_text("no photograph")
    assert segment("eye.png", "--out", "out") == 1
    (tmp_path / "eye.png").write_bytes(drawings[0])
    assert segment("eye.png", "--out", "out") == 0
    assert not (tmp_path / "out/failures.csv").exists()
    (tmp_path / "eye.png").unlink()
    assert segment("eye.png", "--out", "out", "--resume") == 1  # all failed, and the earlier result is still there
    capsys.readouterr()
    assert segment("eye.png", "--out", "out") == 1
    assert "already holds results" in capsys.readouterr().err


def test_results_go_nowhere_but_into_the_folder_that_is_named(segment, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert segment(folder / "a.png", "--out", "~/out") == 0
    assert (tmp_path / "home/out/masks/a.png").exists()
    assert segment(folder / "a.png", "--out", "") == 1  # of a variable that is not set
    assert "The folder of the results is ''" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"home", "photos"}


def test_only_what_a_killed_run_left_is_removed(segment, folder, tmp_path):
    assert segment(folder / "a.png", "--out", "out") == 0
    ours, other = tmp_path / f"out/masks/.{'0' * 32}.tmp", tmp_path / "out/masks/.notes.tmp"
    ours.touch()
    other.touch()
    assert segment(folder / "a.png", "--out", "out", "--resume") == 0
    assert other.exists() and not ours.exists()


def test_results_are_not_mixed_without_being_asked(folder, segment, capsys, tmp_path):
    assert segment(folder / "a.png", "--out", "out") == 0
    before = tree(tmp_path / "out")
    assert segment(folder / "b.png", "--out", "out") == 1
    assert "--resume" in capsys.readouterr().err
    assert tree(tmp_path / "out") == before


def calls_of(network, run):
    before = network.calls
    assert run() == 0
    return network.calls - before


@pytest.mark.slow
def test_resume_does_what_is_missing_changed_or_damaged_and_nothing_else(folder, segment, network, tmp_path, drawings):
    out = tmp_path / "out"

    def go_on(*more):
        return calls_of(network, lambda: segment(folder, "--out", "out", "--resume", *more))

    assert go_on() == 6
    whole = tree(out)
    assert go_on() == 0
    assert tree(out) == whole

    mask = (out / "masks/a.png").read_bytes()
    (out / "masks/a.png").write_bytes(mask[:-10])  # cut
    (out / "overlays/b.jpg").unlink()
    (out / "records/p1_left.json").write_text('{"row": {')
    flipped = bytearray((out / "masks/p2_left.png").read_bytes())
    flipped[len(flipped) // 2] ^= 1  # as long as before
    (out / "masks/p2_left.png").write_bytes(flipped)
    assert go_on() == 4
    assert tree(out) == whole

    (folder / "a.png").write_bytes(drawings[9])  # another photograph under the name
    assert go_on() == 1
    assert (out / "masks/a.png").read_bytes() != mask
    assert go_on("--threshold", "0.7") == 6
    assert go_on() == 6
    assert go_on("--probability") == 6
    (folder / "c.png").write_bytes(drawings[10])
    assert go_on("--probability") == 1
    assert [row["id"] for row in table(out / "results.csv")][:3] == ["a", "b", "c"]


def test_another_model_is_another_result(folder, segment, network, monkeypatch, tmp_path):
    assert segment(folder, "--out", "out") == 0
    other = Segmenter(network, Config(input_size=96, threshold=0.5), "a/model@v2")
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: other)
    assert calls_of(network, lambda: segment(folder, "--out", "out", "--resume")) == 6
    assert {row["model"] for row in table(tmp_path / "out/results.csv")} == {"a/model@v2"}


def test_what_became_unreadable_leaves_no_stale_mask(folder, segment, tmp_path):
    assert segment(folder, "--out", "out") == 0
    (folder / "a.png").write_text("damaged")
    assert segment(folder, "--out", "out", "--resume") == 1
    assert not list((tmp_path / "out").rglob("a.*"))
    (folder / "a.png").unlink()
    assert segment(folder, "--out", "out", "--resume") == 0
    assert not (tmp_path / "out/failures.csv").exists()


def test_what_cannot_be_had_today_costs_no_results(folder, segment, tmp_path, network):
    (folder / "list.csv").write_text("image\na.png\nb.png\n")
    assert segment(folder / "list.csv", "--out", "out") == 0
    made = {path: content for path, content in tree(tmp_path / "out").items() if "/" in path}
    unplugged = folder.rename(tmp_path / "unplugged")
    folder.mkdir()
    (folder / "list.csv").write_text("image\na.png\nb.png\n")
    assert segment(folder / "list.csv", "--out", "out", "--resume") == 1
    assert len(table(tmp_path / "out/failures.csv")) == 2
    assert {path: content for path, content in tree(tmp_path / "out").items() if "/" in path} == made
    shutil.rmtree(folder)
    unplugged.rename(folder)
    assert calls_of(network, lambda: segment(folder / "list.csv", "--out", "out", "--resume")) == 0


def test_files_that_are_not_made_anew_do_not_stay(folder, segment, tmp_path):
    assert segment(folder, "--out", "out", "--probability") == 0
    assert segment(folder, "--out", "out", "--resume", "--threshold", "0.9", "--no-overlay") == 0
    assert {path.split("/")[0] for path in tree(tmp_path / "out") if "/" in path} == {"masks", "records"}


@pytest.mark.parametrize("name", ["masks/a.png", "results.csv", "results/thesis.xlsx"])
def test_resume_touches_nothing_that_is_not_its_own(folder, segment, capsys, tmp_path, name):
    (tmp_path / "study" / name).parent.mkdir(parents=True)
    (tmp_path / "study" / name).write_text("by hand")
    assert segment(folder, "--out", "study", "--resume") == 1
    assert "Name another folder" in capsys.readouterr().err
    assert tree(tmp_path / "study") == {name: b"by hand"}


def test_what_else_lies_in_the_folder_of_the_tables_stays(folder, segment, tmp_path):
    assert segment(folder / "a.png", "--out", "out") == 0
    (tmp_path / "out/results").mkdir()
    (tmp_path / "out/results/part-00000.parquet").write_bytes(b"of a run on a cluster")
    (tmp_path / "out/results/mine.xlsx").write_bytes(b"mine")
    assert segment(folder / "a.png", "--out", "out", "--resume") == 0
    assert [path.name for path in (tmp_path / "out/results").iterdir()] == ["mine.xlsx"]


def test_a_file_for_a_store_is_there_whole_or_not_at_all():
    import fsspec

    def stopped():
        with store.open_atomically("memory://cut/results.csv") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not fsspec.filesystem("memory").exists("/cut/results.csv")
    with store.open_atomically("memory://cut/results.csv") as file:
        file.write(b"all")
    assert store.read("memory://cut/results.csv") == b"all"


@pytest.mark.slow
def test_nobody_who_reads_on_is_no_fault_of_the_disk(many, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "resegnet", "segment", str(many), "--out", str(tmp_path / "out")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
    )  # fmt: skip
    process.stdout.close()
    assert process.wait(120) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.fixture
def many(tmp_path, drawings):
    for number, content in enumerate(drawings):
        (tmp_path / "many" / f"eye {number % 7}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "many" / f"eye {number % 7}/{number}.png").write_bytes(content)
    return tmp_path / "many"


def start(*arguments, **options):
    line = [sys.executable, "-c", SLOW, *map(str, arguments)]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)


def finish(process):
    _, said = process.communicate()
    return process.returncode, said


def wait_for_records(out, count, process):
    while len(list(out.glob("records/*.json"))) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_at_any_time_and_resumed_the_result_is_the_same_to_the_byte(many, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    for count in (2, 7):
        process = start(many, "--out", out, "--resume", "--workers", 2)
        wait_for_records(out, count, process)
        process.kill()
        process.communicate()
        assert not (out / "results.csv").exists()
    (out / f"masks/.{'0123' * 8}.tmp").write_bytes(b"half a m")  # as a kill can leave it
    assert finish(start(many, "--out", out, "--resume", "--workers", 3)) == (0, "")
    assert finish(start(many, "--out", whole, "--workers", 1)) == (0, "")
    assert tree(out) == tree(whole)
    assert len(table(out / "results.csv")) == 12


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(many, tmp_path):
    # As from a terminal: what a shell starts in the background ignores the signal, and its children do.
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    process = start(many, "--out", tmp_path / "out", "--workers", 1, preexec_fn=listen)
    wait_for_records(tmp_path / "out", 2, process)
    for _ in range(3):  # impatiently
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    status, said = finish(process)
    assert status == 130
    assert said == "resegnet: stopped; to continue, run the same command with --resume.\n"
    for record in (tmp_path / "out/records").iterdir():
        for name, digest in json.loads(record.read_text())["files"].items():
            assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_what_was_done_stays(many, tmp_path, drawings):
    """The system refuses files beyond a size, which one overlay needs and no other."""
    big = many / "z/z.png"
    big.parent.mkdir()
    big.write_bytes(png(draw_fundus(5, (1000, 1000)).image))
    limit = 60_000
    process = start(
        many, "--out", tmp_path / "out", "--workers", 1,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    status, said = finish(process)
    assert status == 1
    assert said.startswith(
        f"resegnet: {tmp_path / 'out'} cannot be written to (File too large). The results written so far"
    )
    assert said.count("\n") == 1
    assert len(list((tmp_path / "out/records").glob("*.json"))) == 12
    assert not list(tmp_path.rglob("*.tmp"))
    assert finish(start(many, "--out", tmp_path / "out", "--resume")) == (0, "")
    assert len(table(tmp_path / "out/results.csv")) == 13


def test_a_folder_that_cannot_be_made_is_one_sentence(folder, segment, capsys):
    assert segment(folder, "--out", folder / "notes.txt/out") == 1
    error = capsys.readouterr().err
    assert "cannot be written to (Not a directory): give a folder or address" in error and error.count("\n") == 1
    assert "--resume" not in error
