"""Validation: which weights are kept, and whether it is worth going on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from vitreous.config.optim import OptimConfig
from vitreous.training.checkpoint import BEST, TrainState, save_checkpoint, save_weights
from vitreous.training.soup import cook, keep_ingredient
from vitreous.training.team import ALONE, Team

Evaluate = Callable[[nn.Module], dict[str, float]]
"""The averaged model to named numbers, among them `val_score` (larger is better) and, where known, its standard error
`val_error`."""


def validate(
    state: TrainState, evaluate: Evaluate, checkpoints: Path, soup: int = 0, team: Team = ALONE
) -> dict[str, float]:
    """Evaluate the averaged weights, keep them unless earlier ones were clearly better, save the state.

    Clearly: by more than one standard error of the score (Breiman et al. 1984, section 3.4.3). On a small validation
    part the single best score is often luck, and the later weights are the better ones. soup: how many validated weights
    are kept for `conclude`. In a team all processes call this, and rank 0 writes.
    """
    numbers = evaluate(state.ema.model)
    state.stale = 0 if numbers["val_score"] > state.best_score else state.stale + 1
    state.best_score = max(state.best_score, numbers["val_score"])
    if numbers["val_score"] >= state.best_score - numbers.get("val_error", 0.0):
        state.best_step = state.step
        save_weights(state.ema.model, checkpoints / BEST, team)
    if soup:
        keep_ingredient(state.ema.model, state.step, checkpoints, soup, team)
    save_checkpoint(state, checkpoints, team)
    state.model.train()
    return numbers


def out_of_patience(state: TrainState, optim: OptimConfig) -> bool:
    """Whether as many validations as `optim.patience` allows have passed without a better score than before them."""
    return bool(optim.patience) and state.stale >= (optim.patience or 0)


def conclude(
    state: TrainState, evaluate: Evaluate, optim: OptimConfig, steps: int, checkpoints: Path, team: Team = ALONE
) -> None:
    """After the last step: put the soup in the place of the best weights where it is better, and say what was done.

    Called again for a run that was killed in between, it decides the same.
    """
    notes = []
    if out_of_patience(state, optim) and state.step < steps:
        notes.append(
            f"Training ended after step {state.step} of {steps}: {state.stale} validations in a row brought no better score."
        )
    if optim.soup:
        notes.append(
            cook(state.ema.model, state.best_score, state.step, evaluate, checkpoints, checkpoints / BEST, team)
        )
    state.notes += [note for note in notes if note not in state.notes]
