"""Serving a finished run: `Predictor` (no HTTP), `BatchQueue` (no model), `create_app` (no globals). No torch.

Importing this room needs no optional package; the server itself needs the extra `serve` and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vitreous.serving.batching import BatchQueue
from vitreous.serving.predictor import Predictor
from vitreous.serving.run import BackgroundServer, require_server, serve, serve_run

if TYPE_CHECKING:
    from vitreous.serving.app import create_app

__all__ = ["BackgroundServer", "BatchQueue", "Predictor", "create_app", "serve", "serve_run"]


def __getattr__(name: str) -> Any:
    if name == "create_app":
        require_server()
        from vitreous.serving.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
