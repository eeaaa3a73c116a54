"""`vitreous export RUN --format F`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, parse

DESCRIPTION = """Write the model in another format and prove that it agrees with PyTorch at batch 1, 3 and 8. What does
not agree is not written (exit 3)."""


@dataclass(frozen=True, kw_only=True)
class ExportArguments(Common):
    run: tyro.conf.Positional[Path]
    """Run folder."""
    format: str = "onnx"
    """onnx."""
    out: Path | None = None
    """Folder to write to; RUN/exports/FORMAT, where predict and serve look, when absent."""
    overwrite: bool = False
    """Write again even where an equal export exists."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(ExportArguments, arguments, "export", DESCRIPTION)
    from vitreous.export import export_run
    from vitreous.runs import RunFolder

    result = export_run(RunFolder.open(parsed.run), parsed.format, out=parsed.out, overwrite=parsed.overwrite)
    parity = result.parity
    lines = [str(file) for file in result.files]
    lines.append(
        f"{'already there; ' if result.reused else ''}agrees with PyTorch at batch {', '.join(map(str, parity.batches))}: "
        f"largest difference {parity.max_abs_difference:.1e}, top-1 agreement {100 * parity.top1_agreement:.1f} %"
    )
    console.result(result.to_dict(), "\n".join(lines))
    return 0
