"""Multi-head self-attention, with its probabilities on request.

Shapes: b batch, n tokens, d width, heads, e = d / heads.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

# On a CPU two matrix products and a softmax, forward and backward, are several times as fast as the fused kernel for short
# sequences and no slower for those of 224-pixel images (benchmarks/RESULTS.md). Beyond this many tokens its smaller
# memory wins.
PLAIN_ON_CPU_UP_TO = 512


class MultiHeadAttention(nn.Module):
    """softmax(q k^T / sqrt(e)) v in `num_heads` subspaces (Vaswani et al. 2017, arXiv:1706.03762, section 3.2)."""

    def __init__(self, embed_dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.scale = (embed_dim // num_heads) ** -0.5
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias)
        self.projection = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens: Tensor, attention: list[Tensor] | None = None) -> Tensor:
        """tokens (b, n, d) -> (b, n, d).

        attention: when a list is given, this layer's probabilities (b, heads, n, n) are appended to it, as part of the
        autograd graph. The result is the same either way; only then, and on short sequences on a CPU, is the
        product computed in the open instead of by the fused kernel.
        """
        q, k, v = rearrange(self.qkv(tokens), "b n (three heads e) -> three b heads n e", three=3, heads=self.num_heads)
        if attention is None and not self._plain_is_faster(tokens):
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            probabilities = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
            if attention is not None:
                attention.append(probabilities)
            mixed = probabilities.to(v.dtype) @ v
        return self.projection(rearrange(mixed, "b heads n e -> b n (heads e)"))

    @staticmethod
    def _plain_is_faster(tokens: Tensor) -> bool:
        return tokens.device.type == "cpu" and tokens.shape[1] <= PLAIN_ON_CPU_UP_TO
