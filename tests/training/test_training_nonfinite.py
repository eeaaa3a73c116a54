"""A loss or a gradient that is not finite: the run ends and says where, or leaves the step out and counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitreous.errors import VitreousError
from vitreous.training.checkpoint import TrainState, restore_newest
from vitreous.training.loop import fit
from vitreous.training.losses import cross_entropy
from vitreous.training.nonfinite import IN_A_ROW, FiniteGuard, skipped_note
from vitreous.training.objective import Objective
from vitreous.training.signals import StopFlag

STEPS = 12


class _Poison(torch.autograd.Function):
    """The number that goes in, and a gradient that is not finite."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * math.nan


def poisoned(steps: set[int], *, gradient_only: bool = False) -> Objective:
    """An objective whose loss, or gradient alone, is not finite at these calls (1-based)."""
    calls = 0

    def objective(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        loss = cross_entropy(model(images), targets)
        if calls not in steps:
            return loss
        return _Poison.apply(loss) if gradient_only else loss * math.nan  # type: ignore[return-value]

    return objective


def train(
    problem: Any, folder: Path, state: TrainState, objective: Objective, on_nan: Any = "skip", **named: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    folder.mkdir(exist_ok=True)
    changes = named.pop("settings", {})
    steps = named.pop("steps", STEPS)
    settings = problem.settings(steps, **changes)
    fit(
        state,
        problem.batches(STEPS),
        replace(settings, optim=replace(settings.optim, on_nan=on_nan)),
        objective=objective,
        evaluate=problem.evaluate,
        record=rows.append,
        stop=StopFlag(),
        checkpoints=folder,
        warn=warnings.append,
        **named,
    )
    return rows, warnings


@pytest.mark.parametrize(("gradient_only", "what"), [(False, "loss"), (True, "gradient")])
def test_the_step_the_batch_and_the_last_good_state_are_named(
    problem: Any, tmp_path: Path, gradient_only: bool, what: str
) -> None:
    with pytest.raises(VitreousError) as caught:
        train(
            problem,
            tmp_path,
            problem.state(),
            poisoned({7}, gradient_only=gradient_only),
            on_nan="stop",
            name_images=lambda batch: [f"{batch}/{each}.png" for each in "abcde"],
        )
    assert f"The {what} became nan at step 7 (learning rate " in caught.value.message
    assert "in the batch of 6/a.png, 6/b.png, 6/c.png and 2 more." in caught.value.message
    assert f"The last good state is step_00000004.safetensors in {tmp_path}." in caught.value.message
    assert "--optim.lr" in caught.value.hint and "--optim.on-nan skip" in caught.value.hint


def test_before_the_first_checkpoint_it_is_said_that_there_is_none(problem: Any, tmp_path: Path) -> None:
    with pytest.raises(VitreousError, match=r"at step 2 .* No state was saved before\."):
        train(problem, tmp_path, problem.state(), poisoned({2}), on_nan="stop")


@pytest.mark.parametrize("gradient_only", [False, True])
def test_a_step_that_is_left_out_changes_nothing_and_is_recorded(
    problem: Any, everything: Callable[[TrainState], dict[str, Tensor]], tmp_path: Path, gradient_only: bool
) -> None:
    state, before = problem.state(), {}
    record_at: dict[int, dict[str, Tensor]] = {}

    def objective(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        record_at[state.step] = everything(state)
        return inner(model, images, targets)

    inner = poisoned({6, 7}, gradient_only=gradient_only)
    rows, warnings = train(problem, tmp_path, state, objective)
    before, after = record_at[5], record_at[7]
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert state.step == STEPS, "steps that are left out count as taken: the schedule goes on"
    assert state.skipped == [6, 7]
    assert [row["step"] for row in rows if "skipped_steps" in row] == [6, 7]
    assert all("loss" not in row for row in rows if row["step"] in (6, 7))
    assert all(math.isfinite(row["loss"]) for row in rows if row["step"] not in (6, 7))
    assert len(warnings) == 2 and warnings[0].endswith("The step was left out.")
    assert skipped_note(state) == ("2 steps of 12 were left out because loss or gradient was not finite: 6, 7.")
    restored = problem.state()
    restore_newest(restored, tmp_path)
    assert restored.skipped == [6, 7]
    assert all(value.isfinite().all() for value in restored.model.state_dict().values())


def test_a_row_over_several_steps_has_the_mean_loss_of_those_that_were_taken(problem: Any, tmp_path: Path) -> None:
    each, _ = train(problem, tmp_path / "each", problem.state(), poisoned({2}))
    joined, _ = train(problem, tmp_path / "joined", problem.state(), poisoned({2}), settings={"log_every": 4})
    taken = [row["loss"] for row in each if row["step"] in (1, 3, 4)]
    assert joined[0]["loss"] == pytest.approx(sum(taken) / 3, rel=1e-5)
    assert joined[0]["skipped_steps"] == [2]


def test_steps_are_not_left_out_for_ever(problem: Any, tmp_path: Path) -> None:
    with pytest.raises(VitreousError, match=rf"at step 11 .* With it {IN_A_ROW} steps in a row were left out"):
        train(problem, tmp_path, problem.state(), poisoned(set(range(2, 100))))
    every_other = set(range(1, 60, 2))
    with pytest.raises(VitreousError, match=r"at step 21 .* With it 11 of 21 steps were left out"):
        train(problem, tmp_path / "b", problem.state(), poisoned(every_other), steps=60)


def test_without_any_step_left_out_there_is_no_note(problem: Any) -> None:
    assert skipped_note(problem.state()) == ""


def test_gradients_that_overflow_in_fp16_are_the_business_of_the_scaler(problem: Any, tmp_path: Path) -> None:
    state = problem.state(precision="fp16")
    settings = {"precision": "fp16"}
    rows, warnings = train(problem, tmp_path, state, poisoned({3}, gradient_only=True), "stop", settings=settings)
    assert len(rows) == STEPS and warnings == [] and state.skipped == []
    assert state.scaler.get_scale() == 2.0**15, "halved once"
    with pytest.raises(VitreousError, match="loss became nan at step 2"):
        train(problem, tmp_path / "b", problem.state(precision="fp16"), poisoned({2}), "stop", settings=settings)


def test_a_scale_that_falls_without_end_is_a_gradient_that_is_not_finite(problem: Any, tmp_path: Path) -> None:
    state = problem.state(precision="fp16")
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 2.0**-8})
    always = poisoned(set(range(1, 100)), gradient_only=True)
    with pytest.raises(VitreousError, match="gradient became nan at step"):
        train(problem, tmp_path, state, always, "stop", settings={"precision": "fp16"})


def test_where_nothing_waits_for_the_device_the_first_bad_step_is_still_known(problem: Any, tmp_path: Path) -> None:
    state, settings = problem.state(), problem.settings(STEPS)
    guard = FiniteGuard(state, settings, tmp_path, None)
    guard.waits = False  # as on a GPU
    for step, loss in enumerate((1.0, 0.9, math.inf, math.nan, 0.5)):
        state.step = step
        assert guard.passes(torch.tensor(loss), torch.tensor(1.0), 1e-3, lambda text: None)
    with pytest.raises(VitreousError, match="loss became inf at step 3"):
        guard.settle(1e-3)
