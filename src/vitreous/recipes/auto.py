"""From a partly filled `TrainConfig` and facts about the data to a complete one, with a sentence for each decision.

A pure function of its arguments: the same data, machine kind and settings give the same result. What the caller set is
never changed. The numbers are those of the recipes, each in a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from vitreous.config.facts import DataFacts
from vitreous.config.input import Exposure, Resize
from vitreous.config.train import (
    AugmentConfig,
    Balance,
    DistillConfig,
    LoraConfig,
    LossConfig,
    NetConfig,
    OptimConfig,
    Preset,
    PretrainConfig,
    TrainConfig,
)
from vitreous.recipes.choose import RECIPES, choose, warnings
from vitreous.recipes.presets import guess_preset
from vitreous.recipes.task import VIT_PREFIXES, Task, data_model, is_vit, named_size

UNEVEN = 0.8
"""`exposure_spread` from which the light differs more than the parts do."""

T = TypeVar("T", OptimConfig, NetConfig, AugmentConfig, LossConfig, LoraConfig, DistillConfig, PretrainConfig)

__all__ = ["VIT_PREFIXES", "Resolved", "ema_decay", "is_vit", "resize_for", "resolve"]


@dataclass(frozen=True)
class Resolved:
    """A complete configuration and why it is what it is."""

    config: TrainConfig
    """No None among the fields a run needs, save `steps`, `optim.warmup_steps` and `optim.ema_decay`, which follow from the
    length of an epoch or, under a time budget, from a measurement."""
    preset: Preset
    resize: Resize
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """What speaks against these settings, each with what would be better."""


def resolve(config: TrainConfig, facts: DataFacts) -> Resolved:
    """Fill every open field. Raises nothing: fields that contradict the data are found when the model is built."""
    reasons: list[str] = []
    if config.preset == "auto":
        preset, why = guess_preset(facts)
        reasons.append(f"preset {preset}: {why} (change with --preset)")
    else:
        preset = config.preset
    choice = choose(config, facts)
    task = Task(
        facts=facts,
        preset=preset,
        model=None if config.model == "auto" else config.model,
        image_size=config.image_size,
        batch_size=None if config.batch_size == "auto" else config.batch_size,
        accumulation=config.optim.accumulation,
        patched=config.net.patch_size is not None,
    )
    recipe = _dealt_out(RECIPES[choice.recipe], task, config.devices or 1)
    if facts.several_labels:
        recipe = for_several_labels(recipe)
        reasons.append("images may have several labels or none: each label has a score of its own (loss bce)")
    reasons.append(f"recipe {choice.recipe} (method {choice.method}): {choice.why}")
    if config.image_size is None and named_size(config.model) is None:
        reasons.append(
            f"image size {recipe.image_size}: the images are about {facts.short_side:.0f} px on the short side"
        )
    if config.model == "auto":
        assert recipe.image_size is not None
        model, why = data_model(facts, recipe.image_size)
        reasons.append(
            f"model {recipe.model}: {why if model == recipe.model else f'what recipe {choice.recipe} is for'}"
        )
    if config.balance != "auto":
        balance: Balance = config.balance
    elif recipe.balance == "auto" and facts.imbalance > 1.5 and not facts.several_labels:
        balance = "logit-adjust"
        reasons.append(
            f"balance logit-adjust: the largest class has {facts.imbalance:.1f} times the images of the smallest"
        )
    else:
        balance = "none"

    if config.optim.name == "schedule-free":
        recipe = replace(recipe, optim=replace(recipe.optim, schedule="constant", ema_decay=0.0))
        reasons.append(
            "learning rate constant after the warm-up, no further averaging: schedule-free AdamW averages itself"
        )
    exposure = exposure_for(preset, facts) if config.exposure == "auto" else config.exposure
    open_length = config.epochs is None and config.time is None and config.steps is None
    resolved = replace(
        config,
        recipe=choice.recipe,
        method=choice.method,
        preset=preset,
        model=recipe.model,
        devices=config.devices or 1,
        image_size=recipe.image_size,
        exposure=exposure,
        epochs=recipe.epochs if open_length else config.epochs,
        batch_size=recipe.batch_size,
        balance=balance,
        optim=_fill(config.optim, recipe.optim),
        net=_fill(config.net, recipe.net),
        augment=_fill(config.augment, recipe.augment),
        loss=_fill(config.loss, recipe.loss),
        lora=_fill(config.lora, recipe.lora),
        distill=_fill(config.distill, recipe.distill),
        pretrain=_fill(config.pretrain, recipe.pretrain),
    )
    reasons.append(_pace(resolved, facts))
    resize = resize_for(preset)
    reasons.append(
        "the whole image is used, its aspect ratio changed to a square"
        if resize == "squash"
        else "the centre square is used"
    )
    if exposure == "even":
        reasons.append(
            f"each image is brought to the same brightness and contrast: they vary {facts.exposure_spread:.1f} times as much "
            "between images as within one (--exposure stored leaves them)"
        )
    return Resolved(resolved, preset, resize, tuple(reasons), warnings(resolved, facts))


def for_several_labels(recipe: TrainConfig) -> TrainConfig:
    """A recipe for images that may have several labels or none: a loss that takes each label by itself, and no smoothing,
    which would put a floor under the scores of rare labels."""
    return replace(recipe, loss=replace(recipe.loss, name="bce"), optim=replace(recipe.optim, label_smoothing=0.0))


def resize_for(preset: Preset) -> Resize:
    """How an image becomes a square: photographs lose their edges, where else the label may lie are kept whole."""
    return "crop" if preset == "natural" else "squash"


def exposure_for(preset: Preset, facts: DataFacts) -> Exposure:
    """Parts under changing light are evened out; elsewhere brightness may be what the label rests on."""
    return "even" if preset == "inspection" and facts.exposure_spread >= UNEVEN else "stored"


def ema_decay(steps: int) -> float:
    """Averaging over about the last fiftieth of training, whatever its length."""
    return min(0.9998, max(0.9, 1 - 50 / max(steps, 1)))


def _dealt_out(make: Callable[[Task], TrainConfig], task: Task, devices: int) -> TrainConfig:
    """The recipe for a step whose batches several devices share: each takes `optim.accumulation` of them, and the learning
    rate is that of all of them."""
    if devices == 1:
        return make(task)
    each = task.accumulation or max(1, round((make(task).optim.accumulation or 1) / devices))
    recipe = make(replace(task, accumulation=each * devices))
    return replace(recipe, optim=replace(recipe.optim, accumulation=each))


def _pace(config: TrainConfig, facts: DataFacts) -> str:
    """Batch, learning rate and length in one line."""
    optim = config.optim
    if config.method == "probe":
        return "one pass over the images; the classifier on their features is then solved for, without a learning rate"
    assert isinstance(config.batch_size, int) and optim.accumulation is not None
    images = min(config.batch_size, facts.num_train) * optim.accumulation * (config.devices or 1)
    if config.time is not None:
        length = f"as many epochs as fit into {config.time}"
    elif config.steps is not None:
        length = f"{config.steps:,} steps"
    else:
        assert config.epochs is not None
        length = f"{config.epochs} epochs, about {config.epochs * facts.num_train:,} images seen (bound the time with --time 10m)"
    return f"{images} images a step, learning rate {optim.lr:g} ({optim.name}, {optim.schedule} schedule), {length}"


def _fill(given: T, chosen: T) -> T:
    """`given` with its open fields taken from `chosen`."""
    found: dict[str, Any] = {
        field.name: getattr(chosen, field.name) for field in fields(given) if getattr(given, field.name) is None
    }
    return replace(given, **found)
