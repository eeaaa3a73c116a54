"""A bounded queue that turns single items into batches for one worker thread. It knows nothing of models or HTTP.

The policy is Triton's default: whenever the worker is free it takes all that is waiting, up to `max_batch`, so that a
lone client never waits for company. One thread, because an engine may be called from one thread at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from vitreous.serving.errors import DeadlineError, QueueFullError


@dataclass(frozen=True)
class BatchTimes:
    """What one turn of the worker took, in seconds."""

    size: int
    """Items in the batch."""
    waited: tuple[float, ...]
    """For each of them, the time from joining the queue to the start of the batch."""
    seconds: float
    """Time inside the function."""


@dataclass(eq=False)
class _Item:
    value: Any
    deadline: float
    joined: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    place: Place
    alone: Callable[[], Any] | None = None
    """Set for work that runs by itself, between batches, on the worker thread."""


class BatchQueue:
    """Items in, results out, computed in batches.

    run: gets a list of items and returns as many results in the same order; called on the worker thread only.
    max_batch: most items in one call. max_queue: places for items that wait. delay: seconds to wait for more items.
    observe: told what each call took, on the worker thread.
    """

    def __init__(
        self,
        run: Callable[[list[Any]], Sequence[Any]],
        *,
        max_batch: int = 8,
        max_queue: int = 64,
        delay: float = 0.0,
        observe: Callable[[BatchTimes], None] | None = None,
    ) -> None:
        self._run = run
        self.max_batch = max_batch
        self.max_queue = max_queue
        self.delay = delay
        self._observe = observe
        self._waiting: deque[_Item] = deque()
        self._places = 0
        self._busy = False
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def depth(self) -> int:
        """Places taken: items that wait, or are being made ready to."""
        return self._places

    @property
    def idle(self) -> bool:
        """True when nothing waits and nothing runs."""
        return self._places == 0 and not self._busy

    def place(self) -> Place:
        """Take a place before the work of making the item, so that a full queue costs nothing. Raises QueueFullError."""
        return self.places(1)[0]

    def places(self, count: int) -> list[Place]:
        """Take several places, or none: raises QueueFullError where they do not all fit."""
        with self._changed:
            if self._places + count > self.max_queue:
                raise QueueFullError
            self._places += count
        return [Place(self) for _ in range(count)]

    async def submit(self, item: Any, deadline: float | None = None) -> Any:
        """The result for one item. deadline: on the clock of `time.monotonic`.

        Raises QueueFullError at once, DeadlineError when the deadline passes first, and whatever the function raised
        for this item alone. Cancelling the caller takes a waiting item out of the queue.
        """
        with self.place() as place:
            return await place.run(item, deadline)

    async def call(self, function: Callable[[], Any], deadline: float | None = None) -> Any:
        """Run something else on the worker thread, in its turn, by itself. Raises like `submit`."""
        with self.place() as place:
            return await place.call(function, deadline)

    async def drain(self, timeout: float) -> bool:
        """Wait until nothing waits and nothing runs; False when that took longer than `timeout` seconds."""
        end = time.monotonic() + timeout
        while not self.idle:
            if time.monotonic() >= end:
                return False
            await asyncio.sleep(0.01)
        return True

    def close(self) -> None:
        """End the worker thread after what it is doing; the next item would start another."""
        with self._changed:
            self._thread = None
            self._changed.notify_all()

    def _enter(self, item: _Item) -> None:
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                # A daemon: a model that hangs must not keep the process from ending.
                self._thread = threading.Thread(target=self._work, name="vitreous-serving", daemon=True)
                self._thread.start()
            self._waiting.append(item)
            self._changed.notify_all()

    def _leave(self, item: _Item) -> None:
        with self._changed, contextlib.suppress(ValueError):
            self._waiting.remove(item)

    def _release(self, place: Place) -> None:
        with self._changed:
            if place.held:
                place.held = False
                self._places -= 1

    def _work(self) -> None:
        while (items := self._next()) is not None:
            if items:
                with self._turn:  # a thread that `close` has retired may still be at its last batch
                    self._execute(items)
                with self._changed:
                    self._busy = False

    def _next(self) -> list[_Item] | None:
        """Wait for work and take it; an empty list when all that waited had expired, None when the queue closed."""
        with self._changed:
            while not self._waiting:
                if self._thread is not threading.current_thread():
                    return None
                self._changed.wait()
            self._linger()
            now = time.monotonic()
            taken: list[_Item] = []
            while self._waiting and len(taken) < self.max_batch:
                if taken and (self._waiting[0].alone or taken[0].alone):
                    break
                item = self._waiting.popleft()
                self._release(item.place)
                if item.deadline <= now:
                    _deliver(item, None, DeadlineError())
                else:
                    taken.append(item)
            self._busy = self._busy or bool(taken)
            return taken

    def _linger(self) -> None:
        """Give others the time to join, counted from the arrival of the first; holds the lock, which waiting frees."""
        while self._waiting and len(self._waiting) < self.max_batch and not self._waiting[0].alone:
            remaining = self._waiting[0].joined + self.delay - time.monotonic()
            if remaining <= 0 or self._thread is not threading.current_thread():
                return
            self._changed.wait(remaining)

    def _execute(self, items: list[_Item]) -> None:
        if (alone := items[0].alone) is not None:
            _deliver(items[0], *_attempt(alone))
            return
        start = time.monotonic()
        outcomes = self._outcomes([item.value for item in items])
        if self._observe is not None:
            waited = tuple(start - item.joined for item in items)
            self._observe(BatchTimes(len(items), waited, time.monotonic() - start))
        for item, outcome in zip(items, outcomes, strict=True):
            _deliver(item, *outcome)

    def _outcomes(self, values: list[Any]) -> list[tuple[Any, Exception | None]]:
        """A result or an error for each value."""
        results, error = _attempt(lambda: self._checked(values))
        if error is None:
            return [(result, None) for result in results]
        if len(values) == 1:
            return [(None, error)]
        # One of them spoiled the batch: only that one shall fail.
        return [_attempt(lambda value=value: self._checked([value])[0]) for value in values]

    def _checked(self, values: list[Any]) -> Sequence[Any]:
        results = self._run(values)
        assert len(results) == len(values), f"{len(results)} results for {len(values)} items"
        return results


class Place:
    """One taken place in the queue; given back when its item starts to run, or when the `with` block is left."""

    def __init__(self, queue: BatchQueue) -> None:
        self._queue = queue
        self.held = True

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        self._queue._release(self)

    async def run(self, item: Any, deadline: float | None = None) -> Any:
        """Put the item in the queue and wait for its result. Raises like `BatchQueue.submit`."""
        return await self._wait(item, None, deadline)

    async def call(self, function: Callable[[], Any], deadline: float | None = None) -> Any:
        """Like `BatchQueue.call`, on a place taken before."""
        return await self._wait(None, function, deadline)

    async def _wait(self, value: Any, alone: Callable[[], Any] | None, deadline: float | None) -> Any:
        now = time.monotonic()
        end = float("inf") if deadline is None else deadline
        if end <= now:
            raise DeadlineError
        loop = asyncio.get_running_loop()
        item = _Item(value, end, now, loop, loop.create_future(), self, alone)
        self._queue._enter(item)
        try:
            async with asyncio.timeout(None if deadline is None else end - now):
                return await item.future
        except TimeoutError as error:
            # Only the timer above marks the future cancelled; a TimeoutError of the function itself is passed on.
            if item.future.cancelled():
                raise DeadlineError from error
            raise
        finally:
            self._queue._leave(item)


def _attempt(compute: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return compute(), None
    except Exception as error:
        return None, error


def _deliver(item: _Item, result: Any, error: Exception | None) -> None:
    """Hand a result to the event loop that waits for it; a loop that has ended no longer wants it."""

    def put() -> None:
        if item.future.done():
            return
        if error is None:
            item.future.set_result(result)
        else:
            item.future.set_exception(error)

    with contextlib.suppress(RuntimeError):
        item.loop.call_soon_threadsafe(put)
