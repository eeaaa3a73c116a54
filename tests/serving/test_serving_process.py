"""The server over real sockets: as a process with signals, and as a thread."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving_fakes import MeanEngine, picture, write_run

from vitreous.config.serve import ServeConfig
from vitreous.errors import MissingExtraError, UsageError
from vitreous.runs import RunFolder
from vitreous.serving import BackgroundServer, Predictor, serve
from vitreous.serving.run import bind, prepare_process

PNG = {"Content-Type": "image/png"}


def post(url: str, body: bytes, path: str = "/predict") -> Any:
    request = urllib.request.Request(url + path, body, PNG)
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


def status(url: str, path: str) -> int:
    try:
        with urllib.request.urlopen(url + path, timeout=10) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def raw(url: str, data: bytes, seconds: float = 10) -> bytes:
    """Send bytes as they are and read until the server closes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[2])
from serving_fakes import MeanEngine
from vitreous.config.serve import ServeConfig
from vitreous.runs import RunFolder
from vitreous.serving import Predictor, serve
predictor = Predictor(RunFolder.open(sys.argv[1]), MeanEngine(seconds=0.03))
code = serve(predictor, ServeConfig(port=0, max_batch=4), ready=lambda url: print(url, flush=True))
print(os.environ["OMP_WAIT_POLICY"], flush=True)
sys.exit(code)
"""


@contextmanager
def process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server in a process of its own, and its URL; killed at the end if need be."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(folder), str(Path(__file__).parent)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), server.communicate(timeout=10)[1]
            yield server, url
        finally:
            if server.poll() is None:
                server.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sigterm_under_load_loses_no_request_in_flight_and_exits_zero(tmp_path: Path) -> None:
    outcomes: list[str] = []
    stop = threading.Event()

    def client(url: str) -> None:
        """Each request on a connection of its own, so that only a lost answer can break one."""
        host = url.removeprefix("http://")
        while not stop.is_set():
            connection = http.client.HTTPConnection(host, timeout=20)
            try:
                connection.connect()
            except OSError:
                outcomes.append("not accepted")
                return
            try:
                connection.request("POST", "/predict", picture(), PNG)
                reply = connection.getresponse()
                reply.read()
                outcomes.append(str(reply.status))
            except (OSError, http.client.HTTPException) as error:
                # The kernel took the connection, but the server had closed its listener before it got to it.
                outcomes.append("reset" if isinstance(error, ConnectionError) else repr(error))
            finally:
                connection.close()

    with process(write_run(tmp_path / "photos")) as (server, url):
        threads = [threading.Thread(target=client, args=(url,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 15
        while outcomes.count("200") < 24 and time.monotonic() < deadline:
            time.sleep(0.01)
        # One more, known to be in flight: its head is read, its body still on the way when the signal comes.
        body = picture((0, 255, 0))
        late = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        late.putrequest("POST", "/predict")
        late.putheader("Content-Type", "image/png")
        late.putheader("Content-Length", str(len(body)))
        late.endheaders(body[:10])
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        time.sleep(0.4)
        assert (status(url, "/v2/health/ready"), status(url, "/v2/health/live")) == (503, 200)
        late.send(body[10:])
        reply = late.getresponse()
        assert reply.status == 200
        assert json.load(reply)["predictions"][0]["label"] == "green"
        stop.set()
        for thread in threads:
            thread.join()
        out, errors = server.communicate(timeout=20)
    assert server.returncode == 0, errors
    assert out.split() == ["PASSIVE"]
    assert "Traceback" not in errors
    assert set(outcomes) <= {"200", "503", "not accepted", "reset"}
    assert outcomes.count("200") >= 24
    assert "503" in outcomes  # while it drained, new work was refused and not dropped


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupting_an_idle_server_exits_zero_though_clients_hold_connections_open(tmp_path: Path) -> None:
    with process(write_run(tmp_path / "photos")) as (server, url):
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        connection.request("GET", "/ping")
        connection.getresponse().read()
        host, port = url.removeprefix("http://").split(":")
        silent = socket.create_connection((host, int(port)))
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=15)
        silent.close()
        connection.close()
    assert server.returncode == 0, errors
    assert errors == ""


def test_a_server_in_the_background_answers_and_stops_cleanly(predictor: Predictor) -> None:
    before = set(threading.enumerate())
    with BackgroundServer(predictor, ServeConfig(port=8000)) as server:
        assert not server.url.endswith(":8000")
        assert post(server.url, picture((0, 0, 255)))["predictions"][0]["label"] == "blue"
        with urllib.request.urlopen(server.url + "/", timeout=10) as page:
            assert b"<!doctype html>" in page.read()
    with pytest.raises(OSError):
        post(server.url, picture())
    for _ in range(200):
        if set(threading.enumerate()) <= before:
            break
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before


def test_sixteen_clients_at_once_each_get_their_own_answer(predictor: Predictor) -> None:
    colors = [((17 * number) % 256, (59 * number) % 256, (101 * number) % 256) for number in range(64)]
    expected = [answer.to_dict()["top"] for answer in predictor.predict(map(picture, colors))]
    answers: list[Any] = [None] * len(colors)

    def client(first: int, url: str) -> None:
        for number in range(first, len(colors), 16):
            answers[number] = post(url, picture(colors[number]))["predictions"][0]["top"]

    with BackgroundServer(predictor) as server:
        threads = [threading.Thread(target=client, args=(first, server.url)) for first in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for answer, one in zip(answers, expected, strict=True):
        assert [top["label"] for top in answer] == [top["label"] for top in one]
        assert [top["score"] for top in answer] == pytest.approx([top["score"] for top in one])


def test_clients_that_close_their_sockets_are_dropped_from_the_queue(run_folder: RunFolder) -> None:
    engine = MeanEngine()
    with BackgroundServer(Predictor(run_folder, engine)) as server:
        started = len(engine.batches)
        engine.gate = threading.Event()
        body = picture()
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
        host, port = server.url.removeprefix("http://").split(":")
        sockets = []
        for _ in range(20):
            sockets.append(socket.create_connection((host, int(port))))
            sockets[-1].sendall(head.encode() + body)
        while len(engine.batches) == started:
            time.sleep(0.005)
        for one in sockets:
            one.close()
        depth = 1.0
        for _ in range(400):
            with urllib.request.urlopen(server.url + "/metrics", timeout=10) as reply:
                text = reply.read().decode()
            depth = float(text.split("\nvitreous_queue_depth ")[1].split()[0])
            if depth == 0:
                break
            time.sleep(0.01)
        assert depth == 0
        engine.gate.set()
        assert post(server.url, picture((0, 255, 0)))["predictions"][0]["label"] == "green"
    assert sum(engine.batches[started:]) < 20


def test_a_refused_body_gets_its_answer_at_once_and_the_connection_ends_soon(predictor: Predictor) -> None:
    with BackgroundServer(predictor, ServeConfig(body_timeout=0.3)) as server:
        head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
        for length in (b"Content-Length: 99999999999\r\n\r\n", b"Content-Length: -1\r\n\r\n"):
            assert raw(server.url, head + length).startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))
        chunk = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
        unfinished = raw(server.url, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
        assert unfinished.startswith(b"HTTP/1.1 408")


def test_an_endless_chunked_body_is_answered_413(predictor: Predictor) -> None:
    with BackgroundServer(predictor, ServeConfig(max_body=100_000, body_timeout=5)) as server:
        head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
        assert raw(server.url, head + 40 * chunk + b"0\r\n\r\n" + b"GET /ping HTTP/1.0\r\n\r\n").startswith(
            b"HTTP/1.1 413"
        )


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_a_client_that_is_refused_early_still_sees_why(predictor: Predictor, connection: str) -> None:
    """It sends all of its body first, as most clients do, and reads only then."""
    with BackgroundServer(predictor, ServeConfig(max_body=1000)) as server:
        client = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
        client.request("POST", "/predict", b"x" * 30_000_000, {**PNG, "Connection": connection})
        reply = client.getresponse()
        assert (reply.status, json.load(reply)["error"]["code"]) == (413, "body_too_large")
        client.close()


def test_a_client_that_asks_for_it_is_hung_up_on_after_its_answer(predictor: Predictor) -> None:
    with BackgroundServer(predictor) as server:
        head = b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        assert raw(server.url, head, seconds=3).endswith(b'{"status":"Healthy"}')
        assert raw(server.url, head.replace(b"1.1", b"1.0", 1), seconds=3).endswith(b'{"status":"Healthy"}')


def test_a_client_that_never_finishes_its_head_is_disconnected(predictor: Predictor) -> None:
    with BackgroundServer(predictor, ServeConfig(body_timeout=0.2)) as server:
        assert raw(server.url, b"") == b""
        assert raw(server.url, b"POST /predict HTTP/1.1\r\nHost: 127") == b""
        assert post(server.url, picture())["predictions"][0]["label"] == "red"


def test_a_head_without_end_is_refused_long_before_the_time_limit(predictor: Predictor) -> None:
    with BackgroundServer(predictor) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            with pytest.raises(ConnectionError):
                for _ in range(1000):
                    connection.sendall(b"X-Filler: " + b"x" * 65536 + b"\r\n")
        assert post(server.url, picture())["predictions"][0]["label"] == "red"


def test_idle_connections_do_not_keep_others_out(predictor: Predictor) -> None:
    with BackgroundServer(predictor) as server:
        host, port = server.url.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(200)]
        assert post(server.url, picture())["predictions"][0]["label"] == "red"
        for one in idle:
            one.close()


def test_a_port_in_use_is_said_with_what_to_type(predictor: Predictor) -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"{port} on 127.0.0.1 is already in use") as refused:
            serve(predictor, ServeConfig(port=port))
        assert "--port" in refused.value.hint


def test_an_address_of_another_machine_is_refused() -> None:
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(UsageError, match="--host"):
            bind(host, 0)


@pytest.mark.parametrize("missing", ["fastapi", "prometheus_client"])
def test_without_the_extra_the_install_line_is_given(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else real(name, *rest))
    for start in (lambda: serve(predictor, ServeConfig()), lambda: BackgroundServer(predictor).__enter__()):
        with pytest.raises(MissingExtraError, match=r"vitreous\[serve\]"):
            start()


def test_importing_the_room_needs_no_optional_package(monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
import sys
class Refuse:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("fastapi", "starlette", "uvicorn", "pydantic", "prometheus_client", "torch"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import vitreous.serving
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_users_choice_of_wait_policy_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare_process()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
