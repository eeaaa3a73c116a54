"""Bodies that are too large or too slow, clients that leave, and more work than the queue holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from serving_fakes import MeanEngine, asked, picture

from vitreous.serving import Predictor
from vitreous.serving.limits import BODIES_IN_MEMORY

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def slow(predictor: Predictor) -> MeanEngine:
    """The predictor's engine; set its `gate` to hold batches back."""
    assert isinstance(predictor.engine, MeanEngine)
    return predictor.engine


async def until(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


def test_a_body_over_the_limit_is_refused_by_its_length_before_it_is_read(predictor: Predictor) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/predict", content=never(), headers={**PNG, "Content-Length": "1001"})

    reply = asked(predictor, ask, max_body=1000)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")


def test_a_chunked_body_is_counted_and_cut_off_at_the_limit(predictor: Predictor) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100
            yield b"x" * 100

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/predict", content=endless(), headers=PNG)

    assert asked(predictor, ask, max_body=1000).status_code == 413
    assert sent <= 1200


def test_a_body_of_exactly_the_limit_is_accepted(predictor: Predictor) -> None:
    body = picture()

    async def ask(client: httpx.AsyncClient) -> int:
        return (await client.post("/predict", content=body, headers=PNG)).status_code

    assert asked(predictor, ask, max_body=len(body)) == 200
    assert asked(predictor, ask, max_body=len(body) - 1) == 413


def test_a_slow_body_is_408_and_the_connection_is_closed(predictor: Predictor) -> None:
    async def dripping() -> AsyncIterator[bytes]:
        for byte in picture():
            yield bytes([byte])
            await asyncio.sleep(0.05)

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/predict", content=dripping(), headers=PNG)

    reply = asked(predictor, ask, body_timeout=0.1)
    assert (reply.status_code, reply.json()["error"]["code"]) == (408, "slow_body")
    assert reply.headers["Connection"] == "close"


def test_many_bodies_at_once_share_a_fixed_amount_of_memory(predictor: Predictor) -> None:
    """Each body stays under its own limit; together they would not."""
    release = asyncio.Event()
    arrived = 0

    async def held() -> AsyncIterator[bytes]:
        nonlocal arrived
        yield b"x" * 1000
        arrived += 1
        await release.wait()
        yield b""

    async def ask(client: httpx.AsyncClient) -> list[int]:
        posts = [
            asyncio.create_task(client.post("/predict", content=held(), headers=PNG)) for _ in range(BODIES_IN_MEMORY)
        ]
        await until(lambda: arrived == BODIES_IN_MEMORY)
        over = await client.post("/predict", content=picture(), headers=PNG)
        release.set()
        first = [(await post).status_code for post in posts]
        after = await client.post("/predict", content=picture(), headers=PNG)
        return [over.status_code, *sorted(set(first)), after.status_code]

    assert asked(predictor, ask, max_body=1000) == [503, 400, 200]


def test_more_than_the_queue_holds_is_503_with_retry_after_and_the_rest_is_answered(
    predictor: Predictor, slow: MeanEngine
) -> None:
    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        slow.gate = threading.Event()
        posts = [asyncio.create_task(client.post("/predict", content=picture(), headers=PNG)) for _ in range(40)]
        await until(lambda: sum(post.done() for post in posts) >= 40 - 4 - 2)
        live = await client.get("/v2/health/live")
        slow.gate.set()
        replies = [await post for post in posts]
        return [live, *replies, await client.post("/predict", content=picture(), headers=PNG)]

    live, *replies, after = asked(predictor, ask, max_queue=4, max_batch=2)
    assert live.status_code == after.status_code == 200
    refused = [reply for reply in replies if reply.status_code == 503]
    assert len(refused) + sum(reply.status_code == 200 for reply in replies) == 40
    assert 34 <= len(refused) <= 36
    assert {reply.json()["error"]["code"] for reply in refused} == {"queue_full"}
    assert all(int(reply.headers["Retry-After"]) >= 1 for reply in refused)


def test_an_answer_that_takes_too_long_is_504_and_later_requests_are_answered(
    predictor: Predictor, slow: MeanEngine
) -> None:
    async def ask(client: httpx.AsyncClient) -> list[int]:
        slow.gate = threading.Event()
        late = await client.post("/predict", content=picture(), headers=PNG)
        assert late.json()["error"]["code"] == "deadline"
        slow.gate.set()
        return [late.status_code, (await client.post("/predict", content=picture(), headers=PNG)).status_code]

    assert asked(predictor, ask, timeout=0.3) == [504, 200]


async def call_and_hang_up(app: Any, body: bytes) -> None:
    """One request straight into the application, whose client is gone as soon as the body is sent."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(_: Any) -> None:
        return None

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"image/png")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b""}
    await app({**scope, "http_version": "1.1", "scheme": "http", "headers": headers, "root_path": ""}, receive, send)


def test_clients_that_hang_up_leave_the_queue_and_nobody_gets_anothers_answer(
    predictor: Predictor, slow: MeanEngine
) -> None:
    """Four in five clients leave; every other gets the answer to its own picture, under batching."""
    kept = [((17 * number) % 256, (59 * number) % 256, (101 * number) % 256) for number in range(20)]

    async def ask(client: httpx.AsyncClient) -> list[Any]:
        app: Any = client.app  # type: ignore[attr-defined]
        slow.gate = threading.Event()
        first = asyncio.create_task(client.post("/predict", content=picture(), headers=PNG))
        await until(lambda: len(slow.batches) == 2)
        posts = []
        for color in kept:
            posts.append(asyncio.create_task(client.post("/predict", content=picture(color), headers=PNG)))
            leavers = [asyncio.create_task(call_and_hang_up(app, picture((1, 2, 3)))) for _ in range(4)]
            await asyncio.gather(*leavers)
        await until(lambda: app.state.service.queue.depth == len(kept))
        slow.gate.set()
        await first
        return [(await post).json()["predictions"][0] for post in posts]

    answers = asked(predictor, ask, max_queue=100, max_batch=8)
    assert answers == [
        {key: value for key, value in predictor.predict(picture(color))[0].to_dict().items() if key != "path"}
        for color in kept
    ]
    computed = slow.batches[1 : -len(kept)]  # self-test first; the comparison above ran one by one
    assert sum(computed) == 1 + len(kept)
    assert max(computed) > 1


def test_a_client_that_left_is_counted_as_such(predictor: Predictor, slow: MeanEngine) -> None:
    async def ask(client: httpx.AsyncClient) -> str:
        slow.gate = threading.Event()
        await call_and_hang_up(client.app, picture())  # type: ignore[attr-defined]
        slow.gate.set()
        return (await client.get("/metrics")).text

    assert 'code="499"' in asked(predictor, ask)
