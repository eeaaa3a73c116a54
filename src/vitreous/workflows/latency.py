"""How fast a model runs on this machine: every engine that can run a bare module, in turns."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vitreous.config.input import InputSpec
from vitreous.engines.cpu import cpu_has_fast_bf16
from vitreous.engines.eager import EagerEngine
from vitreous.engines.onnxruntime import OnnxRuntimeEngine, available_cores
from vitreous.engines.packed import Precision, distance, packed_or_eager
from vitreous.engines.protocol import Engine, Outputs
from vitreous.errors import MissingExtraError, RunError, UsageError, VitreousError, unknown_name
from vitreous.models.packed import pack
from vitreous.workflows.reporter import Reporter

WARM_UP = 2
"""Calls before the first that counts; one where that takes longer than the time there is."""
FEWEST_RUNS = 3


@dataclass(frozen=True)
class Bare:
    """A model that is not a run, or need not be, with what an engine has to know of it."""

    model: nn.Module
    spec: InputSpec
    device: str
    exported: Path | None
    """An ONNX file of the same weights, where there is one."""


@dataclass(frozen=True)
class Latency:
    """One engine at one batch size."""

    engine: str
    device: str
    batch: int
    p50_ms: float
    """Median of single calls: images in memory, answer back in memory."""
    p95_ms: float
    images_per_s: float
    """From the median."""
    runs: int
    difference: float | None
    """From eager, as a share of the largest number that eager gave; None where eager did not run."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Latencies:
    """What was timed, and which engines could not be."""

    found: list[Latency]
    skipped: list[dict[str, str]]
    """[{engine, reason}]."""


def _eager(bare: Bare, workspace: Path) -> Engine:
    return EagerEngine(bare.model, bare.device)


def _packed(precision: Precision) -> Callable[[Bare, Path], Engine]:
    def make(bare: Bare, workspace: Path) -> Engine:
        engine = packed_or_eager(bare.model, pack, bare.spec.shape, precision)
        wanted = "packed" if precision == "fp32" else "packed-bf16"
        if engine.name != wanted:
            raise UsageError(f"the model does not run so here: it falls back to {engine.name}")
        return engine

    return make


def _onnxruntime(bare: Bare, workspace: Path) -> Engine:
    if bare.exported is not None:
        return OnnxRuntimeEngine(bare.exported)
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("Exporting the model", "export", package)
    from vitreous.export.onnx import export_onnx

    path = workspace / "model.onnx"
    export_onnx(bare.model, bare.spec, path, {})
    return OnnxRuntimeEngine(path)


ENGINES: dict[str, Callable[[Bare, Path], Engine]] = {
    "eager": _eager,
    "packed": _packed("fp32"),
    "packed-bf16": _packed("bf16"),
    "onnxruntime": _onnxruntime,
}
"""{name: what makes the engine}."""


def check_engines(names: Sequence[str]) -> None:
    """Raise UsageError, naming the nearest, for a name that is neither an engine's nor "auto"."""
    for name in names:
        if name not in ("auto", *ENGINES):
            raise unknown_name("engine", name, ["auto", *ENGINES])


def choose_engines(asked: Sequence[str], device: str) -> list[str]:
    """Names without "auto", which stands for those that can be expected to work on the device."""
    if "auto" not in asked:
        return list(dict.fromkeys(asked))
    if device != "cpu":
        return ["eager"]
    return [name for name in ENGINES if name != "packed-bf16" or cpu_has_fast_bf16()]


def time_engines(
    bare: Bare, names: Sequence[str], batches: Sequence[int], seconds: float, reporter: Reporter
) -> Latencies:
    """Time each engine at each batch size for about so many seconds, on all cores that this process may use."""
    return time_models({"": bare}, names, batches, seconds, reporter)[""]


def time_models(
    bares: Mapping[str, Bare], names: Sequence[str], batches: Sequence[int], seconds: float, reporter: Reporter
) -> dict[str, Latencies]:
    """The same for several models, whose engines all take turns."""
    found: dict[str, list[Latency]] = {model: [] for model in bares}
    skipped: dict[str, list[dict[str, str]]] = {model: [] for model in bares}
    with tempfile.TemporaryDirectory(prefix="vitreous-profile-") as folder, all_cores():
        ready: dict[tuple[str, str], Engine] = {}
        for number, (model, bare) in enumerate(bares.items()):
            place = Path(folder) / str(number)
            place.mkdir()
            for name in names:
                made = _made(model, name, bare, place, reporter)
                if isinstance(made, str):
                    skipped[model].append({"engine": name, "reason": made})
                else:
                    ready[model, name] = made
        with reporter.task("timing", "batch sizes") as progress:
            for done, size in enumerate(batches):
                progress.update(done, len(batches))
                for model, row in _race(bares, _able(bares, ready, size, seconds, skipped, reporter), size, seconds):
                    found[model].append(row)
                progress.update(done + 1, len(batches))
        ready.clear()  # Windows removes no folder that holds an open file
    return {model: Latencies(found[model], skipped[model]) for model in bares}


def _made(model: str, name: str, bare: Bare, workspace: Path, reporter: Reporter) -> Engine | str:
    """An engine, or why there is none."""
    of = f" of {model}" if model else ""
    if name == "onnxruntime" and bare.exported is None:
        reporter.say(f"exporting{' ' * bool(model)}{model} to a temporary file for onnxruntime")
    try:
        if bare.device != "cpu" and name != "eager":
            raise UsageError(f"it runs on the CPU, and the model is on {bare.device}")
        return ENGINES[name](bare, workspace)
    except RunError:
        raise
    except Exception as error:  # exporters and runtimes raise their own unexported types
        reason = str(error) if isinstance(error, VitreousError) else f"{type(error).__name__}: {error}"
        reason = reason.split("\n")[0][:300]
        reporter.warn(f"{name}{of} is left out: {reason}")
        return reason


def _able(
    bares: Mapping[str, Bare],
    engines: Mapping[tuple[str, str], Engine],
    size: int,
    seconds: float,
    skipped: dict[str, list[dict[str, str]]],
    reporter: Reporter,
) -> dict[tuple[str, str], Engine]:
    """The engines that bear a batch of this size; why others do not is added to `skipped`."""
    able = {}
    for (model, name), engine in engines.items():
        batch = np.zeros((size, *bares[model].spec.shape), np.float32)
        try:
            engine.predict(batch)
        except Exception as error:  # as in `_made`
            reason = f"{size} at once: {type(error).__name__}: {error}".split("\n")[0][:300]
            skipped[model].append({"engine": name, "reason": reason})
            reporter.warn(f"{name}{f' of {model}' if model else ''} is left out with {reason}")
        else:
            able[model, name] = engine
    return able


def _race(
    bares: Mapping[str, Bare], engines: Mapping[tuple[str, str], Engine], size: int, seconds: float
) -> Iterator[tuple[str, Latency]]:
    """Engines take turns, so that whatever else the machine does meets all alike."""
    if not engines:
        return
    rng = np.random.default_rng(0)
    images = {model: rng.standard_normal((size, *bare.spec.shape), np.float32) for model, bare in bares.items()}
    answers = {}
    for key, engine in engines.items():
        begin = time.perf_counter()
        for _ in range(WARM_UP):
            answers[key] = engine.predict(images[key[0]])
            if time.perf_counter() - begin > seconds:
                break
    times: dict[tuple[str, str], list[float]] = {key: [] for key in engines}
    end = time.perf_counter() + seconds * len(engines)
    while min(map(len, times.values())) < FEWEST_RUNS or time.perf_counter() < end:
        for key, engine in engines.items():
            begin = time.perf_counter()
            engine.predict(images[key[0]])
            times[key].append(time.perf_counter() - begin)
    for (model, name), taken in times.items():
        middle, late = np.percentile(taken, (50, 95))
        yield (
            model,
            Latency(
                engine=name,
                device=bares[model].device if name == "eager" else "cpu",
                batch=size,
                p50_ms=round(1000 * float(middle), 3),
                p95_ms=round(1000 * float(late), 3),
                images_per_s=round(size / float(middle), 2),
                runs=len(taken),
                difference=_difference(answers.get((model, "eager")), answers[model, name]),
            ),
        )


def _difference(eager: Outputs | None, answer: Outputs) -> float | None:
    if eager is None:
        return None
    found = distance(answer, eager)
    return found if math.isfinite(found) else None  # of an overflow nothing can be said, and JSON has no word for it


@contextlib.contextmanager
def all_cores() -> Iterator[None]:
    """Inside the block torch computes on every core that this process may use."""
    before = torch.get_num_threads()
    torch.set_num_threads(available_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)
