"""`vitreous evaluate RUN [DATA]`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, listed, parse
from vitreous.errors import UsageError

DESCRIPTION = """Metrics with 95 % intervals: on a part of the data the run was made from, or on other labelled data.
Looking at the test part is recorded in run.json."""


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(Common):
    run: tyro.conf.Positional[Path]
    """Run folder."""
    data: tyro.conf.Positional[str | None] = None
    """Other labelled data: a folder of class folders or a manifest."""
    split: str | None = None
    """train, val or test. Of the run's own data val when absent; of other data test, or all where it has no parts."""
    engine: str = "auto"
    """auto, packed, packed-bf16, eager or onnxruntime."""
    threads: int | None = None
    """CPU threads; all that this process may use when absent."""
    by: str = ""
    """Columns of the data, separated by commas: a table of the accuracy for each of their values, the worst named."""
    costs: Path | None = None
    """CSV of what it costs to take one class (row) for another (column); says what the model's answers cost."""
    corrupt: int = 0
    """Also score so many images of the part made worse by noise, blur, weather, compression and small shifts, each at five
    severities (16 ways: 500 images are 40,000 forward passes)."""
    learning: bool = False
    """Also tell what more labels would bring: a learning curve of classifiers on the run's features, and its continuation."""
    report: Path | None = None
    """Also write a page of HTML with tables and figures to this file."""
    out: Path | None = None
    """Also write the metrics to this JSON file."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(EvaluateArguments, arguments, "evaluate", DESCRIPTION)
    from vitreous.workflows.environment import require

    require("Evaluation", "train")
    from vitreous.runs import RunFolder
    from vitreous.runs.atomic import write_json
    from vitreous.workflows.evaluate import evaluate
    from vitreous.workflows.summary import evaluation_summary

    for flag, path in (("--out", parsed.out), ("--report", parsed.report)):
        if path is not None and path.is_dir():  # found out before anything takes its time
            raise UsageError(f"{flag} {path} is a folder.", f"Name a file: {flag} {path / 'evaluation'}")
    folder = RunFolder.open(parsed.run)
    found = evaluate(
        folder,
        parsed.data,
        split=parsed.split,
        engine=parsed.engine,
        threads=parsed.threads,
        by=listed(parsed.by) if parsed.by else (),
        costs=parsed.costs,
        corrupt=parsed.corrupt,
        learning=parsed.learning,
        reporter=console,
    )
    if parsed.report is not None:
        from vitreous.workflows.evaluation_page import write_evaluation_page

        write_evaluation_page(parsed.report, folder, found, _flags(parsed))
    if parsed.out is not None:
        write_json(parsed.out, found.metrics)
    bad = [{"path": path, "reason": reason} for path, reason in found.bad_files]
    text = evaluation_summary(found.metrics) + (f"\n{len(bad)} files could not be used." if bad else "")
    console.result({"run": str(parsed.run), "metrics": found.metrics, "bad_files": bad}, text)
    return 0


def _flags(parsed: EvaluateArguments) -> list[str]:
    """What was asked for besides the metrics, as it was typed."""
    return [
        *(["--by", shlex.quote(parsed.by)] if parsed.by else []),
        *(["--costs", shlex.quote(str(parsed.costs))] if parsed.costs else []),
        *(["--corrupt", str(parsed.corrupt)] if parsed.corrupt else []),
        *(["--learning"] if parsed.learning else []),
    ]
