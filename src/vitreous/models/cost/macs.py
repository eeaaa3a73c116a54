"""What a model costs to compute, counted and not looked up; for a Vision Transformer also in closed form, part by part."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitreous.models.build import Architecture, build, check_takes, resized
from vitreous.models.cost.activations import Setting, count
from vitreous.models.cost.memory import outside_closed_form, runs_fused, vit_memory
from vitreous.models.cost.numbers import ViTNumbers
from vitreous.models.vit import VisionTransformer


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in the model."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Multiply-accumulate operations of one forward pass on one image (channels, height, width).

    Half of what torch's FlopCounterMode counts: matrix products and convolutions, which is what the literature's
    "FLOPs" of 4.1 G for ResNet-50 or 17.6 G for ViT-B/16 are.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *shape, device=device))
    finally:
        model.train(training)
    return counter.get_total_flops() // 2


def vit_macs(vit: ViTNumbers) -> dict[str, int]:
    """Multiply-accumulates of one image by part; their sum is what `count_macs` counts.

    With n tokens of width d, h heads and a hidden layer of m, each of the l blocks takes 3 n d^2 for queries, keys and
    values, n^2 d for the scores q k^T (h products of n x d/h by d/h x n), n^2 d for the mean of the values, n d^2 for the
    projection, and 2 n d m for the MLP (3 n d m when gated). Only the two n^2 d grow with the square of the number of
    patches, that is with the fourth power of the image's side; the rest grows with the number of patches.
    """
    n, d, hidden = vit.num_tokens, vit.embed_dim, vit.hidden_dim
    blocks = vit.depth * (2 if vit.block == "branched" else 1)
    # Differential attention makes two maps from queries and keys of half the width, each averaging the full values.
    maps = 2 if vit.differential else 1
    parts = {
        "patch embedding": _stem_macs(vit),
        "queries, keys, values": blocks * 3 * n * d * d,
        "attention scores": blocks * n * n * d,
        "attention values": blocks * maps * n * n * d,
        "projection": blocks * n * d * d,
        "mlp": blocks * (3 if vit.gated else 2) * n * d * hidden,
    }
    if vit.pooling in ("attention", "sequence"):
        parts["pooling"] = _pooling_macs(vit)
    head = vit.num_features * vit.num_classes
    if vit.head_hidden:
        head = vit.head_hidden * (vit.num_features + vit.num_classes)
    return parts | {"head": head}


ATTENTION = ("attention scores", "attention values")
"""The parts of `vit_macs` that grow with the square of the number of tokens."""


def _stem_macs(vit: ViTNumbers) -> int:
    patch = vit.in_chans * math.prod(vit.patch_size)
    if vit.stem not in ("conv", "pooled"):
        return vit.num_patches * vit.embed_dim * patch * (5 if vit.stem == "shifted" else 1)
    total, (height, width) = 0, vit.image_size
    for layer in vit.convolutions:
        height, width = height // layer.stride, width // layer.stride
        total += height * width * layer.kernel**2 * layer.before * layer.after
        height, width = height // layer.pool, width // layer.pool
    return total


def _pooling_macs(vit: ViTNumbers) -> int:
    n, d = vit.num_tokens - vit.pool_first, vit.embed_dim
    if vit.pooling == "sequence":
        return 2 * n * d  # the scores, and the weighted mean
    # One query: its own map, keys and values, the scores, the mean of the values, the projection, the MLP.
    return d * d + 2 * n * d * d + 2 * n * d + d * d + 2 * d * vit.pool_hidden_dim


@dataclass(frozen=True)
class ResolutionPoint:
    """What a model costs for square images of one size. Of a single image, and None where a model has no attention."""

    image_size: int
    tokens: int | None
    macs: int
    attention_macs: int | None
    """Of `ATTENTION`: the part that is quadratic in the number of tokens."""
    attention_share: float | None
    """The same as a share of all."""
    scores_bytes: int | None
    """Attention scores of all layers, if they were held: quadratic too."""
    inference_bytes: int
    """Peak activation memory, as in `ActivationMemory`."""
    training_bytes: int
    fused: bool | None
    """Whether attention is computed in one kernel in inference, which then never holds the scores."""
    fused_in_training: bool | None


def resolution_curve(
    found: Architecture, sizes: Sequence[int], device: str = "cpu", training: Setting = contextlib.nullcontext
) -> list[ResolutionPoint]:
    """Cost against image size, everything else the same, the patch size too.

    training: what is entered for training, as in `models.activations`. Raises UsageError for a size that does not fit.
    """
    point = _vit_point if found.family == "vit" else _point
    return [point(found, size, device, training) for size in sizes]


def curve_sizes(found: Architecture, image_size: int) -> list[int]:
    """Half to four times an image size, in whole patches."""
    step = max(found.arguments["patch_size"]) if found.family == "vit" else 2
    return sorted({max(step, round(factor * image_size / step) * step) for factor in (0.5, 1, 1.5, 2, 3, 4)})


def _vit_point(found: Architecture, size: int, device: str, training: Setting) -> ResolutionPoint:
    facts = {name: found.arguments[name] for name in ("num_classes", "in_chans")}
    with torch.device("meta"):
        model = build(resized(found, image_size=size, **facts))
    assert isinstance(model, VisionTransformer)
    vit = ViTNumbers.of(model)
    fused = runs_fused(vit, device)
    with training():
        fused_in_training = runs_fused(vit, device)
    if outside_closed_form(vit):
        memory = count(model, (vit.in_chans, size, size), 1, device, training)
    else:
        memory = vit_memory(vit, 1, device=device, fused=fused, fused_in_training=fused_in_training)
    parts = vit_macs(vit)
    total, attention = sum(parts.values()), sum(parts[name] for name in ATTENTION)
    maps = vit.depth * (2 if vit.block == "branched" else 1) * (2 if vit.differential else 1)
    return ResolutionPoint(
        image_size=size,
        tokens=vit.num_tokens,
        macs=total,
        attention_macs=attention,
        attention_share=attention / total,
        scores_bytes=maps * vit.num_heads * vit.num_tokens**2 * 4,
        inference_bytes=memory.inference,
        training_bytes=memory.training,
        fused=fused,
        fused_in_training=fused_in_training,
    )


def _point(found: Architecture, size: int, device: str, training: Setting) -> ResolutionPoint:
    shape = (found.arguments["in_chans"], size, size)
    with torch.device("meta"):
        model = build(found)
        check_takes(model, found.name, shape)
    # Batch normalisation cannot train on one image whose last map is one pixel, so two are halved.
    memory = count(model, shape, 2, device, training)
    return ResolutionPoint(
        image_size=size,
        tokens=None,
        macs=count_macs(model, shape),
        attention_macs=None,
        attention_share=None,
        scores_bytes=None,
        inference_bytes=memory.inference // 2,
        training_bytes=memory.training // 2,
        fused=None,
        fused_in_training=None,
    )
