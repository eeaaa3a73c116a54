"""The table of commands. Plain text and names: showing it imports nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitreous.cli.output import Console

VERBS: dict[str, tuple[str, str]] = {
    "quickstart": ("", "the whole story on embedded digits, in a minute or two"),
    "audit": ("DATA", "unreadable files, duplicates, leaks, wrong labels, shortcuts: a page and a table"),
    "train": ("DATA", "images to a trained, measured, calibrated model in a run folder"),
    "evaluate": ("RUN [DATA]", "metrics with intervals on a part, or on other labelled images"),
    "predict": ("RUN INPUT...", "label files, folders, globs, manifests"),
    "explain": ("RUN IMAGE...", "heat maps with a score that says whether to believe them"),
    "compare": ("DATA --models A,B", "same split, same budget: accuracy, cost, and whether they differ"),
    "profile": ("MODEL...", "parameters, MACs, memory and speed here; no data needed"),
    "export": ("RUN --format onnx", "another format, with the proof that it agrees"),
    "serve": ("RUN", "HTTP server with dynamic batching, metrics and a web page"),
    "models": ("", "the models there are, with parameters and cost"),
    "doctor": ("", "versions, devices, memory, extras, engines"),
}
"""{verb: (arguments, what it does)}, in the order of a project's life."""


def overview() -> str:
    """What `vitreous --help` prints."""
    width = max(len(f"{verb} {arguments}") for verb, (arguments, _) in VERBS.items())
    lines = [f"  {f'{verb} {arguments}':<{width}}   {text}" for verb, (arguments, text) in VERBS.items()]
    return "\n".join(
        [
            "vitreous: from a folder of images to a Vision Transformer you can trust and ship.",
            "",
            "usage: vitreous COMMAND ...",
            "",
            *lines,
            "",
            "`vitreous COMMAND --help` tells all of its flags. Start with: vitreous quickstart",
        ]
    )


def load_verb(verb: str) -> Callable[[Sequence[str], Console], int]:
    """The `run(arguments, console) -> exit code` of a verb's own file."""
    return import_module(f"vitreous.cli.{verb}").run
