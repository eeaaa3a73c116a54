"""Stored settings with others beside them: what followed from a setting that changes is chosen anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vitreous.config.reopen import reopened
from vitreous.config.train import AugmentConfig, LoraConfig, LossConfig, NetConfig, OptimConfig, TrainConfig

STORED = TrainConfig(
    model="vit_micro",
    init="scratch",
    preset="natural",
    recipe="scratch-small",
    method="full",
    image_size=16,
    steps=500,
    batch_size=64,
    optim=OptimConfig(name="adamw", lr=1e-3, weight_decay=0.05, warmup=0.1, warmup_steps=50, ema_decay=0.98),
    net=NetConfig(embed_dim=96, patch_size=4, drop_path=0.05),
    augment=AugmentConfig(horizontal_flip=True),
    loss=LossConfig(name="bce"),
    lora=LoraConfig(rank=4),
    split_seed=0,
)


@pytest.mark.parametrize("changed", [set[str](), {"out"}, {"resume", "threads"}, {"optim.clip_norm"}])
def test_what_nothing_follows_from_changes_nothing_else(changed: set[str]) -> None:
    assert reopened(STORED, changed) == STORED


@pytest.mark.parametrize("name", ["epochs", "time", "steps"])
def test_a_new_length_opens_warm_up_and_averaging(name: str) -> None:
    found = reopened(STORED, {name})
    assert (found.steps, found.optim.warmup_steps, found.optim.ema_decay) == (None, None, None)
    assert (found.optim.lr, found.image_size, found.augment) == (1e-3, 16, STORED.augment)


def test_a_new_warm_up_opens_its_steps() -> None:
    assert reopened(STORED, {"optim.warmup"}).optim.warmup_steps is None


def test_a_new_preset_opens_the_augmentation_and_the_exposure_alone() -> None:
    found = reopened(replace(STORED, exposure="even"), {"preset"})
    assert found.augment == AugmentConfig()
    assert found.exposure == "auto"
    assert (found.net, found.optim) == (STORED.net, STORED.optim)


def test_a_new_model_opens_what_the_old_one_decided_but_not_the_length() -> None:
    found = reopened(STORED, {"model"})
    assert (found.image_size, found.net, found.optim.lr, found.init) == (None, NetConfig(), None, "auto")
    assert (found.recipe, found.method) == ("auto", "auto")
    assert (found.steps, found.optim.warmup_steps) == (500, 50)


def test_a_new_image_size_opens_the_patches_and_leaves_the_rest_of_the_shape() -> None:
    assert reopened(STORED, {"image_size"}).net == NetConfig(embed_dim=96, drop_path=0.05)


@pytest.mark.parametrize("name", ["batch_size", "optim.accumulation"])
def test_a_new_batch_opens_the_learning_rate(name: str) -> None:
    assert reopened(STORED, {name}).optim.lr is None


def test_a_new_optimiser_opens_what_belongs_to_the_old_one() -> None:
    found = reopened(STORED, {"optim.name"}).optim
    assert (found.lr, found.weight_decay, found.warmup) == (None, None, 0.1)


@pytest.mark.parametrize("name", ["recipe", "method", "init"])
def test_a_new_recipe_method_or_source_of_weights_opens_what_the_recipe_chose(name: str) -> None:
    found = reopened(STORED, {name})
    assert (found.recipe, found.method, found.batch_size, found.steps) == ("auto", "auto", "auto", None)
    assert (found.optim, found.loss, found.augment, found.lora) == (
        OptimConfig(),
        LossConfig(),
        AugmentConfig(),
        LoraConfig(),
    )
    assert found.net == NetConfig(embed_dim=96, patch_size=4), "the shape is the model's"
    assert (found.preset, found.image_size) == ("natural", 16)


def test_a_length_given_beside_a_new_recipe_is_left_for_it_to_win() -> None:
    found = reopened(STORED, {"recipe", "epochs"})
    assert (found.epochs, found.steps) == (None, None)


def test_a_stored_method_stands_beside_new_weights_but_not_beside_a_new_recipe() -> None:
    stored: dict[str, Any] = {"recipe": "lora", "method": "lora", "init": "a.pth", "model": "vit_tiny"}
    lora = TrainConfig(**stored)
    assert reopened(lora, {"init"}).method == "lora"
    assert reopened(lora, {"recipe"}).method == "auto"


def test_a_new_seed_makes_a_new_split() -> None:
    assert reopened(STORED, {"seed"}).split_seed is None
