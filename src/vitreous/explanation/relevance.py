"""Gradient-weighted attention: what speaks for one class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitreous.explanation.attention import collect_attention, identity_like, on_model_device, read_grid
from vitreous.models.vit import VisionTransformer


def propagate(attention: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """The self-attention rule of Chefer, Gur and Wolf 2021 (arXiv:2103.15679, section 3.1, equations 5 and 6).

    attention: l maps (b, heads, n, n), first layer first.
    gradients: of one number per image (its class logit) by each map, same shapes.
    returns:   (b, n, n), the identity plus what every layer adds: A = mean over heads of relu(gradient * attention),
               R <- R + A R.
    """
    relevance = identity_like(attention[0])
    for layer, gradient in zip(attention, gradients, strict=True):
        relevance = relevance + (gradient * layer).clamp(min=0).mean(dim=1) @ relevance
    return relevance


def relevance_map(model: VisionTransformer, images: Tensor, target: Tensor) -> Tensor:
    """images (b, c, h, w) and class indices (b,) -> heat map (b, gh, gw), zero or more, large for evidence.

    Gradients stop at the attention maps: no parameter's `.grad` is touched, frozen models are fine.
    """
    # A caller inside `inference_mode` or `no_grad` still gets gradients.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = on_model_device(model, images).clone().requires_grad_()
        tokens, attention = collect_attention(model, leaf)
        logits = model.head(model.pool(tokens))
        # Images of a batch do not see each other, so the gradient of the sum is each image's own.
        chosen = logits.gather(1, target.to(logits.device).clone()[:, None]).sum()
        gradients = torch.autograd.grad(chosen, attention)
        relevance = propagate([layer.detach() for layer in attention], gradients)
        return read_grid(relevance, model, tokens.detach()).detach()
