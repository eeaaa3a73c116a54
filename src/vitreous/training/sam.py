"""Sharpness-aware minimisation (Foret et al. 2021, arXiv:2010.01412): gradients at the worst point nearby."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def sam_gradients(model: nn.Module, gather: Callable[[], Tensor], radius: float) -> Tensor:
    """Leave in the `.grad` of each parameter the gradient of the loss at w + radius g / |g|, g being the gradient at w
    (equations 2 and 3). The weights come out as they went in, bit for bit. Returns the loss at w.

    gather: adds the gradients of one step's loss to `.grad` and returns that loss, detached; called twice, both times with
    the same random numbers, so that both passes see the same dropped units. Running statistics of batch norms keep what
    the pass at w made of them. A loss scale changes nothing: only the direction of g is used.
    """
    parameters: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.random.fork_rng([parameter.device for parameter in parameters[:1] if parameter.is_cuda]):
        loss = gather()
    points = [parameter for parameter in parameters if parameter.grad is not None]
    slopes: list[Tensor] = [parameter.grad for parameter in points]  # type: ignore[misc]
    with torch.no_grad():
        kept, statistics = torch._foreach_clone(points), [buffer.clone() for buffer in model.buffers()]
        length = torch.stack(torch._foreach_norm(slopes)).norm()
        torch._foreach_mul_(slopes, radius / (length + 1e-12))
        torch._foreach_add_(points, slopes)
    for parameter in points:
        parameter.grad = None
    try:
        gather()
    finally:  # the second pass may run out of memory, and the step be tried again in smaller pieces
        with torch.no_grad():
            torch._foreach_copy_(points, kept)
            for buffer, value in zip(model.buffers(), statistics, strict=True):
                buffer.copy_(value)
    return loss
