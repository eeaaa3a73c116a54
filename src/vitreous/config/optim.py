"""Settings of the optimiser and of what goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vitreous.config.ranges import check_ranges

OptimizerName = Literal["adamw", "lamb", "muon", "schedule-free"]
ScheduleName = Literal["cosine", "wsd", "constant"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser, its schedule, and what steadies it."""

    name: OptimizerName | None = None
    """adamw (arXiv:1711.05101), lamb for very large batches (arXiv:1904.00962), muon for the matrices of the blocks with AdamW
    for the rest, or schedule-free AdamW (arXiv:2405.15682)."""
    lr: float | None = None
    """Peak learning rate."""
    weight_decay: float | None = None
    """Decoupled weight decay per unit of learning rate; never applied to norms, biases, tokens and positions."""
    beta1: float | None = None
    """Decay of the gradient average, in [0, 1)."""
    beta2: float | None = None
    """Decay of the squared-gradient average, in [0, 1)."""
    warmup: float | None = None
    """Share of all steps over which the learning rate rises from 0, in [0, 1)."""
    warmup_steps: int | None = None
    """Optimiser steps of warm-up; what `warmup` resolves to."""
    schedule: ScheduleName | None = None
    """After the warm-up: cosine, or wsd, which stays at the peak and falls linearly over the last `cooldown`, or constant."""
    cooldown: float | None = None
    """Share of all steps over which the schedule wsd falls, in [0, 1]."""
    final_lr: float | None = None
    """Learning rate at the last step, as a share of the peak, in [0, 1]."""
    layer_decay: float | None = None
    """Factor on the learning rate from one block to the block before it, in (0, 1]; 1 treats all alike (BEiT, arXiv:2106.08254)."""
    clip_norm: float | None = None
    """Largest norm of the whole gradient; longer ones are scaled down. 0 switches clipping off."""
    accumulation: int | None = None
    """Batches whose gradients are averaged before one optimiser step; the effective batch is this times the batch."""
    ema_decay: float | None = None
    """Decay per step of the averaged weights that are evaluated and saved, in [0, 1). 0 switches averaging off."""
    label_smoothing: float | None = None
    """Probability mass spread evenly over all classes, in [0, 1)."""
    sam: float | None = None
    """Radius of sharpness-aware minimisation (arXiv:2010.01412), which takes two passes a step. 0 switches it off."""
    patience: int | None = None
    """Validations without a better score after which training ends. 0 never ends early."""
    soup: int | None = None
    """Last checkpoints whose averaged weights are kept in the end where they validate better (arXiv:2203.05482). 0 keeps the best."""
    on_nan: Literal["stop", "skip"] | None = None
    """What a loss or gradient that is not finite does: end the run, or leave out the step and say so."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            "optim",
            {
                "lr": "(0, inf)",
                "weight_decay": "[0, inf)",
                "beta1": "[0, 1)",
                "beta2": "[0, 1)",
                "warmup": "[0, 1)",
                "warmup_steps": "[0, inf)",
                "final_lr": "[0, 1]",
                "clip_norm": "[0, inf)",
                "accumulation": "[1, inf)",
                "ema_decay": "[0, 1)",
                "label_smoothing": "[0, 1)",
                "cooldown": "[0, 1]",
                "layer_decay": "(0, 1]",
                "sam": "[0, inf)",
                "patience": "[0, inf)",
                "soup": "[0, inf)",
            },
        )
