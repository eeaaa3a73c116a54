"""Differential attention: the difference of two attention maps, in which common noise cancels."""

from __future__ import annotations

import math
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from vitreous.models.layers.attention import MultiHeadAttention, Norm
from vitreous.models.layers.norm import RMSNorm
from vitreous.models.layers.rope import Rotation


class DifferentialAttention(MultiHeadAttention):
    """(softmax(q1 k1^T) - lambda softmax(q2 k2^T)) v (Ye et al. 2025, arXiv:2410.05258, section 2.1).

    Each head has two queries and keys of half its width; lambda is learned, one number a layer.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        qkv_bias: bool | Literal["qv"] = True,
        *,
        layer: int,
        bias: bool = True,
        qk_norm: Norm | None = None,
        sub_norm: Norm | None = None,
        dropout: float = 0.0,
        projection_dropout: float = 0.0,
    ) -> None:
        """layer: 0 for the first block; lambda starts at 0.8 - 0.6 exp(-0.3 layer). The rest as in `MultiHeadAttention`."""
        super().__init__(
            embed_dim,
            num_heads,
            qkv_bias,
            bias=bias,
            qk_norm=qk_norm and (lambda width: qk_norm(width // 2)),
            sub_norm=sub_norm,
            dropout=dropout,
            projection_dropout=projection_dropout,
        )
        half = self.head_dim // 2
        self.scale = half**-0.5
        self.initial = 0.8 - 0.6 * math.exp(-0.3 * layer)
        # Rows: q1, k1, q2, k2 of the paper's equation 3.
        self.lambdas = nn.Parameter(0.1 * torch.randn(4, half))
        self.head_norm = RMSNorm(self.head_dim, eps=1e-5)

    def forward(
        self, tokens: Tensor, rotation: Rotation | None = None, attention: list[Tensor] | None = None
    ) -> Tensor:
        """tokens (b, n, d) -> (b, n, d). The recorded map is the difference: its rows sum to 1 - lambda."""
        assert rotation is None, "VisionTransformer refuses rope with differential attention"
        qk, v = self.qkv(tokens).split([2 * tokens.shape[-1], tokens.shape[-1]], dim=-1)
        q, k = rearrange(qk, "b n (two heads pair e) -> two pair b heads n e", two=2, heads=self.num_heads, pair=2)
        q, k = self.query_norm(q), self.key_norm(k)
        v = rearrange(v, "b n (heads e) -> b heads n e", heads=self.num_heads)
        q1, k1, q2, k2 = self.lambdas.float()
        share = ((q1 * k1).sum().exp() - (q2 * k2).sum().exp() + self.initial).to(v.dtype)
        if attention is None:
            mixed = self.mix(q[0], k[0], v) - share * self.mix(q[1], k[1], v)
        else:
            first, second = (((q[pair] * self.scale) @ k[pair].transpose(-2, -1)).softmax(dim=-1) for pair in (0, 1))
            attention.append(first - share * second)
            mixed = self.dropout(attention[-1]).to(v.dtype) @ v
        mixed = rearrange(self.head_norm(mixed) * (1 - self.initial), "b heads n e -> b n (heads e)")
        return self.projection_dropout(self.projection(self.sub_norm(mixed)))
