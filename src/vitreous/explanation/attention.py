"""Attention maps out of a Vision Transformer, and relations between tokens back onto its patch grid.

Shapes: b batch, c channels, h w image in pixels, n tokens, heads, l layers, gh gw patch grid.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from vitreous.models.vit import VisionTransformer


def collect_attention(model: VisionTransformer, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """images (b, c, h, w) -> tokens after the final norm (b, n, d), and l maps (b, heads, n, n) of the same graph."""
    return model.forward_features(images, attention=True)


def read_grid(relation: Tensor, model: VisionTransformer, tokens: Tensor) -> Tensor:
    """How much each patch contributes to what the model pools.

    relation: (b, n, n), entry [i, j] says how much output token i owes to input token j.
    tokens:   (b, n, d), what the model pools.
    returns:  (b, gh, gw): the mean of the rows, weighted by each token's share in the pooled vector (the row of the class
    token alone where only that is read); the columns of the class token and the registers, which stand for no place in
    the image, are left out.
    """
    row = torch.einsum("bi,bij->bj", model.pool_weights(tokens).to(relation.dtype), relation)
    gh, gw = model.grid_size
    return rearrange(row[:, model.num_prefix_tokens :], "b (gh gw) -> b gh gw", gh=gh, gw=gw)


def on_model_device(model: VisionTransformer, images: Tensor) -> Tensor:
    """The images where the model's weights are, and in their type."""
    return images.to(next(model.parameters()), copy=False)


def identity_like(attention: Tensor) -> Tensor:
    """attention (b, heads, n, n) -> (b, n, n), an identity for every image."""
    b, n = attention.shape[0], attention.shape[-1]
    return torch.eye(n, dtype=attention.dtype, device=attention.device).expand(b, n, n)
