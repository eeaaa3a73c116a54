"""What each finished model of a study costs: memory, latency on every engine, and growth with the size of images."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from vitreous.config.convert import from_dict, read_settings
from vitreous.config.study import StudyConfig
from vitreous.config.train import TrainConfig
from vitreous.engines.eager import EagerEngine
from vitreous.errors import UsageError
from vitreous.models.build import Architecture, build, resized
from vitreous.models.cost import curve_sizes, resolution_curve
from vitreous.models.cost.activations import count
from vitreous.models.load import load_model
from vitreous.runs.folder import CONFIG, RunFolder
from vitreous.training.forecast import forecast
from vitreous.workflows.environment import default_device
from vitreous.workflows.latency import Bare, all_cores, choose_engines, time_models
from vitreous.workflows.profile import training_products
from vitreous.workflows.reporter import Reporter

MOST_MACS = 20_000_000_000
"""Of one image, beyond which growth is counted and not timed."""
SECONDS = 0.1
"""For timing one size of image."""
MILLION = 1_000_000


def measured(runs: Mapping[str, RunFolder], study: StudyConfig, reporter: Reporter) -> dict[str, dict[str, Any]]:
    """{model: latency_ms, latency, skipped, memory, cost_per_million}; all models and engines take turns."""
    device = default_device()
    models = {name: load_model(run).to(device) for name, run in runs.items()}
    bares = {name: Bare(models[name], run.spec, device, run.export_file("onnx")) for name, run in runs.items()}
    engines = ["eager", *(name for name in choose_engines(study.engines, device) if name != "eager")]
    batches = sorted({1, *study.batches})
    timed = time_models(bares, engines, batches, study.seconds, reporter)
    found = {}
    for name, run in runs.items():
        rows = [row.to_dict() for row in timed[name].found]
        alone = next((row for row in rows if row["batch"] == 1 and row["engine"] == "eager"), None)
        found[name] = {
            "latency_ms": None if alone is None else alone["p50_ms"],
            "latency": rows,
            "skipped": timed[name].skipped,
            "memory": _memory(run, models[name], device),
            "cost_per_million": _price(rows, study.price_per_hour),
        }
    return found


def _memory(run: RunFolder, model: torch.nn.Module, device: str) -> dict[str, Any]:
    """Bytes at the peak: of classifying one image in fp32, and of training as it was done."""
    config = from_dict(TrainConfig, read_settings(run.path / CONFIG))
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    # Batch normalisation cannot train on one image whose last map is one pixel, so two are halved.
    activations = count(model, run.spec.shape, 2, device, training_products(device)).inference // 2
    precision = run.facts["training"]["precision"]
    predicted = forecast(model, run.spec.shape, precision, device, config.optim.name or "adamw")
    batch = config.micro_batch or 1
    return {
        "inference_bytes": weights + 4 * math.prod(run.spec.shape) + activations,
        "training_bytes": predicted.bytes(batch, recomputed=bool(config.net.checkpointing)),
        "training_batch": batch,
        "precision": precision,
    }


def _price(rows: list[dict[str, Any]], per_hour: float | None) -> dict[str, Any] | None:
    """Of a million images on the engine and at the batch size that are cheapest; None without a price."""
    if per_hour is None or not rows:
        return None
    best = max(rows, key=lambda row: row["images_per_s"])
    cost = MILLION / best["images_per_s"] / 3600 * per_hour
    return {"value": round(cost, 4), "engine": best["engine"], "batch": best["batch"]}


def growth(runs: Mapping[str, RunFolder], reporter: Reporter) -> dict[str, list[dict[str, Any]]]:
    """{model: cost at half to four times the size of its images}: as `profile --curve`, and milliseconds of one image."""
    device, found = default_device(), {}
    with reporter.task("cost against image size", "models") as progress:
        for done, (name, run) in enumerate(runs.items()):
            progress.update(done, len(runs))
            architecture = Architecture(**run.architecture)
            points: list[dict[str, Any]] = []
            for size in curve_sizes(architecture, run.spec.height):
                with contextlib.suppress(UsageError):  # half the size may be too small for a deep network
                    (point,) = resolution_curve(architecture, [size], device, training_products(device))
                    points.append(
                        {**asdict(point), "milliseconds": _milliseconds(architecture, size, point.macs, device)}
                    )
            found[name] = points
            progress.update(done + 1, len(runs))
    return found


def _milliseconds(architecture: Architecture, size: int, macs: int, device: str) -> float | None:
    """Median of one image with random weights, which take as long as any; None where it would take seconds, or more memory
    than there is."""
    if macs > MOST_MACS:
        return None
    facts = {name: architecture.arguments[name] for name in ("num_classes", "in_chans")}
    if architecture.family == "vit":
        architecture = resized(architecture, image_size=size, **facts)
    image = np.zeros((1, facts["in_chans"], size, size), np.float32)
    times, end = [], time.perf_counter() + SECONDS
    try:
        engine = EagerEngine(build(architecture).eval().to(device), device)
        with all_cores():
            engine.predict(image)
            while len(times) < 3 or time.perf_counter() < end:
                begin = time.perf_counter()
                engine.predict(image)
                times.append(time.perf_counter() - begin)
    except (MemoryError, RuntimeError):  # a point of a curve is not worth losing the study for
        return None
    return round(1000 * float(np.median(times)), 3)
