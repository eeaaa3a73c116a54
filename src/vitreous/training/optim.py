"""The optimiser that a configuration names, over the groups of `training.groups`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vitreous.config.optim import OptimConfig
from vitreous.training.groups import hidden_matrices, parameter_groups, unadapted
from vitreous.training.optimizers.lamb import Lamb
from vitreous.training.optimizers.muon import Muon
from vitreous.training.optimizers.schedule_free import ScheduleFree

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"lamb": Lamb, "muon": Muon, "schedule-free": ScheduleFree}
"""Those beside torch's AdamW."""


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser `config.name` (AdamW when None) over the model's trainable parameters.

    config: with values for lr, weight_decay, beta1 and beta2. Each group's `lr_scale` is for the loop to multiply the
    learning rate with.
    """
    assert config.lr is not None and config.weight_decay is not None
    assert config.beta1 is not None and config.beta2 is not None
    kinds: dict[str, dict[str, Any]] = {}
    if config.name == "lamb":
        kinds = {name: {"adapted": False} for name in unadapted(model)}
    elif config.name == "muon":
        kinds = {name: {"parts": parts} for name, parts in hidden_matrices(model).items()}
    layer_decay = 1.0 if config.layer_decay is None else config.layer_decay
    groups = parameter_groups(model, config.weight_decay, layer_decay, kinds)
    options: dict[str, Any] = {"lr": config.lr, "betas": (config.beta1, config.beta2)}
    if config.name in OPTIMIZERS:
        return OPTIMIZERS[config.name](groups, **options)
    return torch.optim.AdamW(groups, fused=True, **options)
