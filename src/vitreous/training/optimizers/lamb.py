"""LAMB (You et al. 2020, "Large Batch Optimization for Deep Learning", arXiv:1904.00962, algorithm 2)."""

from __future__ import annotations

from typing import Any

import torch

from vitreous.training.optimizers.state import count, filled, follow, gather, states

EPSILON = 1e-6
"""Added to the root of the squared-gradient average, as in the paper's section 4."""


class Lamb(torch.optim.Optimizer):
    """Adam's direction, its length set for each weight tensor to that of the weights themselves.

    Groups with `adapted` False take Adam's step as it is (see `training.groups.unadapted`). The ratio of norms is not
    bounded, as in the paper's experiments.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        epsilon: float = EPSILON,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "epsilon": epsilon, "weight_decay": 0.0, "adapted": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step from the gradients."""
        assert closure is None
        for group in self.param_groups:
            parameters, gradients = gather(self, group, exp_avg="zeros", exp_avg_sq="zeros")
            if not parameters:
                continue
            step, (beta1, beta2) = count(self, parameters), group["betas"]
            averages, squares = states(self, parameters, "exp_avg"), states(self, parameters, "exp_avg_sq")
            follow(averages, squares, gradients, group["betas"])
            lengths = torch._foreach_sqrt(squares)
            torch._foreach_div_(lengths, filled(step, beta2).sqrt())
            torch._foreach_add_(lengths, group["epsilon"])
            updates = torch._foreach_div(averages, lengths)
            torch._foreach_div_(updates, filled(step, beta1))
            if group["weight_decay"]:
                torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
            if group["adapted"]:
                weights = torch.stack(torch._foreach_norm(parameters))
                steps = torch.stack(torch._foreach_norm(updates))
                ratios = torch.where((weights > 0) & (steps > 0), weights / steps, 1.0)
                torch._foreach_mul_(updates, list(ratios.unbind()))
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])
