"""From a partly filled `TrainConfig` and facts about the data to a complete one, with a sentence for each decision.

A pure function of its arguments: the same data, machine kind and settings give the same recipe. What the caller set is
never changed. Numbers follow the published recipes for plain ViTs trained from scratch on small sets (DeiT,
arXiv:2012.12877; compact transformers, arXiv:2104.05704; "Better plain ViT", arXiv:2205.01580) as measured in
benchmarks/RESULTS.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from vitreous.config.facts import DataFacts
from vitreous.config.input import Resize
from vitreous.config.train import (
    AugmentConfig,
    DistillConfig,
    LoraConfig,
    LossConfig,
    NetConfig,
    OptimConfig,
    Preset,
    PretrainConfig,
    TrainConfig,
)
from vitreous.recipes.presets import AUGMENTATION, FEW, GENTLE, GLYPHS, guess_preset

T = TypeVar("T", OptimConfig, NetConfig, AugmentConfig, LossConfig, LoraConfig, DistillConfig, PretrainConfig)

# Multiply-accumulates a CPU core does in a second of training a compact model, forward and backward together; an order
# of magnitude for choosing a model that fits a budget. How long a step really takes is measured later.
_CORE_MACS_PER_SECOND = 2.0e10


@dataclass(frozen=True)
class Resolved:
    """A complete configuration and why it is what it is."""

    config: TrainConfig
    """No None among the fields a run needs, save `steps` and `optim.ema_decay`, which follow from the length of an
    epoch or, under a time budget, from a measurement."""
    preset: Preset
    resize: Resize
    reasons: tuple[str, ...]


def resolve(config: TrainConfig, facts: DataFacts) -> Resolved:
    """Fill every open field. Raises nothing: fields that contradict the data are found when the model is built."""
    reasons: list[str] = []
    if config.preset == "auto":
        preset, why = guess_preset(facts)
        reasons.append(f"preset {preset}: {why} (change with --preset)")
    else:
        preset = config.preset

    image_size = config.image_size or _named_size(config.model) or _image_size(facts)
    if config.image_size is None and _named_size(config.model) is None:
        reasons.append(f"image size {image_size}: the images are about {facts.short_side:.0f} px on the short side")
    model = config.model
    if model == "auto":
        model, why = _model(facts, image_size)
        reasons.append(f"model {model}: {why}")
    epochs = config.epochs
    if epochs is None and config.time is None and config.steps is None:
        epochs = max(20, min(200, round(250_000 / facts.num_train)))
        reasons.append(
            f"{epochs} epochs: about {epochs * facts.num_train:,} images seen (bound the time with --time 10m)"
        )
    batch_size = config.batch_size if config.batch_size != "auto" else _batch_size(facts)
    if config.balance != "auto":
        balance = config.balance
    elif facts.imbalance > 1.5:
        balance = "logit-adjust"
        reasons.append(
            f"balance logit-adjust: the largest class has {facts.imbalance:.1f} times the images of the smallest"
        )
    else:
        balance = "none"

    resolved = replace(
        config,
        model=model,
        preset=preset,
        method="full" if config.method == "auto" else config.method,
        devices=config.devices or 1,
        image_size=image_size,
        epochs=epochs,
        batch_size=batch_size,
        balance=balance,
        optim=_fill(config.optim, _optim(model, batch_size)),
        net=_fill(config.net, _net(model)),
        augment=_fill(config.augment, _augment(preset, facts)),
        loss=_fill(config.loss, LOSS),
        lora=_fill(config.lora, LORA),
        distill=_fill(config.distill, DISTILL),
        pretrain=_fill(config.pretrain, PRETRAIN),
    )
    resize = resize_for(preset)
    reasons.append(
        "the whole image is used, its aspect ratio changed to a square"
        if resize == "squash"
        else "the centre square is used"
    )
    return Resolved(resolved, preset, resize, tuple(reasons))


def resize_for(preset: Preset) -> Resize:
    """How an image becomes a square: photographs lose their edges, where else the label may lie are kept whole."""
    return "crop" if preset == "natural" else "squash"


VIT_PREFIXES = ("vit", "deit", "eva", "beit3", "aimv2", "flexivit", "test_vit")
"""How the names of plain Vision Transformers begin; a test holds them against timm's."""


def is_vit(model: str) -> bool:
    """Whether a model's name is that of a Vision Transformer. Decided by its beginning: recipes know no models."""
    return model.startswith(VIT_PREFIXES)


def ema_decay(steps: int) -> float:
    """Averaging over about the last fiftieth of training, whatever its length."""
    return min(0.9998, max(0.9, 1 - 50 / max(steps, 1)))


def _named_size(model: str) -> int | None:
    tail = model.rsplit("_", 1)[-1]
    return int(tail) if is_vit(model) and tail.isdigit() else None


def _image_size(facts: DataFacts) -> int:
    """Small images as they are, to the next multiple of the patch; tiny ones at twice their size, since moving them by
    fractions of a pixel would blur them; large ones at 128 on a CPU, 224 on a GPU."""
    side = facts.short_side
    if side <= 12:
        return max(8, 4 * math.ceil(side / 2))
    if side <= 96:
        return 4 * math.ceil(side / 4) if side <= 48 else 8 * math.ceil(side / 8)
    return 224 if facts.device == "cuda" and side >= 160 else 128


def _model(facts: DataFacts, image_size: int) -> tuple[str, str]:
    if facts.device == "cuda" and facts.num_train >= 20_000 and image_size >= 128:
        return "vit_small", f"{facts.num_train:,} training images and a GPU"
    if image_size <= 16:
        return "vit_micro", f"images of {image_size} px need few parameters"
    if facts.device == "cpu":
        budget = facts.budget if facts.budget is not None else 1800.0
        epochs = 0.7 * budget * facts.cores * _CORE_MACS_PER_SECOND / (3 * _macs(image_size)) / facts.num_train
        if epochs < 60:
            return "vit_micro", f"a larger one would see each of {facts.num_train:,} images only {epochs:.0f} times"
    return "vit_compact", f"{facts.num_train:,} training images of {image_size} px"


def _macs(image_size: int) -> float:
    """Multiply-accumulates of vit_compact's forward pass, from its width of 192, depth of 8 and MLP ratio of 2."""
    patch = 16 if image_size > 112 else 8 if image_size > 48 else 4
    tokens = (image_size / patch) ** 2
    return 8 * (8 * 192**2 * tokens + 2 * 192 * tokens**2)


def _batch_size(facts: DataFacts) -> int:
    """Enough steps in an epoch to learn from few images, enough images in a step to keep the processor busy."""
    if facts.device == "cuda":
        return 256 if facts.num_train >= 20_000 else 128
    return 128 if facts.num_train >= 20_000 else 64 if facts.num_train >= 1_000 else 32


def _optim(model: str, batch_size: int) -> OptimConfig:
    small = model.endswith(("_micro", "_compact"))
    base = 5e-4 if is_vit(model) and not small else 2e-3
    return OptimConfig(
        lr=round(base * math.sqrt(batch_size / 64), 7),
        weight_decay=0.05,
        beta1=0.9,
        beta2=0.98,
        warmup=0.1,
        final_lr=0.01,
        clip_norm=1.0,
        accumulation=1,
        ema_decay=None,
        label_smoothing=0.1,
        name="adamw",
        schedule="cosine",
        cooldown=0.2,
        layer_decay=1.0,
        sam=0.0,
        patience=0,
        soup=0,
        on_nan="stop",
    )


LOSS = LossConfig(name="cross-entropy", focal_gamma=2.0, gamma_positive=0.0, gamma_negative=4.0, margin=0.05)
LORA = LoraConfig(rank=8, alpha=16.0, dropout=0.0)
DISTILL = DistillConfig(teacher=None, kind="soft", weight=0.5, temperature=2.0)
PRETRAIN = PretrainConfig(mask_ratio=0.75, decoder_dim=128, decoder_depth=2, normalise_pixels=True)


def _net(model: str) -> NetConfig:
    """Only what training decides; the shape comes with the model's name."""
    vit = is_vit(model)
    return NetConfig(drop_path=0.05 if vit else 0.0, dropout=0.0, checkpointing=False if vit else None)


def _augment(preset: Preset, facts: DataFacts) -> AugmentConfig:
    chosen = AUGMENTATION[preset]
    if preset == "document" and facts.short_side <= 32:
        chosen = replace(chosen, **GLYPHS)
    if preset == "natural" and facts.num_train < FEW:
        chosen = replace(chosen, **GENTLE)
    if preset == "natural" and facts.short_side <= 48:
        chosen = replace(chosen, crop_area=0.6)  # small images show the object and little else
    return chosen


def _fill(given: T, chosen: T) -> T:
    """`given` with its open fields taken from `chosen`."""
    found: dict[str, Any] = {
        field.name: getattr(chosen, field.name) for field in fields(given) if getattr(given, field.name) is None
    }
    return replace(given, **found)
