"""The outermost layer: every request passes here, whatever its method and path, and every reply leaves through here.

It gives the request its id, checks the Host header and the token, refuses new work while draining, adds the security
headers, counts, and turns an unforeseen exception into a 500 that says nothing but the id.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import stat
import time
import uuid
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitreous.config.serve import LOOPBACK, ServeConfig
from vitreous.errors import UsageError
from vitreous.serving.errors import INTERNAL_MESSAGE, QueueFullError, RequestError, error_body
from vitreous.serving.service import Service

logger = logging.getLogger("vitreous.serving")

PROBES = frozenset({"/v2/health/live", "/v2/health/ready", "/ping"})
"""Answered without a token, while draining, and uncounted."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Gate:
    """ASGI middleware. shell: paths of the web page's own files, which hold no secret and so need no token."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: Service,
        config: ServeConfig,
        token: str | None,
        shell: frozenset[str],
        check_host: bool,
    ) -> None:
        self._app = app
        self._service = service
        self._token = None if token is None else _digest(token)
        self._shell = shell
        # Bound to loopback, only a page of this very machine may talk to us: a foreign name that was made to resolve
        # to 127.0.0.1 (DNS rebinding) shows in the Host header. Elsewhere the token does this work.
        self._hosts = frozenset(LOOPBACK) if check_host and config.host in LOOPBACK else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send, self._service)
        probe = scope["path"] in PROBES
        self._service.active += not probe
        try:
            self._check(scope, probe)
            await self._app(scope, receive, exchange.send)
        except RequestError as error:
            await exchange.refuse(error, receive)
        except Exception:
            logger.exception("request %s failed", exchange.id)
            await exchange.refuse(RequestError(500, "internal", INTERNAL_MESSAGE), receive)
        finally:
            self._service.active -= not probe
            if not probe and scope["path"] != "/metrics" and scope["path"] not in self._shell:
                exchange.count()

    def _check(self, scope: Scope, probe: bool) -> None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            raise RequestError(421, "wrong_host", "This server answers only under the address it is bound to.")
        public = scope["method"] in ("GET", "HEAD") and (probe or scope["path"] in self._shell)
        if self._token is not None and not public:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(_digest(given), self._token):
                raise RequestError(
                    401,
                    "unauthorized",
                    "A valid token is needed: send the header 'Authorization: Bearer TOKEN'.",
                    {"WWW-Authenticate": "Bearer"},
                )
        if self._service.draining and not probe and scope["path"] != "/metrics":
            raise QueueFullError("The server is shutting down.", code="draining")


class _Exchange:
    """One request and its reply."""

    def __init__(self, scope: Scope, send: Send, service: Service) -> None:
        self.id = uuid.uuid4().hex
        self._scope = scope
        self._send = send
        self._service = service
        self._arrived = time.monotonic()
        self._status = 500
        self._started = False
        self._state = scope.setdefault("state", {})
        self._state["request_id"] = self.id
        self._state["deadline"] = self._arrived + service.config.timeout

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.id
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if self._service.draining:
                headers["Connection"] = "close"
        await self._send(message)

    async def refuse(self, error: RequestError, receive: Receive) -> None:
        """Answer with an error, unless an answer is under way already."""
        if self._started:
            return
        self._state["error_code"] = error.code
        body = error_body(self._scope["path"], error.code, error.message, self.id)
        await JSONResponse(body, error.status, error.headers)(self._scope, receive, self.send)

    def count(self) -> None:
        self._service.metrics.answered(self._status, self._state.get("error_code"), time.monotonic() - self._arrived)


def read_token(file: Path | None) -> str | None:
    """The first line of a token file. Raises UsageError when it is absent or empty; warns when others may read it."""
    if file is None:
        return None
    try:
        token = file.read_text(encoding="utf-8").split("\n")[0].strip()
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The token file {str(file)!r} cannot be read ({type(error).__name__}).",
            "Make one with: (umask 077; openssl rand -hex 32 > token.txt)",
        ) from error
    if not token:
        raise UsageError(f"The first line of the token file {str(file)!r} is empty.", "Put the token there.")
    if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
        logger.warning("Other users can read the token file %s. Type: chmod 600 %s", file, file)
    return token


def _digest(token: str) -> bytes:
    """Of one length for every token, so that comparing takes the same time for all."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
