"""uvicorn, with what it leaves out: draining before it stops listening, and patience that ends.

A connection that never finishes sending its request's head, or that goes on sending a body whose answer (413, 415,
401 ...) it already has, is closed after a while. In between the rest of a refused body is read and thrown away, so
that the client gets to see the answer instead of a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Generator
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from vitreous.config.serve import ServeConfig

MAX_HEAD = 64 * 1024
"""Bytes of request line and headers that are put up with; the parser itself knows no limit."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol plus limits on the time and size of a request's head."""

    patience = 10.0
    """Seconds; set by `DrainingServer`."""
    _head_timer: asyncio.TimerHandle | None = None
    _head_size = 0
    _last: Any = None
    """The exchange after which the client wants the connection closed."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is None:
            return
        self._head_size += len(data)
        if self._head_size > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()
        if not self.cycle.keep_alive:
            # uvicorn would close right after its answer, and a client still sending would see a reset instead of it.
            self._last = self.cycle
            self.cycle.keep_alive = True

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.cycle is self._last and self.cycle.response_complete:
            self.transport.close()

    def on_response_complete(self) -> None:
        answered = self.cycle
        super().on_response_complete()
        if not answered.response_complete:
            return  # with pipelined requests `cycle` is one further on, and none of our business
        if answered.more_body:
            self.loop.call_later(self.patience, self._close_if_still, answered)
        elif answered is self._last:
            self.transport.close()

    def _await_head(self) -> None:
        self._stop_waiting()
        self._head_timer = self.loop.call_later(self.patience, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
            self._head_size = 0

    def _close_if_still(self, answered: Any) -> None:
        if self.cycle is answered and not self.transport.is_closing():
            self.transport.close()


class DrainingServer(uvicorn.Server):
    """Runs one application until `should_exit` is set or a signal comes, then lets work in flight finish.

    While it drains the listener stays open: readiness probes see 503, and so does new work, with Retry-After.
    """

    def __init__(self, app: FastAPI, config: ServeConfig, ready: Callable[[], None]) -> None:
        # uvicorn takes a class and makes one object a connection, so the time limit travels on the class.
        protocol = type("PatientProtocol", (PatientProtocol,), {"patience": config.body_timeout})
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,  # httptools announces "Connection: close" while draining, which h11 does not
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._service = app.state.service
        self._seconds = config.drain
        self._ready = ready
        self.drained = False
        """True once it has ended with nothing cut off."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.drained = await self._service.drain(self._seconds, hurry=lambda: self.force_exit)
        await super().shutdown(sockets=sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Like uvicorn's, but a signal that led to an orderly end is not raised again: the exit code is 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
