"""The same function over many items in a few threads, in order, with bounded memory.

Threads suffice: Pillow's decoders and hashlib let other threads run while they work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 16
"""Items in one task, so that handing over tiny images does not cost more than decoding them."""


def parallel(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[R]:
    """Yield `function(item)` for each item, in order. An exception stops the work and reaches the caller.

    progress: called in the caller's thread with (items done, all items).
    """
    total, done = len(items), 0

    def work(start: int) -> list[R]:
        return [function(item) for item in items[start : start + CHUNK]]

    def results() -> Iterator[list[R]]:
        if threads <= 1:
            yield from map(work, range(0, total, CHUNK))
            return
        pool = ThreadPoolExecutor(threads, thread_name_prefix="vitreous-data")
        try:
            waiting: deque[Future[list[R]]] = deque()
            for start in range(0, total, CHUNK):
                waiting.append(pool.submit(work, start))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    for chunk in results():
        yield from chunk
        done += len(chunk)
        if progress is not None:
            progress(done, total)
