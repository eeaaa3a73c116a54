"""The training loop: get a batch, forward, loss, backward, step; now and then evaluate and save."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from vitreous.engines.cpu import fast_matmul
from vitreous.errors import StoppedError
from vitreous.training.allocator import keep_memory
from vitreous.training.checkpoint import TrainState, save_checkpoint
from vitreous.training.memory import halve, is_out_of_memory
from vitreous.training.meter import Meter
from vitreous.training.nonfinite import FiniteGuard, NameImages
from vitreous.training.objective import Objective
from vitreous.training.schedule import learning_rate
from vitreous.training.settings import Batches, FitSettings, Supply
from vitreous.training.signals import StopFlag
from vitreous.training.step import gradient_norm, gradients, step_seed, update
from vitreous.training.validation import Evaluate, conclude, out_of_patience, validate

__all__ = ["NEARLY_ALL", "Batches", "FitSettings", "fit", "step_seed"]

NEARLY_ALL = 0.85
"""Share of its steps from which a run counts as whole. Budgets are planned to end shortly before the last one; here a cosine
is at a twentieth of its peak."""


def fit(
    state: TrainState,
    batches: Batches,
    settings: FitSettings,
    *,
    objective: Objective,
    evaluate: Evaluate,
    record: Callable[[dict[str, Any]], None],
    stop: StopFlag,
    checkpoints: Path,
    until: int | None = None,
    warn: Callable[[str], None] = lambda text: None,
    name_images: NameImages | None = None,
) -> None:
    """Train `state` from its step to the last one, or to `until` where the rest is still to be planned.

    evaluate: its `val_score` chooses `best.safetensors`. record: receives each row of the history. warn: receives what
    happened and was dealt with: memory that ran out, steps that were left out. name_images: tells which images were in a
    batch whose loss is not finite.

    Raises StoppedError after saving when `stop` was set, VitreousError when the loss or the gradient is not finite and
    `on_nan` does not leave such steps out, UsageError when not even single images fit into memory.
    """
    optim = settings.optim
    goal = settings.last_step if until is None else min(until, settings.last_step)
    supply = Supply(batches, settings, state.step, goal)
    guard = FiniteGuard(state, settings, checkpoints, name_images)
    meter = Meter(state, settings, batches.batch_size)
    state.model.train()
    on_cpu = settings.device == "cpu"
    validation = 0.0  # seconds that the last one took
    with closing(supply), fast_matmul(on_cpu), keep_memory(on_cpu), torch.random.fork_rng():
        while state.step < goal and not out_of_patience(state, optim) and not state.ended:
            rate = learning_rate(state.step, settings.steps, optim)
            try:
                loss = gradients(state, supply.step(), settings, objective)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                warn(halve(state, batches.batch_size, error, settings.team))
                supply.rewind(state.step)
                continue
            norm = gradient_norm(state, optim.clip_norm or 0.0)
            taken = guard.passes(loss, norm, rate, warn)
            if taken:
                update(state, rate)
            else:
                state.optimizer.zero_grad(set_to_none=True)
            state.step += 1
            meter.add(state, loss, skipped=not taken)

            due = state.step % settings.validate_every == 0
            # A validation that would end beyond the deadline is the last one: the budget has set aside one after it.
            late = time.monotonic() + (validation if due else 0.0) > settings.deadline
            stopping, late = settings.team.any(bool(stop), late)
            last = state.step == settings.last_step or late
            if late and state.step < settings.last_step:  # before the state is saved, which must say it too
                state.ended = True
                if state.step < NEARLY_ALL * settings.steps:
                    state.notes.append(
                        f"The time budget ended training after step {state.step} of {settings.steps}: the machine was slower than measured at the start."
                    )
            validating = last or due
            if validating or stopping or state.step % settings.log_every == 0:
                guard.settle(rate)
            if validating or state.step % settings.log_every == 0:
                row = meter.row(state, rate)
                if validating:
                    begun = time.monotonic()
                    row |= validate(state, evaluate, checkpoints, optim.soup or 0, settings.team)
                    validation = time.monotonic() - begun
                record(row)
                meter.restart(state)
                # A row takes its time, and nobody should have to wait twice.
                (stopping,) = settings.team.any(bool(stop))
            if stopping and not last:
                if not validating:
                    save_checkpoint(state, checkpoints, settings.team)
                raise StoppedError(
                    f"Stopped by {stop.signal_name or 'a signal'} after step {state.step} of {settings.steps}; the state is saved.",
                    f"Continue with: vitreous train DATA --out {checkpoints.parent} --resume",
                )
    if state.step >= settings.last_step or out_of_patience(state, optim) or state.ended:
        conclude(state, evaluate, optim, settings.steps, checkpoints, settings.team)
