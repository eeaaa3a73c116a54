"""Training parts of a model: what is frozen stays, and a stopped run with adapters ends as an undisturbed one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vitreous.config.lora import LoraConfig
from vitreous.errors import StoppedError
from vitreous.training.checkpoint import TrainState, restore_newest
from vitreous.training.ema import Ema
from vitreous.training.learning import head_only, settle_learning
from vitreous.training.loop import fit
from vitreous.training.losses import cross_entropy
from vitreous.training.objective import classify
from vitreous.training.optim import make_optimizer
from vitreous.training.precision import gradient_scaler
from vitreous.training.signals import StopFlag

Everything = Callable[[TrainState], dict[str, Tensor]]


def begun(problem: Any, method: Any) -> TrainState:
    model = problem.state().model
    settle_learning(model, method, LoraConfig(rank=2, alpha=4.0, dropout=0.2), seed=0)
    optim = problem.settings(1).optim
    return TrainState(
        model=model,
        ema=Ema(model, optim.ema_decay or 0.0),
        optimizer=make_optimizer(model, optim),
        scaler=gradient_scaler("fp32", "cpu"),
    )


def train(problem: Any, state: TrainState, folder: Path, method: str, stop_at: int | None = None) -> None:
    stop = StopFlag()
    objective = classify(cross_entropy)

    def record(row: dict[str, Any]) -> None:
        if row["step"] == stop_at:
            stop.signal_name = "SIGINT"

    folder.mkdir(exist_ok=True)
    fit(
        state,
        problem.batches(6),
        problem.settings(6),
        objective=head_only(objective) if method == "head" else objective,
        evaluate=problem.evaluate,
        record=record,
        stop=stop,
        checkpoints=folder,
    )


@pytest.mark.parametrize("method", ["lora", "head"])
def test_stopped_and_resumed_is_undisturbed_and_what_is_frozen_stays(
    problem: Any, everything: Everything, tmp_path: Path, method: str
) -> None:
    whole = begun(problem, method)
    before = {name: value.clone() for name, value in whole.model.state_dict().items()}
    train(problem, whole, tmp_path / "whole", method)

    first = begun(problem, method)
    with pytest.raises(StoppedError):
        train(problem, first, tmp_path / "parts", method, stop_at=3)
    second = begun(problem, method)
    restore_newest(second, tmp_path / "parts")
    assert second.step == 3
    train(problem, second, tmp_path / "parts", method)

    one, two = everything(whole), everything(second)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    learning = {name for name, each in whole.model.named_parameters() if each.requires_grad}
    changed = {name for name, value in whole.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == learning
