from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vitreous.config.train import OptimConfig
from vitreous.errors import StoppedError, VitreousError
from vitreous.training.budget import seconds_per_step
from vitreous.training.checkpoint import BEST, TrainState, restore_newest, save_checkpoint
from vitreous.training.ema import Ema
from vitreous.training.loop import FitSettings, fit
from vitreous.training.losses import cross_entropy
from vitreous.training.objective import classify
from vitreous.training.precision import gradient_scaler
from vitreous.training.signals import StopFlag

Everything = Callable[[TrainState], dict[str, Tensor]]
STEPS = 12


def run(
    problem: Any,
    folder: Path,
    state: TrainState,
    *,
    steps: int = STEPS,
    stop_at: int | None = None,
    kill_at: int | None = None,
    seed: int = 0,
    **changes: Any,
) -> list[dict[str, Any]]:
    """`fit` as the workflow calls it; the rows of its history."""
    stop, rows = StopFlag(), []

    def record(row: dict[str, Any]) -> None:
        rows.append(row)
        if row["step"] == stop_at:
            stop.signal_name = "SIGINT"
        if row["step"] == kill_at:
            raise KeyboardInterrupt

    settings = problem.settings(steps, seed=seed, **changes)
    accumulation = settings.optim.accumulation or 1
    folder.mkdir(exist_ok=True)
    fit(
        state,
        problem.batches(steps, accumulation=accumulation, seed=seed),
        settings,
        objective=classify(cross_entropy),
        evaluate=problem.evaluate,
        record=record,
        stop=stop,
        checkpoints=folder,
    )
    return rows


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    differing = [name for name in one if not torch.equal(one[name], two[name])]
    assert not differing


class Fixed:
    """Batches of given tensors, in order."""

    def __init__(self, images: Tensor, targets: Tensor, batch_size: int) -> None:
        self.images, self.targets, self.batch_size = images, targets, batch_size

    def prefetch(self, start: int, stop: int, every: int = 1) -> Iterator[tuple[int, Tensor, Tensor]]:
        for step in range(start, stop, every):
            rows = slice(step * self.batch_size, (step + 1) * self.batch_size)
            yield step, self.images[rows], self.targets[rows]


def plain_sgd(clip_norm: float, accumulation: int) -> tuple[TrainState, FitSettings]:
    """One step of plain gradient descent at rate 1, so that the change of the weights is the gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))
    optim = OptimConfig(lr=1.0, warmup=0.0, final_lr=1.0, clip_norm=clip_norm, accumulation=accumulation)
    state = TrainState(
        model=model,
        ema=Ema(model, 0.0),
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        scaler=gradient_scaler("fp32", "cpu"),
    )
    settings = FitSettings(
        steps=1,
        optim=optim,
        precision="fp32",
        device="cpu",
        seed=0,
        steps_per_epoch=1,
        validate_every=1,
        log_every=1,
    )
    return state, settings


def one_step(tmp_path: Path, batch_size: int, clip_norm: float = 0.0, scale: float = 1.0) -> tuple[Tensor, float]:
    """The change of all weights by one optimiser step over 16 images, and the loss that was recorded."""
    state, settings = plain_sgd(clip_norm, 16 // batch_size)
    generator = torch.Generator().manual_seed(5)
    images, targets = torch.randn(16, 3, 2, 2, generator=generator), torch.eye(3)[torch.arange(16) % 3]
    before = torch.cat([parameter.detach().clone().flatten() for parameter in state.model.parameters()])
    rows: list[dict[str, Any]] = []
    fit(
        state,
        Fixed(images, targets, batch_size),
        settings,
        objective=classify(lambda logits, wanted: scale * cross_entropy(logits, wanted)),
        evaluate=lambda _: {"val_score": 0.0},
        record=rows.append,
        stop=StopFlag(),
        checkpoints=tmp_path,
    )
    after = torch.cat([parameter.detach().flatten() for parameter in state.model.parameters()])
    return after - before, rows[-1]["loss"]


def test_accumulated_gradients_are_those_of_one_big_batch(tmp_path: Path) -> None:
    whole, loss = one_step(tmp_path, 16)
    for size in (8, 4, 1):
        parts, same_loss = one_step(tmp_path, size)
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)
        assert same_loss == pytest.approx(loss, rel=1e-5)


def test_long_gradients_are_scaled_to_the_given_norm_and_short_ones_left(tmp_path: Path) -> None:
    free, _ = one_step(tmp_path, 16)
    length = float(free.norm())
    clipped, _ = one_step(tmp_path, 16, clip_norm=length / 4)
    torch.testing.assert_close(clipped, free / 4, atol=1e-6, rtol=1e-4)
    left, _ = one_step(tmp_path, 16, clip_norm=length * 4)
    torch.testing.assert_close(left, free, atol=1e-7, rtol=1e-5)
    # Clipping acts on the sum over the accumulated batches, not on each.
    accumulated, _ = one_step(tmp_path, 4, clip_norm=length / 4)
    torch.testing.assert_close(accumulated, clipped, atol=1e-6, rtol=1e-4)


def test_the_same_seed_gives_the_same_weights_bit_for_bit(problem: Any, everything: Everything, tmp_path: Path) -> None:
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        state = problem.state()
        torch.manual_seed(ord(name))  # what the program did before must not matter
        run(problem, tmp_path / name, state, seed=seed)
        states.append(state)
    assert_same(everything(states[0]), everything(states[1]))
    assert not torch.equal(states[0].model.head.weight, states[2].model.head.weight)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("stop_at", [1, 6, 8, 11])
def test_a_stopped_and_resumed_run_equals_an_undisturbed_one_bit_for_bit(
    problem: Any, everything: Everything, tmp_path: Path, stop_at: int, accumulation: int
) -> None:
    optim = replace(problem.settings(1).optim, accumulation=accumulation)
    undisturbed = problem.state()
    rows = run(problem, tmp_path / "undisturbed", undisturbed, optim=optim)

    stopped = problem.state()
    with pytest.raises(StoppedError, match=rf"SIGINT after step {stop_at} of {STEPS}; the state is saved") as caught:
        run(problem, tmp_path / "stopped", stopped, optim=optim, stop_at=stop_at)
    assert f"--out {tmp_path} --resume" in caught.value.hint
    resumed = problem.state(seed=99)  # nothing of a fresh start may survive
    notes = restore_newest(resumed, tmp_path / "stopped")
    assert notes == [f"Continuing from step_{stop_at:08d}.safetensors."]
    assert resumed.step == stop_at
    more = run(problem, tmp_path / "stopped", resumed, optim=optim)

    assert_same(everything(undisturbed), everything(resumed))
    assert (resumed.step, resumed.best_step, resumed.best_score) == (
        undisturbed.step,
        undisturbed.best_step,
        undisturbed.best_score,
    )
    best = [(tmp_path / name / BEST).read_bytes() for name in ("undisturbed", "stopped")]
    assert best[0] == best[1]
    said = ("step", "loss", "lr", "val_score")
    assert [{key: row.get(key) for key in said} for row in rows[stop_at:]] == [
        {key: row.get(key) for key in said} for row in more
    ]


def test_a_killed_run_continues_from_its_last_checkpoint_and_equals_an_undisturbed_one(
    problem: Any, everything: Everything, tmp_path: Path
) -> None:
    undisturbed, killed, resumed = problem.state(), problem.state(), problem.state(seed=99)
    run(problem, tmp_path / "undisturbed", undisturbed)
    with pytest.raises(KeyboardInterrupt):
        run(problem, tmp_path / "killed", killed, kill_at=10)
    assert restore_newest(resumed, tmp_path / "killed") == ["Continuing from step_00000008.safetensors."]
    run(problem, tmp_path / "killed", resumed)
    assert_same(everything(undisturbed), everything(resumed))


def test_the_time_spent_adds_up_over_sessions(problem: Any, tmp_path: Path) -> None:
    state = problem.state()
    with pytest.raises(StoppedError):
        run(problem, tmp_path, state, stop_at=3)
    again = problem.state()
    restore_newest(again, tmp_path)
    assert again.seconds == state.seconds > 0
    rows = run(problem, tmp_path, again)
    assert rows[-1]["seconds"] > state.seconds


def test_a_finished_state_is_left_alone(problem: Any, everything: Everything, tmp_path: Path) -> None:
    state = problem.state()
    run(problem, tmp_path, state)
    before = everything(state)
    assert run(problem, tmp_path, state) == []
    assert_same(everything(state), before)


def test_history_and_best_weights_are_those_of_the_validations(problem: Any, tmp_path: Path) -> None:
    state = problem.state()
    rows = run(problem, tmp_path, state, validate_every=5, log_every=3)
    assert [row["step"] for row in rows] == [3, 5, 6, 9, 10, 12]
    validated = {row["step"]: row["val_score"] for row in rows if "val_score" in row}
    assert sorted(validated) == [5, 10, 12]
    assert state.best_step == max(validated, key=lambda step: (validated[step], step))
    assert state.best_score == max(validated.values())
    for row in rows:
        assert row["epoch"] == pytest.approx(row["step"] / 4)
        assert row.keys() >= {"loss", "lr", "images_per_s", "seconds"}


@pytest.mark.parametrize(
    ("scores", "error", "kept"),
    [
        ([0.5, 0.5, 0.5], 0.0, 12),
        ([0.5, 0.9, 0.7], 0.0, 8),
        ([0.5, 0.9, 0.7], 0.1, 8),
        ([0.5, 0.9, 0.85], 0.1, 12),
        ([0.9, 0.85, 0.78], 0.1, 8),  # each is within an error of its neighbour, the last is not within one of the best
    ],
)
def test_the_latest_weights_that_are_not_clearly_worse_are_kept(
    problem: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: list[float], error: float, kept: int
) -> None:
    coming, weights = iter(scores), []

    def evaluate(model: nn.Module) -> dict[str, float]:
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"val_score": next(coming), "val_error": error}

    monkeypatch.setattr(problem, "evaluate", evaluate)
    state = problem.state()
    run(problem, tmp_path, state)
    assert state.best_step == kept
    assert state.best_score == max(scores)
    assert_same(load_file(tmp_path / BEST), weights[kept // 4 - 1])


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("stopping", [False, True])
def test_a_loss_that_is_not_finite_ends_training_and_names_the_step(
    problem: Any, tmp_path: Path, poison: float, stopping: bool
) -> None:
    state, calls, stop = problem.state(), 0, StopFlag()

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 8 and stopping:
            stop.signal_name = "SIGTERM"
        return cross_entropy(logits, targets) * (poison if calls == 8 else 1.0)

    with pytest.raises(VitreousError, match=rf"became {poison} at step 8 \(learning rate .*\)") as caught:
        fit(
            state,
            problem.batches(STEPS),
            problem.settings(STEPS, log_every=100 if stopping else 1),
            objective=classify(loss),
            evaluate=problem.evaluate,
            record=lambda row: None,
            stop=stop,
            checkpoints=tmp_path,
        )
    assert type(caught.value) is VitreousError
    assert "--optim.lr" in caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, "step_00000004.safetensors"]
    healthy = problem.state()
    restore_newest(healthy, tmp_path)
    assert all(value.isfinite().all() for value in healthy.model.state_dict().values())


def test_a_deadline_ends_training_early_with_a_note_and_a_saved_state(problem: Any, tmp_path: Path) -> None:
    state = problem.state()
    rows = run(problem, tmp_path, state, deadline=time.monotonic() - 1)
    assert state.step == 1
    assert "val_score" in rows[-1]
    assert (tmp_path / "step_00000001.safetensors").is_file()
    assert (tmp_path / BEST).is_file()
    assert len(state.notes) == 1
    assert f"ended training after step 1 of {STEPS}" in state.notes[0]


def test_a_run_that_its_deadline_ended_does_not_go_on_when_it_is_continued(problem: Any, tmp_path: Path) -> None:
    state = problem.state()
    run(problem, tmp_path, state, deadline=time.monotonic() - 1)
    continued = problem.state()
    restore_newest(continued, tmp_path)
    run(problem, tmp_path, continued)
    assert (continued.step, continued.notes) == (1, state.notes)
    assert all(torch.equal(a, b) for a, b in zip(state.model.parameters(), continued.model.parameters(), strict=True))


def test_steps_left_out_by_a_deadline_give_the_same_weights_when_their_number_is_set(
    problem: Any, tmp_path: Path
) -> None:
    states = []
    cases: dict[str, dict[str, Any]] = {"late": {"deadline": time.monotonic() - 1}, "set": {"stop_after": 1}}
    for place, options in cases.items():
        states.append(problem.state())
        (tmp_path / place).mkdir()
        rows = run(problem, tmp_path / place, states[-1], **options)
        assert (states[-1].step, rows[-1]["step"]) == (1, 1)
        assert "val_score" in rows[-1]
    late, chosen = states
    assert all(torch.equal(a, b) for a, b in zip(late.model.parameters(), chosen.model.parameters(), strict=True))
    assert chosen.notes == [], "what was asked for is no news"


def test_a_deadline_that_is_kept_is_not_mentioned(problem: Any, tmp_path: Path) -> None:
    state = problem.state()
    run(problem, tmp_path, state, deadline=time.monotonic() + 3600)
    assert state.step == STEPS
    assert state.notes == []


def _surroundings() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        np.random.get_state(legacy=False),  # noqa: NPY002 - the very state others may rely on
        random.getstate(),
        torch.get_float32_matmul_precision(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    ]


@pytest.mark.parametrize("ending", ["finished", "stopped", "failed"])
def test_fit_leaves_random_numbers_and_global_settings_as_they_were(problem: Any, tmp_path: Path, ending: str) -> None:
    state = problem.state()
    torch.manual_seed(4)
    before = _surroundings()
    if ending == "finished":
        run(problem, tmp_path, state)
    elif ending == "stopped":
        with pytest.raises(StoppedError):
            run(problem, tmp_path, state, stop_at=2)
    else:
        with pytest.raises(KeyboardInterrupt):
            run(problem, tmp_path, state, kill_at=2)
    np.testing.assert_equal(_surroundings(), before)


def test_fp16_trains_with_a_scaled_loss_and_restores_its_scale(problem: Any, tmp_path: Path) -> None:
    state = problem.state(precision="fp16")
    rows = run(problem, tmp_path, state, steps=3, precision="fp16")
    assert all(math.isfinite(row["loss"]) for row in rows)
    state.scaler.update(new_scale=1024.0)
    save_checkpoint(state, tmp_path)
    restored = problem.state(precision="fp16")
    restore_newest(restored, tmp_path)
    assert restored.scaler.get_scale() == 1024.0


def test_bf16_training_follows_fp32(problem: Any, tmp_path: Path) -> None:
    losses = []
    for kind in ("fp32", "bf16"):
        rows = run(problem, tmp_path / kind, problem.state(), steps=8, precision=kind)
        losses.append([row["loss"] for row in rows])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)


def test_measuring_a_step_leaves_training_untouched(problem: Any, everything: Everything) -> None:
    state = problem.state()
    before, surroundings = everything(state), _surroundings()
    seconds = seconds_per_step(state, problem.batches(1), problem.settings(1), classify(cross_entropy), limit=0.0)
    assert seconds > 0
    assert_same(everything(state), before)
    assert state.step == 0
    assert not state.optimizer.state
    np.testing.assert_equal(_surroundings(), surroundings)


def test_what_a_budget_leaves_to_a_run_is_part_of_its_state(problem: Any, tmp_path: Path) -> None:
    state = problem.state()
    state.allowed = 12.5
    run(problem, tmp_path, state)
    continued = problem.state()
    restore_newest(continued, tmp_path)
    assert continued.allowed == 12.5
