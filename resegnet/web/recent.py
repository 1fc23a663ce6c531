"""The segmentations of recent photographs, kept in memory for a while."""

from __future__ import annotations

import atexit
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from resegnet.results.segmentation import Segmentation
from resegnet.segmenter import Segmenter
from resegnet.web.files import KEEP_S

RECENT_BYTES = 1_000_000_000  # of results in memory; the result of 8 megapixels takes 65 MB


class RecentResults:
    """Segmentations of the last photographs by file name, so that downloads and scores need no second forward pass.

    Time and memory are bounded. A result is dropped `keep_s` seconds after it was made, or earlier if memory is short
    and it is the one that was not used for the longest time. If it is asked for again, it is computed again.

    Attributes
    ----------
    turn : threading.Lock
        Held during a forward pass. Two forward passes at once would take twice as long and twice the memory.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        keep_s: float = KEEP_S,
        limit_bytes: int = RECENT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._segmenter = segmenter
        self._keep_s = keep_s
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._results: OrderedDict[str, tuple[float, Segmentation]] = OrderedDict()  # each with the time it was made
        self._lock = threading.Lock()  # gradio runs handlers in threads
        self.turn = threading.Lock()
        # At exit the process waits for a running forward pass: torch crashes if the interpreter ends during one.
        atexit.register(self.turn.acquire, timeout=60)
        self._sweeper: threading.Timer | None = None

    def __call__(self, path: str) -> Segmentation:
        """Return the segmentation of the photograph in file `path`, at the model's fitted threshold.

        Raises
        ------
        ImageError
            If the file is missing or is not a picture.
        """
        result = self._find(path)
        if result is None:
            with self.turn:
                result = self._find(path)  # the holder of the lock before us may have computed it
                if result is None:
                    result = self._segmenter(path)
                    self._add(path, result)
        return result

    def forget(self, path: str) -> None:
        """Drop the segmentation of `path`, if there is one."""
        with self._lock:
            self._results.pop(path, None)

    def sweep(self) -> None:
        """Drop the results that are older than `keep_s`."""
        with self._lock:
            oldest_kept = self._clock() - self._keep_s
            for path in [path for path, (made, _) in self._results.items() if made <= oldest_kept]:
                del self._results[path]
            self._sweeper = None
            self._sweep_later()

    def _find(self, path: str) -> Segmentation | None:
        with self._lock:
            if path not in self._results:
                return None
            self._results.move_to_end(path)
            return self._results[path][1]

    def _add(self, path: str, result: Segmentation) -> None:
        with self._lock:
            self._results[path] = (self._clock(), result)
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


def _size_bytes(result: Segmentation) -> int:
    arrays = [result.image, result.probability, result.fov]
    return sum(array.nbytes for array in arrays) + (0 if result.anatomy is None else result.anatomy.planes.nbytes)
