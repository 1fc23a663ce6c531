"""The record of a run: which code it names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from resegnet.learning import record


def test_the_commit_is_that_of_this_code_and_not_of_a_project_round_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "project.py").touch()
    git("add", "project.py")
    git("commit", "-m", "A project")
    installed = tmp_path / "v" / "resegnet" / "record.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    monkeypatch.setattr(record, "__file__", str(installed))
    assert record._git_commit() is None
    git("add", "v")
    git("commit", "-m", "This code")
    assert record._git_commit() == git("rev-parse", "HEAD")
    monkeypatch.setattr(record, "__file__", "/nowhere/record.py")
    assert record._git_commit() is None
