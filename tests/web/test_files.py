"""The folder of the app: whose it is, what is deleted when, and what the end of the process leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import PATIENCE_S

from resegnet.web.files import keep_swept, sweep

# The file alone: without torch an app's folder is there in no time.
APP = "import runpy; print(runpy.run_path('resegnet/web/files.py')['own_folder'](), flush=True); input()"


@pytest.fixture
def start(tmp_path):
    """A function that starts a process with a folder of its own; gives both."""
    processes = []

    def start_():
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", APP],
                cwd=Path(__file__).parents[2],
                env=os.environ | {"GRADIO_TEMP_DIR": str(tmp_path / "place")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1], Path(processes[-1].stdout.readline().strip())

    yield start_
    for process in processes:
        process.kill()
        process.communicate()


def test_the_folder_is_private_and_goes_with_the_process(start, tmp_path):
    process, folder = start()
    assert folder.is_dir() and folder.is_relative_to(tmp_path / "place")
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    (folder / "eye.png").write_bytes(b"eye")
    process.communicate("\n")
    assert process.returncode == 0
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_what_a_killed_one_left_goes_at_the_next_start_and_nothing_else(start, tmp_path):
    (tmp_path / "place/resegnet-page-notes").mkdir(parents=True)
    (tmp_path / "project/files").mkdir(parents=True)
    (tmp_path / "place/resegnet-page-link").symlink_to(tmp_path / "project")
    killed, left = start()
    (left / "eye.png").write_bytes(b"eye")
    _, other = start()
    killed.kill()
    killed.wait()
    assert (left / "eye.png").exists()
    _, mine = start()
    kept = {tmp_path / "place/resegnet-page-notes", tmp_path / "place/resegnet-page-link"}
    assert set((tmp_path / "place").iterdir()) == {*kept, other.parent, mine.parent}
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["files"]


def test_old_files_go_whoever_wrote_them_and_folders_once_they_are_empty(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/eye.png").write_bytes(b"eye")
    (tmp_path / "tmpx1y2").write_bytes(b"half an eye")
    written = max(path.lstat().st_ctime for path in tmp_path.rglob("*"))
    sweep(tmp_path, written - 3600)
    assert {path.name for path in tmp_path.rglob("*")} == {"a", "eye.png", "tmpx1y2"}
    sweep(tmp_path, written + 0.001)
    assert list(tmp_path.rglob("*.png")) == [] and not (tmp_path / "tmpx1y2").exists()
    sweep(tmp_path, time.time() + 3600)
    assert list(tmp_path.iterdir()) == []


def test_of_more_than_there_is_room_for_the_oldest_go(tmp_path):
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        (tmp_path / f"{number}/eye.png").write_bytes(bytes(1000))
        time.sleep(0.02)  # beyond the clock of the file system
    sweep(tmp_path, 0, max_bytes=2500)
    assert {path.parent.name for path in tmp_path.rglob("*.png")} == {"2", "3"}


def test_a_link_goes_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/eye.png").write_bytes(b"eye")
    (tmp_path / "files").mkdir()
    (tmp_path / "files/link").symlink_to(tmp_path / "kept")
    sweep(tmp_path / "files", time.time() + 3600)
    assert list((tmp_path / "files").iterdir()) == []
    assert (tmp_path / "kept/eye.png").exists()


def test_it_is_swept_again_and_again(tmp_path):
    keep_swept(tmp_path, keep_s=0.3)
    for name in ("first.png", "second.png"):
        (tmp_path / name).write_bytes(b"eye")
        end = time.monotonic() + PATIENCE_S
        while (tmp_path / name).exists() and time.monotonic() < end:
            time.sleep(0.02)
        assert not (tmp_path / name).exists()
