"""The shell of every page: opens offline, from a mail attachment, in light and dark, on screen and on paper.

Everything is inlined and nothing runs: the page's own policy forbids scripts and every outside request.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources

from vitreous.evaluation.fragments import bullets, text


def page(title: str, head: str, sections: Mapping[str, str], footer: str) -> str:
    """One page of HTML. head: markup above the contents. sections: {title: markup}; empty ones are left out.

    A section's markup has the id that its title has in lower case, with hyphens.
    """
    css = resources.files("vitreous.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    present = {name: markup for name, markup in sections.items() if markup}
    links = "".join(f'<a href="#{name.lower().replace(" ", "-")}">{text(name)}</a>' for name in present)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<style>{css}</style>
</head>
<body>
<main>
{head}
<nav aria-label="Contents">{links}</nav>
{chr(10).join(present.values())}
<footer class="small">Written by vitreous. {text(footer)}</footer>
</main>
</body>
</html>
"""


def warnings(title: str, sentences: Sequence[str]) -> str:
    """A box above everything else; nothing where there is nothing to warn of."""
    return f'<aside class="warnings"><h2>{text(title)}</h2>{bullets(sentences)}</aside>' if sentences else ""
