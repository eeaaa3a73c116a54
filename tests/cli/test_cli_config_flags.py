"""`--config FILE` with flags beside it: what followed from a setting that a flag changes is chosen anew."""

from __future__ import annotations

import pytest

from vitreous.cli.train import reopened
from vitreous.config.train import AugmentConfig, NetConfig, OptimConfig, TrainConfig

STORED = TrainConfig(
    model="vit_micro",
    preset="natural",
    image_size=16,
    steps=500,
    batch_size=64,
    optim=OptimConfig(lr=1e-3, warmup=0.1, warmup_steps=50, ema_decay=0.98),
    net=NetConfig(drop_path=0.05),
    augment=AugmentConfig(horizontal_flip=True),
)


def test_without_flags_nothing_changes() -> None:
    assert reopened(STORED, ["DATA", "--seed", "3"]) == STORED


@pytest.mark.parametrize("flag", ["--epochs", "--time", "--steps"])
def test_a_new_length_opens_warm_up_and_averaging(flag: str) -> None:
    found = reopened(STORED, ["DATA", flag, "5"])
    assert (found.steps, found.optim.warmup_steps, found.optim.ema_decay) == (None, None, None)
    assert (found.optim.lr, found.image_size, found.augment) == (1e-3, 16, STORED.augment)


def test_a_new_warm_up_opens_its_steps() -> None:
    assert reopened(STORED, ["--optim.warmup=0.5"]).optim.warmup_steps is None


def test_a_new_preset_opens_the_augmentation_alone() -> None:
    found = reopened(STORED, ["--preset", "document"])
    assert found.augment == AugmentConfig()
    assert (found.net, found.optim) == (STORED.net, STORED.optim)


def test_a_new_model_opens_what_the_old_one_decided() -> None:
    found = reopened(STORED, ["--model", "resnet18"])
    assert (found.image_size, found.net, found.optim.lr) == (None, NetConfig(), None)


def test_a_new_batch_size_opens_the_learning_rate() -> None:
    assert reopened(STORED, ["--batch_size", "8"]).optim.lr is None
