"""The transformer block: attention and an MLP, each after a LayerNorm and around a residual connection."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitreous.models.attention import MultiHeadAttention


class MLP(nn.Module):
    """Two linear layers with a GELU between (arXiv:2010.11929, section 3.1)."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(embed_dim, hidden_dim)
        self.activation = nn.GELU()
        self.contract = nn.Linear(hidden_dim, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.contract(self.activation(self.expand(tokens)))


class DropPath(nn.Module):
    """Stochastic depth: skip a residual branch for some images of a batch (Huang et al. 2016, arXiv:1603.09382)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """branch (b, ...) -> the same, zeroed for some b and scaled up for the others so that the mean stays."""
        if not self.training or self.probability == 0:
            return branch
        keep = 1 - self.probability
        mask = torch.empty(branch.shape[0], *[1] * (branch.ndim - 1), device=branch.device, dtype=branch.dtype)
        return branch * mask.bernoulli_(keep) / keep


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)) (arXiv:2010.11929, eq. 2 and 3)."""

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attention = MultiHeadAttention(embed_dim, num_heads)
        self.mlp_norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = MLP(embed_dim, int(embed_dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, attention: list[Tensor] | None = None) -> Tensor:
        """tokens (b, n, d) -> (b, n, d); `attention` as in `MultiHeadAttention.forward`."""
        tokens = tokens + self.drop_path(self.attention(self.attention_norm(tokens), attention))
        return tokens + self.drop_path(self.mlp(self.mlp_norm(tokens)))
