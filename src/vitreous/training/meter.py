"""Rows of the history: the mean loss since the row before, the pace, the memory."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from vitreous.training.checkpoint import TrainState
from vitreous.training.memory import peak_memory, usage
from vitreous.training.settings import FitSettings


class Meter:
    """Gathers losses on their device, so that nothing waits for them before a row is due."""

    def __init__(self, state: TrainState, settings: FitSettings, batch_size: int) -> None:
        self.settings = settings
        self._batch_size = batch_size
        self.images_per_step = batch_size * settings.batches_per_step
        self._started, self._spent = time.monotonic(), state.seconds
        self._restart(state)

    def add(self, state: TrainState, loss: Tensor, *, skipped: bool) -> None:
        """Count a step that has been taken, or left out, and the time it took."""
        state.seconds = self._spent + time.monotonic() - self._started
        if skipped:
            self._skipped.append(state.step)
        else:
            self._sum = self._sum + loss

    def row(self, state: TrainState, rate: float) -> dict[str, Any]:
        """What is known of the steps since the last row. With every one of them left out there is no loss."""
        steps, elapsed = state.step - self._step, max(1e-9, time.monotonic() - self._at)
        taken = steps - len(self._skipped)
        row = {
            "step": state.step,
            "epoch": state.step / self.settings.steps_per_epoch,
            "loss": float(self._sum) / taken if taken else None,
            "lr": rate,
            "images_per_s": steps * self.images_per_step / elapsed,
            "seconds": state.seconds,
            "peak_memory_bytes": peak_memory(self.settings.device),
            **usage(self.settings.device),
        }
        if row["loss"] is None:
            del row["loss"]
        if self._skipped:
            row["skipped_steps"] = self._skipped
        if 0 < state.micro_batch < self._batch_size:
            row["micro_batch"] = state.micro_batch
        return row

    def restart(self, state: TrainState) -> None:
        """Begin the next row; what was done since the last (validation, saving) is not of its pace."""
        self._restart(state)

    def _restart(self, state: TrainState) -> None:
        self._at, self._step, self._sum = time.monotonic(), state.step, 0.0
        self._skipped: list[int] = []
