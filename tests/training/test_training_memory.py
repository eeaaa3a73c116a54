"""Memory that runs out, and the forecast that keeps it from doing so."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitreous.engines.cpu import medium_is_exact
from vitreous.errors import UsageError
from vitreous.models import architecture, build
from vitreous.models.cost.activations import set_checkpointing
from vitreous.training.checkpoint import TrainState, restore_newest
from vitreous.training.forecast import MARGIN, Forecast, forecast, largest_piece, plan, taken_by_pass
from vitreous.training.loop import fit
from vitreous.training.losses import cross_entropy
from vitreous.training.memory import is_out_of_memory, peak_memory, usage
from vitreous.training.objective import classify
from vitreous.training.signals import StopFlag

STEPS = 8
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


class Small:
    """An objective that runs out of memory above so many images, from its `after`-th call on."""

    def __init__(self, most: int, error: BaseException = ERRORS[0], after: int = 0) -> None:
        self.most, self.error, self.left = most, error, after
        self.sizes: list[int] = []

    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0 and len(images) > self.most:
            raise self.error
        self.sizes.append(len(images))
        return cross_entropy(model(images), targets)


def steady(problem: Any) -> TrainState:
    """A state whose model draws no random numbers, which depend on how a batch is cut."""
    state = problem.state()
    for module in state.model.modules():
        for name in ("p", "drop_path", "rate", "probability"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return state


def train(problem: Any, folder: Path, state: TrainState, objective: Any, **named: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    folder.mkdir(exist_ok=True)
    fit(
        state,
        problem.batches(STEPS, accumulation=named.pop("accumulation", 1)),
        problem.settings(STEPS, **named.pop("settings", {})),
        objective=objective,
        evaluate=problem.evaluate,
        record=rows.append,
        stop=named.pop("stop", StopFlag()),
        checkpoints=folder,
        **named,
    )
    return rows


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "python", "cpu", "cublas"])
def test_what_says_that_memory_ran_out_is_known(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")]
)
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_a_step_that_does_not_fit_is_taken_again_in_pieces_with_the_same_result(
    problem: Any, everything: Callable[[TrainState], dict[str, Tensor]], tmp_path: Path
) -> None:
    whole, cut, warnings, objective = steady(problem), steady(problem), [], Small(5, after=3)
    expected = train(problem, tmp_path / "whole", whole, classify(cross_entropy))
    rows = train(problem, tmp_path / "cut", cut, objective, warn=warnings.append)
    assert cut.micro_batch == 4
    assert objective.sizes == [16] * 3 + [4] * 4 * (STEPS - 3)
    assert len(warnings) == 2
    assert "ran out at step 4 with 16 images at once. Training went on with 8 at once" in warnings[0]
    assert "with 8 images at once. Training went on with 4" in warnings[1]
    assert cut.notes == warnings, "the report says it too"
    assert [row.get("micro_batch") for row in rows] == [None] * 3 + [4] * (STEPS - 3)
    for one, other in zip(expected, rows, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
    one, other = everything(whole), everything(cut)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=2e-4, rtol=1e-3)


def test_the_size_of_pieces_is_remembered_by_a_run_that_goes_on_elsewhere(problem: Any, tmp_path: Path) -> None:
    state = problem.state()
    train(problem, tmp_path, state, Small(8))
    restored, objective = problem.state(), Small(8)
    restore_newest(restored, tmp_path)
    assert restored.micro_batch == 8
    assert restored.notes == state.notes
    restored.step = STEPS - 1
    train(problem, tmp_path, restored, objective)
    assert objective.sizes == [8, 8]


def test_pieces_that_do_not_divide_the_batch_weigh_what_they_hold(problem: Any, tmp_path: Path) -> None:
    whole, cut, objective = steady(problem), steady(problem), Small(16)
    cut.micro_batch = 6
    train(problem, tmp_path / "whole", whole, classify(cross_entropy))
    train(problem, tmp_path / "cut", cut, objective)
    assert objective.sizes[:3] == [6, 5, 5]
    for one, other in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        torch.testing.assert_close(other, one, atol=2e-4, rtol=1e-3)


def test_a_single_image_that_does_not_fit_is_a_clear_error(problem: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"Memory ran out at step 1 with a single image \(CUDA out of memory\)"
    ) as caught:
        train(problem, tmp_path, problem.state(), Small(0))
    assert "--image-size" in caught.value.hint


def test_errors_that_are_not_about_memory_pass_through(problem: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        train(problem, tmp_path, problem.state(), Small(0, RuntimeError("shapes cannot be multiplied")))


def test_batch_normalisation_is_mentioned_where_pieces_change_it(tmp_path: Path, problem: Any) -> None:
    state, warnings = problem.state(), []
    state.model.add_module("extra", nn.BatchNorm1d(3))
    state.ema.model.add_module("extra", nn.BatchNorm1d(3))
    train(problem, tmp_path, state, Small(8), warn=warnings.append)
    assert "batch normalisation" in warnings[0]


def test_what_is_in_use_is_a_plausible_number_of_bytes() -> None:
    peak, now = peak_memory("cpu"), usage("cpu").get("memory_bytes")
    for found in (peak, now):
        assert found is None or 10**7 < found < 10**12


@pytest.mark.parametrize(
    ("free", "micro", "recomputed"),
    [
        (10_000, 64, False),
        (1_500, 22, False),  # 30 fit with the margin: three pieces of 22 rather than 30, 30 and 4
        (600, 10, True),  # 6 images fit as they are, 10 recomputed
        (100, 1, True),
    ],
)
def test_a_batch_is_cut_into_equal_pieces_that_fit(free: int, micro: int, recomputed: bool) -> None:
    found = plan(Forecast(fixed=280, per_image=30, per_image_recomputed=20), 64, free, recompute=None)
    assert (found.micro_batch, found.recomputed) == (micro, recomputed)
    assert found.bytes == 280 + micro * (20 if recomputed else 30)
    if micro > 1:
        assert found.bytes <= MARGIN * free


def test_recomputing_by_hand_is_kept_and_never_chosen_where_it_is_impossible() -> None:
    predicted = Forecast(fixed=0, per_image=100, per_image_recomputed=10)
    assert plan(predicted, 16, 10_000, recompute=True).recomputed
    assert not plan(predicted, 16, 300, recompute=False).recomputed
    assert not plan(Forecast(0, 100, None), 16, 300, recompute=None).recomputed


@pytest.mark.parametrize(("name", "channels"), [("vit_micro", 1), ("resnet_micro", 3)])
def test_the_forecast_covers_weights_and_grows_with_the_images(name: str, channels: int) -> None:
    model = build(architecture(name, num_classes=4, image_size=16, in_chans=channels))
    weights = sum(each.numel() * 4 for each in model.parameters())
    medium_is_exact.cache_clear()  # as in a new process, which has not yet compared a product
    found = forecast(model, (channels, 16, 16), "fp32", "cpu")
    assert found.fixed >= 5 * weights
    assert found.per_image > channels * 16 * 16 * 4
    assert found.bytes(10) - found.bytes(9) == found.per_image
    for parameter in list(model.parameters())[:-2]:
        parameter.requires_grad_(False)
    assert forecast(model, (channels, 16, 16), "fp32", "cpu").fixed < found.fixed, "frozen weights need no gradient"


@pytest.mark.parametrize("batch", [1, 7, 64, 100])
@pytest.mark.parametrize("most", [1, 3, 10, 33, 1000])
@pytest.mark.parametrize("planned", [1, 2, 9, 64])
def test_the_largest_piece_is_found_from_any_first_guess(batch: int, most: int, planned: int) -> None:
    asked: list[int] = []

    def fits(count: int) -> bool:
        asked.append(count)
        return count <= most

    found = largest_piece(min(planned, batch), batch, fits)
    pieces = [-(-batch // count) for count in range(1, batch + 1)]
    assert found == max(size for size in pieces if size <= most)
    assert len(asked) <= 2 + 2 * math.log2(batch + 1)


def test_training_is_left_to_say_that_nothing_fits() -> None:
    assert largest_piece(8, 64, lambda count: False) == 1


def test_a_trial_pass_tells_whether_memory_ran_out_and_leaves_the_model_alone(problem: Any) -> None:
    model, objective = problem.state().model, Small(5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, targets = torch.randn(16, 1, 8, 8), torch.eye(10)[torch.arange(16) % 10]
    assert taken_by_pass(model, images, targets, objective, "fp32") is None
    assert taken_by_pass(model, images[:5], targets[:5], objective, "fp32") == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(RuntimeError, match="shapes"):
        taken_by_pass(model, images, targets, Small(0, RuntimeError("shapes differ")), "fp32")


def test_recomputed_activations_give_the_same_gradients(problem: Any) -> None:
    grads = []
    for recompute in (False, True):
        model = steady(problem).model
        assert not recompute or set_checkpointing(model, True)
        torch.manual_seed(3)
        classify(cross_entropy)(model, torch.ones(4, 1, 8, 8), torch.eye(10)[:4]).backward()
        grads.append([each.grad for each in model.parameters() if each.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 0
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)
    assert not set_checkpointing(nn.Linear(2, 2), True)
    assert math.isfinite(float(grads[0][0].sum()))
