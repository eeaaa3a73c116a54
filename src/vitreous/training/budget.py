"""How long a step takes here, so that a time budget can become a number of steps."""

from __future__ import annotations

import copy
import statistics
import time
from contextlib import closing
from dataclasses import replace

import torch

from vitreous.engines.cpu import fast_matmul
from vitreous.training.checkpoint import TrainState
from vitreous.training.memory import halve, is_out_of_memory
from vitreous.training.objective import Objective
from vitreous.training.settings import Batches, FitSettings, Supply
from vitreous.training.step import gradient_norm, gradients, update
from vitreous.training.team import ALONE


def seconds_per_step(
    state: TrainState, batches: Batches, settings: FitSettings, objective: Objective, *, limit: float
) -> float:
    """Median time of one optimiser step, measured on a copy so that training itself starts untouched.

    What the processes of a team tell each other is left out. limit: seconds the measurement may take; at least three steps are timed after two that warm up.
    """
    trial, settings = copy.deepcopy(state), replace(settings, team=ALONE)
    trial.model.train()
    times: list[float] = []
    end = time.monotonic() + limit
    supply = Supply(batches, settings, 0, 10_000)
    with closing(supply), fast_matmul(settings.device == "cpu"), torch.random.fork_rng():
        while len(times) < 5 or (time.monotonic() < end and len(times) < 200):
            begin = time.monotonic()
            try:
                gradients(trial, supply.step(), settings, objective)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                halve(trial, batches.batch_size, error)  # as training itself will
                times.clear()
                continue
            gradient_norm(trial, settings.optim.clip_norm or 0.0)
            update(trial, 0.0)
            if settings.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.monotonic() - begin)
    return statistics.median(times[2:])
