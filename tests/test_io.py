"""Files and folders that appear completely or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from resegnet.io import atomic_folder, write_atomically


@pytest.mark.parametrize("name", [".", ".."])
def test_a_folder_in_place_of_a_file_is_an_error_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name):
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    with pytest.raises(OSError, match=rf"'{name}'"):
        write_atomically(name, b"content")
    assert [path.name for path in tmp_path.rglob("*")] == ["working"]


def test_what_a_process_left_that_was_killed_while_it_replaced_a_folder_comes_back(tmp_path: Path):
    (tmp_path / ".release.resegnet-old").mkdir()
    (tmp_path / ".release.resegnet-old" / "weights").write_text("old")
    (tmp_path / ".release.resegnet-partial").mkdir()

    class FullDiskError(Exception):
        pass

    with pytest.raises(FullDiskError), atomic_folder(tmp_path / "release"):
        raise FullDiskError
    assert (tmp_path / "release" / "weights").read_text() == "old"
    with atomic_folder(tmp_path / "release") as folder:
        (folder / "weights").write_text("new")
    assert (tmp_path / "release" / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
