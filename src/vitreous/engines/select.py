"""Choosing an engine by name for a run folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from vitreous.engines.onnxruntime import OnnxRuntimeEngine
from vitreous.engines.protocol import Engine
from vitreous.errors import MissingExtraError, RunError, UsageError, unknown_name
from vitreous.runs.folder import RunFolder


def load_engine(run: RunFolder, name: str = "auto", threads: int | None = None) -> Engine:
    """The engine that will run this model.

    `auto` takes the proven ONNX export where there is one, since it starts without torch, and eager PyTorch otherwise.
    Raises UsageError for an unknown name or fewer threads than one, MissingExtraError and RunError where the engine's needs are absent.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"--threads must be at least 1, got {threads}.", "Leave it out to use all cores.")
    if name == "auto":
        name = "onnxruntime" if run.export_file("onnx") is not None or not _has_torch() else "eager"
    if name not in ENGINES:
        raise unknown_name("engine", name, ["auto", *ENGINES])
    return ENGINES[name](run, threads)


def _eager(run: RunFolder, threads: int | None) -> Engine:
    if not _has_torch():
        raise MissingExtraError("The eager engine", "train", "torch")
    # The only step of this room into `models`, and only when torch is wanted: see docs/decisions.md.
    from vitreous.engines.eager import EagerEngine
    from vitreous.models.load import load_model

    if threads is not None:
        import torch

        torch.set_num_threads(threads)  # torch has no setting for one model, only for the process
    return EagerEngine(load_model(run))


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


ENGINES: dict[str, Callable[[RunFolder, int | None], Engine]] = {"eager": _eager, "onnxruntime": _onnxruntime}
