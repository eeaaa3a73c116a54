"""`vitreous quickstart`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, parse

DESCRIPTION = """The whole story on scikit-learn's handwritten digits: train a small ViT and a CNN of like cost on one
split, compare them, draw heat maps, export to ONNX with proof, and classify an image through the server."""


@dataclass(frozen=True, kw_only=True)
class QuickstartArguments(Common):
    out: Path | None = None
    """Folder for what is made; runs/quickstart, numbered when that exists, when absent."""
    seed: int = 0
    """Decides split, initial weights, order and augmentation."""
    overwrite: bool = False
    """Replace the runs in --out."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(QuickstartArguments, arguments, "quickstart", DESCRIPTION)
    from vitreous.workflows.environment import require

    require("The quickstart", "train", "serve", "export")
    from vitreous.runs.folder import METRICS
    from vitreous.workflows.quickstart import quickstart, summary

    tour = quickstart(parsed.out, seed=parsed.seed, overwrite=parsed.overwrite, reporter=console)
    metrics = json.loads((tour.run.path / METRICS).read_text(encoding="utf-8"))
    facts = {
        "run": str(tour.run.path),
        "metrics": metrics,
        "comparison": tour.comparison.to_dict(),
        "export": tour.export.to_dict(),
        "heat_maps": tour.heat_maps,
        "served": tour.served,
        "seconds": round(tour.seconds, 1),
    }
    console.result(facts, summary(tour))
    return 0
