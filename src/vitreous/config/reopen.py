"""Stored settings with others laid over them: what followed from a setting that changes is open again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from vitreous.config.augment import AugmentConfig
from vitreous.config.lora import LoraConfig
from vitreous.config.loss import LossConfig
from vitreous.config.net import NetConfig
from vitreous.config.optim import OptimConfig
from vitreous.config.pretrain import PretrainConfig
from vitreous.config.train import TrainConfig

LENGTH = frozenset({"epochs", "time", "steps"})
OF_RECIPES = (
    "drop_path",
    "drop_path_shape",
    "layer_scale",
    "dropout",
    "patch_dropout",
    "pooling",
    "pool_prefix",
    "class_token",
)
"""Settings of the network that recipes and methods choose; the others are its shape."""
OF_IMAGE_SIZE = ("patch_size", "stem")
"""Settings of the network that follow from the image size, in families that fit themselves to it."""
OF_OPTIMIZERS = ("lr", "weight_decay", "beta1", "beta2")


def reopened(stored: TrainConfig, changed: Collection[str]) -> TrainConfig:
    """`stored` with those settings left open again that followed from the `changed` ones.

    changed: names as in Python, those of nested settings with dots ("optim.warmup").

    A new length opens the warm-up's steps and the averaging. A new model opens image size, initial weights, shape, recipe
    and what the recipe chose; a new recipe, method or source of weights the same and the length; a new preset the
    augmentation and the exposure; a new image size the patches; a new batch or optimiser the learning rate; a new seed the
    split.
    """
    changed = set(changed)
    found = stored
    if found.steps is not None:
        found = replace(found, epochs=None, time=None)
    if changed & LENGTH:
        found = _of_new_length(replace(found, epochs=None, time=None, steps=None))
        found = found if "stop_after" in changed else replace(found, stop_after=None)
    if "optim.warmup" in changed:
        found = replace(found, optim=replace(found.optim, warmup_steps=None))
    if changed & {"batch_size", "optim.accumulation"}:
        found = replace(found, optim=replace(found.optim, lr=None), micro_batch=None)
    if "optim.name" in changed:
        found = replace(found, optim=replace(found.optim, **dict.fromkeys(OF_OPTIMIZERS)))
    if "preset" in changed:
        found = replace(found, augment=AugmentConfig(), exposure="auto")
    if "image_size" in changed:
        found = replace(found, net=replace(found.net, **dict.fromkeys(OF_IMAGE_SIZE)), micro_batch=None)
    if "net.patch_size" in changed:
        found = replace(found, net=replace(found.net, stem=None))
    if "model" in changed:
        found = replace(found, image_size=None, net=NetConfig(), micro_batch=None)
        found = replace(found, init=found.init if "init" in changed else "auto")
    if changed & {"model", "recipe", "method", "init"}:
        found = _of_new_recipe(found, changed)
    if "seed" in changed:
        found = replace(found, split_seed=None)
    return found


def _of_new_length(found: TrainConfig) -> TrainConfig:
    return replace(found, optim=replace(found.optim, warmup_steps=None, ema_decay=None))


def _of_new_recipe(found: TrainConfig, changed: Collection[str]) -> TrainConfig:
    """Everything that recipes choose is open; the data, the domain and the seed are not theirs."""
    # A method that was stored stands beside a new model or new weights, unless a recipe or a method is asked for. Learning
    # the whole model is what nobody has to ask for, so it is chosen anew.
    method = "auto" if "recipe" in changed or found.method == "full" else found.method
    if set(changed) & {"recipe", "method", "init"} and not set(changed) & LENGTH:
        found = replace(found, epochs=None, time=None, steps=None, stop_after=None)
    length = (found.optim.warmup_steps, found.optim.ema_decay) if found.steps is not None else (None, None)
    return replace(
        found,
        recipe="auto",
        method=method,
        batch_size="auto",
        micro_batch=None,
        optim=OptimConfig(warmup_steps=length[0], ema_decay=length[1]),
        loss=LossConfig(),
        net=replace(found.net, **dict.fromkeys(OF_RECIPES)),
        augment=AugmentConfig(),
        lora=LoraConfig(),
        pretrain=PretrainConfig(),
    )
