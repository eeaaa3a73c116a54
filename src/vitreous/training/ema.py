"""An exponential moving average of the weights: what is evaluated and saved (Polyak and Juditsky 1992)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ema:
    """Keeps `model`, a copy whose weights follow the trained ones. With decay 0 it is always equal to them."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, weights: Sequence[Tensor] | None = None) -> None:
        """Move towards `model` after optimiser step number `step` (1-based).

        weights: what is followed in place of the parameters, in their order, where an optimiser trains at another point
        than the one to be evaluated (`training.optimizers.schedule_free`).

        The decay rises from 0.18 to its full value over the first steps, so that the average forgets the random
        start. Buffers (running statistics of batch norms) are copied.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged: list[Tensor] = list(self.model.parameters())
        trained: list[Tensor] = list(model.parameters() if weights is None else weights)
        torch._foreach_lerp_(averaged, trained, 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
