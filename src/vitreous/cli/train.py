"""`vitreous train DATA`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import tyro

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, parse
from vitreous.config.convert import from_dict, read_settings
from vitreous.config.train import AugmentConfig, NetConfig, TrainConfig
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
    from vitreous.workflows.train import train

    finished = train(parsed.data, _config(parsed), console, began=console.began)
    show_run(finished.path, console)
    return 0


def show_run(path: Path, console: Console) -> None:
    """The number, where it comes from, the files, and what to type next."""
    import json

    from vitreous.runs.folder import METRICS
    from vitreous.workflows.summary import run_summary

    metrics = json.loads((path / METRICS).read_text(encoding="utf-8"))
    console.result({"run": str(path), "metrics": metrics}, run_summary(path, metrics))


def _config(parsed: TrainArguments) -> TrainConfig:
    names = [field.name for field in fields(TrainConfig)]
    return TrainConfig(**{name: getattr(parsed, name) for name in names})


def _defaults(arguments: Sequence[str]) -> TrainArguments | None:
    """The settings of `--config FILE`, which flags are then laid over."""
    path = _value_of("--config", arguments)
    if path is None:
        return None
    stored = reopened(from_dict(TrainConfig, read_settings(Path(path))), arguments)
    values: dict[str, Any] = {field.name: getattr(stored, field.name) for field in fields(TrainConfig)}
    values["out"] = None  # a run folder is never written into by repeating its settings
    return TrainArguments(data=tyro.MISSING, config=Path(path), **values)


def reopened(stored: TrainConfig, arguments: Sequence[str]) -> TrainConfig:
    """Stored settings with those left open again that followed from what the flags now change.

    A new length opens the warm-up's steps and the averaging; a new preset the augmentation; a new model the image size,
    the shape of the network and the learning rate; a new batch size the learning rate.
    """
    given = {argument.split("=", 1)[0].replace("_", "-") for argument in arguments if argument.startswith("--")}
    optim = stored.optim
    if given & {"--epochs", "--time", "--steps"}:
        stored = replace(stored, epochs=None, time=None, steps=None)
        optim = replace(optim, warmup_steps=None, ema_decay=None)
    elif stored.steps is not None:
        stored = replace(stored, epochs=None, time=None)
    if "--optim.warmup" in given:
        optim = replace(optim, warmup_steps=None)
    if given & {"--model", "--batch-size"}:
        optim = replace(optim, lr=None)
    if "--model" in given:
        stored = replace(stored, image_size=None, net=NetConfig())
    if "--preset" in given:
        stored = replace(stored, augment=AugmentConfig())
    return replace(stored, optim=optim)


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    for index, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            return argument.split("=", 1)[1]
        if argument == flag:
            if index + 1 >= len(arguments):
                raise UsageError(f"{flag} needs a value.", "See: vitreous train --help")
            return arguments[index + 1]
    return None
