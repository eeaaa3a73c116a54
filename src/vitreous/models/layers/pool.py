"""From a sequence of tokens to one vector. Every pooling also says how much of it each token is, for explanations.

Shapes: b batch, n tokens (those before the first patch included), d width, f width of the pooled vector.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitreous.models.layers.attention import Norm, plain_is_faster
from vitreous.models.layers.mlp import MLP


class Pooling(Protocol):
    """What the read-out of a `VisionTransformer` does."""

    num_features: int

    def __call__(self, tokens: Tensor) -> Tensor:
        """tokens (b, n, d) -> features (b, f)."""
        ...

    def weights(self, tokens: Tensor) -> Tensor:
        """tokens (b, n, d) -> (b, n), zero or more and adding up to 1: each token's share in the pooled vector."""
        ...


class TokenPool(nn.Module):
    """The first `count` tokens side by side: [CLS], or [CLS] and the distillation token (arXiv:2012.12877, section 4)."""

    def __init__(self, embed_dim: int, count: int = 1) -> None:
        super().__init__()
        self.count, self.num_features = count, count * embed_dim

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, : self.count].flatten(1)

    def weights(self, tokens: Tensor) -> Tensor:
        share = tokens.new_zeros(tokens.shape[:2])
        share[:, : self.count] = 1 / self.count
        return share


class MeanPool(nn.Module):
    """The mean of the tokens from `first` on (arXiv:2205.01580)."""

    def __init__(self, embed_dim: int, first: int) -> None:
        super().__init__()
        self.first, self.num_features = first, embed_dim

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, self.first :].mean(dim=1)

    def weights(self, tokens: Tensor) -> Tensor:
        share = tokens.new_zeros(tokens.shape[:2])
        share[:, self.first :] = 1 / (tokens.shape[1] - self.first)
        return share


class ClassAndMeanPool(nn.Module):
    """[CLS] and the mean of the patch tokens side by side, as DINOv2's classifiers read them (arXiv:2304.07193, section B.3)."""

    def __init__(self, embed_dim: int, first: int) -> None:
        super().__init__()
        self.first, self.num_features = first, 2 * embed_dim

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens[:, 0], tokens[:, self.first :].mean(dim=1)], dim=-1)

    def weights(self, tokens: Tensor) -> Tensor:
        share = tokens.new_zeros(tokens.shape[:2])
        share[:, self.first :] = 0.5 / (tokens.shape[1] - self.first)
        share[:, 0] += 0.5
        return share


class SequencePool(nn.Module):
    """A mean weighted by a learned score of each token (Hassani et al. 2021, arXiv:2104.05704, section 3.2)."""

    def __init__(self, embed_dim: int, first: int) -> None:
        super().__init__()
        self.first, self.num_features = first, embed_dim
        self.score = nn.Linear(embed_dim, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        seen = tokens[:, self.first :]
        share = self.score(seen).softmax(dim=1).to(seen.dtype)
        return (share.transpose(1, 2) @ seen).squeeze(1)

    def weights(self, tokens: Tensor) -> Tensor:
        share = self.score(tokens[:, self.first :]).softmax(dim=1).squeeze(-1)
        return F.pad(share, (self.first, 0))


class AttentionPool(nn.Module):
    """One learned query attends to the tokens, then an MLP with a residual connection (the MAP head of SigLIP; Zhai et
    al. 2022, arXiv:2106.04560, section 3.3)."""

    def __init__(
        self, embed_dim: int, num_heads: int, hidden_dim: int, *, first: int, norm: Norm, activation: str = "gelu"
    ) -> None:
        super().__init__()
        self.first, self.num_features, self.num_heads = first, embed_dim, num_heads
        self.scale = (embed_dim // num_heads) ** -0.5
        self.probe = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key_value = nn.Linear(embed_dim, 2 * embed_dim)
        self.projection = nn.Linear(embed_dim, embed_dim)
        self.norm = norm(embed_dim)
        self.mlp = MLP(embed_dim, hidden_dim, activation=activation)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self._heads(tokens)
        if plain_is_faster(k):
            mixed = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1).to(v.dtype) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        pooled = self.projection(rearrange(mixed, "b heads 1 e -> b (heads e)"))
        return pooled + self.mlp(self.norm(pooled))

    def weights(self, tokens: Tensor) -> Tensor:
        q, k, _ = self._heads(tokens)
        share = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1).mean(dim=1).squeeze(1)
        return F.pad(share, (self.first, 0))

    def _heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = rearrange(self.query(self.probe), "1 1 (heads e) -> 1 heads 1 e", heads=self.num_heads)
        k, v = rearrange(
            self.key_value(tokens[:, self.first :]),
            "b n (two heads e) -> two b heads n e",
            two=2,
            heads=self.num_heads,
        )
        return q.expand(k.shape[0], -1, -1, -1).to(k.dtype), k, v


class PairedHead(nn.Module):
    """The classifiers of a distilled model: one reads [CLS], one the distillation token, and their mean answers
    (Touvron et al. 2021, arXiv:2012.12877, section 4)."""

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.label = nn.Linear(embed_dim, num_classes)
        self.teacher = nn.Linear(embed_dim, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """features (b, 2 d) -> logits (b, k)."""
        label, teacher = self.pair(features)
        return (label + teacher) / 2

    def pair(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features (b, 2 d) -> logits for the label and for the teacher's answer, each (b, k): what distillation trains."""
        first, second = features.chunk(2, dim=-1)
        return self.label(first), self.teacher(second)


class HiddenHead(nn.Module):
    """A classifier with a hidden layer: linear, GELU, dropout, linear."""

    def __init__(self, num_features: int, hidden_dim: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_features, hidden_dim)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_dim, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """features (b, f) -> logits (b, k)."""
        return self.output(self.dropout(self.activation(self.hidden(features))))
