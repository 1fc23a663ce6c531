"""A dashboard of a run by trackio, https://huggingface.co/docs/trackio, beside the files of its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from resegnet.errors import TrainingError, first_line, require


class Log(Protocol):
    """Takes the metrics of an epoch."""

    def __call__(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Send the metrics."""


@contextmanager
def tracked(project: str, space: str, run: str, config: Mapping[str, Any]) -> Iterator[Log]:
    """Open a run of a trackio project, and close it at the end.

    Parameters
    ----------
    project
        Name of the project; "" tracks nothing.
    space
        Space of the Hugging Face Hub that keeps the project, such as `user/eyes`; "" keeps it on this machine, where
        `trackio show` opens it.
    run
        Name of the run. One that is there is continued.
    config
        Options of the run, shown beside the curves.

    Yields
    ------
    Log
        Function that sends the metrics of an epoch.

    Raises
    ------
    MissingExtraError
        If trackio is not installed.
    TrainingError
        If it refuses the names, or the Space cannot be reached.
    """
    if not project:
        yield lambda metrics, epoch: None
        return
    require("trackio", "--track")
    import trackio

    try:
        opened = trackio.init(
            project=project,
            name=run,
            space_id=space or None,
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,  # the load of this machine is nobody's business in a public Space
        )
    except Exception as error:  # of its own, of the Hub, or ValueError for a name
        raise TrainingError(
            f"--track {project}: trackio cannot start ({first_line(error)}). Train without --track, or name another "
            "project or Space."
        ) from error
    try:
        yield lambda metrics, epoch: opened.log(dict(metrics), step=epoch)
    finally:
        opened.finish()
