"""Low-rank adaptation (Hu et al. 2022, arXiv:2106.09685): small matrices that learn beside frozen ones, and become part of
them in the end, so that what is saved is a plain model.

Shapes: r rank, in and out as of the adapted linear layer.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.models.vit import VisionTransformer

ADAPTED = ("qkv", "projection", "expand", "contract")
"""Linear layers of a block that are adapted: all there are, which does better than attention alone (arXiv:2106.09685, section
7.1, at a given number of parameters; Biderman et al. 2024, arXiv:2405.09673, section 5)."""


class LoraLinear(nn.Module):
    """linear(x) + alpha / r * up(down(x)) with `linear` frozen (section 4.1, eq. 3)."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        """rank: at most the smaller side of the layer is used. dropout: of what the added matrices read, in training."""
        super().__init__()
        rank = min(rank, linear.in_features, linear.out_features)
        self.linear = linear.requires_grad_(False)
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        made = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.down = nn.Parameter(torch.empty(rank, linear.in_features, **made))
        # Zero, so that training begins at the model that was given.
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, **made))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    @property
    def in_features(self) -> int:
        return self.linear.in_features

    @property
    def out_features(self) -> int:
        return self.linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        return self.linear(x) + self.scale * F.linear(F.linear(self.dropout(x), self.down), self.up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A linear layer that answers the same: W + alpha / r * up down, summed in fp64 (section 4.1)."""
        plain = copy.deepcopy(self.linear)
        change = self.scale * (self.up.double() @ self.down.double())
        plain.weight.copy_((plain.weight.double() + change).to(plain.weight.dtype))
        return plain


def add_lora(model: VisionTransformer, rank: int, alpha: float, dropout: float = 0.0) -> int:
    """Put `LoraLinear` around every linear layer of the blocks, in place; how many they are is returned.

    The random matrices come from torch's global generator. Freezing all else is the caller's business.
    """
    count = 0
    for parent in list(model.blocks.modules()):
        if isinstance(parent, LoraLinear):
            continue
        for name, child in list(parent.named_children()):
            if name in ADAPTED and isinstance(child, nn.Linear):
                setattr(parent, name, LoraLinear(child, rank, alpha, dropout))
                count += 1
    return count


def has_lora(model: nn.Module) -> bool:
    return any(isinstance(module, LoraLinear) for module in model.modules())


def without_lora(model: nn.Module) -> nn.Module:
    """A copy of the model with every adapter merged into its layer; the model itself where it has none."""
    if not has_lora(model):
        return model
    plain = copy.deepcopy(model)
    for parent in list(plain.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLinear):
                setattr(parent, name, child.merged())
    return plain.requires_grad_(True)
