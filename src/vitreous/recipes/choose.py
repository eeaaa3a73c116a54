"""Which method and which recipe suit the data, the weights at hand, the machine and the budget; and when a Vision
Transformer from scratch is the wrong tool.

Pure functions of settings and facts. Every threshold is a named constant with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vitreous.config.facts import DataFacts
from vitreous.config.train import METHOD_OF, Method, RecipeName, TrainConfig
from vitreous.recipes.fine_tune import fine_tune
from vitreous.recipes.frozen import head, probe
from vitreous.recipes.low_rank import low_rank
from vitreous.recipes.scratch_large import ENOUGH, scratch_large
from vitreous.recipes.scratch_small import scratch_small
from vitreous.recipes.self_supervised import self_supervised
from vitreous.recipes.task import Task, is_vit, size_of

RECIPES: dict[RecipeName, Callable[[Task], TrainConfig]] = {
    "scratch-small": scratch_small,
    "scratch-large": scratch_large,
    "fine-tune": fine_tune,
    "probe": probe,
    "lora": low_rank,
    "head": head,
    "pretrain": self_supervised,
}
"""`--recipe NAME`: the function that makes its settings."""

FEW_A_CLASS = 10
"""Images a class below which all weights of a model fit them by heart: a classifier on its features is the safer use
(Kornblith et al. 2019, arXiv:1805.08974, section 4.5)."""
FEWEST_PASSES = 3.0
"""Passes of fine-tuning that must fit into the budget for it to be worth more than a probe's one."""
TOO_FEW = 2000
"""Images of `TOO_LARGE` px and more from which a Vision Transformer learns little by itself: unlike a convolution, it has
to learn from them that neighbouring pixels belong together (arXiv:2010.11929, section 4.3; arXiv:2112.13492)."""
TOO_LARGE = 96

_PARAMETERS = {"tiny": 5.5e6, "small": 22e6, "base": 86e6, "large": 304e6, "huge": 632e6}
# Multiply-accumulates in a second, forward and backward together: an order of magnitude for choosing, nothing is timed.
_SPEED = {"cpu": 2.0e10, "cuda": 3.0e13, "mps": 1.0e12}
_PATIENCE = 1800.0
"""Seconds that a run without --time is supposed to be allowed."""


@dataclass(frozen=True)
class Choice:
    """A method, the recipe for it, and why."""

    recipe: RecipeName
    method: Method
    why: str


def choose(config: TrainConfig, facts: DataFacts) -> Choice:
    """The method and recipe of a run whose `init` is settled."""
    weights = has_weights(config)
    if config.recipe != "auto":
        return Choice(config.recipe, METHOD_OF[config.recipe], "as asked")
    if config.method not in ("auto", "full"):
        return Choice(_recipe_of(config.method), config.method, f"for --method {config.method}")
    if not weights:
        if facts.num_train >= ENOUGH and facts.device == "cuda":
            return Choice(
                "scratch-large", "full", f"{facts.num_train:,} training images, a GPU, and no weights to start from"
            )
        return Choice("scratch-small", "full", f"{facts.num_train:,} training images and no weights to start from")
    if config.method == "full":
        return Choice("fine-tune", "full", "weights to start from, and --method full")
    if facts.several_labels:
        return Choice("fine-tune", "full", "images may have several labels, and there are weights to start from")
    per_class = facts.num_train / max(1, facts.num_classes)
    if per_class < FEW_A_CLASS:
        return Choice(
            "probe",
            "probe",
            f"only {per_class:.0f} images a class: the features of trained weights, and a classifier on them",
        )
    passes = _passes(config, facts)
    if passes < FEWEST_PASSES:
        return Choice(
            "probe", "probe", f"fine-tuning would see each image only about {passes:.1g} times in the time there is"
        )
    return Choice("fine-tune", "full", f"{facts.num_train:,} training images and weights to start from")


def warnings(config: TrainConfig, facts: DataFacts) -> tuple[str, ...]:
    """What speaks against a complete configuration, with the better tool named."""
    if has_weights(config) or not is_vit(config.model):
        return ()
    if config.method in ("probe", "lora", "head"):
        return (
            f"--method {config.method} rests on trained weights, and this model's are random. Better: --init timm:NAME, a file "
            "or a run folder.",
        )
    if config.method == "full" and facts.num_train < TOO_FEW and facts.short_side >= TOO_LARGE:
        what = "photographs" if config.preset == "natural" else "images"
        probing = (
            "with --method probe"
            if facts.num_train < FEW_A_CLASS * facts.num_classes
            else "fine-tuned, or --method probe"
        )
        return (
            f"A Vision Transformer from scratch learns little from {facts.num_train:,} {what} of {facts.short_side:.0f} px. "
            f"Better: published weights ({probing}) by --init timm:vit_tiny_patch16_224, which needs the network once, or "
            "--init FILE; without any, a convolutional model: --model resnet18.",
        )
    return ()


def has_weights(config: TrainConfig) -> bool:
    """Whether a settled `init` brings weights."""
    return config.init not in ("auto", "scratch")


def _recipe_of(method: Method) -> RecipeName:
    return next(name for name, own in METHOD_OF.items() if own == method)


def _passes(config: TrainConfig, facts: DataFacts) -> float:
    """About how often fine-tuning could see each image in seven tenths of the time there is."""
    tokens = ((config.image_size or 224) / 16) ** 2 + 1
    macs = 3 * _PARAMETERS[size_of(config.model)] * tokens * facts.num_train
    speed = _SPEED.get(facts.device, _SPEED["cpu"]) * (facts.cores if facts.device == "cpu" else 1)
    return 0.7 * (facts.budget or _PATIENCE) * speed / macs
