"""The folder of a training run: its files, and how they are read and written."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from resegnet.errors import TrainingError, first_line
from resegnet.io import TEMPORARY_FILES, atomic_writer, json_bytes, read_json, write_atomically
from resegnet.learning.options import TrainingOptions


@dataclass(frozen=True)
class RunFolder:
    """Paths of the files that a training run writes."""

    path: Path

    @property
    def options(self) -> Path:
        """Options of the run, as JSON."""
        return self.path / "options.json"

    @property
    def commits(self) -> Path:
        """Commits on the Hub of the parent release and the teachers, as JSON. Absent if none is from the Hub."""
        return self.path / "commits.json"

    @property
    def metrics(self) -> Path:
        """Loss and scores, one line of JSON for each epoch."""
        return self.path / "metrics.jsonl"

    @property
    def curves(self) -> Path:
        """Picture of the learning curves, drawn from the metrics after each epoch."""
        return self.path / "curves.png"

    @property
    def checkpoint(self) -> Path:
        """State after the last finished epoch, from which `--resume` continues."""
        return self.path / "checkpoint.pt"

    @property
    def samples(self) -> Path:
        """Folder of photographs at the working size. Deleted at the end of the run."""
        return self.path / "samples"

    @property
    def best(self) -> Path:
        """Averaged weights of the best epoch."""
        return self.path / "best.pt"

    @property
    def teacher(self) -> Path:
        """Averaged weights that told the arteries and veins of photographs without labels, for `self_training`."""
        return self.path / "teacher.pt"

    @property
    def release(self) -> Path:
        """Folder of the finished release."""
        return self.path / "release"

    def preview(self, epoch: int) -> Path:
        """Return the path of the preview picture of an epoch."""
        return self.path / "previews" / f"epoch_{epoch:04d}.png"

    def make(self) -> None:
        """Create the folder, and remove temporary files that a killed run left in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        for path in self.path.rglob(TEMPORARY_FILES):
            path.unlink(missing_ok=True)

    def require_checkpoint(self) -> None:
        """Check that there is a run to resume.

        Raises
        ------
        TrainingError
            If there is none.
        """
        if not self.checkpoint.exists():
            raise TrainingError(f"{self.path} holds no {self.checkpoint.name} to resume. Start without --resume.")

    def read_options(self) -> dict[str, Any]:
        """Read the values of the options that the run was started with.

        The device may be missing on this machine, because `--resume` accepts another one.

        Raises
        ------
        TrainingError
            If the file cannot be read or does not hold training options.
        """
        try:
            values = json.loads(self.options.read_text(encoding="utf-8"))
            options = TrainingOptions(**(values | {"device": "cpu"}))
            return dataclasses.asdict(options) | {"device": str(values["device"])}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise TrainingError(
                f"{self.options} cannot be read ({first_line(error)}). Start again with another --out."
            ) from error

    def write_options(self, options: TrainingOptions) -> None:
        """Write the options of the run."""
        write_atomically(self.options, json_bytes(dataclasses.asdict(options)))

    def read_commits(self) -> dict[str, str]:
        """Read the commit of each release from the Hub that the run uses, by the name that the user gave.

        Raises
        ------
        TrainingError
            If the file is there but cannot be read.
        """
        if not self.commits.exists():
            return {}
        try:
            return {str(name): str(commit) for name, commit in read_json(self.commits).items()}
        except (OSError, ValueError, AttributeError) as error:
            raise TrainingError(
                f"{self.commits} cannot be read ({first_line(error)}). Start again with another --out."
            ) from error

    def write_commits(self, commits: Mapping[str, str]) -> None:
        """Write the commit of each release from the Hub, or no file if there is none."""
        if commits:
            write_atomically(self.commits, json_bytes(commits))
        else:
            self.commits.unlink(missing_ok=True)

    def read_metrics(self) -> list[dict[str, float]]:
        """Read the lines of the metrics; a line that a crash cut short is left out."""
        lines = []
        for text in self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.exists() else []:
            with suppress(ValueError):
                lines.append(json.loads(text))
        return lines

    def append_metrics(self, record: Mapping[str, float]) -> None:
        """Add the line of an epoch to the metrics."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def cut_metrics(self, epochs: int) -> None:
        """Keep the metrics of the first epochs only: those after the checkpoint are trained again."""
        lines = self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.exists() else []
        write_atomically(self.metrics, "".join(line + "\n" for line in lines[:epochs]).encode())


def save_tensors(state: Mapping[str, Any], path: Path) -> None:
    """Write a file that holds either the old or the new state, even after a power failure.

    Raises
    ------
    OSError
        If the file cannot be written; the error names the file.
    """
    content = io.BytesIO()
    torch.save(state, content)  # written to the file directly, torch reports a full disk as a RuntimeError
    with atomic_writer(path, sync=True) as file:
        file.write(content.getbuffer())


def load_tensors(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_tensors` wrote.

    Raises
    ------
    TrainingError
        If the file cannot be read.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        raise TrainingError(f"{path} cannot be read ({first_line(error)}). Start again with another --out.") from error
