"""A trained model that stays as it is: only the head learns (head), or a classifier on features computed once (probe).

    command    vitreous train DATA --init timm:NAME --method probe        (or: --method head)
    hardware   two CPU cores
    time       a probe takes one forward pass of every image and seconds after it: 14 s in all for 830 satellite scenes at 32 px with
               vit_micro, one core; the head alone 31 s for 20 epochs (benchmarks/transfer.py)
    expected   there 64.3 % (probe) and 65.4 % (head) from weights of CIFAR-10, against 76.1 % fine-tuned: features of a small model
               carry less far than those of a large one, which was not at hand

A probe sees no augmentation, since each image's features are computed once. The head alone sees the domain's augmentation
without mixing, and takes a high learning rate, being one convex layer (arXiv:2111.06377, appendix A).
"""

from __future__ import annotations

from dataclasses import replace

from vitreous.config.train import TrainConfig
from vitreous.recipes import defaults
from vitreous.recipes.scratch_small import scratch_small
from vitreous.recipes.task import Task, root_scaled


def probe(task: Task) -> TrainConfig:
    """One pass over the images as they are."""
    base = scratch_small(task)
    return replace(
        base,
        recipe="probe",
        method="probe",
        epochs=1,
        optim=replace(base.optim, name="adamw", warmup=0.0, label_smoothing=0.0),
        net=replace(base.net, drop_path=0.0),
        augment=defaults.UNCHANGED,
    )


def head(task: Task) -> TrainConfig:
    """AdamW on the head, no weight decay of its few weights, images changed but not mixed."""
    base = scratch_small(task)
    batch_size = base.batch_size
    assert isinstance(batch_size, int)
    return replace(
        base,
        recipe="head",
        method="head",
        epochs=max(5, min(50, round(60_000 / task.facts.num_train))),
        optim=replace(
            base.optim,
            name="adamw",
            lr=root_scaled(3e-3, batch_size * (task.accumulation or 1), at=64),
            weight_decay=0.0,
        ),
        net=replace(base.net, drop_path=0.0),
        augment=replace(base.augment, mixup=0.0, cutmix=0.0, mix_probability=0.0),
    )
