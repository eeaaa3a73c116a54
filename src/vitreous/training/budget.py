"""How long a step takes here, so that a time budget can become a number of steps."""

from __future__ import annotations

import copy
import statistics
import time

import torch

from vitreous.engines.cpu import fast_matmul
from vitreous.training.checkpoint import TrainState
from vitreous.training.loop import Batches, FitSettings, backward, update
from vitreous.training.objective import Objective


def seconds_per_step(
    state: TrainState, batches: Batches, settings: FitSettings, objective: Objective, *, limit: float
) -> float:
    """Median time of one optimiser step, measured on a copy so that training itself starts untouched.

    limit: seconds the measurement may take; at least three steps are timed after two that warm up.
    """
    trial = copy.deepcopy(state)
    trial.model.train()
    accumulation = settings.optim.accumulation or 1
    times: list[float] = []
    end = time.monotonic() + limit
    supply = batches.prefetch(0, 10_000)
    with fast_matmul(settings.device == "cpu"), torch.random.fork_rng():
        try:
            while len(times) < 5 or (time.monotonic() < end and len(times) < 200):
                begin = time.monotonic()
                for _ in range(accumulation):
                    _, images, targets = next(supply)
                    backward(trial, images, targets, settings, objective)
                update(trial, 0.0, settings.optim.clip_norm or 0.0)
                if settings.device == "cuda":
                    torch.cuda.synchronize()
                times.append(time.monotonic() - begin)
        finally:
            supply.close()  # type: ignore[attr-defined]
    return statistics.median(times[2:])
