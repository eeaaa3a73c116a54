"""A value for every setting that a recipe may leave alone: each recipe replaces some of them."""

from __future__ import annotations

from vitreous.config.augment import AugmentConfig
from vitreous.config.distill import DistillConfig
from vitreous.config.lora import LoraConfig
from vitreous.config.loss import LossConfig
from vitreous.config.net import NetConfig
from vitreous.config.optim import OptimConfig
from vitreous.config.pretrain import PretrainConfig
from vitreous.recipes.presets import NOTHING

OPTIM = OptimConfig(
    name="adamw",
    lr=5e-4,
    weight_decay=0.05,
    beta1=0.9,
    beta2=0.98,
    warmup=0.1,
    schedule="cosine",
    cooldown=0.2,
    final_lr=0.01,
    layer_decay=1.0,
    clip_norm=1.0,
    accumulation=1,
    label_smoothing=0.1,
    sam=0.0,
    patience=0,
    soup=0,
    on_nan="stop",
)
"""`ema_decay` and `warmup_steps` follow from the number of steps."""

LOSS = LossConfig(name="cross-entropy", focal_gamma=2.0, gamma_positive=0.0, gamma_negative=4.0, margin=0.05)
LORA = LoraConfig(rank=8, alpha=16.0, dropout=0.0)
DISTILL = DistillConfig(teacher=None, kind="soft", weight=0.5, temperature=2.0)
PRETRAIN = PretrainConfig(mask_ratio=0.75, decoder_dim=128, decoder_depth=2, normalise_pixels=True)

VIT = NetConfig(drop_path=0.05, dropout=0.0, checkpointing=False)
"""Only what training decides; the shape comes with the model's name."""
CNN = NetConfig(drop_path=0.0, dropout=0.0)

UNCHANGED: AugmentConfig = NOTHING
"""Images as they are."""
