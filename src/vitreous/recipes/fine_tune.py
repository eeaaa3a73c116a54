"""Fine-tuning: every weight of a trained model learns on, the earlier blocks more slowly.

    command    vitreous train DATA --init timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k
    hardware   two CPU cores for ViT-Tiny and a thousand images; a GPU for more
    time       a minute for 830 satellite scenes at 32 px and 20 epochs with vit_micro, one core (benchmarks/transfer.py)
    expected   there 76.1 %, from weights of CIFAR-10, against 73.3 % from scratch in as many steps (three seeds); published weights
               of large sets, which were not at hand, give far more

Layer-wise decay of the learning rate as in BEiT and MAE (arXiv:2106.08254; arXiv:2111.06377, appendix A: 0.65 for B, 0.75
for L and H). Large images are shown smaller at first and end at the full size (arXiv:2104.00298). The variant for two
medical classes adds dropout before the head, which reads few images.
"""

from __future__ import annotations

from dataclasses import replace

from vitreous.config.train import TrainConfig
from vitreous.recipes.scratch_small import scratch_small
from vitreous.recipes.task import Task, data_batch, is_compact, is_vit, may_grow, root_scaled, size_of

RATE, COMPACT_RATE = 5e-4, 3e-3
"""Learning rates at a batch of 256. Compact models, whose weights come from small images, have more to learn anew: from
CIFAR-10 to satellite scenes the larger rate gave 74.5 % and the smaller one 69.5 % (benchmarks/TRAINING_LOG.md)."""
LAYER_DECAY = {"tiny": 0.75, "small": 0.75, "base": 0.65, "large": 0.75, "huge": 0.75}
DROP_PATH = {"tiny": 0.05, "small": 0.05, "base": 0.1, "large": 0.2, "huge": 0.3}


def fine_tune(task: Task) -> TrainConfig:
    """AdamW with layer decay for some 60,000 images seen; a smaller picture in the first three fifths of the steps."""
    found = _fine_tune(task)
    return medical_two_class(found) if task.preset == "medical" and task.facts.num_classes == 2 else found


def medical_two_class(config: TrainConfig) -> TrainConfig:
    """The head of a finding that is there or not: strong dropout before it, and longer averaging of what it learns from."""
    return replace(config, net=replace(config.net, dropout=0.3))


def _fine_tune(task: Task) -> TrainConfig:
    batch_size = (
        task.batch_size or min(64, data_batch(task.facts)) if task.facts.device == "cpu" else task.batch_size or 128
    )
    base = scratch_small(replace(task, batch_size=batch_size))
    size = size_of(base.model)
    augment = base.augment
    if base.image_size is not None and base.image_size >= 160 and is_vit(base.model):
        grows = may_grow(task, base.model, base.image_size, 0.7)
        augment = replace(augment, start_size=0.7 if grows else 1.0, full_size_from=0.6)
    return replace(
        base,
        recipe="fine-tune",
        epochs=max(5, min(50, round(60_000 / task.facts.num_train))),
        optim=replace(
            base.optim,
            name="adamw",  # also for compact models: Muon makes all directions of a matrix new, trained ones too
            lr=root_scaled(
                COMPACT_RATE if is_compact(base.model) else RATE, batch_size * (task.accumulation or 1), at=256
            ),
            beta2=0.999,
            layer_decay=LAYER_DECAY[size] if is_vit(base.model) else 1.0,
        ),
        net=replace(base.net, drop_path=DROP_PATH[size] if is_vit(base.model) else 0.0, dropout=0.1),
        augment=augment,
    )
