"""What stands around a residual branch: normalisation, LayerScale, stochastic depth."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """RMSNorm that computes in its weights' type, fp32 under autocast, which casts for LayerNorm and not for this."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.to(self.weight.dtype), self.normalized_shape, self.weight, self.eps).to(x.dtype)


NORMS: dict[str, Callable[..., nn.Module]] = {"layer": nn.LayerNorm, "rms": RMSNorm}
"""LayerNorm (Ba et al. 2016, arXiv:1607.06450) and RMSNorm, which neither centres nor shifts (Zhang and Sennrich 2019,
arXiv:1910.07467)."""


def make_norm(kind: str, dim: int, eps: float) -> nn.Module:
    """A normalisation over the last `dim` numbers. Raises ValueError for an unknown kind."""
    if kind not in NORMS:
        raise ValueError(f"norm={kind!r} is not one of {', '.join(NORMS)}")
    return NORMS[kind](dim, eps=eps)


class LayerScale(nn.Module):
    """A learned factor for each channel of a branch (Touvron et al. 2021, arXiv:2103.17239, section 2.1)."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(initial)))

    def forward(self, branch: Tensor) -> Tensor:
        """branch (b, n, d) -> the same shape."""
        return branch * self.gamma


def make_layer_scale(dim: int, initial: float | None) -> nn.Module:
    """`LayerScale`, or nothing where `initial` is None."""
    return nn.Identity() if initial is None else LayerScale(dim, initial)


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
