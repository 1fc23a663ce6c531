"""A cohort on many machines: the same work as by threads, in Ray Data. `pip install "resegnet[ray]"`."""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from resegnet.cohort.listing import Photograph
from resegnet.cohort.work import CohortOptions, Work
from resegnet.segmenter import Segmenter

# Photographs that a worker takes at a time, at most: few enough that a lost worker costs seconds, enough that what Ray
# does for each share, some milliseconds, does not count.
_TAKEN = 8
_RETRIES = 3  # of a share whose worker died


def on_ray(
    load: Callable[[], Segmenter],
    options: CohortOptions,
    photographs: Sequence[Photograph],
    workers: int | None = None,
    address: str | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Outcomes for `resegnet.cohort.segment_cohort`, in any order, by the workers of a Ray cluster.

    Each worker is a process on one processor with a model of its own. Only lists and rows of numbers pass between
    machines: workers read the photographs and write the files themselves, so that each must reach them, under a path
    that all share or an address that fsspec knows. What a lost worker had taken is done again by another; what several
    die of is a failure.

    Parameters
    ----------
    load
        Called by each worker once; it and what it loads must be there on every machine.
    options, photographs
        As for `resegnet.cohort.Work`.
    workers
        None takes one for each processor of the cluster.
    address
        Of the cluster; None takes the one that `RAY_ADDRESS` names, else starts Ray on this machine.

    Raises
    ------
    ValueError
        If Ray is not installed, or there is no cluster at that address.
    """
    # Its own log lies in its own folder; here it would run through the progress bar.
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
    except ImportError as error:
        raise ValueError('Ray is not installed; pip install "resegnet[ray]" brings it.') from error
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # a plain one, where a busy machine takes too long to start it
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"Ray at {address or 'this machine or RAY_ADDRESS'} does not answer ({reason})."
            ) from error
    return _outcomes(load, options, photographs, workers, ours)


def _outcomes(
    load: Callable[[], Segmenter],
    options: CohortOptions,
    photographs: Sequence[Photograph],
    workers: int | None,
    ours: bool,
) -> Iterator[tuple[int, dict[str, Any]]]:
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # what no worker outlives is a failure of that photograph, not of the run
    workers = min(workers or int(ray.cluster_resources()["CPU"]), len(photographs))
    # What a lost worker had finished of its share is not done again.
    again = replace(options, resume=True)
    left = set(range(len(photographs)))
    try:
        # A photograph that kills every worker takes its share along; the others of it are then done one by one.
        for taken in dict.fromkeys((max(1, min(_TAKEN, len(photographs) // (4 * workers))), 1)):
            items = [{"number": number, "photograph": pickle.dumps(photographs[number])} for number in sorted(left)]
            if not items:
                break
            done = ray.data.from_items(items, override_num_blocks=-(-len(items) // taken)).map_batches(
                _Worker,
                fn_constructor_args=(load, again, os.getcwd()),
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(items))),
                num_cpus=1,
                max_task_retries=_RETRIES,
            )
            for batch in done.iter_batches(batch_size=None):
                for number, outcome in zip(batch["number"], batch["outcome"], strict=True):
                    left.discard(int(number))
                    yield int(number), json.loads(outcome)
        lost = f"Each of {_RETRIES + 1} workers that tried it died of it, perhaps for want of memory."
        yield from ((number, {"error": lost}) for number in sorted(left))
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"The Ray cluster gave up: {reason}. What was done is in order; --resume goes on.") from error
    finally:
        if ours:
            ray.shutdown()


class _Worker:
    """A process of the cluster with a model."""

    def __init__(self, load: Callable[[], Segmenter], options: CohortOptions, folder: str) -> None:
        with suppress(OSError):  # of another machine, where relative paths mean nothing
            os.chdir(folder)
        self._work = Work(load(), options)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        outcomes = [json.dumps(self._work(pickle.loads(photograph))) for photograph in batch["photograph"]]
        return {"number": batch["number"], "outcome": np.array(outcomes, object)}
