"""The segmentations of recent photographs, kept in memory for a while."""

from __future__ import annotations

import atexit
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import is_dataclass

import numpy as np

from resegnet.results.segmentation import Segmentation
from resegnet.web.files import KEEP_S
from resegnet.web.models import Models

RECENT_BYTES = 1_000_000_000  # of results in memory; the result of 8 megapixels takes 65 MB


class RecentResults:
    """Segmentations of the last photographs by file and model; downloads and scores need no second forward pass.

    Time and memory are bounded. A result is dropped `keep_s` seconds after it was made, or earlier if memory is short
    and it is the one that was not used for the longest time. If it is asked for again, it is computed again.

    Attributes
    ----------
    models : Models
        They make the segmentations.
    turn : threading.Lock
        Held during a forward pass. Two forward passes at once would take twice as long and twice the memory.
    """

    def __init__(
        self,
        models: Models,
        keep_s: float = KEEP_S,
        limit_bytes: int = RECENT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models = models
        self._keep_s = keep_s
        self._limit_bytes = limit_bytes
        self._clock = clock
        # By file and name of the model, each with the time it was made.
        self._results: OrderedDict[tuple[str, str], tuple[float, Segmentation]] = OrderedDict()
        self._lock = threading.Lock()  # gradio runs handlers in threads
        self.turn = threading.Lock()
        # At exit the process waits for a running forward pass: torch crashes if the interpreter ends during one.
        atexit.register(self.turn.acquire, timeout=60)
        self._sweeper: threading.Timer | None = None

    def __call__(self, path: str, model: str | None = None) -> Segmentation:
        """Return the segmentation of the photograph in file `path`, at the model's fitted threshold.

        Raises
        ------
        ImageError
            If the file is missing or is not a picture.
        gradio.exceptions.Error
            If the model is not offered or cannot be loaded.
        """
        key = path, self.models.name(model)
        result = self._find(key)
        if result is None:
            with self.turn:
                result = self._find(key)  # the holder of the lock before us may have computed it
                if result is None:
                    result = self.models(model)(path)
                    self._add(key, result)
        return result

    def forget(self, path: str) -> None:
        """Drop the segmentations of `path`, if there are any."""
        with self._lock:
            for key in [key for key in self._results if key[0] == path]:
                del self._results[key]

    def sweep(self) -> None:
        """Drop the results that are older than `keep_s`."""
        with self._lock:
            oldest_kept = self._clock() - self._keep_s
            for key in [key for key, (made, _) in self._results.items() if made <= oldest_kept]:
                del self._results[key]
            self._sweeper = None
            self._sweep_later()

    def _find(self, key: tuple[str, str]) -> Segmentation | None:
        with self._lock:
            if key not in self._results:
                return None
            self._results.move_to_end(key)
            return self._results[key][1]

    def _add(self, key: tuple[str, str], result: Segmentation) -> None:
        with self._lock:
            self._results[key] = (self._clock(), result)
            while len(self._results) > 1 and self._size_bytes() > self._limit_bytes:
                self._results.popitem(last=False)
            self._sweep_later()

    def _size_bytes(self) -> int:
        return sum(_size_bytes(result) for _, result in self._results.values())

    def _sweep_later(self) -> None:
        if self._sweeper is None and self._results:
            oldest = min(made for made, _ in self._results.values())
            self._sweeper = threading.Timer(max(0.1, oldest + self._keep_s - self._clock()), self.sweep)
            self._sweeper.daemon = True
            self._sweeper.start()


def _size_bytes(value: object) -> int:
    """Return the size of a result's arrays, also of those that it keeps since they were first asked for."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    parts = vars(value).values() if is_dataclass(value) else value if isinstance(value, (tuple, list)) else ()
    return sum(map(_size_bytes, parts))
