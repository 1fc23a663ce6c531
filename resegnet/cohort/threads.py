"""Segment many photographs by several threads, with the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from resegnet.engine import processors
from resegnet.errors import ImageError
from resegnet.image import ImageSource
from resegnet.results.segmentation import Segmentation
from resegnet.segmenter import Segmenter

S = TypeVar("S")
R = TypeVar("R")
P = TypeVar("P", bound=ImageSource)


def in_order(
    work: Callable[[S], R], items: Iterable[S], workers: int | None = None
) -> Generator[tuple[S, R], None, None]:
    """Yield each item with the result of `work` for it, in the order of the items, by several threads.

    An exception of `work` is raised here and ends the generator: calls under way are finished, the others are dropped.

    Parameters
    ----------
    work
        Called with each item.
    items
        Taken from as the work proceeds: at most twice the number of workers wait in memory.
    workers
        Number of threads; None takes one for each processor.
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
    sources: Iterable[P],
    finish: Callable[[P, Segmentation], R],
    workers: int | None = None,
) -> Generator[tuple[P, R | ImageError], None, None]:
    """Segment photographs by several threads at once; memory in use does not grow with their number.

    Threads suffice, since Pillow, numpy and the engines release the interpreter lock while they work. With a segmenter
    of one thread (`Segmenter.from_pretrained(threads=1)`) each processor works on a photograph of its own, which is
    faster than all processors on one photograph.

    Parameters
    ----------
    segmenter
        Segments every photograph.
    sources
        Photographs in any form that `Segmenter.__call__` takes; taken from as the work proceeds.
    finish
        Called with a source and its result, in the thread that made it, for example to write or measure. Its return
        value is passed on instead of the result, whose memory can then be freed.
    workers
        Photographs at a time; None takes one for each processor.

    Yields
    ------
    source, outcome
        In the order of the sources: the return value of `finish`, or the `ImageError` of a photograph that cannot be
        read.
    """

    def work(source: P) -> R | ImageError:
        try:
            return finish(source, segmenter(source))
        except ImageError as error:
            return error

    return in_order(work, sources, workers)
