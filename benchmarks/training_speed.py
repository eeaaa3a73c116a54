"""Training steps of one architecture: as `vitreous train` takes them, and in a plain PyTorch loop with timm's, Hugging Face's and
vit-pytorch's model. In turn, in one process.

    .venv/bin/python benchmarks/training_speed.py
    .venv/bin/python benchmarks/training_speed.py --only digits --rounds 25 --threads 2

Ours is the whole step of the training loop: forward, loss, backward, clipping, fused AdamW, averaged weights. The others are the
loop of a tutorial: forward, cross-entropy, backward, `torch.optim.AdamW` at its defaults, no clipping, no average. All start from the
same weights as far as the libraries let them, and see the same images. One thread and processor time, unless --threads says otherwise.

`--curves` adds what the losses do: timm in fp32 against ours in fp32 and bf16, on scikit-learn's digits at the size of each shape.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from model_speed import CLASSES, TRAINING, Shape, models
from record import FOLDER, write
from sklearn.datasets import load_digits
from timing import interleaved, milliseconds
from torch import Tensor, nn

from vitreous.config.optim import OptimConfig
from vitreous.config.train import Precision
from vitreous.engines.cpu import fast_matmul
from vitreous.models.cost.macs import count_macs
from vitreous.training.allocator import keep_memory
from vitreous.training.checkpoint import TrainState
from vitreous.training.ema import Ema
from vitreous.training.losses import cross_entropy
from vitreous.training.objective import classify
from vitreous.training.optim import make_optimizer
from vitreous.training.precision import gradient_scaler
from vitreous.training.settings import FitSettings
from vitreous.training.step import backward, gradient_norm, update

SHAPES = {name.split(",")[0]: shape for name, shape in TRAINING.items()}
RATE = 1e-3
CURVE_RATE = 2e-4
"""Learning rate of the losses that are compared: without a warm-up a larger one makes the deep shapes jump, each its own way."""
CURVE = {"digits": 200, "cifar": 60}
"""Steps whose losses are compared."""

Step = Callable[[Tensor, Tensor], Tensor]
"""(images, labels) -> loss of the step."""


def plain(model: nn.Module, *, bf16: bool = False, weight_decay: float = 0.01, rate: float = RATE) -> Step:
    """The loop of a tutorial. weight_decay: 0.01 is the default of `torch.optim.AdamW`."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=weight_decay)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def ours(
    model: nn.Module, precision: Precision, *, weight_decay: float = 0.01, clip_norm: float = 1.0, rate: float = RATE
) -> Step:
    """What `training.loop.fit` does at each step."""
    model.train()
    optim = OptimConfig(
        lr=rate, weight_decay=weight_decay, beta1=0.9, beta2=0.999, clip_norm=clip_norm, ema_decay=0.999
    )
    settings = FitSettings(1000, optim, precision, "cpu", 0, 100, 100, 25)
    state = TrainState(model, Ema(model, 0.999), make_optimizer(model, optim), gradient_scaler(precision, "cpu"))
    objective = classify(cross_entropy)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        with fast_matmul():
            loss = backward(state, images, F.one_hot(labels, CLASSES).float(), settings, objective)
            gradient_norm(state, clip_norm)
            update(state, rate)
            state.step += 1
        return loss

    return step


def steps(shape: Shape) -> dict[str, Step]:
    """Every candidate with a model of its own."""
    built = models(shape)
    return {
        "timm": plain(built["timm"]),
        "timm, bf16 autocast": plain(models(shape)["timm"], bf16=True),
        "transformers": plain(built["transformers"]),
        "vit-pytorch": plain(built["vit-pytorch"]),
        "ours, fp32": ours(built["ours, eager"], "fp32"),
        "ours, bf16": ours(models(shape)["ours, eager"], "bf16"),
    }


def speed(shape: Shape, rounds: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(shape.batch, 3, shape.image, shape.image, generator=generator)
    labels = torch.arange(shape.batch) % CLASSES
    works = {name: (lambda step=step: step(images, labels)) for name, step in steps(shape).items()}
    times = interleaved(works, rounds)  # type: ignore[arg-type]
    base = times["timm"]["median"]
    return {
        name: {"ms": found, "times_timm": base / found["median"], "images_per_s": 1000 * shape.batch / found["median"]}
        for name, found in times.items()
    }


def curves(shape: Shape, count: int) -> dict[str, Any]:
    """Losses of `count` steps on the same batches from the same weights, and how far apart their means of ten are.

    Without clipping and weight decay, which are not the same in the two loops.
    """
    digits = load_digits()
    pixels = torch.tensor(digits["images"], dtype=torch.float32)[:, None] / 8 - 1  # type: ignore[index]
    pixels = F.interpolate(pixels, (shape.image, shape.image), mode="bilinear").expand(-1, 3, -1, -1)
    labels = torch.tensor(digits["target"])  # type: ignore[index]
    built = models(shape)
    twin = copy.deepcopy(built["ours, eager"])
    candidates = {
        "timm": plain(built["timm"], weight_decay=0, rate=CURVE_RATE),
        "ours, fp32": ours(twin, "fp32", weight_decay=0, clip_norm=0, rate=CURVE_RATE),
        "ours, bf16": ours(built["ours, eager"], "bf16", weight_decay=0, clip_norm=0, rate=CURVE_RATE),
    }
    order = np.random.default_rng(0)
    losses: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(count):
        chosen = torch.from_numpy(order.choice(len(labels), shape.batch, replace=False))
        for name, step in candidates.items():
            losses[name].append(float(step(pixels[chosen], labels[chosen])))
    smooth = {name: np.convolve(values, np.ones(10) / 10, mode="valid") for name, values in losses.items()}
    return {
        "steps": count,
        "first": {name: values[0] for name, values in losses.items()},
        "last_ten": {name: float(values[-1]) for name, values in smooth.items()},
        "largest_difference_of_means_of_ten": {
            name: float(np.abs(smooth["timm"] - values).max()) for name, values in smooth.items() if name != "timm"
        },
    }


def product_speed() -> dict[str, float]:
    """GFLOP/s of the products that a step of ViT-Ti/16 is made of, at best of 20: fp32 by default and by oneDNN, bf16."""
    x, weight = torch.randn(3152, 192), torch.randn(768, 192)

    def best(x: Tensor, weight: Tensor, quick: bool = False) -> float:
        with fast_matmul(quick):
            taken = min(milliseconds(lambda: F.linear(x, weight)) for _ in range(20))
        return 2 * 3152 * 192 * 768 / taken / 1e6

    return {
        "fp32, default": best(x, weight),
        "fp32, oneDNN": best(x, weight, quick=True),
        "bf16": best(x.bfloat16(), weight.bfloat16()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="A training step in five loops.")
    parser.add_argument("--only", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="1: processor time; more: wall time")
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--curves-alone", action="store_true", help="put them into the results that are there")
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    torch.manual_seed(0)
    if wanted.curves_alone:
        kept = json.loads((FOLDER / "training_speed.json").read_text(encoding="utf-8"))
        kept["curves"] = {name: curves(SHAPES[name], count) for name, count in CURVE.items()}
        print(write("training_speed", kept), kept["curves"])
        return
    facts: dict[str, Any] = {"threads": wanted.threads, "gflops": product_speed(), "work": {}, "curves": {}}
    print({name: round(value) for name, value in facts["gflops"].items()})
    with keep_memory():  # the others gain by it too
        for name in wanted.only:
            shape = SHAPES[name]
            found = speed(shape, wanted.rounds * (3 if name == "digits" else 1))
            macs = count_macs(models(shape)["ours, eager"], (3, shape.image, shape.image))
            facts["work"][name] = {"batch": shape.batch, "macs": macs, "steps": found}
            print(f"{name}, batch {shape.batch}")
            for each, value in found.items():
                at = value["ms"]
                print(
                    f"  {each:<22} {at['median']:8.1f} ms ({at['min']:.1f} to {at['max']:.1f})  {value['times_timm']:.2f} x timm",
                    flush=True,
                )
            if wanted.curves and name in CURVE:
                facts["curves"][name] = curves(shape, CURVE[name])
                print("  losses", facts["curves"][name])
    print(f"timm {timm.__version__}")
    if set(wanted.only) == set(SHAPES):
        print(write("training_speed" if wanted.threads == 1 else f"training_speed_{wanted.threads}_threads", facts))


if __name__ == "__main__":
    main()
