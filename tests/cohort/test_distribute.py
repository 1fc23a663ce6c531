"""The order in which workers of a cluster get photographs, and what a lost worker means for them."""

from __future__ import annotations

from collections import Counter

import pytest

from resegnet.cohort import cluster
from resegnet.cohort.work import Outcome
from resegnet.errors import ClusterError


class Workers:
    """A pool whose workers answer in the order in which they were sent something, as a script says.

    `script(worker, share)` returns the event of a share, None for an ordinary answer.
    """

    def __init__(self, script=lambda worker, share: None, starts=True):
        self.script = script
        self.starts = starts
        self.waiting = []
        self.started = 0
        self.shares = []

    def start(self):
        self.started += 1
        if self.starts:
            self.waiting.append(cluster._Event(self.started, []))
        return self.started

    def send(self, worker, share):
        self.shares.append(list(share))
        outcomes = [Outcome({"number": number}) for number in share]
        self.waiting.append(self.script(worker, list(share)) or cluster._Event(worker, outcomes))

    def wait(self, timeout_s):
        return self.waiting.pop(0) if self.waiting else None


def outcomes_of(workers, count=12, share=4):
    found = list(cluster._distribute(workers, count, 2, share))
    assert sorted(number for number, _ in found) == list(range(count))
    assert all(outcome.row is None or outcome.row["number"] == number for number, outcome in found)
    return dict(found)


def failed(outcomes):
    return [number for number, outcome in outcomes.items() if outcome.error is not None]


def test_every_photograph_is_sent_once():
    workers = Workers()
    assert failed(outcomes_of(workers)) == []
    assert workers.shares == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert workers.started == 2


def test_a_share_whose_worker_is_unavailable_is_done_again_as_it_is():
    tries = Counter()

    def script(worker, share):
        tries[share[0]] += 1
        if tries[share[0]] <= 4:
            return cluster._Event(worker, is_alive=tries[share[0]] % 2 == 0)
        return None

    workers = Workers(script)
    assert failed(outcomes_of(workers, 4)) == []
    assert workers.shares == [[0, 1, 2, 3]] * 5


def test_only_the_photograph_that_crashes_three_workers_alone_has_failed():
    def script(worker, share):
        return cluster._Event(worker, is_alive=False, crashed=True) if 6 in share else None

    workers = Workers(script)
    outcomes = outcomes_of(workers)
    assert failed(outcomes) == [6]
    assert "crashed 3 workers" in outcomes[6].error
    assert workers.shares.count([6]) == 3


def test_a_photograph_never_reached_is_no_failure_but_ends_the_run():
    with pytest.raises(ClusterError, match=r"11 workers in a row were lost.*--resume"):
        outcomes_of(Workers(lambda worker, share: cluster._Event(worker, is_alive=False)), 2, 1)
    with pytest.raises(ClusterError, match=r"no worker has started.*--resume"):
        outcomes_of(Workers(starts=False))
