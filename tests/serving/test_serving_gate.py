"""Who may ask: hosts, tokens, headers, and what a draining server says."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_fakes import MeanEngine, asked, picture

from vitreous.config.serve import ServeConfig
from vitreous.errors import UsageError
from vitreous.serving import BackgroundServer, Predictor, create_app

PNG = {"Content-Type": "image/png"}
PUBLIC = {"/", "/ping", "/v2/health/live", "/v2/health/ready", "/web/app.js", "/web/style.css", "/web/icon.svg"}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("geheim123\nsecond line\n", encoding="utf-8")
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"])
def test_without_a_token_every_method_on_every_route_is_401_but_the_shell_and_the_probes(
    predictor: Predictor, token_file: Path, method: str
) -> None:
    paths = [*PUBLIC, "/predict", "/predictions/photos", "/explain", "/v2/models/photos", "/metrics", "/docs"]
    paths += ["/openapi.json", "/nowhere", "/web/nowhere", "/v2/health/live/", "/V2/HEALTH/LIVE"]

    async def ask(client: httpx.AsyncClient) -> dict[str, httpx.Response]:
        return {path: await client.request(method, path) for path in paths}

    for path, reply in asked(predictor, ask, token_file=token_file).items():
        if path in PUBLIC and method == "GET":
            assert reply.status_code == 200, path
        elif path in PUBLIC and method == "HEAD":
            assert reply.status_code in (200, 405), path
        else:
            assert reply.status_code == 401, path
            assert reply.headers["WWW-Authenticate"] == "Bearer"
            assert "geheim" not in reply.text


@pytest.mark.parametrize(
    "header",
    [
        *("", "geheim123", "Bearer", "Bearer ", "Bearer geheim12", "Bearer geheim1234", "Bearer geheim123 "),
        *("Bearer  geheim123", "Basic geheim123", "Bearer GEHEIM123", "Bearer second line", "Bearer ge\xe9"),
    ],
)
def test_a_wrong_token_is_401(predictor: Predictor, token_file: Path, header: str) -> None:
    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        headers = {b"Authorization": header.encode("latin-1"), b"Content-Type": b"image/png"}
        return await client.post("/predict", content=picture(), headers=headers)

    reply = asked(predictor, ask, token_file=token_file)
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "unauthorized"


def test_the_right_token_opens_everything(predictor: Predictor, token_file: Path) -> None:
    async def ask(client: httpx.AsyncClient) -> list[int]:
        client.headers["Authorization"] = "Bearer geheim123"
        first = await client.post("/predict", content=picture(), headers=PNG)
        return [first.status_code, *[(await client.get(path)).status_code for path in ("/metrics", "/docs")]]

    assert asked(predictor, ask, token_file=token_file) == [200, 200, 200]


def test_a_token_file_others_can_read_gets_a_warning_that_does_not_hold_the_token(
    predictor: Predictor, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create_app(predictor, ServeConfig(token_file=token_file))
    assert caplog.text == ""
    token_file.chmod(0o644)
    create_app(predictor, ServeConfig(token_file=token_file))
    assert "chmod 600" in caplog.text
    assert "geheim" not in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"\nsecond", b"  \n", b"\xff\xfe"])
def test_a_token_file_that_cannot_serve_is_refused_at_the_start(
    predictor: Predictor, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "broken"
    if content is not None:
        file.write_bytes(content)
        file.chmod(0o600)
    with pytest.raises(UsageError, match="token file"):
        create_app(predictor, ServeConfig(token_file=file))


def test_another_address_than_loopback_needs_a_token() -> None:
    assert ServeConfig().host == "127.0.0.1"
    with pytest.raises(UsageError, match="token"):
        ServeConfig(host="0.0.0.0")


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_threads_than_one_are_refused(threads: int) -> None:
    with pytest.raises(UsageError, match=f"--threads must be at least 1, got {threads}"):
        ServeConfig(threads=threads)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.0.0.1", 200), ("127.0.0.1:8000", 200), ("localhost:1", 200), ("LOCALHOST", 200), ("[::1]:8000", 200)),
        *(("evil.example", 421), ("127.0.0.1.evil.example", 421), ("localhost.evil:80", 421), ("", 421)),
        *(("evil@127.0.0.1", 421), ("[::2]", 421), ("10.0.0.1", 421)),
    ],
)
def test_on_loopback_only_loopback_names_are_answered(predictor: Predictor, host: str, status: int) -> None:
    async def ask(client: httpx.AsyncClient) -> list[int]:
        return [(await client.get(path, headers={"Host": host})).status_code for path in ("/", "/ping", "/metrics")]

    assert asked(predictor, ask) == [status] * 3


def test_called_in_process_the_application_answers_to_any_name(predictor: Predictor) -> None:
    async def ask() -> httpx.Response:
        app = create_app(predictor, ServeConfig())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            return await client.post("/predict", content=picture(), headers=PNG)

    reply = asyncio.run(ask())
    assert reply.status_code == 200
    assert reply.json()["predictions"][0]["label"] == "red"


def test_a_bound_server_checks_the_host(predictor: Predictor) -> None:
    with BackgroundServer(predictor) as server:
        own = httpx.get(f"{server.url}/ping")
        foreign = httpx.get(f"{server.url}/ping", headers={"Host": "evil.example"})
    assert (own.status_code, foreign.status_code) == (200, 421)
    assert foreign.json()["error"]["code"] == "wrong_host"


def test_the_schema_and_the_manual_name_the_refusal_of_a_foreign_host(predictor: Predictor) -> None:
    paths = create_app(predictor, ServeConfig()).openapi()["paths"]
    assert all("421" in paths[path]["post"]["responses"] for path in ("/predict", "/explain"))
    manual = Path(__file__).parents[2] / "docs" / "serving.md"
    assert "| 421 |" in manual.read_text(encoding="utf-8")


def test_elsewhere_any_name_will_do_since_the_token_protects(predictor: Predictor, token_file: Path) -> None:
    async def ask(client: httpx.AsyncClient) -> int:
        return (await client.get("/ping", headers={"Host": "models.example"})).status_code

    assert asked(predictor, ask, host="0.0.0.0", token_file=token_file) == 200


def test_no_other_site_is_let_in_and_every_reply_carries_the_security_headers(predictor: Predictor) -> None:
    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        return [
            await client.get("/", headers=origin),
            await client.options("/predict", headers=origin),
            await client.post("/predict", content=picture(), headers={**PNG, **origin}),
            await client.get("/nowhere"),
            await client.get("/ping", headers={"Host": "evil.example"}),
        ]

    for reply in asked(predictor, ask):
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["X-Frame-Options"] == "DENY"
        policy = reply.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert len(reply.headers["X-Request-Id"]) == 32


def test_a_draining_server_finishes_its_work_refuses_more_and_is_alive_but_not_ready(predictor: Predictor) -> None:
    engine = predictor.engine
    assert isinstance(engine, MeanEngine)

    async def ask(client: httpx.AsyncClient) -> None:
        service: Any = client.app.state.service  # type: ignore[attr-defined]
        engine.gate = threading.Event()
        working = asyncio.create_task(client.post("/predict", content=picture(), headers=PNG))
        while len(engine.batches) < 2:  # the first was the self-test
            await asyncio.sleep(0.005)
        draining = asyncio.create_task(service.drain(10))
        await asyncio.sleep(0.01)
        assert (await client.get("/v2/health/live")).status_code == 200
        ready = await client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False})
        assert (await client.get("/ping")).status_code == 503
        refused = await client.post("/predict", content=picture(), headers=PNG)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "draining"
        assert "Retry-After" in refused.headers
        assert refused.headers["Connection"] == "close"
        assert not draining.done()
        engine.gate.set()
        answer = await working
        assert answer.json()["predictions"][0]["label"] == "red"
        assert answer.headers["Connection"] == "close"
        assert await draining

    asked(predictor, ask)


def test_the_server_is_ready_only_if_the_model_passes_its_self_test(predictor: Predictor) -> None:
    class Broken(MeanEngine):
        def predict(self, batch: Any) -> Any:
            raise RuntimeError("no weights")

    async def ask(client: httpx.AsyncClient) -> None:
        raise AssertionError("it started")

    with pytest.raises(RuntimeError, match="no weights"):
        asked(Predictor(predictor.run, Broken()), ask)
