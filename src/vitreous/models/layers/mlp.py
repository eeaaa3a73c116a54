"""The second half of a transformer block: two linear layers, with or without a gate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), the approximation of GELU that the first CLIP models were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
}


def make_activation(name: str) -> nn.Module:
    """Raises ValueError for an unknown name."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r} is not one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


class MLP(nn.Module):
    """Two linear layers with an activation between (arXiv:2010.11929, section 3.1)."""

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int,
        *,
        activation: str = "gelu",
        bias: bool = True,
        norm: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        """norm: normalises the hidden layer (the sub-LayerNorm of Wang et al. 2022, arXiv:2210.06423)."""
        super().__init__()
        self.expand = nn.Linear(embed_dim, hidden_dim, bias=bias)
        self.activation = make_activation(activation)
        self.norm = norm or nn.Identity()
        self.contract = nn.Linear(hidden_dim, embed_dim, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (b, n, d) -> (b, n, d)."""
        hidden = self.dropout(self.activation(self.expand(tokens)))
        return self.dropout(self.contract(self.norm(hidden)))


class SwiGLU(MLP):
    """An MLP whose hidden layer is gated: activation(gate) times value (Shazeer 2020, arXiv:2002.05202).

    Gate and value are one linear layer, gate first, which is DINOv2's packed layout; the two separate layers of DINOv3 and
    EVA-02 are the same numbers stacked. `hidden_dim` counts what the contracting layer reads, so `expand` is twice that.
    """

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int,
        *,
        activation: str = "silu",
        bias: bool = True,
        norm: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(embed_dim, hidden_dim, activation=activation, bias=bias, norm=norm, dropout=dropout)
        self.expand = nn.Linear(embed_dim, 2 * hidden_dim, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (b, n, d) -> (b, n, d)."""
        gate, value = self.expand(tokens).chunk(2, dim=-1)
        hidden = self.dropout(self.activation(gate) * value)
        return self.dropout(self.contract(self.norm(hidden)))


MLPS: dict[str, type[MLP]] = {"mlp": MLP, "swiglu": SwiGLU}
