"""Schedule-free AdamW (Defazio et al. 2024, "The Road Less Scheduled", arXiv:2405.15682, algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitreous.training.optimizers.state import count, filled, follow_squares, gather, states

EPSILON = 1e-8


class ScheduleFree(torch.optim.Optimizer):
    """AdamW without a falling learning rate: what is evaluated is an average of where training has been.

    Three points for each weight: z takes AdamW's steps; x is the average of all z, each weighted by the square of its
    learning rate, so that the warm-up counts little; gradients are taken between them, at y = (1 - beta1) z + beta1 x.
    The parameters hold y; `evaluated_weights` gives x. Weight decay acts at y, as in the paper.

    x is kept in full, where the authors' code works it out from y and z: one more copy of the weights, and no rounding
    between the two.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        epsilon: float = EPSILON,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "epsilon": epsilon, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step from the gradients, which are those at y."""
        assert closure is None
        for group in self.param_groups:
            parameters, gradients = gather(self, group, x="weights", z="weights", exp_avg_sq="zeros", weight="zero")
            if not parameters:
                continue
            step, (beta1, beta2) = count(self, parameters), group["betas"]
            fast, slow = states(self, parameters, "z"), states(self, parameters, "x")
            squares, sums = states(self, parameters, "exp_avg_sq"), states(self, parameters, "weight")
            follow_squares(squares, gradients, beta2)
            rate = group["lr"] * filled(step, beta2).sqrt()
            lengths = torch._foreach_sqrt(squares)
            torch._foreach_add_(lengths, group["epsilon"])
            updates = torch._foreach_div(gradients, lengths)
            if group["weight_decay"]:
                torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
            torch._foreach_mul_(updates, rate)
            torch._foreach_sub_(fast, updates)
            torch._foreach_add_(sums, rate.square())
            share = torch.where(sums[0] > 0, rate.square() / sums[0], 0.0)  # a rate of 0 so far moves nothing
            differences = torch._foreach_sub(fast, slow)
            torch._foreach_mul_(differences, share)
            torch._foreach_add_(slow, differences)
            torch._foreach_copy_(parameters, fast)
            torch._foreach_lerp_(parameters, slow, beta1)


def evaluated_weights(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What is to be evaluated of each parameter of the model, in their order: its x where the optimiser keeps one, the
    parameter itself elsewhere."""
    if not isinstance(optimizer, ScheduleFree):
        return list(model.parameters())
    return [optimizer.state.get(parameter, {}).get("x", parameter) for parameter in model.parameters()]
