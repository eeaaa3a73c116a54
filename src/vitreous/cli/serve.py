"""`vitreous serve RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import tyro

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, parse
from vitreous.config.serve import ServeConfig

DESCRIPTION = """Serve a run over HTTP: POST an image to /predict, open / in a browser. Binds to this machine only unless
a token is set. SIGTERM lets work in flight finish."""


@dataclass(frozen=True, kw_only=True)
class ServeArguments(ServeConfig, Common):
    run: tyro.conf.Positional[Path]
    """Run folder."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(ServeArguments, arguments, "serve", DESCRIPTION)
    from vitreous.serving.run import require_server, serve_run

    require_server()
    config = ServeConfig(**{field.name: getattr(parsed, field.name) for field in fields(ServeConfig)})

    def ready(url: str) -> None:
        console.result(
            {"url": url, "run": str(parsed.run)},
            f"Serving {parsed.run} at {url}\n  curl --data-binary @IMAGE -H 'Content-Type: image/jpeg' {url}/predict\nStop with Ctrl-C.",
        )

    console.say(f"loading {parsed.run} ...")
    return serve_run(parsed.run, config, ready)
