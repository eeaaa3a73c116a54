"""AdamW's parameter groups and the learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from vitreous.config.train import OptimConfig

UNDECAYED_NAMES = (
    "class_token",
    "distillation_token",
    "registers",
    "position_embedding",
    "frequencies",
    "lambdas",
    "probe",
)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: matrices and kernels, which decay; norms, biases, tokens and positions, which do not."""
    decayed, undecayed = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        spared = parameter.ndim <= 1 or name.rsplit(".", 1)[-1] in UNDECAYED_NAMES
        (undecayed if spared else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over `parameter_groups`; `config` must be resolved (no None)."""
    assert config.lr is not None and config.weight_decay is not None
    assert config.beta1 is not None and config.beta2 is not None
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Linear from near 0 to the peak over the warm-up share, then half a cosine down to `final_lr` times the peak.

    step: 0-based index of the coming optimiser step; steps: how many there are.
    """
    assert config.lr is not None and config.warmup is not None and config.final_lr is not None
    warmup = config.warmup_steps if config.warmup_steps is not None else round(config.warmup * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr * (config.final_lr + (1 - config.final_lr) * cosine)
