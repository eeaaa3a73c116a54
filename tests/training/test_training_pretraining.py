from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.data.batches import eval_batches
from vitreous.models.masked import MaskedAutoencoder, patches_of
from vitreous.training.checkpoint import TrainState
from vitreous.training.ema import Ema
from vitreous.training.loop import fit
from vitreous.training.optim import make_optimizer
from vitreous.training.precision import gradient_scaler
from vitreous.training.pretraining import errors_on, reconstruct, reconstruction_errors
from vitreous.training.signals import StopFlag

PATCH = (2, 2)


def make_state(problem: Any) -> TrainState:
    plain = problem.state()
    torch.manual_seed(1)
    model = MaskedAutoencoder(plain.model, mask_ratio=0.75, decoder_dim=16, decoder_depth=1)
    return TrainState(
        model=model,
        ema=Ema(model, 0.9),
        optimizer=make_optimizer(model, problem.settings(1).optim),
        scaler=gradient_scaler("fp32", "cpu"),
    )


def images(problem: Any) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(list(eval_batches(problem.store, 60))))


def test_the_loss_counts_hidden_patches_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures, drawn = torch.randn(3, 1, 4, 4, generator=generator), torch.randn(3, 4, 4, generator=generator)
    hidden = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    found = reconstruction_errors(pictures, drawn, hidden, PATCH, normalise_pixels=False)
    for row in range(3):
        wanted = patches_of(pictures, PATCH)[row][hidden[row]]
        assert torch.isclose(found[row], ((drawn[row][hidden[row]] - wanted) ** 2).mean())
    even = reconstruction_errors(pictures, torch.zeros(3, 4, 4), hidden, PATCH, normalise_pixels=True)
    assert torch.allclose(even, torch.ones(3), atol=1e-3)  # grey costs 1 for patches of deviation 1


def test_images_weigh_in_pretraining_as_their_targets_say(problem: Any) -> None:
    model, pictures = make_state(problem).model.eval(), images(problem)[:4]
    objective = reconstruct(PATCH, normalise_pixels=True)

    def loss(weights: list[float]) -> torch.Tensor:
        torch.manual_seed(3)
        return objective(model, pictures, torch.tensor(weights)[:, None])

    parts = [loss([float(row == one) for row in range(4)]) for one in range(4)]
    assert torch.isclose(loss([1.0, 2.0, 0.0, 1.0]), parts[0] + 2 * parts[1] + parts[3], atol=1e-5)


def test_validation_hides_the_same_patches_each_time(problem: Any) -> None:
    state, pictures = make_state(problem), images(problem)
    model = state.ema.model
    assert isinstance(model, MaskedAutoencoder)
    one = errors_on(model, pictures.split(7), True, 0, "cpu")
    assert one.shape == (60,)
    assert torch.allclose(one, errors_on(model, pictures.split(60), True, 0, "cpu"), atol=1e-5)
    assert not torch.allclose(one, errors_on(model, pictures.split(60), True, 1, "cpu"), atol=1e-3)


def test_the_loop_pretrains_and_repeats_bit_for_bit(problem: Any, everything: Any, tmp_path: Path) -> None:
    def run(folder: Path, *until: int | None) -> tuple[TrainState, list[float]]:
        state, rows = make_state(problem), []
        folder.mkdir()

        def evaluate(model: Any) -> dict[str, float]:
            loss = float(errors_on(model, images(problem).split(60), True, 0, "cpu").mean())
            return {"val_loss": loss, "val_score": -loss}

        for step in until:
            fit(
                state,
                problem.batches(24),
                problem.settings(24),
                objective=reconstruct(PATCH, normalise_pixels=True),
                evaluate=evaluate,
                record=rows.append,
                stop=StopFlag(),
                checkpoints=folder,
                until=step,
            )
        return state, [row["val_loss"] for row in rows if "val_loss" in row]

    whole, losses = run(tmp_path / "whole", None)
    halves, _ = run(tmp_path / "halves", 11, None)
    assert losses[-1] < 0.9 * losses[0]
    first, second = everything(whole), everything(halves)
    assert all(torch.equal(first[name], second[name]) for name in first)
