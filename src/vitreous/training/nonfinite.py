"""What happens when a loss or a gradient is not a finite number: the run ends, or the step is left out and counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vitreous.errors import VitreousError
from vitreous.training.checkpoint import PATTERN, TrainState
from vitreous.training.settings import FitSettings

IN_A_ROW = 10
"""Steps left out one after the other at which training ends all the same."""
SHARE = 0.01
"""Share of all steps that may be left out (and `IN_A_ROW` steps in any case)."""
SMALLEST_SCALE = 2.0**-10
"""A loss scale of fp16 below this says that no scale helps: the gradients are not finite by themselves."""

NameImages = Callable[[int], Sequence[str]]
"""The paths of the images of a batch, by its number."""


class FiniteGuard:
    """Looks at every step before its update.

    With fp16 a gradient that overflows is no fault: the scaler leaves the step out and lowers its scale. On a GPU the policy
    "stop" does not wait for each step's numbers, but keeps the first bad step on the device until `settle`; "skip" has to
    wait, which costs a little speed.
    """

    def __init__(
        self, state: TrainState, settings: FitSettings, checkpoints: Path, name_images: NameImages | None
    ) -> None:
        self.state, self.settings, self.checkpoints, self.name_images = state, settings, checkpoints, name_images
        self.skips = settings.optim.on_nan == "skip"
        self.waits = self.skips or settings.device == "cpu"
        self._first = torch.zeros((), dtype=torch.int64, device=settings.device)
        self._values = torch.zeros(2, device=settings.device)

    def passes(self, loss: Tensor, norm: Tensor, rate: float, warn: Callable[[str], None]) -> bool:
        """Whether the coming update may be made. Raises VitreousError where the policy is to stop, or skips become many."""
        step = self.state.step + 1
        if not self.waits:
            values = torch.stack((loss.float(), norm.float()))
            bad = ~self._judged(values).isfinite().all() & (self._first == 0)
            self._values = torch.where(bad, values, self._values)
            self._first = torch.where(bad, step, self._first)
            return True
        found = self._judged(torch.stack((loss.float(), norm.float()))).tolist()
        if all(math.isfinite(value) for value in found):
            return True
        fault = self._fault(step, found, rate)
        if not self.skips:
            raise self._error(fault)
        self.state.skipped.append(step)
        self._check_not_too_many(fault)
        warn(f"{fault} The step was left out.")
        return False

    def settle(self, rate: float) -> None:
        """Raise VitreousError when a step since the last call was bad. Called before anything is logged or saved."""
        if not self.waits and (first := int(self._first)):
            raise self._error(self._fault(first, self._judged(self._values).tolist(), rate))
        if self.state.scaler.is_enabled() and self.state.scaler.get_scale() < SMALLEST_SCALE:
            raise self._error(self._fault(self.state.step, [0.0, math.nan], rate))

    def _judged(self, values: Tensor) -> Tensor:
        return values[:1] if self.state.scaler.is_enabled() else values

    def _fault(self, step: int, values: list[float], rate: float) -> str:
        loss = values[0]
        what, value = ("gradient", values[1]) if math.isfinite(loss) else ("loss", loss)
        return f"The {what} became {value} at step {step} (learning rate {rate:.2g}){self._batch(step)}."

    def _batch(self, step: int) -> str:
        """Which images it was, where their names are known."""
        if self.name_images is None:
            return ""
        each = self.settings.batches_per_step
        names = [name for number in range((step - 1) * each, step * each) for name in self.name_images(number)]
        shown, more = ", ".join(names[:3]), len(names) - 3
        return f", in the batch of {shown}" + (f" and {more} more" if more > 0 else "")

    def _check_not_too_many(self, fault: str) -> None:
        skipped, step = self.state.skipped, self.state.step + 1
        in_a_row = skipped[-IN_A_ROW:] == list(range(step - IN_A_ROW + 1, step + 1))
        if in_a_row or len(skipped) > max(IN_A_ROW, SHARE * self.settings.steps):
            why = f"{IN_A_ROW} steps in a row" if in_a_row else f"{len(skipped)} of {step} steps"
            raise self._error(f"{fault} With it {why} were left out, so training ends.")

    def _error(self, fault: str) -> VitreousError:
        states = sorted(self.checkpoints.glob(PATTERN))
        good = (
            f"The last good state is {states[-1].name} in {self.checkpoints}."
            if states
            else "No state was saved before."
        )
        return VitreousError(
            f"{fault} {good}",
            "Train again with a lower --optim.lr or a longer --optim.warmup"
            + (", in --precision fp32" if self.settings.precision != "fp32" else "")
            + ("." if self.skips else ", or leave such steps out with --optim.on-nan skip."),
        )


def skipped_note(state: TrainState) -> str:
    """The sentence about steps that were left out; "" where there were none."""
    if not state.skipped:
        return ""
    shown = ", ".join(str(step) for step in state.skipped[:10]) + (" ..." if len(state.skipped) > 10 else "")
    count = len(state.skipped)
    return f"{count} step{'s' * (count > 1)} of {state.step} were left out because loss or gradient was not finite: {shown}."
