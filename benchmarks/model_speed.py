"""Our Vision Transformer against timm's, torchvision's, Hugging Face's and vit-pytorch's: forward passes and training steps of
the same architecture, in turn, in one process.

    .venv/bin/python benchmarks/model_speed.py
    .venv/bin/python benchmarks/model_speed.py --only "ti224, batch 16, training step" --rounds 3

One thread, processor time, unless --threads says otherwise. Peers run as their libraries leave them. `ours, eager` is the
module as torch runs it; `ours` is how our own verbs run it: fp32 products on the oneDNN route for training and prepacked
weights for inference where the processor calls for it, bf16 where it is named. Ratios are of medians, to timm.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from record import write
from timing import interleaved
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from vitreous.engines.cpu import cpu_has_fast_bf16, cpu_path, fast_matmul
from vitreous.models import VisionTransformer
from vitreous.models.fit import load_into
from vitreous.models.packed import pack
from vitreous.models.weights import from_timm


@dataclass(frozen=True)
class Shape:
    """A plain ViT of 2020, and how many images at once."""

    image: int
    patch: int
    width: int
    depth: int
    heads: int
    batch: int


FORWARD = {
    "S/16, batch 1, forward": Shape(224, 16, 384, 12, 6, 1),
    "S/16, batch 8, forward": Shape(224, 16, 384, 12, 6, 8),
    "B/16, batch 8, forward": Shape(224, 16, 768, 12, 12, 8),
}
TRAINING = {
    "ti224, batch 16, training step": Shape(224, 16, 192, 12, 3, 16),
    "cifar, batch 32, training step": Shape(32, 4, 192, 9, 3, 32),
    "digits, batch 64, training step": Shape(8, 2, 64, 6, 4, 64),
}
CLASSES = 10


def models(shape: Shape) -> dict[str, nn.Module]:
    """The same architecture from everybody; ours has timm's weights."""
    import transformers
    import vit_pytorch  # pyright: ignore[reportMissingImports]  # of the extra `bench`

    mlp = 4 * shape.width
    theirs = TimmViT(
        img_size=shape.image,
        patch_size=shape.patch,
        num_classes=CLASSES,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
    )
    ours = VisionTransformer(
        image_size=shape.image,
        patch_size=shape.patch,
        num_classes=CLASSES,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
    )
    load_into(ours, from_timm(dict(theirs.state_dict())), "timm")
    config = transformers.ViTConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        intermediate_size=mlp,
        image_size=shape.image,
        patch_size=shape.patch,
        num_labels=CLASSES,  # pyright: ignore[reportCallIssue]
    )
    return {
        "timm": theirs,
        "torchvision": TorchvisionViT(
            shape.image, shape.patch, shape.depth, shape.heads, shape.width, mlp, num_classes=CLASSES
        ),
        "transformers": _Logits(transformers.ViTForImageClassification(config)),
        "vit-pytorch": vit_pytorch.ViT(
            image_size=shape.image,
            patch_size=shape.patch,
            num_classes=CLASSES,
            dim=shape.width,
            depth=shape.depth,
            heads=shape.heads,
            dim_head=shape.width // shape.heads,
            mlp_dim=mlp,
        ),
        "ours, eager": ours,
    }


class _Logits(nn.Module):
    """transformers answers with a record; the others with logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


def forward(shape: Shape, rounds: int) -> dict[str, Any]:
    built = {name: model.eval() for name, model in models(shape).items()}
    images = torch.randn(shape.batch, 3, shape.image, shape.image)
    ours = built["ours, eager"]
    works: dict[str, Callable[[], Tensor]] = {name: _inference(model, images) for name, model in built.items()}
    works["ours"] = _inference(pack(ours), images, fast=True)
    works["timm, bf16 autocast"] = _inference(built["timm"], images, bf16=True)
    if cpu_has_fast_bf16():
        works["ours, bf16"] = _inference(pack(ours, torch.bfloat16), images, fast=True)
    expected = works["timm"]()
    largest = float(expected.abs().max())
    differences = {
        name: float((work().float() - expected).abs().max()) / largest
        for name, work in works.items()
        if name.startswith(("ours", "timm"))
    }
    return _ratios(interleaved(works, rounds), differences)  # type: ignore[arg-type]


def _inference(model: nn.Module, images: Tensor, *, fast: bool = False, bf16: bool = False) -> Callable[[], Tensor]:
    def work() -> Tensor:
        with torch.inference_mode(), fast_matmul(fast), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(images)

    return work


def training(shape: Shape, rounds: int) -> dict[str, Any]:
    images = torch.randn(shape.batch, 3, shape.image, shape.image)
    targets = torch.arange(shape.batch) % CLASSES
    works = {name: _step(model.train(), images, targets) for name, model in models(shape).items()}
    works["timm, bf16 autocast"] = _step(models(shape)["timm"].train(), images, targets, bf16=True)
    works["ours"] = _step(models(shape)["ours, eager"].train(), images, targets, fast=True, fused=True)
    works["ours, bf16"] = _step(models(shape)["ours, eager"].train(), images, targets, fast=True, fused=True, bf16=True)
    return _ratios(interleaved(works, rounds), {})  # type: ignore[arg-type]


def _step(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    fast: bool = False,
    fused: bool = False,
    bf16: bool = False,
) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused or None)

    def work() -> None:
        with fast_matmul(fast):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = model(images)
            F.cross_entropy(logits.float(), targets).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return work


def _ratios(times: dict[str, dict[str, float]], differences: dict[str, float]) -> dict[str, Any]:
    base = times["timm"]["median"]
    return {
        name: {"ms": found, "times_timm": base / found["median"], "relative_difference": differences.get(name)}
        for name, found in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="One architecture, five libraries.")
    parser.add_argument("--only", nargs="+", default=[*FORWARD, *TRAINING])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="1: processor time; more: wall time")
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    torch.manual_seed(0)
    facts: dict[str, Any] = {"threads": wanted.threads, "path": cpu_path().reason, "work": {}}
    for name in wanted.only:
        found = forward(FORWARD[name], wanted.rounds) if name in FORWARD else training(TRAINING[name], wanted.rounds)
        facts["work"][name] = found
        print(name)
        for each, value in found.items():
            at, difference = value["ms"], value["relative_difference"]
            note = "" if difference is None else f"  relative difference {difference:.1e}"
            print(
                f"  {each:<22} {at['median']:8.1f} ms ({at['min']:.1f} to {at['max']:.1f})  "
                f"{value['times_timm']:.2f} x timm{note}",
                flush=True,
            )
    print(f"timm {timm.__version__}")
    if wanted.only == [*FORWARD, *TRAINING]:
        print(write("model_speed", facts))


if __name__ == "__main__":
    main()
