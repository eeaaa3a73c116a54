"""`vitreous compare`: several models on one split with one budget; accuracy, cost, and whether they really differ."""

from __future__ import annotations

import shlex
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from vitreous.config.train import NetConfig, TrainConfig
from vitreous.data.sources.locate import short_name
from vitreous.engines.eager import EagerEngine
from vitreous.engines.onnxruntime import available_cores
from vitreous.errors import StoppedError, UsageError
from vitreous.evaluation.paired import PairResult, compare_all
from vitreous.models.build import check_known, is_vit
from vitreous.models.load import load_model
from vitreous.runs.atomic import write_json
from vitreous.runs.create import Claim, claim, default_place
from vitreous.runs.folder import PREDICTIONS, RunFolder
from vitreous.workflows.environment import processor, require, versions
from vitreous.workflows.finish import leak_note
from vitreous.workflows.reporter import Reporter, Silent
from vitreous.workflows.train import train

COMPARISON = "comparison.json"
WARM_UP, TIMED = 5, 40


@dataclass(frozen=True)
class Comparison:
    """Runs on the same split, and what may be said of their differences."""

    folder: Path
    runs: list[RunFolder]
    models: list[dict[str, Any]]
    """name, run, accuracy {value, low, high}, parameters, macs, train_seconds, latency_ms (batch 1, eager, here)."""
    pairs: list[PairResult]

    def notes(self) -> list[str]:
        """What every one of the numbers has to say with it."""
        leaks = int(self.runs[0].facts["data"].get("leaks", 0)) if self.runs else 0
        return [leak_note(leaks)] if leaks else []

    def to_dict(self) -> dict[str, Any]:
        return {
            "models": self.models,
            "pairs": [pair.to_dict() for pair in self.pairs],
            "notes": self.notes(),
            "folder": str(self.folder),
            "processor": processor(),
            "versions": versions(),
        }


def compare(
    data: str | Path, models: Sequence[str], config: TrainConfig | None = None, reporter: Reporter | None = None
) -> Comparison:
    """Train each model on the same split from the same seed with the same budget, and test the differences.

    All start from random weights unless `init` says otherwise: published weights for one and none for the other would
    compare the weights. `time` and `epochs` hold for each model. With `resume` finished models are kept and the others
    continued or started. Raises UsageError for fewer than two or unknown names, and what training raises.
    """
    require("Comparing", "train")
    config, reporter = config or TrainConfig(), reporter or Silent()
    names = list(dict.fromkeys(models))
    if len(names) < 2:
        raise UsageError("A comparison needs at least two different models.", "Such as --models vit_micro,resnet_micro")
    for name in names:
        check_known(name)
    if config.init == "auto":
        config = replace(config, init="scratch")
    place = _place(config, f"compare-{short_name(str(data))}")
    if place.note:
        reporter.say(place.note)
    runs = []
    try:
        for name in names:
            reporter.say(f"--- {name}")
            runs.append(train(data, _for_model(config, name, place.path / name), reporter))
    except StoppedError as error:
        again = ["vitreous", "compare", str(data), "--models", ",".join(names), "--out", str(place.path), "--resume"]
        raise StoppedError(error.message, f"Continue with: {shlex.join(again)}") from error
    except BaseException:
        place.release()
        raise
    entries = [_entry(name, run) for name, run in zip(names, runs, strict=True)]
    found = Comparison(place.path, runs, entries, _pairs(names, runs))
    write_json(place.path / COMPARISON, found.to_dict())
    return found


def _place(config: TrainConfig, name: str) -> Claim:
    """The folder that the runs go into. What to continue and what to replace is decided run by run, by `train`."""
    if config.resume or config.overwrite:
        return Claim(config.out or default_place(name), "new")
    return claim(config.out, name)


def _for_model(config: TrainConfig, name: str, out: Path) -> TrainConfig:
    """The shared settings for one model; what shapes a Vision Transformer is not for convolutional models."""
    net = config.net
    if not is_vit(name):
        net = NetConfig(drop_path=net.drop_path, dropout=net.dropout)
    return replace(config, model=name, out=out, net=net)


def latency_ms(run: RunFolder) -> float:
    """Median milliseconds of one forward pass of one image in eager PyTorch on this machine, warm."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(available_cores())
    try:
        engine, image = EagerEngine(load_model(run)), np.zeros((1, *run.spec.shape), np.float32)
        times = []
        for _ in range(WARM_UP + TIMED):
            begin = time.perf_counter()
            engine.predict(image)
            times.append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)
    return 1000 * statistics.median(times[WARM_UP:])


def _entry(name: str, run: RunFolder) -> dict[str, Any]:
    return {
        "name": name,
        "run": str(run.path),
        "accuracy": run.facts["headline"]["accuracy"],
        "parameters": run.facts["parameters"],
        "macs": run.facts["macs"],
        "train_seconds": run.facts["training"]["seconds"],
        "latency_ms": round(latency_ms(run), 3),
    }


def _pairs(names: Sequence[str], runs: Sequence[RunFolder]) -> list[PairResult]:
    """Which test images each model got right, paired by path."""
    columns = ["path", "part", "label", "predicted", "group"]
    correct: dict[str, np.ndarray] = {}
    paths: list[str] = []
    groups: list[str] = []
    for name, run in zip(names, runs, strict=True):
        rows = pq.read_table(run.path / PREDICTIONS, columns=columns).to_pylist()
        test = sorted((row for row in rows if row["part"] == "test"), key=lambda row: row["path"])
        assert not paths or paths == [row["path"] for row in test], "runs of one comparison share their split"
        paths, groups = [row["path"] for row in test], [row["group"] for row in test]
        correct[name] = np.array([row["label"] == row["predicted"] for row in test])
    return compare_all(correct, groups)
