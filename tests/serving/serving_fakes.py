"""A tiny model with an answer known on paper, its run folder, and a client that calls the server in process."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from vitreous.config.serve import ServeConfig
from vitreous.engines import Outputs
from vitreous.serving import Predictor, create_app

CLASSES = ["red", "green", "blue"]
SIDE = 8
ORIGIN = "http://127.0.0.1"


@dataclass
class MeanEngine:
    """Logits are ten times the channel means, so that a picture's brightest channel names its class."""

    name: str = "fake"
    seconds: float = 0.0
    """Time that one batch takes."""
    poison: float | None = None
    """A batch holding an image whose first channel mean is this fails."""
    gate: threading.Event | None = None
    """When given, a batch waits for it."""
    batches: list[int] = field(default_factory=list)

    def predict(self, batch: np.ndarray) -> Outputs:
        self.batches.append(len(batch))
        if self.gate is not None:
            assert self.gate.wait(10)
        time.sleep(self.seconds)
        means = batch.mean(axis=(2, 3))
        if self.poison is not None and np.isclose(means[:, 0], self.poison, atol=1e-3).any():
            raise FloatingPointError("poisoned")
        return Outputs((10 * means).astype(np.float32), means.astype(np.float32))


def write_run(folder: Path, **changes: Any) -> Path:
    """A finished run folder, written by hand."""
    folder.mkdir(parents=True)
    weights = b"weights"
    (folder / "model.safetensors").write_bytes(weights)
    facts = {
        "schema_version": 1,
        "status": "complete",
        "files": {"model.safetensors": hashlib.sha256(weights).hexdigest()},
        "architecture": {"name": "fake", "family": "timm", "arguments": {}},
        "input": {
            "height": SIDE,
            "width": SIDE,
            "resize": "squash",
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "classes": CLASSES,
        },
        "calibration": {"temperature": 1.0},
        "abstention": {"threshold": 0.0},
        "exports": {},
        **changes,
    }
    (folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def picture(
    color: Any = (255, 0, 0), size: tuple[int, int] = (12, 10), format: str = "PNG", mode: str = "RGB"
) -> bytes:
    """One encoded image of one color."""
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, format=format)
    return buffer.getvalue()


@asynccontextmanager
async def client_of(predictor: Predictor, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose requests go straight into the application, which checks them as behind a socket."""
    app = create_app(predictor, ServeConfig(**settings), check_host=True)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        client.app = app  # type: ignore[attr-defined]
        yield client


def asked(predictor: Predictor, ask: Callable[[httpx.AsyncClient], Awaitable[Any]], **settings: Any) -> Any:
    """The result of one asynchronous conversation with a server made for it."""

    async def converse() -> Any:
        async with client_of(predictor, **settings) as client:
            return await asyncio.wait_for(ask(client), 20)

    return asyncio.run(converse())
