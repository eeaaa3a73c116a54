"""`vitreous train DATA`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tyro

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, parse
from vitreous.config.convert import from_dict, read_settings
from vitreous.config.reopen import reopened
from vitreous.config.train import TrainConfig
from vitreous.errors import UsageError

DESCRIPTION = """Train a classifier and leave a complete run folder: weights, preprocessing, class names, splits,
calibration, metrics with intervals, and a report. Works with no flag at all; everything left open is chosen from the
data, printed and stored."""


@dataclass(frozen=True, kw_only=True)
class TrainArguments(TrainConfig, Common):
    data: tyro.conf.Positional[str]
    """"digits", a folder of class folders (with or without train/val/test above them), or a CSV or Parquet manifest."""
    config: Path | None = None
    """Settings to start from: the config.json of a run, or a TOML file. Flags given here win."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(TrainArguments, arguments, "train", DESCRIPTION, default=_defaults(arguments))
    from vitreous.workflows.environment import require

    require("Training", "train")
    from vitreous.workflows.seat import reporting, speaks, to_launch

    config = _config(parsed)
    if (devices := to_launch(config)) > 1:
        from vitreous.workflows.launch import launch

        words = [sys.executable, "-m", "vitreous", "train", *arguments]
        launch(words, devices, restarts=config.max_restarts, reporter=console, began=console.began)
        return 0
    with reporting():
        from vitreous.workflows.repeat import train_all

        finished = train_all(parsed.data, config, console, began=console.began)
        if speaks():
            show_run(finished.run.path, console, finished.repeats)
    return 0


def show_run(path: Path, console: Console, repeats: dict[str, Any] | None = None) -> None:
    """The number, where it comes from, the files, and what to type next; of several runs the spread and the best one."""
    import json

    from vitreous.runs.folder import METRICS, RUN_JSON, read_facts
    from vitreous.workflows.summary import run_summary

    metrics = json.loads((path / METRICS).read_text(encoding="utf-8"))
    if read_facts(path / RUN_JSON).get("task") == "pretrain":
        from vitreous.workflows.pretrain import pretraining_summary

        console.result({"run": str(path), "metrics": metrics}, pretraining_summary(path, metrics))
        return
    facts, text = {"run": str(path), "metrics": metrics}, run_summary(path, metrics)
    if repeats is not None:
        from vitreous.workflows.summary import repeats_table

        facts, text = (
            {**facts, "repeats": repeats},
            f"\n{repeats_table(repeats)}\n\nThe run that validates best:\n{text}",
        )
    console.result(facts, text)


def _config(parsed: TrainArguments) -> TrainConfig:
    names = [field.name for field in fields(TrainConfig)]
    return TrainConfig(**{name: getattr(parsed, name) for name in names})


def _defaults(arguments: Sequence[str]) -> TrainArguments | None:
    """The settings of `--config FILE`, which flags are then laid over."""
    path = _value_of("--config", arguments)
    if path is None:
        return None
    stored = reopened(from_dict(TrainConfig, read_settings(Path(path))), flag_names(arguments))
    values: dict[str, Any] = {field.name: getattr(stored, field.name) for field in fields(TrainConfig)}
    values["out"] = None  # a run folder is never written into by repeating its settings
    return TrainArguments(data=tyro.MISSING, config=Path(path), **values)


def flag_names(arguments: Sequence[str]) -> set[str]:
    """The settings that flags set, as they are called in Python."""
    flags = (argument[2:].split("=", 1)[0] for argument in arguments if argument.startswith("--"))
    return {flag.replace("-", "_") for flag in flags}


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    for index, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            return argument.split("=", 1)[1]
        if argument == flag:
            if index + 1 >= len(arguments):
                raise UsageError(f"{flag} needs a value.", "See: vitreous train --help")
            return arguments[index + 1]
    return None
