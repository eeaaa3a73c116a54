from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from vitreous.serving.batching import BatchQueue, BatchTimes
from vitreous.serving.errors import DeadlineError, QueueFullError


class Doubler:
    """Doubles numbers, remembers its batches, and waits at a gate before each."""

    def __init__(self, closed: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.started = threading.Semaphore(0)
        self.gate = threading.Event()
        if not closed:
            self.gate.set()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.threads.add(threading.current_thread().name)
        self.started.release()
        assert self.gate.wait(10)
        if -1 in items:
            raise ValueError("bad item")
        return [2 * item for item in items]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


async def begun(doubler: Doubler) -> None:
    """Until the worker is inside its function."""
    assert await asyncio.to_thread(doubler.started.acquire, timeout=10)


def test_results_return_to_their_own_callers() -> None:
    queue = BatchQueue(Doubler(), max_batch=7, max_queue=200)

    async def many() -> list[int]:
        return await asyncio.gather(*(queue.submit(number) for number in range(200)))

    assert run(many()) == [2 * number for number in range(200)]


def test_a_lone_item_does_not_wait_for_company() -> None:
    doubler = Doubler()

    async def alone() -> int:
        return await BatchQueue(doubler, max_batch=8).submit(1)

    assert run(alone()) == 2
    assert doubler.batches == [[1]]


def test_what_waits_while_the_worker_is_busy_becomes_one_batch_up_to_the_limit() -> None:
    doubler = Doubler(closed=True)
    queue = BatchQueue(doubler, max_batch=3)

    async def work() -> None:
        first = asyncio.create_task(queue.submit(0))
        await begun(doubler)
        rest = [asyncio.create_task(queue.submit(number)) for number in range(1, 6)]
        await asyncio.sleep(0)
        assert queue.depth == 5
        doubler.gate.set()
        assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10]

    run(work())
    assert doubler.batches == [[0], [1, 2, 3], [4, 5]]
    assert len(doubler.threads) == 1


def test_a_delay_lets_later_items_join() -> None:
    doubler = Doubler()
    queue = BatchQueue(doubler, max_batch=2, delay=10)

    async def work() -> None:
        first = asyncio.create_task(queue.submit(1))
        await asyncio.sleep(0.05)
        assert doubler.batches == []
        assert await queue.submit(2) == 4  # the batch is full, so the rest of the delay is not spent
        assert await first == 2

    run(work())
    assert doubler.batches == [[1, 2]]


def test_one_bad_item_fails_alone() -> None:
    doubler = Doubler(closed=True)
    queue = BatchQueue(doubler, max_batch=4)

    async def work() -> list[Any]:
        tasks = [asyncio.create_task(queue.submit(0))]
        await begun(doubler)
        tasks += [asyncio.create_task(queue.submit(number)) for number in (1, -1, 3)]
        await asyncio.sleep(0)
        doubler.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    zero, one, bad, three = run(work())
    assert (zero, one, three) == (0, 2, 6)
    assert isinstance(bad, ValueError)


def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    doubler = Doubler(closed=True)
    queue = BatchQueue(doubler, max_batch=1, max_queue=2)

    async def work() -> None:
        first = asyncio.create_task(queue.submit(1))
        await begun(doubler)
        waiting = [asyncio.create_task(queue.submit(number)) for number in (2, 3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as refused:
            await queue.submit(4)
        assert refused.value.status == 503
        assert refused.value.headers["Retry-After"] == "1"
        doubler.gate.set()
        assert await asyncio.gather(first, *waiting) == [2, 4, 6]
        assert await queue.submit(5) == 10
        assert queue.depth == 0

    run(work())


def test_several_places_are_taken_together_or_not_at_all() -> None:
    queue = BatchQueue(Doubler(), max_queue=3)
    with pytest.raises(QueueFullError):
        queue.places(4)
    assert queue.depth == 0
    for place in queue.places(3):
        place.release()
        place.release()
    assert queue.depth == 0


def test_cancelled_items_are_never_computed_and_give_their_place_back() -> None:
    doubler = Doubler(closed=True)
    queue = BatchQueue(doubler, max_batch=8)

    async def work() -> None:
        first = asyncio.create_task(queue.submit(0))
        await begun(doubler)
        rest = [asyncio.create_task(queue.submit(number)) for number in range(1, 6)]
        await asyncio.sleep(0)
        for task in rest[:4]:
            task.cancel()
        await asyncio.gather(*rest[:4], return_exceptions=True)
        assert queue.depth == 1
        doubler.gate.set()
        assert await asyncio.gather(first, rest[4]) == [0, 10]

    run(work())
    assert doubler.batches == [[0], [5]]


def test_an_item_past_its_deadline_is_told_so_and_never_computed() -> None:
    doubler = Doubler(closed=True)
    queue = BatchQueue(doubler)

    async def work() -> None:
        first = asyncio.create_task(queue.submit(0))
        await begun(doubler)
        with pytest.raises(DeadlineError) as late:
            await queue.submit(1, deadline=time.monotonic() + 0.02)
        assert late.value.status == 504
        with pytest.raises(DeadlineError):
            await queue.submit(2, deadline=time.monotonic() - 1)
        doubler.gate.set()
        assert await first == 0
        assert await queue.submit(3) == 6

    run(work())
    assert doubler.batches == [[0], [3]]


def test_a_timeout_raised_by_the_function_is_not_taken_for_the_deadline() -> None:
    def fail(items: list[int]) -> list[int]:
        raise TimeoutError("of the function")

    async def work() -> None:
        with pytest.raises(TimeoutError, match="of the function"):
            await BatchQueue(fail).submit(1, deadline=time.monotonic() + 10)

    run(work())


def test_other_work_runs_by_itself_on_the_same_thread_in_its_turn() -> None:
    doubler = Doubler(closed=True)
    queue = BatchQueue(doubler)

    async def work() -> str:
        tasks = [asyncio.create_task(queue.submit(0))]
        await begun(doubler)
        tasks.append(asyncio.create_task(queue.submit(1)))
        await asyncio.sleep(0)
        other = asyncio.create_task(queue.call(lambda: threading.current_thread().name))
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(queue.submit(2)))
        await asyncio.sleep(0)
        doubler.gate.set()
        await asyncio.gather(*tasks)
        return await other

    assert run(work()) in doubler.threads
    assert doubler.batches == [[0], [1], [2]]


def test_draining_waits_for_what_is_in_flight_but_no_longer_than_told() -> None:
    doubler = Doubler(closed=True)
    queue = BatchQueue(doubler)

    async def work() -> None:
        task = asyncio.create_task(queue.submit(1))
        await begun(doubler)
        assert not await queue.drain(0.02)
        doubler.gate.set()
        assert await queue.drain(10)
        assert await task == 2

    run(work())


def test_the_queue_outlives_an_event_loop_and_a_close() -> None:
    queue = BatchQueue(Doubler())
    assert run(queue.submit(1)) == 2
    queue.close()
    assert run(queue.submit(2)) == 4


def test_observers_hear_of_sizes_and_times() -> None:
    seen: list[BatchTimes] = []
    run(BatchQueue(Doubler(), observe=seen.append).submit(1))
    for _ in range(200):
        if seen:
            break
        time.sleep(0.01)
    assert [(times.size, len(times.waited)) for times in seen] == [(1, 1)]
    assert seen[0].seconds >= 0


def test_a_function_that_loses_results_fails_its_callers_and_not_the_worker() -> None:
    answers = iter([[], [], [], [7]])

    def lossy(items: list[int]) -> list[int]:
        return next(answers)

    async def work() -> None:
        queue = BatchQueue(lossy)
        for _ in range(3):
            with pytest.raises(AssertionError):
                await queue.submit(1)
        assert await queue.submit(1) == 7

    run(work())
