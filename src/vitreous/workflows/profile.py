"""`vitreous profile`: what a model costs: parameters, multiply-accumulates, memory, and its speed on this machine.

Needs no data. Parameters and multiply-accumulates are counted on a device that holds none; activation memory is predicted
from the model's numbers and measured; latency is measured, with all engines that can run the model taking turns.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitreous.config.input import InputSpec
from vitreous.engines.cpu import fast_matmul, medium_is_exact
from vitreous.engines.onnxruntime import available_cores
from vitreous.errors import UsageError, unknown_name
from vitreous.models.build import Architecture, architecture, build, check_takes, default_image_size
from vitreous.models.cost import ResolutionPoint, count_macs, count_parameters, curve_sizes, resolution_curve, vit_macs
from vitreous.models.cost.activations import ActivationMemory, Setting, count, measure
from vitreous.models.cost.memory import outside_closed_form, runs_fused, saved_by_part, vit_memory
from vitreous.models.cost.numbers import ViTNumbers
from vitreous.models.load import load_model
from vitreous.models.vit import VisionTransformer
from vitreous.runs.folder import RunFolder
from vitreous.workflows.environment import default_device, free_memory, processor, require, versions
from vitreous.workflows.latency import Bare, all_cores, check_engines, choose_engines, time_engines
from vitreous.workflows.reporter import Reporter, Silent

BATCHES = (1, 8, 32)
MEASURED_BATCH = 8
"""Largest batch that memory is measured at; it grows in proportion beyond."""
MOST_MEASURED_MACS = 500_000_000_000
"""Of a batch that memory is measured at: three passes forward and two backward should take seconds."""


@dataclass(frozen=True)
class Profile:
    """What was found, model by model."""

    models: list[dict[str, Any]]
    """As `--json` gives them."""
    device: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "models": self.models,
            "device": self.device,
            "processor": torch.cuda.get_device_name() if self.device == "cuda" else processor(),
            "cores": available_cores(),
            "versions": versions(),
        }


@dataclass(frozen=True)
class Subject:
    """One model to profile."""

    name: str
    architecture: Architecture
    spec: InputSpec
    run: RunFolder | None
    """Where the weights come from; None for random ones, which cost the same."""

    def skeleton(self) -> nn.Module:
        """The module without numbers in it. Raises UsageError for images it cannot take."""
        with torch.device("meta"):
            model = build(self.architecture)
            check_takes(model, self.name, self.spec.shape)
        return model

    def model(self) -> nn.Module:
        return load_model(self.run) if self.run is not None else build(self.architecture).eval()


def profile(
    models: Sequence[str],
    *,
    image_size: int = 0,
    batches: Sequence[int] = BATCHES,
    engines: Sequence[str] = ("auto",),
    seconds: float = 1.0,
    curve: bool = False,
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Profile:
    """What each model costs.

    models: names, or run folders. image_size: pixels; 0 takes the model's own. seconds: for each engine and batch size.
    engines: names of `latency.ENGINES`, or "auto" for those that work here. curve: also cost against image size.
    Raises UsageError for unknown names and sizes that do not fit, RunError for run folders that cannot be read.
    """
    require("Profiling", "train")
    reporter, device = reporter or Silent(), default_device() if device == "auto" else device
    _check(models, batches, engines, seconds, device)
    subjects = [subject(name, image_size) for name in dict.fromkeys(models)]
    skeletons = [each.skeleton() for each in subjects]  # every name and size is judged before anything takes time
    names, found = choose_engines(engines, device), []
    for each, skeleton in zip(subjects, skeletons, strict=True):
        reporter.say(f"--- {each.name}")
        counted = _counted(each, skeleton)
        ran = _ran(each, skeleton, counted["macs"], batches, names, seconds, device, reporter)
        found.append(counted | ran | {"curve": _curve(each, device) if curve else None})
    return Profile(found, device)


def subject(name: str, image_size: int = 0) -> Subject:
    """The model that a name or the path of a run folder stands for.

    Raises UsageError for an unknown name, naming the nearest, and for a size that does not fit; RunError.
    """
    if _is_path(name):
        run = RunFolder.open(name)
        if image_size and (image_size, image_size) != (run.spec.height, run.spec.width):
            raise UsageError(
                f"The run {run.name!r} takes images of {run.spec.height} x {run.spec.width} pixels, not of {image_size}.",
                f"Leave out --image-size, or profile {run.architecture['name']!r} by name.",
            )
        return Subject(name, Architecture(**run.architecture), run.spec, run)
    if name == "auto":
        raise UsageError("'auto' is no model to profile: what it stands for depends on data.", "Name one.")
    found = architecture(name, num_classes=1000, image_size=image_size)
    if found.family == "vit":
        height, width = found.arguments["image_size"]
    else:
        height = width = image_size or default_image_size(name)
    return Subject(name, found, InputSpec(height=height, width=width), None)


def _is_path(name: str) -> bool:
    return Path(name).is_dir() or any(mark in name for mark in ("/", "\\")) or name in (".", "..")


def _check(models: Sequence[str], batches: Sequence[int], engines: Sequence[str], seconds: float, device: str) -> None:
    if not models:
        raise UsageError("There is no model to profile.", "Such as: vitreous profile vit_base_patch16_224 resnet50")
    if not batches or min(batches) < 1:
        raise UsageError(
            f"Batch sizes must be 1 or more, got {', '.join(map(str, batches)) or 'none'}.", "Such as --batch 1,8,32"
        )
    if not seconds > 0:
        raise UsageError(f"--seconds must be more than 0, got {seconds:g}.", "Such as --seconds 1")
    check_engines(engines)
    if device not in ("cpu", "cuda", "mps"):
        raise unknown_name("device", device, ["auto", "cpu", "cuda", "mps"])
    if device != "cpu" and device != default_device():
        raise UsageError(f"There is no {device} device here.", "`vitreous doctor` lists devices.")


def _counted(each: Subject, skeleton: nn.Module) -> dict[str, Any]:
    """What needs no run."""
    spec, vit = each.spec, _numbers(skeleton)
    return {
        "name": each.name,
        "architecture": each.architecture.name,
        "run": str(each.run.path) if each.run is not None else None,
        "image_size": spec.height if spec.height == spec.width else [spec.height, spec.width],
        "parameters": count_parameters(skeleton),
        "macs": count_macs(skeleton, spec.shape),
        "macs_by_part": vit_macs(vit) if vit is not None else None,
        "tokens": vit.num_tokens if vit is not None else None,
    }


def _ran(
    each: Subject,
    skeleton: nn.Module,
    macs: int,
    batches: Sequence[int],
    engines: Sequence[str],
    seconds: float,
    device: str,
    reporter: Reporter,
) -> dict[str, Any]:
    """ "memory", "latency" and "skipped": what is found by running the model, as far as this machine can."""
    predicted = _Predictions(each, skeleton, device)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in skeleton.state_dict().values())
    batch, reason = _measured_batch(macs, batches, predicted, weights)
    if 2 * weights > free_memory(device):
        reason = f"the weights alone take {weights / 1e9:.1f} GB"
        reporter.warn(f"{each.name} is too large to run here ({reason}): its cost is counted, not measured.")
        skipped = [{"engine": name, "reason": reason} for name in engines]
        return {"memory": _memory(predicted, batches, weights, None, reason, batch), "latency": [], "skipped": skipped}
    model, measured = each.model().to(device), None
    if not reason:
        reporter.say(f"measuring the activation memory of a batch of {batch}")
        measured = _measured(model, each.spec.shape, batch, device)
    sizes = _fitting(batches, predicted, reporter)
    bare = Bare(model, each.spec, device, each.run.export_file("onnx") if each.run is not None else None)
    timed = time_engines(bare, engines, sizes, seconds, reporter)
    return {
        "memory": _memory(predicted, batches, weights, measured, reason, batch),
        "latency": [row.to_dict() for row in timed.found],
        "skipped": timed.skipped,
    }


def _numbers(skeleton: nn.Module) -> ViTNumbers | None:
    return ViTNumbers.of(skeleton) if isinstance(skeleton, VisionTransformer) else None


class _Predictions:
    """Activation memory at any batch size without running anything, and how it was found."""

    def __init__(self, each: Subject, skeleton: nn.Module, device: str) -> None:
        self.skeleton, self.shape, self.device = skeleton, each.spec.shape, device
        self.vit = _numbers(skeleton)
        self.reason = outside_closed_form(self.vit) if self.vit is not None else "not a Vision Transformer"
        self.method = "counted" if self.reason else "closed form"
        self.fused = self.fused_in_training = False
        if self.vit is not None:
            self.fused = runs_fused(self.vit, device)
            with training_products(device)():
                self.fused_in_training = runs_fused(self.vit, device)
        self._known: dict[int, ActivationMemory] = {}

    def at(self, batch: int) -> ActivationMemory:
        if batch not in self._known:
            if self.vit is not None and not self.reason:
                self._known[batch] = vit_memory(
                    self.vit, batch, device=self.device, fused=self.fused, fused_in_training=self.fused_in_training
                )
            else:
                self._known[batch] = count(
                    self.skeleton, self.shape, batch, self.device, training_products(self.device)
                )
        return self._known[batch]

    def by_part(self, batch: int) -> dict[str, int] | None:
        if self.vit is None or self.reason:
            return None
        return saved_by_part(self.vit, batch, device=self.device, fused=self.fused_in_training)

    def attention(self) -> dict[str, str] | None:
        """How attention is computed in inference and in training."""
        if self.vit is None:
            return None
        words = {True: "fused", False: "plain"}
        return {"inference": words[self.fused], "training": words[self.fused_in_training]}


def _measured_batch(macs: int, batches: Sequence[int], predicted: _Predictions, weights: int) -> tuple[int, str]:
    """The batch size to measure memory at, and why it is not to be measured, if so.

    Two at the least: batch normalisation cannot train on one image whose last map is a single pixel.
    """
    fit = [batch for batch in batches if 2 <= batch <= MEASURED_BATCH and batch * macs <= MOST_MEASURED_MACS]
    batch = max(fit, default=2)
    if batch * macs > MOST_MEASURED_MACS:
        return batch, "one training step would take minutes"
    if predicted.at(batch).training + 3 * weights > free_memory(predicted.device):
        return batch, "one training step would not fit into memory"
    return batch, ""


def _fitting(batches: Sequence[int], predicted: _Predictions, reporter: Reporter) -> list[int]:
    """The batch sizes that memory allows to run."""
    fit = []
    for size in batches:
        need = predicted.at(size).inference
        if need < free_memory(predicted.device):
            fit.append(size)
        else:
            reporter.warn(f"A batch of {size:,} would take {need / 1e9:,.1f} GB, more than there is; it is left out.")
    return fit


def _measured(model: nn.Module, shape: tuple[int, int, int], batch: int, device: str) -> ActivationMemory:
    images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    with all_cores():
        return measure(model, images, training_products(device))


def _memory(
    predicted: _Predictions,
    batches: Sequence[int],
    weights: int,
    measured: ActivationMemory | None,
    reason: str,
    batch: int,
) -> dict[str, Any]:
    """Bytes of activations of a batch, measured where they were, and predicted; and what they add up to with the rest."""
    expected = predicted.at(batch)
    found = measured or expected
    images = batch * math.prod(predicted.shape) * 4
    how = "allocator" if predicted.device == "cuda" else "storages followed"
    return {
        "batch": batch,
        "precision": "fp32",
        "attention": predicted.attention(),
        **_bytes(found),
        "method": how if measured is not None else predicted.method,
        "not_measured": reason or None,
        "predicted": {**_bytes(expected), "method": predicted.method, "outside_closed_form": predicted.reason or None},
        "largest_error": _largest_error(expected, measured) if measured is not None else None,
        "saved_by_part": predicted.by_part(batch),
        "by_batch": [{"batch": size, **_bytes(predicted.at(size))} for size in batches],
        "weights_bytes": weights,
        "peak_inference_bytes": weights + images + found.inference,
        # Weights, their gradients and AdamW's two moments. An upper bound: gradients come as activations go.
        "peak_training_bytes": 4 * weights + images + found.training,
    }


def _bytes(memory: ActivationMemory) -> dict[str, int | None]:
    return {f"{name}_bytes": value for name, value in asdict(memory).items()}


def _largest_error(expected: ActivationMemory, measured: ActivationMemory) -> float:
    """Of the prediction, as a share of what was measured."""
    pairs = zip(asdict(expected).values(), asdict(measured).values(), strict=True)
    return max(abs(one - other) / other for one, other in pairs if one is not None and other)


def _curve(each: Subject, device: str) -> list[dict[str, Any]]:
    sizes = curve_sizes(each.architecture, max(each.spec.height, each.spec.width))
    points: list[ResolutionPoint] = []
    for size in sizes:
        with contextlib.suppress(UsageError):  # half the size may be too small for a deep network
            points += resolution_curve(each.architecture, [size], device, training_products(device))
    return [asdict(point) for point in points]


def training_products(device: str) -> Setting:
    """How products are computed in fp32 training, on which the way of attention depends: see `engines.cpu`."""
    medium_is_exact()  # asked here: where passes are counted there are no numbers to compare
    return partial(fast_matmul, device == "cpu")
