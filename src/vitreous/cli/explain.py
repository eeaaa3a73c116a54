"""`vitreous explain RUN IMAGE...`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, parse

DESCRIPTION = """Heat maps of what speaks for a class, each with deletion and insertion scores beside those of random
maps, so that you see whether to believe it. Written as PNG: the map, and the image with the map over it."""


@dataclass(frozen=True, kw_only=True)
class ExplainArguments(Common):
    run: tyro.conf.Positional[Path]
    """Run folder."""
    images: tyro.conf.Positional[tuple[str, ...]]
    """Images, folders or globs."""
    method: str = "auto"
    """auto, relevance (gradients and attention), rollout (attention alone) or occlusion (any model, no PyTorch)."""
    target: str | None = None
    """Class to explain; the predicted one when absent."""
    out: Path | None = None
    """Folder for the pictures; RUN/explanations when absent."""
    engine: str = "auto"
    """auto, packed, packed-bf16, eager or onnxruntime."""
    threads: int | None = None
    """CPU threads; all that this process may use when absent."""
    faithfulness: bool = True
    """Measure deletion and insertion, about 160 forward passes an image."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(ExplainArguments, arguments, "explain", DESCRIPTION)
    from vitreous.workflows.explain import explain
    from vitreous.workflows.summary import aligned

    found = explain(
        parsed.run,
        parsed.images,
        method=parsed.method,
        target=parsed.target,
        out=parsed.out,
        engine=parsed.engine,
        threads=parsed.threads,
        faithfulness=parsed.faithfulness,
        reporter=console,
    )
    for entry in found.bad_files:
        console.warn(f"{entry['path']} {entry['reason']}")
    rows = [["image", "class", "score", "deletion (chance)", "insertion (chance)", "picture"]]
    for entry in found.images:
        scores = entry["faithfulness"]
        rows.append(
            [
                entry["path"],
                entry["target"],
                f"{100 * entry['score']:.1f} %",
                f"{scores['deletion']:.3f} ({scores['random_deletion']:.3f})" if scores else "-",
                f"{scores['insertion']:.3f} ({scores['random_insertion']:.3f})" if scores else "-",
                entry["overlay"],
            ]
        )
        if entry["warning"]:
            console.warn(f"{entry['path']}: {entry['warning']}")
    note = "A lower deletion and a higher insertion score is better; chance is the mean of random maps."
    console.result({"images": found.images, "bad_files": found.bad_files}, f"{aligned(rows)}\n\n{note}")
    return 0
