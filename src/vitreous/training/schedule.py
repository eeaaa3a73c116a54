"""The learning rate of each step."""

from __future__ import annotations

import math

from vitreous.config.optim import OptimConfig


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Linear from near 0 to the peak over the warm-up, then what `config.schedule` says (cosine when None).

    cosine: half a cosine down to `final_lr` times the peak (SGDR, arXiv:1608.03983). wsd: the peak, then a straight line down
    to the same over the last `cooldown` of all steps (arXiv:2405.18392); a warm-up that reaches into it shortens it.
    constant: the peak to the end.

    step: 0-based index of the coming optimiser step; steps: how many there are.
    """
    assert config.lr is not None and config.warmup is not None
    warmup = config.warmup_steps if config.warmup_steps is not None else round(config.warmup * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    assert config.final_lr is not None
    if config.schedule == "wsd":
        assert config.cooldown is not None
        start = max(warmup, steps - round(config.cooldown * steps))
        share = 1.0 if step < start else max(0.0, steps - 1 - step) / (steps - start)
    else:
        progress = (step - warmup) / max(1, steps - 1 - warmup)
        share = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.lr * (config.final_lr + (1 - config.final_lr) * share)
