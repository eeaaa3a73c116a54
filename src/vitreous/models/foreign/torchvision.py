"""torchvision's `vit_*` as ours: arguments read off the module, and its names and shapes. Mapping only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from vitreous.errors import WeightsError, unknown_name
from vitreous.models.weights import State

NAMES = ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")

_RENAMED: tuple[tuple[str, str], ...] = (
    (r"^conv_proj\.", "patch_embedding.projection."),
    (r"^encoder\.pos_embedding$", "position_embedding"),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_1\.", ".attention_norm."),
    (r"\.ln_2\.", ".mlp_norm."),
    (r"\.self_attention\.in_proj_", ".attention.qkv."),
    (r"\.self_attention\.out_proj\.", ".attention.projection."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.expand."),  # linear_1 and linear_2 in files of before 2022
    (r"\.mlp\.(3|linear_2)\.", ".mlp.contract."),
)
"""torchvision's names as patterns; each name is changed by all that match, in this order."""


def torchvision_arguments(model: str | nn.Module) -> dict[str, Any]:
    """Arguments of `VisionTransformer` for a torchvision model, or for the name of one; defaults are left out.

    Raises WeightsError for a module that is not torchvision's plain ViT, UsageError for an unknown name.
    """
    module: Any = model
    if isinstance(model, str):
        if model not in NAMES:
            raise unknown_name("torchvision model", model, NAMES)
        import torchvision

        with torch.device("meta"):
            module = getattr(torchvision.models, model)()
    if not is_torchvision(names := [name for name, _ in module.named_parameters()]):
        raise WeightsError(f"{type(module).__name__} is not a plain Vision Transformer of torchvision.")
    if "heads.pre_logits.weight" in names:
        raise WeightsError("A tanh layer before the head ('representation_size') has no counterpart here.")
    first = module.encoder.layers[0]
    found: dict[str, Any] = {
        "image_size": [module.image_size, module.image_size],
        "patch_size": [module.patch_size, module.patch_size],
        "num_classes": module.heads.head.out_features if isinstance(module.heads.head, nn.Linear) else 0,
        "in_chans": module.conv_proj.in_channels,
        "embed_dim": module.hidden_dim,
        "depth": len(module.encoder.layers),
        "num_heads": first.num_heads,
        "mlp_ratio": module.mlp_dim / module.hidden_dim,
    }
    if first.ln_1.eps != 1e-6:
        found["norm_eps"] = first.ln_1.eps
    return found


def is_torchvision(names: Iterable[str]) -> bool:
    """Whether the names are torchvision's."""
    return {"conv_proj.weight", "encoder.pos_embedding"} <= set(names)


def from_torchvision(state: State) -> State:
    """torchvision's names and shapes to ours. A tanh layer before the head is left out together with the head."""
    unread = ("heads.",) if "heads.pre_logits.weight" in state else ()
    found: State = {}
    for name, value in state.items():
        if name.startswith(unread):
            continue
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        found[name] = value
    return found
