"""One optimiser step: the gradients of its batches, their length, and the move."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vitreous.training.checkpoint import TrainState, whole
from vitreous.training.objective import Objective, SharedObjective
from vitreous.training.optimizers.schedule_free import evaluated_weights
from vitreous.training.precision import autocast
from vitreous.training.sam import sam_gradients
from vitreous.training.settings import FitSettings


def gradients(
    state: TrainState, batches: Iterable[tuple[int, Tensor, Tensor]], settings: FitSettings, objective: Objective
) -> Tensor:
    """Forward and backward pass of the batches of a step, whose gradients add up; the step's loss, a detached scalar.

    In a team each process has batches of its own; gradients and loss become those of all of them.
    """

    def gather(batches: Iterable[tuple[int, Tensor, Tensor]]) -> Tensor:
        total = torch.zeros((), device=settings.device)
        for done, (number, images, targets) in enumerate(batches, 1):
            torch.manual_seed(step_seed(settings.seed, number))
            last = done == (settings.optim.accumulation or 1)
            total += backward(state, images, targets, settings, objective, last=last)
        return settings.team.mean(total)

    if settings.optim.sam:
        kept = list(batches)  # they are gone over twice
        return sam_gradients(state.model, lambda: gather(kept), settings.optim.sam)
    return gather(batches)


def backward(
    state: TrainState,
    images: Tensor,
    targets: Tensor,
    settings: FitSettings,
    objective: Objective,
    *,
    last: bool = True,
) -> Tensor:
    """Forward and backward pass of one batch, in pieces of `state.micro_batch` images; its share of the step's loss.

    The pieces are as equal as can be, each weighs as many images as it has, and what comes of them is what the whole batch
    would give up to rounding (see `training.memory` for batch normalisation). last: whether no batch of the step follows, so
    that a team may exchange what has gathered.
    """
    accumulation = settings.optim.accumulation or 1
    count = len(images)
    pieces = 1 if not state.micro_batch else math.ceil(count / state.micro_batch)
    total = torch.zeros((), device=settings.device)
    parts = zip(images.tensor_split(pieces), targets.tensor_split(pieces), strict=True)
    for done, (some, wanted) in enumerate(parts, 1):
        if isinstance(objective, SharedObjective):
            objective.exchange(last and done == pieces)
        here, there = some.to(settings.device, non_blocking=True), wanted.to(settings.device, non_blocking=True)
        with autocast(settings.precision, settings.device):
            part = objective(state.model, here, there) / (accumulation * (count / len(some)))
        state.scaler.scale(part).backward()
        total += part.detach()
    return total


def gradient_norm(state: TrainState, clip_norm: float) -> Tensor:
    """Length of the gathered gradient, which is unscaled and shortened to `clip_norm` in place where that is not 0."""
    state.scaler.unscale_(state.optimizer)
    if clip_norm:
        # On a CPU torch takes the quicker way over whole lists only when told to.
        plain = all(type(each) is nn.Parameter for each in state.model.parameters())
        return whole(nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm, foreach=True if plain else None))
    return whole(nn.utils.get_total_norm([each.grad for each in state.model.parameters() if each.grad is not None]))


def update(state: TrainState, rate: float) -> None:
    """Move the weights by the gathered gradient, and the average after them; the gradient is used up."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.ema.update(state.model, state.step + 1, evaluated_weights(state.model, state.optimizer))


def step_seed(seed: int, number: int) -> int:
    """A seed for torch's global generator (dropout, stochastic depth) that depends on nothing but run and batch."""
    return (seed * 1_000_003 + number) % 2**63
