"""What a recipe is written for, and the choices that all recipes from scratch share: model, image size, batch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from vitreous.config.augment import AugmentConfig
from vitreous.config.facts import DataFacts
from vitreous.config.train import Preset
from vitreous.recipes.presets import AUGMENTATION, FEW, GENTLE, GLYPHS, HURRIED

VIT_PREFIXES = ("vit", "deit", "eva", "beit3", "aimv2", "flexivit", "test_vit")
"""How the names of plain Vision Transformers begin; a test holds them against timm's."""

# Multiply-accumulates a CPU core does in a second of training a compact model, forward and backward together; an order
# of magnitude for choosing a model that fits a budget. How long a step really takes is measured later.
_CORE_MACS_PER_SECOND = 2.0e10

FEW_PASSES = 10.0
"""Of `compact_passes`, below which small photographs are only mirrored and shifted, as the fastest published trainings of
small convolutional networks do."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Data, machine and domain, and what the caller has already settled; None where the recipe decides."""

    facts: DataFacts
    preset: Preset
    model: str | None = None
    image_size: int | None = None
    batch_size: int | None = None
    """Images in one forward pass, which the learning rate follows."""
    accumulation: int | None = None
    """Batches of one step, over all devices."""
    patched: bool = False
    """Whether the caller has settled the size of the patches."""

    @property
    def hurried(self) -> bool:
        """Whether the budget lets a compact model see each image so seldom that strong changes only slow it down."""
        facts = self.facts
        if facts.budget is None or facts.device != "cpu":
            return False
        size = self.image_size or data_size(facts)
        return compact_passes(facts, size) < FEW_PASSES

    @property
    def augment(self) -> AugmentConfig:
        """What the domain's preset does to images of this number and size."""
        chosen = AUGMENTATION[self.preset]
        if self.preset == "document" and self.facts.short_side <= 32:
            chosen = replace(chosen, **GLYPHS)
        if self.preset == "natural" and self.facts.num_train < FEW:
            chosen = replace(chosen, **GENTLE)
        if self.preset == "natural" and self.facts.short_side <= 48:
            chosen = replace(chosen, crop_area=0.6)  # small images show the object and little else
            if self.hurried:
                chosen = replace(chosen, **HURRIED)
        return chosen


def is_vit(model: str) -> bool:
    """Whether a model's name is that of a Vision Transformer. Decided by its beginning: recipes know no models."""
    return model.startswith(VIT_PREFIXES)


def is_compact(model: str) -> bool:
    """Whether a model is one of ours for small images."""
    return is_vit(model) and model.endswith(("_micro", "_compact"))


def may_grow(task: Task, model: str, image_size: int, start: float) -> bool:
    """Whether training may begin with images of `start` of the side: a smaller number of whole patches, two at the least.

    False where the caller has settled the patches, which a recipe does not know.
    """
    if task.patched:
        return False
    named = re.search(r"patch(\d+)", model)
    patch = int(named[1]) if named else patch_for(image_size)
    return 2 <= round(start * image_size / patch) < image_size // patch


def size_of(model: str) -> str:
    """tiny, small, base, large or huge, as the name says; small where it says nothing."""
    words = model.split("_")
    for size, names in {
        "tiny": ("tiny", "micro", "compact", "pico", "nano"),
        "base": ("base", "medium", "mediumd", "betwixt"),
        "large": ("large", "so400m"),
        "huge": ("huge", "giant", "gigantic", "7b"),
    }.items():
        if any(name in words for name in names):
            return size
    return "small"


def named_size(model: str) -> int | None:
    """The image size at the end of a ViT's name, pixels."""
    tail = model.rsplit("_", 1)[-1].split(".")[0]
    return int(tail) if is_vit(model) and tail.isdigit() else None


def data_size(facts: DataFacts) -> int:
    """Small images as they are, to the next multiple of the patch; tiny ones at twice their size, since moving them by
    fractions of a pixel would blur them; large ones at 128 on a CPU, 224 on a GPU."""
    side = facts.short_side
    if side <= 12:
        return max(8, 4 * math.ceil(side / 2))
    if side <= 96:
        return 4 * math.ceil(side / 4) if side <= 48 else 8 * math.ceil(side / 8)
    return 224 if facts.device == "cuda" and side >= 160 else 128


def data_model(facts: DataFacts, image_size: int) -> tuple[str, str]:
    """The Vision Transformer for these data from scratch, and why."""
    if facts.device == "cuda" and facts.num_train >= 20_000 and image_size >= 128:
        return "vit_small", f"{facts.num_train:,} training images and a GPU"
    if image_size <= 16:
        return "vit_micro", f"images of {image_size} px need few parameters"
    if facts.device == "cpu":
        epochs = compact_passes(facts, image_size)
        if epochs < 60:
            return "vit_micro", f"a larger one would see each of {facts.num_train:,} images only {epochs:.0f} times"
    return "vit_compact", f"{facts.num_train:,} training images of {image_size} px"


def compact_passes(facts: DataFacts, image_size: int) -> float:
    """About how often vit_compact could see each image in seven tenths of the budget (half an hour where there is none)."""
    budget = facts.budget if facts.budget is not None else 1800.0
    return 0.7 * budget * facts.cores * _CORE_MACS_PER_SECOND / (3 * _macs(image_size)) / facts.num_train


def _macs(image_size: int) -> float:
    """Multiply-accumulates of vit_compact's forward pass, from its width of 192, depth of 8 and MLP ratio of 2."""
    tokens = (image_size / patch_for(image_size)) ** 2
    return 8 * (8 * 192**2 * tokens + 2 * 192 * tokens**2)


def patch_for(image_size: int) -> int:
    """Pixels of the patches that fit an image size where a name settles none; a test holds them against the models'."""
    return 16 if image_size > 112 else 8 if image_size > 48 else 4 if image_size > 12 else 2


def data_batch(facts: DataFacts) -> int:
    """Enough steps in an epoch to learn from few images, enough images in a step to keep the processor busy."""
    if facts.device == "cuda":
        return 256 if facts.num_train >= 20_000 else 128
    return 128 if facts.num_train >= 20_000 else 64 if facts.num_train >= 1_000 else 32


def root_scaled(rate: float, batch: int, at: int) -> float:
    """A learning rate found at a batch of `at` images, for one of `batch`, by the square-root rule of adaptive optimisers."""
    return round(rate * math.sqrt(batch / at), 7)
