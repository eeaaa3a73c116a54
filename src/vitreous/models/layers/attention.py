"""Multi-head self-attention, with its probabilities on request.

Shapes: b batch, n tokens, d width, heads, e = d / heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.models.layers.rope import Rotation, rotate

# On a CPU, in bf16 or where fp32 products take the oneDNN route (`engines.cpu.fast_matmul`), two matrix products and a
# softmax are 1.2 to 8 times as fast as the fused kernel, forward and backward, the more so the shorter the sequence
# (benchmarks/RESULTS.md); in plain fp32 the fused kernel wins. Beyond this many tokens, those of 400 pixels and patches of 16,
# its smaller memory wins.
PLAIN_ON_CPU_UP_TO = 640

Norm = Callable[[int], nn.Module]
"""From a width to a normalisation of it."""


class KeyUnbiasedLinear(nn.Linear):
    """The projection to queries, keys and values whose key bias stays zero, as in BEiT, EVA and DINOv3."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)

    def forward(self, input: Tensor) -> Tensor:
        """tokens (b, n, d) -> (b, n, 3 d). No gradient reaches the key bias, so it keeps the zeros it starts from."""
        query, key, value = self.bias.chunk(3)
        return F.linear(input, self.weight, torch.cat([query, torch.zeros_like(key), value]))


class MultiHeadAttention(nn.Module):
    """softmax(q k^T / sqrt(e)) v in `num_heads` subspaces (Vaswani et al. 2017, arXiv:1706.03762, section 3.2)."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        qkv_bias: bool | Literal["qv"] = True,
        *,
        bias: bool = True,
        qk_norm: Norm | None = None,
        sub_norm: Norm | None = None,
        dropout: float = 0.0,
        projection_dropout: float = 0.0,
    ) -> None:
        """qkv_bias: "qv" biases queries and values only. bias: of the output projection.
        qk_norm: normalises each head's queries and keys (Dehghani et al. 2023, arXiv:2302.05442, section 2.1).
        sub_norm: normalises what is projected (arXiv:2210.06423). dropout: of probabilities.

        Raises ValueError when the width is not divisible by the heads.
        """
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
        self.num_heads, self.head_dim = num_heads, embed_dim // num_heads
        self.scale = self.head_dim**-0.5
        if qkv_bias == "qv":
            self.qkv: nn.Linear = KeyUnbiasedLinear(embed_dim, 3 * embed_dim)
        else:
            self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=bool(qkv_bias))
        self.query_norm = qk_norm(self.head_dim) if qk_norm else nn.Identity()
        self.key_norm = qk_norm(self.head_dim) if qk_norm else nn.Identity()
        self.sub_norm = sub_norm(embed_dim) if sub_norm else nn.Identity()
        self.projection = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.dropout, self.projection_dropout = nn.Dropout(dropout), nn.Dropout(projection_dropout)

    def forward(
        self, tokens: Tensor, rotation: Rotation | None = None, attention: list[Tensor] | None = None
    ) -> Tensor:
        """tokens (b, n, d) -> (b, n, d).

        rotation: turns queries and keys by their positions (RoPE). attention: when a list is given, this layer's
        probabilities (b, heads, n, n) are appended to it, as part of the autograd graph. The result is the same either
        way; only then, and on short sequences on a CPU, is the product computed in the open instead of by the fused
        kernel.
        """
        # "b n (three heads e) -> three b heads n e". Not einops here: at batch 1 of a small model its parsing shows.
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.query_norm(q), self.key_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation).to(v.dtype), rotate(k, rotation).to(v.dtype)
        mixed = self.mix(q, k, v, attention)
        mixed = self.sub_norm(mixed.transpose(1, 2).flatten(2))
        return self.projection_dropout(self.projection(mixed))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, attention: list[Tensor] | None = None) -> Tensor:
        """q, k, v (b, heads, n, e) -> (b, heads, n, e): each query's mean of the values, weighted by attention."""
        if attention is None and not plain_is_faster(q):
            return F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout.p if self.training else 0.0)
        probabilities = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        if attention is not None:
            attention.append(probabilities)
        return self.dropout(probabilities).to(v.dtype) @ v


def plain_is_faster(queries: Tensor) -> bool:
    """Whether attention for queries (b, heads, n, e) is computed in the open, as two matrix products."""
    if queries.device.type != "cpu" or queries.shape[-2] > PLAIN_ON_CPU_UP_TO:
        return False
    return queries.dtype != torch.float32 or _products_leave_the_default()


@torch.compiler.assume_constant_result
def _products_leave_the_default() -> bool:
    """Whether fp32 products take the oneDNN route. A compiled graph keeps the answer of the moment it was captured."""
    return torch.get_float32_matmul_precision() != "highest"
