"""Pretraining on images without labels, to start from later with --init RUN.

    command    vitreous train DATA --method pretrain --model vit_compact --out runs/pretrained
    hardware   two CPU cores for small images; a GPU for 224 px
    time       half a minute for 300 steps on 1,000 images of 32 px with vit_micro, one core (benchmarks/pretraining.py)
    expected   nothing gained where the same few images are labelled: with 1,000 of CIFAR-10, 300 steps of it and 300 of fine-tuning
               reach 40.3 %, 300 steps from scratch 42.9 % and 600 of them 47.4 %; worth trying with many more images than labels

Masked autoencoding (He et al. 2022, arXiv:2111.06377, appendix A): crops and mirror images only, since hiding three
quarters of the patches is change enough; no smoothing, mixing or clipping. Where we differ: a higher base rate with the
square-root rule, for batches of tens to hundreds of images in place of 4,096.
"""

from __future__ import annotations

from dataclasses import replace

from vitreous.config.train import TrainConfig
from vitreous.recipes import defaults
from vitreous.recipes.scratch_small import scratch_small
from vitreous.recipes.task import Task, root_scaled


def self_supervised(task: Task) -> TrainConfig:
    """AdamW with a short memory of squared gradients; the domain's moves, none of its colours, no mixing."""
    base = scratch_small(task)
    batch_size, moves = base.batch_size, task.augment
    assert isinstance(batch_size, int)
    return replace(
        base,
        recipe="pretrain",
        method="pretrain",
        balance="none",
        epochs=max(50, min(400, round(500_000 / task.facts.num_train))),
        optim=replace(
            base.optim,
            name="adamw",
            lr=root_scaled(1e-3, batch_size * (task.accumulation or 1), at=256),
            beta2=0.95,
            warmup=0.05,
            clip_norm=0.0,
            label_smoothing=0.0,
        ),
        net=replace(base.net, drop_path=0.0),
        augment=replace(
            defaults.UNCHANGED,
            horizontal_flip=moves.horizontal_flip,
            vertical_flip=moves.vertical_flip,
            quarter_turns=moves.quarter_turns,
            rotate=moves.rotate,
            translate=moves.translate,
            scale=moves.scale,
            shear=moves.shear,
            crop_area=0.3 if task.preset == "natural" else moves.crop_area,
        ),
    )
