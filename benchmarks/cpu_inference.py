"""Forward passes on a CPU: our engines against timm's model with the same weights.

    .venv/bin/python benchmarks/cpu_inference.py
    .venv/bin/python benchmarks/cpu_inference.py --models vit_small_patch16_224 --batches 8 --threads 1 --rounds 3

Candidates take turns in one process. With one thread, processor time is counted, which is steady while others use the
machine; with several, wall time, which wants a quiet one. OpenMP's threads wait as the command line lets them, for timm
too. Weights are random, so logits are compared as numbers. What one core can do at most (its best matrix product) is
measured in the same process: a ratio to timm says as much about torch's default library on this processor as about us.
Medians and spread go to results/, after every model.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from record import write
from timing import interleaved
from torch import nn

from vitreous.config.input import InputSpec
from vitreous.engines.cpu import cpu_has_fast_bf16, cpu_path
from vitreous.engines.eager import EagerEngine
from vitreous.engines.onnxruntime import OnnxRuntimeEngine
from vitreous.engines.packed import packed_or_eager
from vitreous.engines.protocol import Engine
from vitreous.export.onnx import export_onnx
from vitreous.models import VisionTransformer, architecture, build
from vitreous.models.cost import count_macs
from vitreous.models.fit import load_into
from vitreous.models.packed import operators, pack
from vitreous.models.weights import from_timm

MODELS = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224")
CANDIDATES = ("timm", "timm bf16 autocast", "eager", "packed", "packed-bf16", "onnxruntime")
SHAPE = (3, 224, 224)
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
"""What `vitreous.cli.main` sets; OpenMP reads it once, when torch is imported."""


def best_products(rounds: int) -> dict[str, float]:
    """GFLOP/s of 1576 x 768 by 768 x 3072, the first MLP layer of ViT-B for 8 images; the best round."""
    x, weight = torch.randn(1576, 768), torch.randn(3072, 768)
    library, flop = operators(), 2 * 1576 * 768 * 3072
    works: dict[str, Callable[[], object]] = {"fp32, default": lambda: x @ weight.T}
    for name, dtype in (("fp32, oneDNN", torch.float32), ("bf16, oneDNN", torch.bfloat16)):
        if dtype is torch.bfloat16 and not cpu_has_fast_bf16():
            continue
        given, packed = x.to(dtype), library.reorder(weight.to(dtype))
        works[name] = lambda given=given, packed=packed: library.linear(given, packed, None, "none", [], "")
    with torch.inference_mode():
        return {name: flop / found["min"] / 1e6 for name, found in interleaved(works, 3 * rounds).items()}


def engines(model: nn.Module, wanted: list[str], folder: Path) -> dict[str, Engine]:
    """Those of ours that were asked for and work here."""
    found: dict[str, Engine] = {}
    if "eager" in wanted:
        found["eager"] = EagerEngine(model)
    if "packed" in wanted:
        found["packed"] = packed_or_eager(model, pack, SHAPE)
    if "packed-bf16" in wanted and cpu_has_fast_bf16():
        found["packed-bf16"] = packed_or_eager(model, pack, SHAPE, "bf16")
    if "onnxruntime" in wanted:
        export_onnx(model, InputSpec(height=SHAPE[1], width=SHAPE[2], classes=()), folder / "model.onnx", {})
        found["onnxruntime"] = OnnxRuntimeEngine(folder / "model.onnx", torch.get_num_threads())
    for name, engine in found.items():
        if name != engine.name and name != "eager":
            print(f"asked for {name}, got {engine.name}")
    return found


def measure(name: str, batches: list[int], wanted: list[str], rounds: int, folder: Path) -> dict[str, Any]:
    """One model at every batch size."""
    torch.manual_seed(0)
    theirs: Any = timm.create_model(name, num_classes=1000).eval()
    ours = build(architecture(name, num_classes=1000, image_size=SHAPE[1])).eval()
    assert isinstance(ours, VisionTransformer)
    load_into(ours, from_timm(dict(theirs.state_dict())), name)
    macs = count_macs(ours, SHAPE)
    running = engines(ours, wanted, folder)
    by_batch: dict[str, Any] = {}
    for batch in batches:
        images = np.random.default_rng(batch).standard_normal((batch, *SHAPE), np.float32)

        def forward(autocast: bool = False, given: torch.Tensor = torch.from_numpy(images)) -> np.ndarray:  # noqa: B008
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                return theirs(given).float().numpy()

        works: dict[str, Callable[[], np.ndarray]] = {"timm": forward}
        if "timm bf16 autocast" in wanted:
            works["timm bf16 autocast"] = lambda forward=forward: forward(True)
        for each, engine in running.items():
            works[each] = lambda engine=engine, images=images: engine.predict(images).logits
        expected = forward()
        differences = {
            each: float(np.abs(work() - expected).max() / np.abs(expected).max()) for each, work in works.items()
        }
        times = interleaved(works, rounds)  # type: ignore[arg-type]
        by_batch[str(batch)] = {
            each: {
                "ms_per_image": {key: value / batch for key, value in found.items()},
                "times_timm": times["timm"]["median"] / found["median"],
                "relative_difference": differences[each],
            }
            for each, found in times.items()
        }
    return {"macs": macs, "batches": by_batch}


def main() -> None:
    parser = argparse.ArgumentParser(description="Forward passes on a CPU, side by side.")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="1: processor time; more: wall time")
    parser.add_argument("--rounds", type=int, default=9)
    wanted = parser.parse_args()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **WAITING})
    facts: dict[str, Any] = {
        "path": cpu_path().reason,
        "default_is_slow": cpu_path().default_is_slow,
        "omp_wait_policy": os.environ["OMP_WAIT_POLICY"],
        "threads": {},
    }
    torch.set_num_threads(1)
    facts["one_core_gflops"] = peaks = best_products(wanted.rounds)
    print("one core, GFLOP/s: " + ", ".join(f"{value:.0f} {key}" for key, value in peaks.items()))
    for threads in wanted.threads:
        torch.set_num_threads(threads)
        models: dict[str, Any] = {}
        facts["threads"][str(threads)] = {"clock": "processor" if threads == 1 else "wall", "models": models}
        for name in wanted.models:
            with tempfile.TemporaryDirectory() as folder:
                models[name] = measure(name, wanted.batches, wanted.candidates, wanted.rounds, Path(folder))
            for batch, candidates in models[name]["batches"].items():
                for each, value in candidates.items():
                    at = value["ms_per_image"]
                    peak = peaks.get("bf16, oneDNN" if "bf16" in each else "fp32, oneDNN", peaks["fp32, oneDNN"])
                    value["share_of_peak"] = 2 * models[name]["macs"] / 1e6 / at["median"] / peak / threads
                    print(
                        f"{threads} thread(s), {name} batch {batch} {each}: "
                        f"{at['median']:.1f} ms an image ({at['min']:.1f} to {at['max']:.1f}), "
                        f"{value['times_timm']:.2f} x timm, {value['share_of_peak']:.0%} of the best product, "
                        f"relative difference {value['relative_difference']:.1e}",
                        flush=True,
                    )
            path = write("cpu_inference", facts)
            print(path)


if __name__ == "__main__":
    main()
