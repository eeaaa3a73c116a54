"""What the optimisers of this folder share: state beside each parameter, and the correction for its start at zero."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def gather(optimizer: torch.optim.Optimizer, group: dict[str, Any], **first: str) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters of a group that have a gradient, and the gradients; their state is begun where there is none.

    first: for each tensor of the state what it starts as: "zeros" of the parameter's shape, a copy of the "weights", or
    "zero", one number. All parameters of a group share one count `step`: one that gets its first gradient late begins
    with the single numbers of the others.
    """
    parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
    others = next((optimizer.state[other] for other in group["params"] if optimizer.state.get(other)), {})
    for parameter in parameters:
        state = optimizer.state[parameter]
        if not state:
            for name, start in {"step": "zero", **first}.items():
                if start == "zero":
                    zero = torch.zeros((), dtype=torch.float32, device=parameter.device)
                    state[name] = others[name].clone() if others else zero
                else:
                    state[name] = torch.zeros_like(parameter) if start == "zeros" else parameter.detach().clone()
    return parameters, [parameter.grad for parameter in parameters]


def states(optimizer: torch.optim.Optimizer, parameters: list[Tensor], name: str) -> list[Tensor]:
    """One tensor of the state of each parameter."""
    return [optimizer.state[parameter][name] for parameter in parameters]


def count(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> Tensor:
    """Count one more step; returns the count, which stays on its device, so that a GPU is not waited for."""
    counts = states(optimizer, parameters, "step")
    torch._foreach_add_(counts, 1)
    return counts[0]


def filled(step: Tensor, beta: float) -> Tensor:
    """1 - beta^step: the weight that an average begun at zero has gathered (Adam, arXiv:1412.6980, section 3)."""
    # expm1 keeps all digits in float32; 1 - 0.999 has lost four of them.
    return -torch.expm1(step * math.log(beta)) if beta else torch.ones_like(step)


def follow(averages: list[Tensor], squares: list[Tensor], gradients: list[Tensor], betas: tuple[float, float]) -> None:
    """Move the averages of the gradients and of their squares, as Adam does."""
    torch._foreach_lerp_(averages, gradients, 1 - betas[0])
    follow_squares(squares, gradients, betas[1])


def follow_squares(squares: list[Tensor], gradients: list[Tensor], beta: float) -> None:
    torch._foreach_mul_(squares, beta)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta)
