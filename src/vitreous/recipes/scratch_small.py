"""From scratch on small data: hundreds to tens of thousands of images, without weights to start from.

    command    vitreous train DATA --init scratch --recipe scratch-small
    hardware   two CPU cores, or any GPU
    time       digits about 2 minutes, CIFAR-10 10 minutes (--time 10m), both on two CPU cores
    expected   digits 99.5 % (five folds, three seeds), CIFAR-10 81.4 % in ten minutes (three seeds; benchmarks/RESULTS.md); a
               recipe promises nothing for other data

Numbers follow the published recipes for plain ViTs on small sets (DeiT, arXiv:2012.12877; compact transformers,
arXiv:2104.05704; "Better plain ViT", arXiv:2205.01580).
"""

from __future__ import annotations

from dataclasses import replace

from vitreous.config.train import TrainConfig
from vitreous.recipes import defaults
from vitreous.recipes.task import (
    Task,
    data_batch,
    data_model,
    data_size,
    is_compact,
    is_vit,
    may_grow,
    named_size,
    root_scaled,
)

START = 0.75
"""Share of the side that a hurried training begins with."""
SMALLEST_GROWING = 24
"""Pixels a side from which three quarters of it are still a picture."""


def scratch_small(task: Task) -> TrainConfig:
    """Muon for compact Vision Transformers, which learn in half the steps of AdamW with it (benchmarks/TRAINING_LOG.md), AdamW
    for others; the domain's augmentation, cross-entropy with smoothed labels."""
    facts = task.facts
    image_size = task.image_size or (named_size(task.model) if task.model else None) or data_size(facts)
    model = task.model or data_model(facts, image_size)[0]
    batch_size = task.batch_size or data_batch(facts)
    compact = is_compact(model)
    # Muon's rate is that of its matrices; those of AdamW beside it take the same.
    base, name = (4e-3, "muon") if compact else (5e-4, "adamw") if is_vit(model) else (2e-3, "adamw")
    # A hurried model of few patches sees small images first: more steps in the time, each worth nearly as much.
    growing = compact and task.hurried and image_size >= SMALLEST_GROWING and may_grow(task, model, image_size, START)
    return TrainConfig(
        recipe="scratch-small",
        method="full",
        preset=task.preset,
        model=model,
        image_size=image_size,
        batch_size=batch_size,
        epochs=max(20, min(200, round(250_000 / facts.num_train))),
        optim=replace(defaults.OPTIM, name=name, lr=root_scaled(base, batch_size * (task.accumulation or 1), at=64)),
        net=replace(defaults.VIT, drop_path=0.0 if task.hurried else 0.05) if is_vit(model) else defaults.CNN,
        augment=replace(task.augment, start_size=START, full_size_from=0.5) if growing else task.augment,
        loss=defaults.LOSS,
        lora=defaults.LORA,
        distill=defaults.DISTILL,
        pretrain=defaults.PRETRAIN,
    )
