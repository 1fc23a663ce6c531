"""Segment a cohort on many machines, by the workers of a Ray cluster. `pip install "resegnet[ray]"`."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from resegnet.cohort.photograph import Photograph
from resegnet.cohort.work import CohortOptions, Outcome, Work
from resegnet.errors import ClusterError, ResegnetError, first_line, require
from resegnet.segmenter import Segmenter

# Photographs that a worker takes at a time, at most: few enough that a lost worker costs seconds, enough that Ray's
# work for each share, some milliseconds, does not count.
_SHARE = 8
_CRASHES = 3  # workers that a photograph may crash, alone in its share, before it counts as failed
_START_S = 1800  # wait for the first of the workers that a busy cluster starts
_ANSWER_S = 300  # wait for a sign of life of a worker that Ray calls unavailable
_PAUSE_S = 1  # between two calls to it


def on_ray(
    load: Callable[[], Segmenter],
    options: CohortOptions,
    photographs: Sequence[Photograph],
    workers: int | None = None,
    address: str | None = None,
) -> Generator[tuple[int, Outcome], None, None]:
    """Yield number and outcome of each photograph, in any order, by the workers of a Ray cluster.

    Each worker is a process on one processor with a model of its own. Only lists and rows of numbers pass between
    machines: the workers read the photographs and write the files themselves, so each needs access to them, under a
    path that all machines share or an address that fsspec knows.

    A photograph counts as failed only if it crashed three workers while they had no other photograph. The photographs
    of a worker that is lost for any other reason, or that does not answer, are done again.

    Parameters
    ----------
    load
        Each worker calls it once. It, and what it loads, must exist on every machine.
    options, photographs
        See `resegnet.cohort.work.Work`.
    workers
        Number of workers; None takes one for each processor of the cluster.
    address
        Address of the cluster; None takes the one that `RAY_ADDRESS` names, or starts Ray on this machine.

    Raises
    ------
    ClusterError
        If there is no cluster at that address, or if the cluster loses its workers. In the last case what was done
        stays valid, and a later run can resume.
    MissingExtraError
        If Ray is not installed.
    OutputError
        If the results cannot be written.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray keeps logs in a folder of its own
    require("ray", "the engine 'ray'")
    import ray

    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises a plain Exception if a busy machine takes too long to start it
            raise ClusterError(
                f"Ray at {address or 'RAY_ADDRESS or this machine'} does not answer ({first_line(error)}); expected a "
                "running cluster: check its address."
            ) from error
    return _run(load, options, photographs, workers, started)


def _run(
    load: Callable[[], Segmenter],
    options: CohortOptions,
    photographs: Sequence[Photograph],
    workers: int | None,
    shut_down: bool,
) -> Generator[tuple[int, Outcome], None, None]:
    import ray

    workers = max(1, min(workers or int(ray.cluster_resources().get("CPU", 1)), len(photographs)))
    # With `resume`, a worker that takes over the share of a lost one does not do finished photographs again.
    pool = _RayPool(load, replace(options, resume=True), photographs)
    try:
        yield from _distribute(pool, len(photographs), workers, _share_size(len(photographs), workers))
    except ray.exceptions.RayTaskError:  # a defect of this package: it keeps its traceback
        raise
    except ray.exceptions.RayError as error:
        raise _gave_up(first_line(error)) from error
    finally:
        pool.close()
        if shut_down:
            ray.shutdown()


def _share_size(count: int, workers: int) -> int:
    """Return how many photographs a worker takes at a time: fewer in a small cohort, so that all workers have some."""
    return max(1, min(_SHARE, count // (4 * workers)))


@dataclass(frozen=True)
class _Event:
    """News of one worker: it answered, or its share was lost."""

    worker: int
    outcomes: list[Outcome] | None = None  # of its share, in order; None if the share was lost
    is_alive: bool = True
    crashed: bool = False  # True if the worker died after it had begun with the share


class _Pool(Protocol):
    """Workers by number."""

    def start(self) -> int:
        """Start a worker. It answers, without outcomes, as soon as it has loaded its model."""

    def send(self, worker: int, share: Sequence[int]) -> None:
        """Give photographs, by number, to a worker that has answered."""

    def wait(self, timeout_s: float) -> _Event | None:
        """Wait for news of any worker."""


def _distribute(pool: _Pool, count: int, workers: int, share_size: int) -> Generator[tuple[int, Outcome], None, None]:
    """Yield the outcomes of `count` photographs, done by workers in shares of `share_size`.

    A share that crashes its worker is split into its photographs, since any of them may be the cause. A photograph that
    crashes `_CRASHES` workers on its own has failed. A share that is lost without a crash goes to the next worker as it
    is.
    """
    waiting = deque([list(range(first, min(first + share_size, count))) for first in range(0, count, share_size)])
    shares: dict[int, list[int]] = {}  # by worker; empty while the worker loads its model
    idle: list[int] = []
    crashes: Counter[int] = Counter()
    left, losses = count, 0  # losses: in a row, without an outcome between them, that no photograph caused
    while left:
        while waiting and idle:
            worker = idle.pop()
            shares[worker] = waiting.popleft()
            pool.send(worker, shares[worker])
        loading = sum(not share for share in shares.values())
        for _ in range(min(len(waiting) - loading, workers - len(shares))):
            shares[pool.start()] = []
        event = pool.wait(_START_S)
        if event is None:
            if any(shares.values()):
                continue
            raise _gave_up(f"no worker has started within {_START_S // 60} minutes; check that a processor is free")
        share = shares.pop(event.worker)
        if event.is_alive:
            idle.append(event.worker)
        if event.outcomes is not None:
            losses = 0 if share else losses
            left -= len(share)
            yield from zip(share, event.outcomes, strict=True)
        elif event.crashed and len(share) == 1:
            (number,) = share
            crashes[number] += 1
            if crashes[number] < _CRASHES:
                waiting.append(share)
            else:
                losses = 0
                left -= 1
                yield number, Outcome(error=f"It crashed {_CRASHES} workers in a row; memory may be too small for it.")
        elif event.crashed:
            waiting.extend([number] for number in share)
        else:
            losses += 1
            if losses > max(10, 3 * workers):
                raise _gave_up(f"{losses} workers in a row were lost")
            if share:
                waiting.appendleft(share)


class _RayPool:
    """Workers that are actors of a Ray cluster."""

    def __init__(
        self, load: Callable[[], Segmenter], options: CohortOptions, photographs: Sequence[Photograph]
    ) -> None:
        import ray

        # Ray must not restart an actor or repeat a call by itself: `_distribute` counts what happens to each.
        self._actor_class: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Worker)
        self._arguments = load, options, os.getcwd()
        self._photographs = photographs
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}  # worker of each call under way
        self._begun: dict[int, Any] = {}  # a call that the worker answers before it begins with its share
        self._unavailable_since: dict[int, float] = {}
        self._count = 0

    def start(self) -> int:
        worker, self._count = self._count, self._count + 1
        self._actors[worker] = actor = self._actor_class.remote(*self._arguments)
        self._calls[actor.load.remote()] = worker
        return worker

    def send(self, worker: int, share: Sequence[int]) -> None:
        actor = self._actors[worker]
        self._begun[worker] = actor.ping.remote()
        self._calls[actor.segment.remote([self._photographs[number] for number in share])] = worker

    def wait(self, timeout_s: float) -> _Event | None:
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            event = self._wait_once(min(left_s, _ANSWER_S / 4) if self._unavailable_since else left_s)
            if event is not None:
                return event
        return None

    def close(self) -> None:
        """Stop all workers."""
        for worker in list(self._actors):
            self._stop(worker)

    def _wait_once(self, timeout_s: float) -> _Event | None:
        import ray

        for worker, since in self._unavailable_since.items():
            if time.monotonic() - since > _ANSWER_S:
                self._stop(worker)
                return _Event(worker, is_alive=False)
        done, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout_s)
        if not done:
            return None
        worker = self._calls.pop(done[0])
        try:
            outcomes = _get(done[0])
        except ray.exceptions.ActorUnavailableError:
            # On a busy machine Ray says so of workers that are alive, and of those that have died just now.
            self._unavailable_since.setdefault(worker, time.monotonic())
            time.sleep(_PAUSE_S)
            self._calls[self._actors[worker].ping.remote()] = worker
            return None
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ResegnetError):
                raise error.cause from None
            if isinstance(error.cause, OSError):
                raise ClusterError(
                    f"A worker of the cluster cannot start ({first_line(error.cause)}); expected the model's files on "
                    "every machine: copy them there, or name a model of the Hub."
                ) from error
            raise  # with the worker's traceback
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as error:
            crashed = self._has_begun(worker) and not _lost_machine(error)
            self._stop(worker)
            return _Event(worker, is_alive=False, crashed=crashed)
        if self._unavailable_since.pop(worker, None) is not None:  # it answers the ping; the share's own answer is lost
            return _Event(worker)
        return _Event(worker, outcomes)

    def _has_begun(self, worker: int) -> bool:
        """Return whether a worker that died had received its share."""
        import ray

        try:
            return worker in self._begun and ray.get(self._begun[worker], timeout=0)
        except ray.exceptions.RayError:  # also GetTimeoutError
            return False

    def _stop(self, worker: int) -> None:
        import ray

        self._calls = {call: other for call, other in self._calls.items() if other != worker}
        self._begun.pop(worker, None)
        self._unavailable_since.pop(worker, None)
        with suppress(ray.exceptions.RayError):
            ray.kill(self._actors.pop(worker))


class _Worker:
    """A process of the cluster with a model. It answers its calls one after the other."""

    def __init__(self, load: Callable[[], Segmenter], options: CohortOptions, folder: str) -> None:
        with suppress(OSError):  # on another machine, where relative paths mean nothing
            os.chdir(folder)
        self._load = load
        self._options = options
        self._work: Work | None = None

    def load(self) -> list[Outcome]:
        """Load the model."""
        self._work = Work(self._load(), self._options)
        return []

    def ping(self) -> bool:
        """Show that the worker is alive and has finished its earlier calls."""
        return True

    def segment(self, photographs: Sequence[Photograph]) -> list[Outcome]:
        """Make the results of photographs."""
        if self._work is None:  # the answer of `load` was lost, and it may have failed
            self.load()
        assert self._work is not None
        return [self._work(photograph) for photograph in photographs]


def _get(call: Any) -> list[Outcome]:
    """Return the answer of a call that has ended; the tests replace this function."""
    import ray

    return ray.get(call)


def _lost_machine(error: Exception) -> bool:
    """Return whether a worker was lost because its machine was."""
    import ray

    return isinstance(error, ray.exceptions.NodeDiedError) or getattr(error, "preempted", False)


def _gave_up(reason: str) -> ClusterError:
    return ClusterError(
        f"The Ray cluster gave up: {reason}. The results written so far are complete: run the same command with "
        "--resume."
    )
