"""The training loop: get a batch, forward, loss, backward, step; now and then evaluate and save."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vitreous.config.train import OptimConfig, Precision
from vitreous.engines.cpu import fast_matmul
from vitreous.errors import StoppedError, VitreousError
from vitreous.training.checkpoint import BEST, TrainState, save_checkpoint, save_weights
from vitreous.training.objective import Objective
from vitreous.training.optim import learning_rate
from vitreous.training.precision import autocast
from vitreous.training.signals import StopFlag


class Batches(Protocol):
    """Training batches by number, so that any step can be taken again."""

    batch_size: int

    def prefetch(self, start: int, stop: int) -> Iterator[tuple[int, Tensor, Tensor]]: ...


@dataclass(frozen=True)
class FitSettings:
    """The part of the resolved settings that the loop reads."""

    steps: int
    optim: OptimConfig
    precision: Precision
    device: str
    seed: int
    steps_per_epoch: int
    validate_every: int
    """Optimiser steps between validations; each also saves a checkpoint."""
    log_every: int
    deadline: float = math.inf
    """`time.monotonic()` at which training ends early, so that a promised budget is kept."""


def fit(
    state: TrainState,
    batches: Batches,
    settings: FitSettings,
    *,
    objective: Objective,
    evaluate: Callable[[nn.Module], dict[str, float]],
    record: Callable[[dict[str, Any]], None],
    stop: StopFlag,
    checkpoints: Path,
    until: int | None = None,
) -> None:
    """Train `state` from its step to `settings.steps`, or to `until` where the rest is still to be planned.

    evaluate: takes the averaged model and returns named numbers, among them `val_score` (larger is better) and its
    standard error `val_error` (0 when absent), by which `best.safetensors` is chosen. record: receives each row of the history.

    Raises StoppedError after saving when `stop` was set, VitreousError when the loss is not finite.
    """
    optim, accumulation = settings.optim, settings.optim.accumulation or 1
    started, spent = time.monotonic(), state.seconds
    logged_at, logged_step, summed = time.monotonic(), state.step, 0.0
    state.model.train()
    goal = settings.steps if until is None else min(until, settings.steps)
    supply = batches.prefetch(state.step * accumulation, goal * accumulation)
    with closing(supply), fast_matmul(settings.device == "cpu"), torch.random.fork_rng():  # type: ignore[type-var]
        while state.step < goal:
            rate = learning_rate(state.step, settings.steps, optim)
            torch.manual_seed(step_seed(settings.seed, state.step))
            total = torch.zeros((), device=settings.device)
            for _ in range(accumulation):
                _, images, targets = next(supply)
                total += backward(state, images, targets, settings, objective)
            update(state, rate, optim.clip_norm or 0.0)
            state.step += 1
            state.seconds = spent + time.monotonic() - started
            summed = summed + total

            late = time.monotonic() > settings.deadline
            last = state.step == settings.steps or late
            due = last or state.step % settings.log_every == 0 or state.step % settings.validate_every == 0
            if (due or stop) and not math.isfinite(float(total)):
                raise _diverged(state.step, float(total), rate, checkpoints)
            if due:
                done, elapsed = state.step - logged_step, max(1e-9, time.monotonic() - logged_at)
                row = {
                    "step": state.step,
                    "epoch": state.step / settings.steps_per_epoch,
                    "loss": float(summed) / done,  # the mean since the row before
                    "lr": rate,
                    "images_per_s": done * accumulation * batches.batch_size / elapsed,
                    "seconds": state.seconds,
                    "peak_memory_bytes": peak_memory(settings.device),
                }
                if last or state.step % settings.validate_every == 0:
                    row |= validate(state, evaluate, checkpoints)
                    state.model.train()
                record(row)
                logged_at, logged_step, summed = time.monotonic(), state.step, 0.0
            if stop and not last:
                save_checkpoint(state, checkpoints)
                raise StoppedError(
                    f"Stopped by {stop.signal_name} after step {state.step} of {settings.steps}; the state is saved.",
                    f"Continue with: vitreous train DATA --out {checkpoints.parent} --resume",
                )
            if late and state.step < settings.steps:
                state.notes.append(
                    f"The time budget ended training after step {state.step} of {settings.steps}: the machine was slower than measured at the start."
                )
                break


def backward(state: TrainState, images: Tensor, targets: Tensor, settings: FitSettings, objective: Objective) -> Tensor:
    """Forward and backward pass of one batch; its share of the step's loss, detached. Gradients add up until `update`."""
    images, targets = images.to(settings.device), targets.to(settings.device)
    with autocast(settings.precision, settings.device):
        part = objective(state.model, images, targets) / (settings.optim.accumulation or 1)
    state.scaler.scale(part).backward()
    return part.detach()


def update(state: TrainState, rate: float, clip_norm: float) -> None:
    """One optimiser step with the gradients that have gathered: unscale, clip, step, average."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    if clip_norm:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.ema.update(state.model, state.step + 1)


def validate(
    state: TrainState, evaluate: Callable[[nn.Module], dict[str, float]], checkpoints: Path
) -> dict[str, float]:
    """Evaluate the averaged weights, keep them unless earlier ones were clearly better, save the state.

    Clearly: by more than one standard error of the score (Breiman et al. 1984, section 3.4.3). On a small validation
    part the single best score is often luck, and the later weights are the better ones.
    """
    numbers = evaluate(state.ema.model)
    state.best_score = max(state.best_score, numbers["val_score"])
    if numbers["val_score"] >= state.best_score - numbers.get("val_error", 0.0):
        state.best_step = state.step
        save_weights(state.ema.model, checkpoints / BEST)
    save_checkpoint(state, checkpoints)
    return numbers


def peak_memory(device: str) -> int | None:
    """Bytes: the most the GPU has held, or the most this process has on a CPU; None where the system does not say."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def step_seed(seed: int, step: int) -> int:
    """A seed for torch's global generator (dropout, stochastic depth) that depends on nothing but run and step."""
    return (seed * 1_000_003 + step) % 2**63


def _diverged(step: int, value: float, rate: float, checkpoints: Path) -> VitreousError:
    return VitreousError(
        f"The loss became {value} at step {step} (learning rate {rate:.2g}). The states in {checkpoints} are from before.",
        "Train again with a lower --optim.lr or a longer --optim.warmup.",
    )
