"""Running the server: in this process until a signal comes, or in a thread for as long as a block lasts."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from vitreous.config.serve import ServeConfig
from vitreous.errors import MissingExtraError, UsageError
from vitreous.serving.predictor import Predictor

if TYPE_CHECKING:
    from vitreous.serving.server import DrainingServer

PACKAGES = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")
"""Import names behind the extra `serve`."""


def require_server() -> None:
    """Raises MissingExtraError where the packages of the extra `serve` are absent."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("The server", "serve", package.replace("_", "-"))


def serve_run(run: str | Path, config: ServeConfig, ready: Callable[[str], None] | None = None) -> int:
    """Load a run folder and serve it until a signal comes. Raises what `Predictor.load` and `serve` raise."""
    require_server()
    prepare_process()
    return serve(Predictor.load(run, config.engine, config.threads, config.point), config, ready)


def serve(predictor: Predictor, config: ServeConfig, ready: Callable[[str], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, finish what is in flight, and return the exit code.

    ready: called once with the server's URL when it answers. The code is 0, or 1 where work in flight had to be cut
    off because it took longer than `config.drain`; a second SIGINT cuts it off at once.
    Raises UsageError where the address cannot be bound, MissingExtraError, and VitreousError where the model fails
    its self-test.
    """
    require_server()
    prepare_process()
    predictor.self_test()
    listener = bind(config.host, config.port)
    server = _make_server(predictor, config, _url(config.host, listener), ready)
    server.run([listener])
    return 0 if server.drained else 1


class BackgroundServer:
    """A server in a thread of this process, on a free loopback port, for as long as a `with` block lasts.

        with BackgroundServer(predictor) as server:
            requests.post(server.url + "/predict", ...)

    Raises like `serve` on entering. Leaving waits for what is in flight.
    """

    def __init__(self, predictor: Predictor, config: ServeConfig | None = None) -> None:
        self.predictor = predictor
        self.config = replace(config or ServeConfig(), host="127.0.0.1", port=0)
        self.url = ""

    def __enter__(self) -> BackgroundServer:
        require_server()
        self.predictor.self_test()
        listener = bind(self.config.host, self.config.port)
        self.url = _url(self.config.host, listener)
        started = threading.Event()
        self._server = _make_server(self.predictor, self.config, self.url, lambda _: started.set())
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="vitreous-server")
        self._thread.start()
        while not started.wait(0.05):
            if not self._thread.is_alive():
                raise RuntimeError("the server's thread ended before it had started")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()


def prepare_process() -> None:
    """Make OpenMP threads sleep, not spin, while they wait: spinning starves the web server on a small machine.

    Has an effect only before torch is imported, so the command line calls it before it loads a model; a choice made
    by the user stands.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket; port 0 takes a free one. Raises UsageError saying why it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(f"--host {host!r} is not an address of this machine.", "Try --host 127.0.0.1.") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"Port {port} on {host} is already in use.",
                f"Choose another, such as --port {port + 1 if port < 65535 else 8000}, or --port 0 for a free one.",
            ) from error
        if error.errno == errno.EACCES:
            raise UsageError(f"Port {port} may not be used by this user.", "Choose one above 1023.") from error
        raise UsageError(f"--host {host!r} cannot be bound ({error.strerror}).", "Try --host 127.0.0.1.") from error
    return listener


def _url(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _make_server(
    predictor: Predictor, config: ServeConfig, url: str, ready: Callable[[str], None] | None
) -> DrainingServer:
    # These two modules need the extra `serve`, which `require_server` has checked.
    from vitreous.serving.app import create_app
    from vitreous.serving.server import DrainingServer

    return DrainingServer(create_app(predictor, config, check_host=True), config, lambda: ready(url) if ready else None)
