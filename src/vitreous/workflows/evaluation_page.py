"""`evaluate --report`: what an evaluation found, as a page in the form of a run's own report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from vitreous.evaluation import report
from vitreous.evaluation.plots import draw_pictures
from vitreous.evaluation.report import write_report
from vitreous.runs.folder import RunFolder
from vitreous.workflows.environment import processor, versions
from vitreous.workflows.evaluate import CHOSEN_ON, Evaluation
from vitreous.workflows.mistakes import mistakes, thumbnail
from vitreous.workflows.pages import next_commands


def write_evaluation_page(path: Path, run: RunFolder, found: Evaluation, flags: Sequence[str] = ()) -> None:
    """flags: what else was asked for, to be shown with the command. Raises RunError where the page cannot be written."""
    part = ["--split", found.part] if found.data is None else ["--split", found.split] if found.split else []
    named = shlex.join([*([found.data] if found.data else []), *part])
    abstention = None if run.several_labels else run.facts.get("abstention")
    document = {**found.metrics, "abstention": abstention or {}}
    bad = len(found.bad_files)
    facts = report.ReportFacts(
        title=f"{run.name} on {found.data or f'its {found.part} part'}",
        metrics=document,
        headline_part=found.part,
        chosen_on=() if found.data else CHOSEN_ON,
        warnings=[f"{bad:,} files could not be used; no number counts them."] if bad else [],
        abstention=abstention,
        several_labels=run.several_labels,
        pictures=draw_pictures(document, [], found.part),
        mistakes=mistakes(
            found.answers,
            lambda row: thumbnail(found.source.open(row), run.spec),
            lambda row: found.source.samples[row].path,
        ),
        environment={**versions(), "processor": processor(), "engine": str(found.metrics["engine"])},
        command=" ".join(["vitreous evaluate", shlex.quote(str(run.path)), named, *flags]),
        next_commands=next_commands(run.path),
        kept_in="vitreous evaluate --json or --out FILE",
    )
    write_report(path, facts)
