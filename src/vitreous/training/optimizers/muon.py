"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): steps whose directions all have the same length.

A weight matrix moves by its averaged gradient with all singular values set to about 1. The matrices inside the network
take such steps; everything else takes AdamW's.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from vitreous.engines.cpu import cpu_has_fast_bf16
from vitreous.training.optimizers.state import count, gather, states

MOMENTUM = 0.95
"""Decay of the gradient average of matrices, with Nesterov's look ahead, as published; beta1 and beta2 are AdamW's."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of s -> a s + b s^3 + c s^5, which brings every singular value in (0, 1] near 1 the fastest."""
ITERATIONS = 5
MATCHED_RMS = 0.2
"""A step's root mean square, per unit of learning rate, as AdamW's usually is (Liu et al. 2025, arXiv:2502.16982, section
2.2), so that learning rate and weight decay mean the same for both kinds of parameters."""
EPSILON = 1e-8


class Muon(torch.optim.Optimizer):
    """Muon for the groups that have `parts`, AdamW (fused) for those that have not.

    parts: how many matrices of equal height lie on top of each other in a weight, such as 3 in the projection to
    queries, keys and values; each is orthogonalised by itself. A convolution's kernel (out, in, kh, kw) is taken as the
    matrix (out, in kh kw). Weight decay is decoupled: p <- (1 - lr decay) p - lr 0.2 sqrt(max(rows, columns)) O.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0, "parts": None})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step from the gradients."""
        assert closure is None
        for group in self.param_groups:
            if group["parts"] is None:
                self._adamw(group)
            else:
                self._muon(group)

    def _muon(self, group: dict[str, Any]) -> None:
        parameters, gradients = gather(self, group, momentum="zeros")
        if not parameters:
            return
        count(self, parameters)
        averages = states(self, parameters, "momentum")
        torch._foreach_lerp_(averages, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, averages, MOMENTUM)
        shapes = [(group["parts"], len(weight) // group["parts"], weight[0].numel()) for weight in parameters]
        # bf16 as published where processors are made for it, which halves the time.
        fast = parameters[0].is_cuda or (parameters[0].is_cpu and cpu_has_fast_bf16())
        directions = [direction.reshape(shape) for direction, shape in zip(ahead, shapes, strict=True)]
        steps = orthogonalised(directions, torch.bfloat16 if fast else torch.float32)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for weight, move, (_, rows, columns) in zip(parameters, steps, shapes, strict=True):
            scale = MATCHED_RMS * max(rows, columns) ** 0.5
            weight.add_(move.reshape(weight.shape), alpha=-group["lr"] * scale)

    def _adamw(self, group: dict[str, Any]) -> None:
        parameters, gradients = gather(self, group, exp_avg="zeros", exp_avg_sq="zeros")
        if not parameters:
            return
        adamw(
            parameters,
            gradients,
            states(self, parameters, "exp_avg"),
            states(self, parameters, "exp_avg_sq"),
            [],
            states(self, parameters, "step"),
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=EPSILON,
            maximize=False,
        )


def orthogonalised(stacks: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Each matrix of each stack (parts, rows, columns) with its singular values brought near 1, in the order given.

    Matrices of one shape, upright or lying, are worked on together, in `dtype`: many small products are slow one by one.
    """
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, stack in enumerate(stacks):
        rows, columns = stack.shape[1:]
        alike[min(rows, columns), max(rows, columns)].append(place)
    found: list[Tensor] = list(stacks)
    for places in alike.values():
        lying = [stacks[place] if _lies(stacks[place]) else stacks[place].mT for place in places]
        solved = newton_schulz(torch.cat(lying).to(dtype)).to(lying[0].dtype)
        for place, matrices in zip(places, solved.split([len(stack) for stack in lying]), strict=True):
            found[place] = matrices if _lies(stacks[place]) else matrices.mT
    return found


def _lies(stack: Tensor) -> bool:
    return stack.shape[1] <= stack.shape[2]


def newton_schulz(matrices: Tensor) -> Tensor:
    """(m, rows, columns), rows <= columns -> U S' V^T of each U S V^T, with S' between about 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    # The Frobenius norm is at least the largest singular value. A matrix of zeros stays one.
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
