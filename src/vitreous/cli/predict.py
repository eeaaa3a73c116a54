"""`vitreous predict RUN INPUT...`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, parse
from vitreous.runs import Prediction

DESCRIPTION = """Label images: files, folders, globs, or a CSV or Parquet file with a column of paths. Unusable files
are listed and do not stop the others. Needs no PyTorch where the run was exported to ONNX."""


@dataclass(frozen=True, kw_only=True)
class PredictArguments(Common):
    run: tyro.conf.Positional[Path]
    """Run folder."""
    inputs: tyro.conf.Positional[tuple[str, ...]]
    """Images, folders, globs or manifests."""
    out: Path | None = None
    """Write to this .csv, .parquet or .jsonl file and not to the terminal."""
    top: int = 5
    """Classes listed for an image, best first."""
    engine: str = "auto"
    """auto, packed, packed-bf16, eager or onnxruntime."""
    point: str | None = None
    """Operating point of the run to answer by: CLASS:recall or CLASS:false_alarms (95 % and 5 % unless --decide said
    otherwise in training), or with an aim of its own, such as CLASS:recall=0.99, fitted to the validation images. That class
    is then the label from its threshold on."""
    threads: int | None = None
    """CPU threads; all that this process may use when absent."""
    resume: bool = False
    """Continue an interrupted run into --out."""
    overwrite: bool = False
    """Replace --out."""
    strict: bool = False
    """Exit 3 when a file cannot be used."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(PredictArguments, arguments, "predict", DESCRIPTION)
    from vitreous.engines.onnxruntime import available_cores
    from vitreous.engines.select import describe
    from vitreous.serving.predictor import Predictor
    from vitreous.workflows.predict import predict
    from vitreous.workflows.summary import aligned

    predictor = Predictor.load(parsed.run, parsed.engine, parsed.threads, parsed.point)
    console.say(describe(predictor.engine))
    found = predict(
        predictor,
        parsed.inputs,
        out=parsed.out,
        resume=parsed.resume,
        overwrite=parsed.overwrite,
        top=parsed.top,
        threads=parsed.threads or available_cores(),
        reporter=console,
    )
    for path, reason in found.bad_files:
        console.warn(f"{path} {reason}")
    bad = [{"path": path, "reason": reason} for path, reason in found.bad_files]
    facts = {"predictions": [row.to_dict() for row in found.rows], "bad_files": bad, "count": found.count}
    if found.out is not None:
        facts["out"] = str(found.out)
        text = f"{found.count:,} images labelled in {found.out}; {len(bad)} could not be used."
    else:
        rows = [[row.path or "", *_answer(row), _remark(row.abstain, row.ood)] for row in found.rows]
        text = aligned(rows)
    console.result(facts, text)
    return 3 if parsed.strict and bad else 0


def _answer(row: Prediction) -> tuple[str, str]:
    """Label and score; where there may be several, all that are given and their scores."""
    if row.labels is None:
        return row.label, f"{100 * row.score:.1f} %"
    if not row.labels:
        return "no label", f"below {100 * row.score:.1f} %"
    return ", ".join(label for label, _ in row.labels), ", ".join(f"{100 * score:.1f} %" for _, score in row.labels)


def _remark(abstain: bool, ood: float) -> str:
    if ood >= 1:
        return "unlike anything in validation"
    return "unsure" if abstain else ""
