"""Low-rank adaptation: small matrices learn beside a model that stays as it is.

    command    vitreous train DATA --init timm:NAME --method lora
    hardware   two CPU cores for ViT-Tiny; saves memory above all for large models on one GPU
    time       77 s for 830 satellite scenes at 32 px and 20 epochs with vit_micro, one core (benchmarks/transfer.py): in so small a model
               the adapters cost more than the gradients they save
    expected   there 74.8 % from weights of CIFAR-10, against 76.1 % fine-tuned and 73.3 % from scratch (three seeds)

Hu et al. 2022 (arXiv:2106.09685). The learning rate is some ten times that of fine-tuning, and the same in all blocks.
"""

from __future__ import annotations

from dataclasses import replace

from vitreous.config.train import TrainConfig
from vitreous.recipes.fine_tune import fine_tune
from vitreous.recipes.task import Task


def low_rank(task: Task) -> TrainConfig:
    """Fine-tuning's settings but for the rate, without layer decay and stochastic depth."""
    base = fine_tune(task)
    assert base.optim.lr is not None
    return replace(
        base,
        recipe="lora",
        method="lora",
        optim=replace(base.optim, lr=round(8 * base.optim.lr, 7), layer_decay=1.0, weight_decay=0.01),
        net=replace(base.net, drop_path=0.0),
        lora=replace(base.lora, dropout=0.1),
    )
