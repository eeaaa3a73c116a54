"""Attention rollout: where information flows, whatever the class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitreous.explanation.attention import collect_attention, identity_like, on_model_device, read_grid
from vitreous.models.vit import VisionTransformer


def rollout(attention: Tensor | Sequence[Tensor], residual: float = 0.5) -> Tensor:
    """Attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928, section 3).

    attention: (l, b, heads, n, n) or a sequence of l maps, first layer first, each row sums to 1.
    residual:  share of the skip connection in every layer; the paper's 0.5.
    returns:   (b, n, n), each row sums to 1: token i of the last layer as a mixture of the input tokens j.
    """
    joint = identity_like(attention[0])
    for layer in attention:
        # Differential attention can be negative, and what is taken away does not flow.
        mixed = (1 - residual) * layer.clamp(min=0).mean(dim=1) + residual * identity_like(layer)
        # Rows already sum to 1 up to rounding; dividing keeps the error from growing with depth.
        joint = (mixed / mixed.sum(dim=-1, keepdim=True)) @ joint
    return joint


def rollout_map(model: VisionTransformer, images: Tensor, target: Tensor | None = None) -> Tensor:
    """images (b, c, h, w) -> heat map (b, gh, gw). `target` is accepted and ignored: the method knows no classes."""
    with torch.no_grad():
        tokens, attention = collect_attention(model, on_model_device(model, images))
        return read_grid(rollout(attention), model, tokens)
