"""What a browser is shown: the files of `web/`, and the API's description as one plain table that works offline."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib.resources import files
from typing import Any

_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}  # fmt: skip


def load_shell() -> dict[str, tuple[bytes, str]]:
    """The web page: path -> (content, media type). `/` is the page, `/web/NAME` its parts."""
    shell: dict[str, tuple[bytes, str]] = {}
    for file in files("vitreous.serving").joinpath("web").iterdir():
        kind = _TYPES.get("." + file.name.rpartition(".")[2])
        if kind is not None:
            shell["/" if file.name == "index.html" else f"/web/{file.name}"] = (file.read_bytes(), kind)
    return shell


def describe_api(schema: dict[str, Any]) -> str:
    """An OpenAPI schema as a self-contained HTML page."""
    rows = "\n".join(_row(*operation) for operation in _operations(schema))
    title = escape(schema["info"]["title"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: API</title>
<link rel="icon" href="/web/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/web/style.css">
</head>
<body class="docs">
<main>
<h1>{title}: API</h1>
<p>{escape(schema["info"].get("description", ""))} <a href="/openapi.json">openapi.json</a> · <a href="/">Page</a></p>
<div class="table">
<table>
<thead><tr><th scope="col">Request</th><th scope="col">What it does</th><th scope="col">Takes</th><th scope="col">Replies</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
</main>
</body>
</html>
"""


def _operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _row(method: str, path: str, operation: dict[str, Any]) -> str:
    takes = [f"<code>?{escape(p['name'])}</code>" for p in operation.get("parameters", []) if p["in"] == "query"]
    takes += [f"<code>{escape(kind)}</code>" for kind in operation.get("requestBody", {}).get("content", {})]
    kinds: dict[str, list[str]] = {}
    for status, reply in operation.get("responses", {}).items():
        kinds.setdefault(_reply_name(reply), []).append(status)
    replies = [
        f"{' '.join(f'<code>{escape(status)}</code>' for status in sorted(statuses))} {escape(kind)}"
        for kind, statuses in kinds.items()
    ]
    return (
        f"<tr><td><code>{method} {escape(path)}</code></td>"
        f"<td>{escape(operation.get('description') or operation.get('summary', ''))}</td>"
        f"<td>{'<br>'.join(takes)}</td><td>{'<br>'.join(replies)}</td></tr>"
    )


def _reply_name(reply: dict[str, Any]) -> str:
    for content in reply.get("content", {}).values():
        reference = content.get("schema", {}).get("$ref")
        if reference:
            return reference.rpartition("/")[2]
    return reply.get("description", "")
