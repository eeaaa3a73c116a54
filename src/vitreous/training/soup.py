"""The mean of the last validated weights, kept where it validates better than any of them (Wortsman et al. 2022, "Model
soups", arXiv:2203.05482; along one run as in arXiv:1803.05407).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vitreous.training.checkpoint import save_weights
from vitreous.training.team import ALONE, Team

PATTERN = "soup_*.safetensors"


def keep_ingredient(model: nn.Module, step: int, folder: Path, count: int, team: Team = ALONE) -> None:
    """Write the weights validated after `step` as `soup_NNNNNNNN.safetensors`; only the last `count` up to it stay."""
    save_weights(model, folder / f"soup_{step:08d}.safetensors", team)
    if not team.is_main:
        return
    kept = ingredients(folder, step)[-count:]
    for path in folder.glob(PATTERN):
        if path not in kept:
            path.unlink(missing_ok=True)


def ingredients(folder: Path, step: int) -> list[Path]:
    """The files of validated weights, oldest first. Those of steps after `step` belong to a run that was cut back."""
    return [path for path in sorted(folder.glob(PATTERN)) if int(path.stem.removeprefix("soup_")) <= step]


def cook(
    model: nn.Module,
    best_score: float,
    step: int,
    evaluate: Callable[[nn.Module], dict[str, float]],
    folder: Path,
    best: Path,
    team: Team = ALONE,
) -> str:
    """Put the mean of the validated weights in the place of `best` where its `val_score` is above `best_score`.

    model: gives the architecture, and stays as it is. Returns a sentence about what was decided; it comes out the same
    when asked again. A file that cannot be read is left out.
    """
    weights: list[dict[str, Tensor]] = []
    for path in ingredients(folder, step):
        try:
            weights.append(load_file(path))
        except (SafetensorError, OSError):
            continue
    if len(weights) < 2:
        return "No soup was made: fewer than two validated weights are at hand."
    soup = copy.deepcopy(model)
    soup.load_state_dict(mean_weights(weights))
    score = evaluate(soup)["val_score"]
    of = f"The mean of the last {len(weights)} validated weights scores {score:.4f} on validation, the best of all {best_score:.4f}"
    if score > best_score:
        save_weights(soup, best, team)
        return f"{of}: the mean is kept."
    return f"{of}: the single weights are kept."


def mean_weights(weights: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensor by tensor; whole numbers, such as counts of batches, are taken from the last."""
    return {
        name: torch.stack([each[name].double() for each in weights]).mean(dim=0).to(last.dtype)
        if last.is_floating_point()
        else last
        for name, last in weights[-1].items()
    }
