"""Remembers the photographs that a tab of a browser opened, so that it finds them again when it is loaded again."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_VISITS = 1000


class Visits:
    """Files of the last visits, by the secret that only the visitor's tab knows. The files themselves are not kept.

    Parameters
    ----------
    keep_s
        How long a visit is known after its last photograph, in seconds.
    clock
        Seconds, ascending.
    """

    def __init__(self, keep_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_s = keep_s
        self._clock = clock
        self._visits: OrderedDict[str, tuple[float, list[str]]] = OrderedDict()  # the oldest first
        self._lock = threading.Lock()  # gradio runs handlers in threads

    def keep(self, secret: str | None, files: list[str]) -> None:
        """Remember the files of a visit, the last one last. Without a secret nothing is remembered."""
        if secret is None:
            return
        with self._lock:
            self._visits[secret] = (self._clock(), files)
            self._visits.move_to_end(secret)
            self._drop_old()

    def find(self, secret: str | None) -> list[str]:
        """Return the files of a visit; none if it is unknown or too long ago."""
        with self._lock:
            self._drop_old()
            return list(self._visits.get(secret or "", (0, []))[1])

    def _drop_old(self) -> None:
        oldest_kept = self._clock() - self._keep_s
        while self._visits and (len(self._visits) > MAX_VISITS or next(iter(self._visits.values()))[0] <= oldest_kept):
            self._visits.popitem(last=False)
