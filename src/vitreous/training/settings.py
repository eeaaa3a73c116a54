"""What the training loop is handed: its settings, and where its batches come from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from vitreous.config.train import OptimConfig, Precision
from vitreous.training.team import ALONE, Team


class Batches(Protocol):
    """Training batches by number, so that any step can be taken again."""

    batch_size: int

    def prefetch(self, start: int, stop: int, every: int = 1) -> Iterator[tuple[int, Tensor, Tensor]]: ...


@dataclass(frozen=True)
class FitSettings:
    """The part of the resolved settings that the loop reads."""

    steps: int
    """Those of the whole schedule."""
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
    stop_after: int | None = None
    """Step after which training ends early in any case."""
    team: Team = ALONE
    """The processes that train together; each takes `optim.accumulation` batches of a step."""

    @property
    def last_step(self) -> int:
        """The step after which training ends, if its deadline does not end it before."""
        return self.steps if self.stop_after is None else min(self.steps, self.stop_after)

    @property
    def batches_per_step(self) -> int:
        """Batches whose gradients make one optimiser step, over all processes."""
        return (self.optim.accumulation or 1) * self.team.size


class Supply:
    """The batches of one step after another, made ahead of time; it can go back to take a step again.

    Batches are numbered through over all steps and processes: a step has the numbers that it would have in one process that
    takes all of them, and they are dealt out in turn. So what a step sees does not depend on how many share it.
    """

    def __init__(self, batches: Batches, settings: FitSettings, start: int, stop: int) -> None:
        """start, stop: the first step, and the one after the last."""
        self._batches, self._settings, self._stop = batches, settings, stop
        self._made = self._from(start)

    def step(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(number, images, targets) of each batch that this process has in the coming step."""
        for _ in range(self._settings.optim.accumulation or 1):
            yield next(self._made)

    def rewind(self, step: int) -> None:
        """Let `step` (0-based) be the coming one."""
        self.close()
        self._made = self._from(step)

    def close(self) -> None:
        """End what makes batches ahead."""
        self._made.close()  # type: ignore[attr-defined]

    def _from(self, step: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        team, each = self._settings.team, self._settings.batches_per_step
        return self._batches.prefetch(step * each + team.rank, self._stop * each, team.size)
