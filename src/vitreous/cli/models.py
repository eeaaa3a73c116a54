"""`vitreous models`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, parse

DESCRIPTION = """The models there are, with parameters and multiply-accumulates counted for 1,000 classes. Any
convolutional model of timm works too."""


@dataclass(frozen=True, kw_only=True)
class ModelsArguments(Common):
    filter: str = ""
    """Only names that contain this."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(ModelsArguments, arguments, "models", DESCRIPTION)
    from vitreous.workflows.environment import require

    require("Listing models with their cost", "train")
    from vitreous.workflows.summary import aligned
    from vitreous.workflows.zoo import list_models

    found = list_models(parsed.filter)
    rows = [["name", "image", "parameters", "MACs", "pretrained", "licence"]]
    rows += [
        [
            entry["name"],
            f"{entry['image_size']} px",
            f"{entry['parameters'] / 1e6:.2f} M",
            f"{entry['macs'] / 1e9:.3f} G",
            entry["pretrained"] or "-",
            entry["licence"] or "-",
        ]
        for entry in found
    ]
    console.result({"models": found}, aligned(rows))
    return 0
