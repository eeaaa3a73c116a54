"""`vitreous compare DATA --models A,B`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import tyro

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, listed, parse
from vitreous.cli.profile import batch_sizes
from vitreous.cli.train import flag_names
from vitreous.config.study import Equal, StudyConfig
from vitreous.config.train import TrainConfig
from vitreous.errors import GateError, UsageError

DESCRIPTION = """Train several models on the same split with the same seeds and budget, and say whether they differ: accuracy with
intervals for other seeds and images, exact McNemar tests, equivalence within a margin, parameters, multiply-accumulates,
training time, memory, latency on every engine here; as comparison.json and comparison.html. All flags of train are
understood and hold for each training. Finished trainings are kept with --resume, which may add models and seeds."""


@dataclass(frozen=True, kw_only=True)
class CompareArguments(TrainConfig, Common):
    data: tyro.conf.Positional[str]
    """As for train."""
    models: str = "vit_compact,resnet18"
    """Names separated by commas. A study that is continued has its own, and these besides where they are given."""
    seeds: int = 3
    """Trainings of each model, which differ in their seed alone (from --seed on)."""
    equal: Literal["auto"] | Equal = "auto"
    """What every model gets as much of: images seen, wall time (--time, for each training), multiply-accumulates of training
    (as many as the first model needs), optimiser steps. auto: what --time, --steps or --epochs bound, or images."""
    margin: float = 0.01
    """Difference of accuracy that counts as none, a share in (0, 1)."""
    shares: str = ""
    """Shares of the training part, such as 0.1,0.3, that every model is also trained on: what more images bring."""
    engines: str = "auto"
    """What times the finished models, as for profile."""
    batch: str = "1,32"
    """Images at once, for latency."""
    seconds: float = 0.5
    """Time for each model, engine and batch size."""
    curve: bool = True
    """Also what each model costs at other sizes of image."""
    price_per_hour: float | None = None
    """What an hour of this machine costs, in any currency; gives the cost of a million images."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(CompareArguments, arguments, "compare", DESCRIPTION)
    study = StudyConfig(
        equal=parsed.equal,
        margin=parsed.margin,
        shares=_shares(parsed.shares),
        engines=tuple(listed(parsed.engines)),
        batches=tuple(batch_sizes(parsed.batch)),
        seconds=parsed.seconds,
        curve=parsed.curve,
        price_per_hour=parsed.price_per_hour,
    )
    from vitreous.workflows.environment import require

    require("Comparing", "train")
    from vitreous.workflows.study.compare import begun, compare
    from vitreous.workflows.study.view import study_text

    config = TrainConfig(**{field.name: getattr(parsed, field.name) for field in fields(TrainConfig)})
    models = listed(parsed.models)
    if parsed.resume and begun(parsed.out):  # what is not given is as it was, and no default of a new study
        given = flag_names(arguments)
        models = models if "models" in given else []
        config = config if "seeds" in given else replace(config, seeds=1)
    found = compare(parsed.data, models, config, console, study)
    console.result(found.to_dict(), study_text(found))
    failed = [entry["name"] for entry in found.models if entry["failed"]]
    if failed and parsed.strict:
        raise GateError(f"{', '.join(failed)} failed.", "The table says why; leave out --strict to exit 0.")
    return 0


def _shares(text: str) -> tuple[float, ...]:
    """Numbers from "0.1,0.3". Raises UsageError for other words."""
    try:
        return tuple(sorted({float(word) for word in listed(text)}))
    except ValueError as error:
        raise UsageError(
            f"--shares got {text!r}, which is not a list of numbers.", "Such as: --shares 0.1,0.3"
        ) from error
