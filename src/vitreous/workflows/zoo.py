"""`vitreous models`: the named architectures and what they cost, counted on a device that holds no data."""

from __future__ import annotations

from typing import Any

import torch

from vitreous.errors import unknown_name
from vitreous.models.build import architecture, build
from vitreous.models.cost import count_macs, count_parameters
from vitreous.models.presets import VIT_SIZES, known_models, parse_vit
from vitreous.workflows.initial import PRETRAINED

COMPACT_IMAGE = 64
"""Pixels that the sizes made for small images are counted at."""


def list_models(contains: str = "") -> list[dict[str, Any]]:
    """One entry a name: name, image_size, parameters, macs (1,000 classes, 3 channels), pretrained, licence, source.

    Raises UsageError when no name contains the text.
    """
    names = [name for name in known_models() if contains in name]
    if not names:
        raise unknown_name("model", contains, known_models())
    return [_entry(name) for name in names]


def _entry(name: str) -> dict[str, Any]:
    parsed = parse_vit(name)
    small = name.endswith(("_micro", "_compact"))
    size = (parsed.image_size if parsed else None) or (COMPACT_IMAGE if small else 224)
    with torch.device("meta"):
        model = build(architecture(name, num_classes=1000, image_size=size))
    published = PRETRAINED.get(f"vit_{parsed.size}") if parsed and parsed.patch_size in (None, 16) else None
    return {
        "name": name,
        "image_size": size,
        "parameters": count_parameters(model),
        "macs": count_macs(model, (3, size, size)),
        "pretrained": f"timm:{published}" if published else None,
        "licence": "Apache-2.0" if published else None,
        "source": VIT_SIZES[parsed.size].source if parsed else "timm",
    }
