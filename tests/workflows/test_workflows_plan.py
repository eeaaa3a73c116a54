"""A time budget becomes a number of steps that fills it and does not break it, whatever the machine's pace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vitreous.config.optim import OptimConfig, ScheduleName
from vitreous.config.train import TrainConfig
from vitreous.data.augmentation.size import SizePlan
from vitreous.training.loop import NEARLY_ALL
from vitreous.workflows import plan
from vitreous.workflows.plan import SURPLUS, Budget, Pace, most_steps, step_seconds, validations
from vitreous.workflows.setup import MOST_VALIDATIONS, validation_interval

BUDGET = 300.0


class Machine:
    """A run played with a clock of its own: what planning believes, and what the steps then really take."""

    def __init__(self, *, read: float, step: float, validate: float, finish: float, per_epoch: float) -> None:
        self.now = read
        self.pace, self.per_epoch = Pace(step, validate, finish + validate), per_epoch

    def run(self, *, warmup: int, drift: float = 1.0, finish: float = 1.0) -> tuple[float, int, int]:
        """(seconds when all is over, steps planned, steps taken). drift, finish: how much slower than measured."""
        self.now += warmup * self.pace.step
        budget = Budget("5m", BUDGET, self.pace.after)
        steps = most_steps(SURPLUS * (budget.deadline - self.now), warmup, self.pace, self.per_epoch)
        taken = warmup
        each = validation_interval(steps, self.per_epoch)
        while taken < steps and self.now <= budget.deadline:
            taken += 1
            self.now += drift * self.pace.step
            if taken % each == 0 and taken < steps:
                self.now += drift * self.pace.validation
        return self.now + finish * self.pace.after, steps, taken


CASES: list[dict[str, float]] = [
    {"read": 2.0, "step": 0.01, "validate": 0.1, "finish": 4.0, "per_epoch": 19.0},
    {"read": 20.0, "step": 0.4, "validate": 3.0, "finish": 15.0, "per_epoch": 300.0},
    {"read": 1.0, "step": 0.002, "validate": 0.5, "finish": 2.0, "per_epoch": 5.0},
    {"read": 60.0, "step": 2.0, "validate": 10.0, "finish": 40.0, "per_epoch": 31.0},
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("drift", [0.95, 1.0, 1.04])
def test_a_machine_that_about_keeps_its_pace_ends_on_time_with_nearly_all_steps(
    case: dict[str, float], drift: float
) -> None:
    ended, steps, taken = Machine(**case).run(warmup=20, drift=drift)
    assert 0.97 * BUDGET <= ended <= BUDGET + drift * (case["step"] + case["validate"])
    assert taken >= NEARLY_ALL * steps


@pytest.mark.parametrize("case", CASES)
def test_a_machine_that_becomes_slower_ends_early_and_on_time(case: dict[str, float]) -> None:
    ended, steps, taken = Machine(**case).run(warmup=20, drift=1.5)
    assert ended <= BUDGET + 1.5 * (case["step"] + case["validate"]) + 0.001
    assert taken < steps


@pytest.mark.parametrize("done", [0, 7, 400])
@pytest.mark.parametrize("per_epoch", [0.5, 19.0, 1000.0])
def test_one_step_more_than_planned_would_not_fit(done: int, per_epoch: float) -> None:
    pace = Pace(0.05, 0.7, 5.0)
    steps = most_steps(100.0, done, pace, per_epoch)

    def cost(count: int) -> float:
        return (count - done) * pace.step + (validations(done, count, per_epoch) - 1) * pace.validation

    assert cost(steps) <= 100.0
    assert cost(steps + 2 * MOST_VALIDATIONS) > 100.0


def test_there_is_always_one_more_step() -> None:
    assert most_steps(-5.0, 12, Pace(1.0, 1.0, 1.0), 10.0) == 13


def test_small_images_at_first_leave_room_for_more_steps() -> None:
    pace, sizes = Pace(0.1, 0.0, 0.0), SizePlan(((8, 8), (16, 16)), 0.5, 10)
    full, growing = (most_steps(60.0, 10, pace, 50.0, plan) for plan in (None, sizes))
    assert growing > 1.2 * full
    assert sizes.total_cost(10, growing) * pace.step <= 60.0


def test_what_small_images_were_measured_to_cost_counts_and_not_their_pixels() -> None:
    sizes = SizePlan(((8, 8), (12, 12), (16, 16)), 0.5, 10)
    by_pixels, measured, as_dear = (
        most_steps(60.0, 10, Pace(0.1, 0.0, 0.0, costs), 50.0, sizes)
        for costs in (None, (0.05, 0.07, 0.1), (0.1, 0.1, 0.1))
    )
    assert by_pixels > measured > as_dear == most_steps(60.0, 10, Pace(0.1, 0.0, 0.0), 50.0)
    costs = SizePlan(sizes.sizes, 0.5, 10, costs=(0.5, 0.7, 1))
    assert [costs.relative_cost(step, 100) for step in (0, 49, 99)] == [0.5, 0.7, 1]


def _brute(done: int, steps: int, per_epoch: float) -> int:
    each = validation_interval(steps, per_epoch)
    return sum(step == steps or step % each == 0 for step in range(done + 1, steps + 1))


@pytest.mark.parametrize(("done", "steps"), [(0, 1), (0, 100), (9, 100), (10, 100), (11, 333), (99, 100)])
@pytest.mark.parametrize("per_epoch", [1.0, 7.3, 250.0])
def test_validations_are_those_that_the_loop_will_make(done: int, steps: int, per_epoch: float) -> None:
    assert validations(done, steps, per_epoch) == _brute(done, steps, per_epoch)


def test_the_pace_of_steps_comes_from_rows_after_the_first_and_not_from_validations_between() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 10, "images_per_s": 1.0},  # caches were cold
        {"step": 20, "images_per_s": 640.0},
        {"step": 25, "images_per_s": 320.0},
    ]
    assert step_seconds(rows, 64) == pytest.approx((10 * 0.1 + 5 * 0.2) / 15)
    assert step_seconds(rows[:1], 64) is None
    assert step_seconds([], 64) is None


def test_a_busy_machine_has_more_set_aside_for_the_report_but_never_boundlessly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan.os, "cpu_count", lambda: 2)
    for load, expected in ((0.1, 1.0), (2.0, 1.0), (5.0, 2.5), (90.0, 6.0)):
        monkeypatch.setattr(plan.os, "getloadavg", lambda load=load: (load, load, load), raising=False)
        assert plan._busyness() == expected
    assert plan.reserve(4.0, 1000.0) == 4.0 + 5.0 * plan.PAGES
    assert plan.reserve(4.0, 20.0) == 10.0, "half of what is left is for training"
    assert plan.reserve(4.0, 6.0) == 4.0


def test_the_deadline_leaves_what_comes_after_the_last_step() -> None:
    budget = Budget("60s", 100.0, 7.5)
    assert budget.deadline == 92.5
    assert replace(budget, reserve=10.0).deadline == 90.0


@pytest.mark.parametrize(("schedule", "share"), [("cosine", SURPLUS), ("wsd", 1.0), ("constant", 1.0)])
def test_only_a_schedule_that_ends_with_hardly_any_learning_is_planned_beyond_the_deadline(
    schedule: ScheduleName, share: float
) -> None:
    assert plan._with_surplus(100.0, TrainConfig(optim=OptimConfig(schedule=schedule))) == 100.0 * share
