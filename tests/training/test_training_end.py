"""What decides which weights a run ends with: sharpness-aware steps, patience, the soup."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vitreous.models import architecture, build
from vitreous.training.checkpoint import BEST, TrainState, restore_newest
from vitreous.training.loop import fit
from vitreous.training.losses import cross_entropy
from vitreous.training.objective import classify
from vitreous.training.sam import sam_gradients
from vitreous.training.signals import StopFlag
from vitreous.training.soup import ingredients, keep_ingredient, mean_weights

Everything = Callable[[TrainState], dict[str, Tensor]]


def run(problem: Any, folder: Path, state: TrainState, scores: list[float] | None = None, **optim: Any) -> list[int]:
    """Twelve steps with a validation after every second; the steps that were validated. scores: what the validations
    are made to find, the last one over and over; the model's own score where None."""
    folder.mkdir(exist_ok=True)
    given: Iterator[float] = iter(scores or [])
    rows: list[int] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        return problem.evaluate(model) if scores is None else {"val_score": next(given, scores[-1])}

    settings = problem.settings(12, validate_every=2, log_every=2)
    fit(
        state,
        problem.batches(12),
        replace(settings, optim=replace(settings.optim, **optim)),
        objective=classify(cross_entropy),
        evaluate=evaluate,
        record=lambda row: rows.append(row["step"]),
        stop=StopFlag(),
        checkpoints=folder,
    )
    return rows


# SAM


def test_sam_takes_the_gradient_a_radius_uphill_and_leaves_the_weights() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False).double()
    images, targets = torch.randn(5, 3).double(), torch.randn(5, 1).double()
    before = model.weight.detach().clone()

    def gather() -> Tensor:
        loss = ((model(images) - targets) ** 2).mean()
        loss.backward()
        return loss.detach()

    def slope(weight: Tensor) -> Tensor:
        return 2 * ((images @ weight.T - targets).T @ images) / 5

    loss = sam_gradients(model, gather, 0.3)
    uphill = before + 0.3 * slope(before) / slope(before).norm()
    torch.testing.assert_close(model.weight.grad, slope(uphill))
    assert torch.equal(model.weight, before)
    torch.testing.assert_close(loss, ((images @ before.T - targets) ** 2).mean())


def test_both_passes_of_sam_drop_the_same_units_and_count_statistics_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    images, seen = torch.randn(8, 4), []

    def gather() -> Tensor:
        out = model(images)
        seen.append(out.detach() == 0)
        out.square().sum().backward()
        return out.detach().sum()

    sam_gradients(model, gather, 0.01)
    assert torch.equal(seen[0], seen[1])
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d) and norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 1


def test_a_second_pass_that_fails_leaves_the_weights_as_they_were() -> None:
    model = nn.Linear(2, 1)
    before, passes = model.weight.detach().clone(), []

    def gather() -> Tensor:
        passes.append(model.weight.detach().clone())
        if len(passes) == 2:
            raise MemoryError
        model(torch.ones(1, 2)).sum().backward()
        return torch.zeros(())

    with pytest.raises(MemoryError):
        sam_gradients(model, gather, 0.5)
    assert not torch.equal(passes[1], before)
    assert torch.equal(model.weight, before)


def test_sam_in_the_loop_changes_what_is_learned(problem: Any, tmp_path: Path, everything: Everything) -> None:
    states = []
    for number, sam in enumerate((0.0, 0.05, 0.05)):
        states.append(problem.state())
        run(problem, tmp_path / str(number), states[-1], sam=sam)
    plain, one, two = (everything(state)["model.head.weight"] for state in states)
    assert not torch.equal(plain, one)
    assert torch.equal(one, two)


# Patience


def test_training_ends_after_as_many_validations_without_a_better_score_as_patience_allows(
    problem: Any, tmp_path: Path
) -> None:
    state = problem.state()
    assert run(problem, tmp_path, state, [0.1, 0.3, 0.2, 0.3, 0.9], patience=2) == [2, 4, 6, 8]
    assert (state.step, state.stale) == (8, 2)
    assert any("2 validations in a row brought no better score" in note for note in state.notes)
    patient = problem.state()
    assert run(problem, tmp_path / "patient", patient, [0.1, 0.3, 0.2, 0.3, 0.9], patience=3)[-1] == 12
    assert patient.notes == []


def test_a_run_continued_after_patience_ended_it_takes_no_further_step(problem: Any, tmp_path: Path) -> None:
    run(problem, tmp_path, problem.state(), [0.5], patience=2)
    state = problem.state()
    restore_newest(state, tmp_path)
    assert run(problem, tmp_path, state, [0.5], patience=2) == []
    assert state.step == 6


def test_patience_counts_on_over_a_restart(problem: Any, tmp_path: Path) -> None:
    def break_off(model: nn.Module) -> dict[str, float]:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return {"val_score": 0.5}

    calls: list[int] = []
    settings = problem.settings(12, validate_every=2, log_every=2)
    settings = replace(settings, optim=replace(settings.optim, patience=3))
    with pytest.raises(KeyboardInterrupt):
        fit(
            problem.state(),
            problem.batches(12),
            settings,
            objective=classify(cross_entropy),
            evaluate=break_off,
            record=lambda row: None,
            stop=StopFlag(),
            checkpoints=tmp_path,
        )
    state = problem.state()
    restore_newest(state, tmp_path)
    assert (state.step, state.stale) == (4, 1)
    assert run(problem, tmp_path, state, [0.5], patience=3) == [6, 8]


# Soup


def test_the_soup_is_the_mean_of_the_last_validated_weights_and_kept_where_it_is_better(
    problem: Any, tmp_path: Path
) -> None:
    state = problem.state()
    run(problem, tmp_path, state, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], soup=3)
    files = ingredients(tmp_path, 12)
    assert [path.name for path in files] == [f"soup_{step:08d}.safetensors" for step in (8, 10, 12)]
    parts, best = [load_file(path) for path in files], load_file(tmp_path / BEST)
    for name in best:
        torch.testing.assert_close(best[name], torch.stack([part[name] for part in parts]).mean(0))
    assert "scores 0.7000 on validation, the best of all 0.6000: the mean is kept" in state.notes[-1]
    last = dict(state.ema.model.state_dict())
    assert all(torch.equal(parts[-1][name], last[name]) for name in last)


def test_a_soup_that_is_no_better_is_left(problem: Any, tmp_path: Path) -> None:
    state = problem.state()
    run(problem, tmp_path, state, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6], soup=3)
    best = load_file(tmp_path / BEST)
    assert all(torch.equal(best[name], value) for name, value in state.ema.model.state_dict().items())
    assert state.notes[-1].endswith("the single weights are kept.")


def test_a_run_killed_after_its_soup_ends_with_the_same_soup(problem: Any, tmp_path: Path) -> None:
    run(problem, tmp_path, problem.state(), [0.1, 0.7], soup=2)
    run(problem, tmp_path / "x", problem.state(), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], soup=2)
    before = load_file(tmp_path / "x" / BEST)
    state = problem.state()
    restore_newest(state, tmp_path / "x")
    assert run(problem, tmp_path / "x", state, [0.7], soup=2) == []
    after = load_file(tmp_path / "x" / BEST)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_ingredients_of_a_run_that_was_cut_back_are_not_used(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    for step in (2, 4, 6):
        keep_ingredient(model, step, tmp_path, 3)
    keep_ingredient(model, 3, tmp_path, 2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "soup_00000002.safetensors",
        "soup_00000003.safetensors",
    ]


def test_a_damaged_ingredient_is_left_out(problem: Any, tmp_path: Path) -> None:
    run(problem, tmp_path, problem.state(), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6], soup=2)
    (tmp_path / "soup_00000010.safetensors").write_bytes(b"\0" * 100)
    state = problem.state()
    restore_newest(state, tmp_path)
    run(problem, tmp_path, state, [0.7], soup=2)
    assert state.notes[-1].startswith("No soup was made")


def test_running_statistics_are_averaged_and_counts_taken_from_the_last() -> None:
    model = build(architecture("resnet_micro", num_classes=3, image_size=8))
    one = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(8, 3, 8, 8))
    two = dict(model.state_dict())
    mean = mean_weights([one, two])
    name = "body.bn1"
    assert torch.equal(mean[f"{name}.num_batches_tracked"], two[f"{name}.num_batches_tracked"])
    expected = (one[f"{name}.running_mean"] + two[f"{name}.running_mean"]) / 2
    torch.testing.assert_close(mean[f"{name}.running_mean"], expected)
    assert {name: value.dtype for name, value in mean.items()} == {name: value.dtype for name, value in two.items()}
