"""Choosing an engine by name for a run folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from vitreous.engines.cpu import cpu_path
from vitreous.engines.eager import EagerEngine
from vitreous.engines.onnxruntime import OnnxRuntimeEngine
from vitreous.engines.packed import Precision, packed_or_eager
from vitreous.engines.protocol import Engine
from vitreous.errors import MissingExtraError, RunError, UsageError, unknown_name
from vitreous.runs.folder import RunFolder

if TYPE_CHECKING:
    from torch import nn


def load_engine(run: RunFolder, name: str = "auto", threads: int | None = None) -> Engine:
    """The engine that will run this model.

    `auto` takes the proven ONNX export where there is one, since it starts without torch. Otherwise it takes the packed
    fp32 engine where the processor calls for it (`engines.cpu.cpu_path`) and eager PyTorch elsewhere; bf16 is never
    chosen for the caller. An engine whose numbers are not eager's is replaced, with a warning, by one whose are.
    Raises UsageError for an unknown name or fewer threads than one, MissingExtraError and RunError where the engine's needs are absent.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"--threads must be at least 1, got {threads}.", "Leave it out to use all cores.")
    if name == "auto":
        if run.export_file("onnx") is not None or not _has_torch():
            name = "onnxruntime"
        else:
            name = "packed" if cpu_path().fast else "eager"
    if name not in ENGINES:
        raise unknown_name("engine", name, ["auto", *ENGINES])
    return ENGINES[name](run, threads)


def engine_for(model: nn.Module, shape: tuple[int, int, int], device: str = "cpu") -> Engine:
    """The engine for a module at hand that is in no run folder yet: packed in fp32 where `auto` would take that, or eager.

    shape: (channels, height, width) of the images.
    """
    if device != "cpu" or not cpu_path().fast:
        return EagerEngine(model, device)
    # `models` is entered only where a module has to be built or rewritten, and torch is wanted: see docs/decisions.md.
    from vitreous.models.packed import pack

    return packed_or_eager(model, pack, shape)


def describe(engine: Engine) -> str:
    """One line for people: which engine runs, and why it is the one where the processor decided."""
    return f"engine {engine.name}" + (f": {cpu_path().reason}" if engine.name.startswith("packed") else "")


def _eager(run: RunFolder, threads: int | None) -> Engine:
    return EagerEngine(_load_model(run, "The eager engine", threads))


def _packed(run: RunFolder, threads: int | None, precision: Precision) -> Engine:
    model = _load_model(run, "The packed engine", threads)
    from vitreous.models.packed import pack

    return packed_or_eager(model, pack, run.spec.shape, precision)


def _load_model(run: RunFolder, what: str, threads: int | None) -> nn.Module:
    if not _has_torch():
        raise MissingExtraError(what, "train", "torch")
    import torch

    from vitreous.models.load import load_model

    if threads is not None:
        torch.set_num_threads(threads)  # torch has no setting for one model, only for the process
    return load_model(run)


def _onnxruntime(run: RunFolder, threads: int | None) -> Engine:
    path = run.export_file("onnx")
    if path is None:
        raise RunError(
            f"The run {run.name!r} has no ONNX export, which the onnxruntime engine needs.",
            f"Type: vitreous export {run.path} --format onnx",
        )
    return OnnxRuntimeEngine(path, threads)


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


ENGINES: dict[str, Callable[[RunFolder, int | None], Engine]] = {
    "packed": partial(_packed, precision="fp32"),
    "packed-bf16": partial(_packed, precision="bf16"),
    "eager": _eager,
    "onnxruntime": _onnxruntime,
}
"""{name: builder}. The numbers of `packed-bf16` differ by a percent or two of the largest logit: a choice to be made."""
