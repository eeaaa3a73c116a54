"""From scratch on large data: a hundred thousand images and more, with a GPU.

    command    vitreous train DATA --init scratch --recipe scratch-large --model vit_small
    hardware   one GPU or several; not meant for a CPU
    time       not measured: no GPU was at hand
    expected   not measured for the same reason; published for ImageNet-1k at 224 px and 800 epochs: S 82.2 %, B 84.2 %
               (ViT-5), S 81.4 %, B 83.8 % (DeiT III)

DeiT III (Touvron et al. 2022, arXiv:2204.07118, section 3 and table 1) with the rates and stochastic depth of ViT-5
(arXiv:2602.08071). Where we differ: the low resolution is 192 of 224 px for all sizes and ends in the same run, in place of
a second one at the full size; the learning rate follows the square root of the batch (LAMB, arXiv:1904.00962).
"""

from __future__ import annotations

from dataclasses import replace

from vitreous.config.augment import AugmentConfig
from vitreous.config.train import TrainConfig
from vitreous.recipes.scratch_small import scratch_small
from vitreous.recipes.task import Task, is_vit, may_grow, root_scaled, size_of

ENOUGH = 100_000
"""Training images from which this recipe is chosen, given a GPU."""

RATE = {"tiny": 4e-3, "small": 4e-3, "base": 3e-3, "large": 3e-3, "huge": 3e-3}
"""Peak learning rate of LAMB with 2,048 images a step."""
DROP_PATH = {"tiny": 0.0, "small": 0.05, "base": 0.2, "large": 0.35, "huge": 0.5}
"""Stochastic depth, the same in all blocks."""


def scratch_large(task: Task) -> TrainConfig:
    """LAMB, binary cross-entropy, 3-Augment, strong mixing, three copies of an image in a batch, most steps at low resolution."""
    facts = task.facts
    batch_size = task.batch_size or (1024 if facts.device == "cuda" else 128)
    wanted = 2048 if facts.num_train >= 5 * ENOUGH else 1024
    accumulation = task.accumulation or max(1, round(wanted / batch_size))
    model = task.model or "vit_small"
    size = size_of(model)
    base = scratch_small(replace(task, model=model, batch_size=batch_size, image_size=task.image_size))
    return replace(
        base,
        recipe="scratch-large",
        epochs=max(30, min(400, round(500_000_000 / facts.num_train))),
        optim=replace(
            base.optim,
            name="lamb",
            lr=root_scaled(RATE[size], batch_size * accumulation, at=2048),
            weight_decay=0.05,
            beta2=0.999,
            warmup=0.0125,  # 5 epochs of 400
            accumulation=accumulation,
            label_smoothing=0.0,
        ),
        loss=replace(base.loss, name="bce"),
        net=replace(base.net, drop_path=DROP_PATH[size], drop_path_shape="uniform", layer_scale=1e-4)
        if is_vit(model)
        else base.net,
        augment=_augment(task, base),
    )


def _augment(task: Task, base: TrainConfig) -> AugmentConfig:
    """The domain still decides what leaves a label true; mixing and copies do not depend on it."""
    found = replace(
        base.augment,
        mixup=0.8,
        cutmix=1.0 if base.augment.cutmix else 0.0,
        mix_probability=1.0,
        mix_until=1.0,
        repeats=3,
    )
    size = base.image_size
    if size is not None and size >= 96 and is_vit(base.model) and may_grow(task, base.model, size, 192 / 224):
        found = replace(found, start_size=192 / 224, full_size_from=0.9)
    if task.preset != "natural":
        return found
    return replace(
        found,
        horizontal_flip=True,
        crop_area=0.08,
        rand_augment_ops=0,
        erase=0.0,
        three_augment=True,
        brightness=0.3,
        contrast=0.3,
    )
