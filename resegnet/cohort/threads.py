"""Many photographs: decoding, network and writing of several at a time, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from resegnet.engine import processors
from resegnet.errors import ImageError
from resegnet.results.segmentation import Segmentation
from resegnet.segmenter import Segmenter

S = TypeVar("S")
R = TypeVar("R")


def in_order(work: Callable[[S], R], items: Iterable[S], workers: int | None = None) -> Iterator[tuple[S, R]]:
    """Each item with what `work` makes of it, in the items' order, by several threads; see `segment_many`.

    What `work` raises comes out here and ends it; work that was begun is finished, the rest is dropped.
    """
    workers = workers or processors()
    waiting: deque[tuple[S, Future[R]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > 2 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for item, future in waiting:
            yield item, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def segment_many(
    segmenter: Segmenter,
    sources: Iterable[S],
    finish: Callable[[S, Segmentation], R],
    workers: int | None = None,
) -> Iterator[tuple[S, R | ImageError]]:
    """Segment photographs by several threads at once; what waits in memory does not grow with their number.

    Threads suffice, since Pillow, numpy and the engines free the interpreter while they work. With a segmenter of one
    thread (`Segmenter.from_pretrained(threads=1)`) every processor has a photograph of its own, which is quicker
    than all of them at one.

    Parameters
    ----------
    segmenter
        For every photograph.
    sources
        What `Segmenter.__call__` takes; asked for as work goes on.
    finish
        Called with a source and its result, by the thread that made it, to write or measure; what it gives is handed
        on in place of the result, which is then free to go.
    workers
        Photographs at a time; None takes as many as there are processors.

    Yields
    ------
    source, outcome
        In the order of the sources: what `finish` gave, or the `ImageError` of a photograph that cannot be read.
    """

    def work(source: S) -> R | ImageError:
        try:
            return finish(source, segmenter(source))
        except ImageError as error:
            return error

    return in_order(work, sources, workers)
