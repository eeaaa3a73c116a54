"""The well-known table of ViTs against CNNs, measured again: counted cost, memory, latency and steps of training, side by side.

    .venv/bin/python benchmarks/vit_vs_cnn.py [--threads 2] [--render]

Parameters, multiply-accumulates and memory are counted and so the same on every machine. Latency and training steps are measured
here, all models taking turns, with random weights, which take as long as any. Accuracies are quoted, each with its condition
and source: no weights of ImageNet are at hand. Writes results/vit_vs_cnn.json, and from it docs/vit-vs-cnn.md; --render writes
the page alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from record import FOLDER, write
from torch import nn

from vitreous.config.input import InputSpec
from vitreous.models.build import architecture, build
from vitreous.models.cost import count_macs, count_parameters, resolution_curve
from vitreous.workflows.latency import Bare, time_models
from vitreous.workflows.profile import training_products
from vitreous.workflows.reporter import Silent

PAGE = Path(__file__).parents[1] / "docs" / "vit-vs-cnn.md"
COUNTED = (
    ("resnet50", 224),
    ("vit_small_patch16_224", 224),
    ("vit_base_patch16_224", 224),
    ("vit_base_patch16_384", 384),
    ("efficientnet_b4", 380),
    ("vit_large_patch16_224", 224),
    ("vit_large_patch16_384", 384),
)
TIMED = (("resnet50", 224), ("vit_small_patch16_224", 224), ("vit_base_patch16_224", 224), ("efficientnet_b4", 380))
BATCHES = (1, 8)
STEP_BATCH = 8
SIDES = (224, 448)
"""Image sizes, one twice the other, whose cost is set against each other."""
ADAMW_BYTES = 16
"""Of each parameter in training: weight, gradient, two moments, in fp32."""


def counted(name: str, size: int) -> dict[str, Any]:
    """What needs no run."""
    found = architecture(name, num_classes=1000, image_size=size)
    with torch.device("meta"):
        model = build(found)
    (point,) = resolution_curve(found, [size], "cpu", training_products("cpu"))
    parameters = count_parameters(model)
    return {
        "name": name,
        "size": size,
        "parameters": parameters,
        "macs": count_macs(model, (3, size, size)),
        "attention_share": point.attention_share,
        "inference_bytes": 4 * parameters + point.inference_bytes,
        "training_fixed_bytes": ADAMW_BYTES * parameters,
        "training_image_bytes": point.training_bytes,
    }


def growth(name: str) -> dict[str, Any]:
    """How much more the second of `SIDES` costs."""
    small, large = resolution_curve(
        architecture(name, num_classes=1000, image_size=SIDES[0]), SIDES, "cpu", training_products("cpu")
    )
    found = {"macs": large.macs / small.macs, "training_bytes": large.training_bytes / small.training_bytes}
    if large.attention_macs and small.attention_macs and large.attention_share:
        found["attention_macs"] = large.attention_macs / small.attention_macs
        found["attention_share"] = large.attention_share
    return found


def latency(seconds: float) -> dict[str, list[dict[str, Any]]]:
    bares = {
        name: Bare(
            build(architecture(name, num_classes=1000, image_size=size)).eval(),
            InputSpec(height=size, width=size),
            "cpu",
            None,
        )
        for name, size in TIMED
    }
    timed = time_models(bares, ("eager", "onnxruntime"), BATCHES, seconds, Silent())
    return {name: [row.to_dict() for row in found.found] for name, found in timed.items()}


def steps(rounds: int) -> dict[str, list[float]]:
    """Seconds of whole training steps in fp32 with AdamW, a plain loop, models in turn; the first round is not counted."""
    made = {}
    for name, size in TIMED:
        model = build(architecture(name, num_classes=1000, image_size=size)).train()
        made[name] = (model, torch.optim.AdamW(model.parameters(), lr=1e-4), torch.randn(STEP_BATCH, 3, size, size))
    labels, taken = torch.arange(STEP_BATCH), {name: [] for name in made}
    for _ in range(rounds + 1):
        for name, (model, optimizer, images) in made.items():
            begin = time.perf_counter()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            taken[name].append(time.perf_counter() - begin)
    return {name: each[1:] for name, each in taken.items()}


def measure(threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return {
        "threads": threads,
        "counted": [counted(name, size) for name, size in COUNTED],
        "growth": {name: growth(name) for name in ("resnet50", "vit_base_patch16_224", "vit_small_patch16_224")},
        "latency": latency(seconds),
        "step_batch": STEP_BATCH,
        "steps": steps(rounds),
    }


def render(facts: dict[str, Any]) -> str:
    """The page in Markdown: every claim, what was found, and whether it holds."""
    by_name = {row["name"]: row for row in facts["counted"]}
    resnet, small, base = (by_name[name] for name in ("resnet50", "vit_small_patch16_224", "vit_base_patch16_224"))
    base_384, b4, large, large_384 = (
        by_name[name]
        for name in ("vit_base_patch16_384", "efficientnet_b4", "vit_large_patch16_224", "vit_large_patch16_384")
    )
    step = {name: statistics.median(times) for name, times in facts["steps"].items()}
    alone = {name: _ms(rows, "eager", 1) for name, rows in facts["latency"].items()}
    onnx = {name: _ms(rows, "onnxruntime", 1) for name, rows in facts["latency"].items()}
    eight = {name: _ms(rows, "eager", 8) for name, rows in facts["latency"].items()}
    r50, vit_s, vit_b = "resnet50", "vit_small_patch16_224", "vit_base_patch16_224"
    growth = facts["growth"]
    claims = [
        (
            "ResNet-50: 76.2 %, 25.6 M parameters, 4.1 G",
            f"{_m(resnet)} parameters, {_g(resnet)} multiply-accumulates (MACs; twice as many floating-point operations)",
            "76.16 % are torchvision's first weights (224 px). The same network trained today: 80.4 % (timm A1, 224 px), 80.9 % "
            "(torchvision, second recipe), 82.8 % (patient teacher, arXiv:2106.05237)",
            "The numbers hold. The accuracy is that of a recipe of 2015 and no longer of the network.",
        ),
        (
            "ViT-B/16: 77.9 %, 86.6 M parameters, 17.6 G",
            f"{_m(base)} parameters; {_g(base)} MACs at 224 px, {_g(base_384)} at 384 px",
            "77.91 % is the model of 2020 from ImageNet-1k alone, fine-tuned and tested at 384 px (arXiv:2010.11929). At 224 px: DeiT "
            "81.8 %, DeiT-III 83.8 %, ViT-5 84.2 %, all from ImageNet-1k alone",
            f"Mixed: the accuracy belongs to 384 px, the arithmetic to 224 px; at 384 px it is {base_384['macs'] / base['macs']:.1f} times as much.",
        ),
        (
            "EfficientNet-B4: 82.9 %, 19.3 M parameters, 4.5 G",
            f"{_m(b4)} parameters, {_g(b4)} MACs at 380 px",
            "82.6 % (original weights, 380 px), 83.4 % (torchvision, 380 px), 83.5 % (timm RA2, 384 px)",
            "About right, with the condition left out: it is for 380 px.",
        ),
        (
            "ViT-L/16: 76.5 %, 307 M parameters, 61.6 G",
            f"{_m(large)} parameters with 1,000 classes; {_g(large)} MACs at 224 px, {_g(large_384)} at 384 px",
            "The figure of 2020 from ImageNet-1k alone, tested at 384 px. From the same images today: DeiT-III 84.9 %, ViT-5 84.9 %, "
            "torchvision 79.7 %",
            "Does not hold as a statement about the model: it shows what an unsuited recipe does to a large one. (307 M is the paper's "
            "rounding.)",
        ),
        (
            "A ViT needs 4 GB of memory, a CNN 2 GB",
            f"Classifying one image in fp32: ViT-B/16 {_mb(base['inference_bytes'])}, ResNet-50 {_mb(resnet['inference_bytes'])}. Training in "
            f"fp32 with AdamW: {_mb(base['training_fixed_bytes'])} and {_mb(base['training_image_bytes'])} an image against "
            f"{_mb(resnet['training_fixed_bytes'])} and {_mb(resnet['training_image_bytes'])} an image; with 32 at once "
            f"{_gb(base, 32)} against {_gb(resnet, 32)}",
            "",
            f"Says nothing without batch, precision and mode: the same two models take from {_mb(resnet['inference_bytes'])} to "
            f"{_gb(base, 32)} here. Training with 32 images at once, ViT-B/16 takes {_training(base, 32) / _training(resnet, 32):.1f} times "
            "as much.",
        ),
        (
            "Inference takes 120 ms for a ViT, 45 ms for a CNN",
            f"Here, one image, eager PyTorch: ViT-B/16 {alone[vit_b]:.0f} ms, ResNet-50 {alone[r50]:.0f} ms; ONNX Runtime "
            f"{onnx[vit_b]:.0f} and {onnx[r50]:.0f} ms. ViT-S/16, which has about as much arithmetic as ResNet-50: {alone[vit_s]:.0f} ms "
            f"(ONNX Runtime {onnx[vit_s]:.0f} ms)",
            "On the GPU that the figures are given for (V100, batch 1): 10.5 and 6.5 ms eager, 6.0 and 3.8 ms compiled (Hugging Face's "
            "documentation of torch.compile). 120 ms is what timm measured for ViT-B/16 on a laptop's CPU",
            f"Does not hold for a GPU. The ratio of ViT-B/16 to ResNet-50 here is {alone[vit_b] / alone[r50]:.1f} for "
            f"{base['macs'] / resnet['macs']:.1f} times the arithmetic; of ViT-S/16 it is {alone[vit_s] / alone[r50]:.1f} for "
            f"{small['macs'] / resnet['macs']:.1f} times.",
        ),
        (
            "A ViT takes two to three times as long to train",
            f"A training step of {facts['step_batch']} images here (fp32, AdamW, plain loop): ViT-B/16 {step[vit_b] / step[r50]:.1f} times "
            f"ResNet-50's, ViT-S/16 {step[vit_s] / step[r50]:.1f} times",
            "RTX 3090 with mixed precision: ViT-B/16 3.1 times with ResNet-50 in channels-last order, 2.1 without (timm's results)",
            "Holds under a condition: for ViT-B/16 against ResNet-50, that is for "
            f"{base['macs'] / resnet['macs']:.1f} times the arithmetic. At equal arithmetic (ViT-S/16) it does not.",
        ),
        (
            "A ViT needs more than 14 million images",
            "[Our studies](studies/index.md): a ViT and a CNN from scratch on hundreds to tens of thousands of images at equal cost",
            "DeiT 81.8 % from 1.28 million images (arXiv:2012.12877); compact ViTs 96.5 % on the 50,000 of CIFAR-10 "
            "(arXiv:2104.05704)",
            "Does not hold since the end of 2020. It was true of a recipe without strong augmentation.",
        ),
        (
            "Attention costs O(n²), a convolution O(n)",
            f"From {SIDES[0]} to {SIDES[1]} px, four times as many patches: ResNet-50 × {growth[r50]['macs']:.1f}; ViT-B/16 × "
            f"{growth[vit_b]['macs']:.1f} in all, its attention products × {growth[vit_b]['attention_macs']:.1f}. They are "
            f"{base['attention_share']:.0%} of ViT-B/16 at 224 px, {growth[vit_b]['attention_share']:.0%} at {SIDES[1]} px",
            "",
            "Holds for the attention products, which are a small part at usual sizes: the whole grows much less than the square.",
        ),
    ]
    lines = [
        "# A Vision Transformer or a CNN? The well-known table, measured again",
        "",
        "A widely read comparison of Vision Transformers with CNNs gives the figures in the first column. Parameters, arithmetic and memory "
        "are counted by vitreous, times are measured side by side on one machine "
        f"({facts['processor']}, {facts['threads']} thread{'s' * (facts['threads'] > 1)}, torch {facts['versions']['torch']}); accuracies on "
        "ImageNet-1k are quoted with their conditions. For *your* data and machine ask `vitreous compare DATA --models A,B`.",
        "",
        "| claim | verdict |",
        "| --- | --- |",
        *(f"| {claim} | {verdict} |" for claim, _, _, verdict in claims),
        "",
        "## Claim by claim",
        *(line for claim in claims for line in _claim(*claim)),
        "",
        "## Counted",
        "",
        "| model | image | parameters | MACs | of them attention | classifying one image | training, fixed | training, each image |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_counted_row(row) for row in facts["counted"]),
        "",
        "Memory in fp32: weights and the activations at their peak; in training weights, gradients and AdamW's two moments, and the "
        "activations of each image.",
        "",
        "## Measured",
        "",
        f"Medians in milliseconds; {facts['threads']} thread{'s' * (facts['threads'] > 1)}, models and engines in turn.",
        "",
        f"| model | eager, 1 image | eager, 8 images | ONNX Runtime, 1 image | training step, {facts['step_batch']} images (lowest to highest) |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {alone[name]:.0f} | {eight[name]:.0f} | {onnx[name]:.0f} | {1000 * step[name]:,.0f} "
            f"({1000 * min(facts['steps'][name]):,.0f} to {1000 * max(facts['steps'][name]):,.0f}) |"
            for name, _ in TIMED
        ),
        "",
        "Written by `benchmarks/vit_vs_cnn.py`.",
    ]
    return "\n".join(lines) + "\n"


def _claim(claim: str, found: str, published: str, verdict: str) -> list[str]:
    lines = ["", f"### {claim}", "", f"- Here: {found}.", f"- Verdict: {verdict}"]
    return [*lines[:4], f"- Published: {published}.", lines[4]] if published else lines


def _ms(rows: list[dict[str, Any]], engine: str, batch: int) -> float:
    return next(row["p50_ms"] for row in rows if (row["engine"], row["batch"]) == (engine, batch))


def _counted_row(row: dict[str, Any]) -> str:
    share = "–" if row["attention_share"] is None else f"{row['attention_share']:.0%}"
    cells = [_mb(row[f"{name}_bytes"]) for name in ("inference", "training_fixed", "training_image")]
    return f"| {row['name']} | {row['size']} px | {_m(row)} | {_g(row)} | {share} | {' | '.join(cells)} |"


def _training(row: dict[str, Any], batch: int) -> int:
    return row["training_fixed_bytes"] + batch * row["training_image_bytes"]


def _gb(row: dict[str, Any], batch: int) -> str:
    return f"{_training(row, batch) / 1e9:.1f} GB"


def _m(row: dict[str, Any]) -> str:
    return f"{row['parameters'] / 1e6:.1f} M"


def _g(row: dict[str, Any]) -> str:
    return f"{row['macs'] / 1e9:.1f} G"


def _mb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each model, engine and batch size")
    parser.add_argument("--render", action="store_true", help="write the page from what is kept")
    options = parser.parse_args()
    if not options.render:
        write("vit_vs_cnn", measure(options.threads, options.rounds, options.seconds))
    facts = json.loads((FOLDER / "vit_vs_cnn.json").read_text(encoding="utf-8"))
    PAGE.write_text(render(facts), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
