"""`vitreous compare DATA --models A,B`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import tyro

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, listed, parse
from vitreous.config.train import TrainConfig

DESCRIPTION = """Train several models on the same split with the same budget and say whether they differ: accuracy with
intervals, exact McNemar test, parameters, multiply-accumulates, training time and latency here. --time and --epochs hold
for each model; all flags of train are understood."""


@dataclass(frozen=True, kw_only=True)
class CompareArguments(TrainConfig, Common):
    data: tyro.conf.Positional[str]
    """As for train."""
    models: str = "vit_compact,resnet18"
    """Names separated by commas."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(CompareArguments, arguments, "compare", DESCRIPTION)
    from vitreous.workflows.environment import require

    require("Comparing", "train")
    from vitreous.workflows.compare import compare
    from vitreous.workflows.summary import comparison_table

    config = TrainConfig(**{field.name: getattr(parsed, field.name) for field in fields(TrainConfig)})
    found = compare(parsed.data, listed(parsed.models), config, console)
    verdicts = [f"{pair.a} against {pair.b}: {pair.verdict} (p = {pair.holm_p:.2g})" for pair in found.pairs]
    notes = [f"! {note}" for note in found.notes()]
    console.result(
        found.to_dict(),
        "\n".join(["", comparison_table(found.models), "", *verdicts, *notes, "", f"runs in {found.folder}"]),
    )
    return 0
