"""`vitreous models`: the named architectures and what they cost, counted on a device that holds no data."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from vitreous.errors import unknown_name
from vitreous.models.build import architecture, build, default_image_size, is_vit, timm_models
from vitreous.models.cost import count_macs, count_parameters, vit_macs
from vitreous.models.cost.memory import outside_closed_form, vit_memory
from vitreous.models.cost.numbers import ViTNumbers
from vitreous.models.fetch import Published, published
from vitreous.models.presets import CNN_BASELINES, PRESETS, full_name, known_models, parse_vit
from vitreous.models.vit import VisionTransformer
from vitreous.workflows.reporter import Reporter, Silent


def list_models(
    contains: str = "", *, everything: bool = False, reporter: Reporter | None = None
) -> list[dict[str, Any]]:
    """One entry a name: name, image_size, parameters, macs (1,000 classes, 3 channels), activation_bytes (one image in fp32:
    inference, training, training_checkpointed), pretrained (timm's default tag), licence (its), tags, source.

    Without a text, families and baselines. A text that no name contains is looked for in their sources and tags, then among
    all names of timm. everything: also the other models of timm that can be built here, a thousand, which takes minutes.
    Raises UsageError when nothing contains the text.
    """
    names = known_models() if contains or everything else [*PRESETS, *CNN_BASELINES]
    chosen = [name for name in names if contains in name]
    if not chosen:
        chosen = [name for name in names if _mentions(name, contains)]
    if everything or not chosen:
        chosen += [name for name in timm_models() if contains in name and name not in chosen]
    if not chosen:
        raise unknown_name("model", contains, [*names, *timm_models()])
    entries = []
    with (reporter or Silent()).task("counting", "models") as progress:
        for name in chosen:
            entries.append(_entry(name))
            progress.update(len(entries), len(chosen))
    return entries


def _mentions(name: str, text: str) -> bool:
    """Whether a model's source or published tags contain the text, such as sbb, siglip2 or augreg."""
    parsed = parse_vit(name)
    source = parsed.preset.source.lower().replace(" ", "") if parsed else ""
    return text.lower() in source or any(text in tag.name for tag in _tags(name))


def _entry(name: str) -> dict[str, Any]:
    found = architecture(name, num_classes=1000)
    with torch.device("meta"):
        model = build(found)
    size = found.arguments["image_size"][0] if found.family == "vit" else default_image_size(name)
    tags, parsed = _tags(name), parse_vit(name)
    return {
        "name": name,
        "image_size": size,
        "parameters": count_parameters(model),
        "macs": _macs(model, size),
        "activation_bytes": _activations(model),
        "pretrained": f"timm:{tags[0].name}" if tags else None,
        "licence": tags[0].licence if tags else None,
        "tags": [f"timm:{tag.name}" for tag in tags],
        "source": parsed.preset.source if parsed else "timm",
    }


def _macs(model: nn.Module, size: int) -> int | None:
    """Of one image; for Vision Transformers from their numbers, which is the same count in a hundredth of the time. None
    for a model that does not take images of that size, as a few of timm's do not."""
    if isinstance(model, VisionTransformer):
        return sum(vit_macs(ViTNumbers.of(model)).values())
    try:
        return count_macs(model, (3, size, size))
    except (RuntimeError, AssertionError, ValueError):
        return None


def _activations(model: nn.Module) -> dict[str, int | None] | None:
    """Bytes for one image in fp32 on a CPU, for Vision Transformers that the closed form covers; `profile` counts the rest."""
    if not isinstance(model, VisionTransformer):
        return None
    numbers = ViTNumbers.of(model)
    if outside_closed_form(numbers):
        return None
    found = vit_memory(numbers, 1)
    return {
        "inference": found.inference,
        "training": found.training,
        "training_checkpointed": found.training_checkpointed,
    }


def _tags(name: str) -> list[Published]:
    """The checkpoints that timm publishes for exactly this name, or for a family at its published size; its default first."""
    parsed = parse_vit(name)
    if not is_vit(name):
        return []  # no convolutional model can start from weights yet
    if parsed and parsed.patch_size is None:
        if not parsed.preset.published:
            return []
        name = full_name(name)
    tags = [published(full) for full in timm.list_pretrained(f"{name}.*")]
    default = published(name).name if tags else ""
    return sorted(tags, key=lambda tag: tag.name != default)
