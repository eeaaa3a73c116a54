"""`vitreous models`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, parse

DESCRIPTION = """The models there are: parameters and multiply-accumulates (MACs) for 1,000 classes; activation memory of one
image in fp32 with the fused attention kernel, in inference and in training (`vitreous profile` measures both as this
machine runs them, also for the models that show none here); and the published weights to start from (--init
timm:NAME.TAG). A family name alone, such as vit_small or vit_small_dinov3, fits patch and image size to the data. Any plain
Vision Transformer and any convolutional model of timm works too."""


@dataclass(frozen=True, kw_only=True)
class ModelsArguments(Common):
    filter: str = ""
    """Only names that contain this, full names among them; looked for among all of timm's where none of ours does."""
    all: bool = False
    """Also the other models of timm that can be built here, about a thousand, which takes some minutes."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(ModelsArguments, arguments, "models", DESCRIPTION)
    from vitreous.workflows.environment import require

    require("Listing models with their cost", "train")
    from vitreous.workflows.summary import aligned
    from vitreous.workflows.zoo import list_models

    found = list_models(parsed.filter, everything=parsed.all, reporter=console)
    rows = [["name", "image", "parameters", "MACs", "memory", "in training", "pretrained", "licence"]]
    rows += [
        [
            entry["name"],
            f"{entry['image_size']} px",
            f"{entry['parameters'] / 1e6:.2f} M",
            f"{entry['macs'] / 1e9:.3f} G" if entry["macs"] else "-",
            _megabytes(entry["activation_bytes"], "inference"),
            _megabytes(entry["activation_bytes"], "training"),
            _shown(entry["tags"]),
            entry["licence"] or "-",
        ]
        for entry in found
    ]
    console.result({"models": found}, aligned(rows))
    return 0


def _megabytes(activations: dict[str, int | None] | None, what: str) -> str:
    """Activation memory of one image; models outside the closed form are `profile`'s business."""
    found = activations[what] if activations else None
    return f"{found / 1e6:.1f} MB" if found else "-"


def _shown(tags: Sequence[str]) -> str:
    """The first tag, and how many more there are."""
    if not tags:
        return "-"
    first = tags[0].partition(".")[2]
    return first if len(tags) == 1 else f"{first} and {len(tags) - 1} more"
