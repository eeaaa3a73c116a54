"""Hugging Face transformers' `config.json` of a plain ViT as arguments of ours.

transformers itself is not needed: defaults are those of its release 5. The way back is `models.foreign.huggingface_folder`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vitreous.errors import WeightsError
from vitreous.models.layers.patch import pair
from vitreous.models.resample import Convention

_VIT = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
}
_DINOV2 = {key: value for key, value in _VIT.items() if key != "intermediate_size"} | {
    "layer_norm_eps": 1e-6,
    "patch_size": 14,
    "mlp_ratio": 4,
    "layerscale_value": 1.0,
    "use_swiglu_ffn": False,
}
_SIGLIP = {key: value for key, value in _VIT.items() if key != "qkv_bias"} | {
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": True,
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "vit": _VIT,
    "deit": _VIT,
    "vit_mae": _VIT,
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2 | {"patch_size": 16, "num_register_tokens": 4},
    "dinov3_vit": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "image_size": 224,
        "patch_size": 16,
        "num_channels": 3,
        "query_bias": True,
        "key_bias": False,
        "value_bias": True,
        "proj_bias": True,
        "mlp_bias": True,
        "layerscale_value": 1.0,
        "use_gated_mlp": False,
        "num_register_tokens": 0,
        "rope_theta": 100.0,
    },
    "siglip_vision_model": _SIGLIP,
    "siglip2_vision_model": _SIGLIP | {"num_patches": 256},
}
"""{model type: what a key that `config.json` leaves out means}. What only matters in training is not listed."""

_TEXT_PAIRS = {"siglip": "siglip_vision_model", "siglip2": "siglip2_vision_model"}
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}


def huggingface_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `VisionTransformer` that compute what the model of a `config.json` computes; defaults are left out.

    The classifier is that of the architecture named there. A model without one has no head here, and its features are what
    theirs calls `pooler_output`, except that the tanh layer of `ViTModel` and `DeiTModel` is left out.
    A DINOv2 classifier reads [CLS] beside the mean of the patches, a SigLIP classifier the mean alone.

    Raises WeightsError for a model that is not a plain ViT, naming those that are.
    """
    kind, settings = settings_of(config)
    num_classes, classifier = classes_of(config)
    heads, width = settings["num_attention_heads"], settings["hidden_size"]
    hidden_dim, gated = hidden_dim_of(kind, settings)
    patch_size = pair(settings["patch_size"])
    if kind == "siglip2_vision_model":
        side = math.isqrt(settings["num_patches"])
        image_size = (side * patch_size[0], side * patch_size[1])
    else:
        image_size = pair(settings["image_size"])
    found: dict[str, Any] = {
        "image_size": list(image_size),
        "patch_size": list(patch_size),
        "num_classes": num_classes,
        "in_chans": settings["num_channels"],
        "embed_dim": width,
        "depth": settings["num_hidden_layers"],
        "num_heads": heads,
        "mlp_ratio": hidden_dim / width,
    }
    if gated:
        found["mlp"] = "swiglu"
    activation = "silu" if gated and kind != "dinov3_vit" else _activation(settings["hidden_act"])
    if activation != ("silu" if gated else "gelu"):
        found["activation"] = activation
    if settings["layer_norm_eps"] != 1e-6:
        found["norm_eps"] = settings["layer_norm_eps"]
    if settings.get("num_register_tokens"):
        found["num_registers"] = settings["num_register_tokens"]
    if "layerscale_value" in settings:
        found["layer_scale"] = settings["layerscale_value"]
    return found | _tokens(kind, classifier) | _biases(kind, settings) | _readout(kind, settings, num_classes)


def huggingface_convention(config: Mapping[str, Any]) -> Convention:
    """How the model of a `config.json` resamples its positions (`models.resample.resample_positions`).

    "dinov2_hf" is bicubic without antialiasing, as all of theirs do it but DINOv2 with registers.
    """
    return "dinov2_reg" if settings_of(config)[0] == "dinov2_with_registers" else "dinov2_hf"


def settings_of(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(model type, its settings with those that were left out) of an image encoder, alone or beside a text encoder."""
    kind = config.get("model_type")
    if kind in _TEXT_PAIRS:
        kind, config = _TEXT_PAIRS[kind], config.get("vision_config") or {}
    if kind not in DEFAULTS:
        known = ", ".join(sorted([*DEFAULTS, *_TEXT_PAIRS]))
        raise WeightsError(f"The model type {kind!r} is not a plain Vision Transformer.", f"Known: {known}.")
    return kind, DEFAULTS[kind] | {key: value for key, value in config.items() if value is not None}


def classes_of(config: Mapping[str, Any]) -> tuple[int, str]:
    """(number of classes, name of the classifier); (0, "") for a model without one."""
    architectures = config.get("architectures") or []
    classifier = next((name for name in architectures if "ForImageClassification" in name), "")
    labels = config.get("id2label")
    if not classifier and (architectures or not labels):
        return 0, ""
    # Their files leave out the labels when there are two that nobody named.
    return int(config.get("num_labels") or len(labels or ()) or 2), classifier


def hidden_dim_of(kind: str, settings: Mapping[str, Any]) -> tuple[int, bool]:
    """(width of the hidden layer, whether it is gated)."""
    if not kind.startswith("dinov2"):
        return settings["intermediate_size"], bool(settings.get("use_gated_mlp"))
    gated = bool(settings["use_swiglu_ffn"])
    return dinov2_hidden_dim(settings["hidden_size"], settings["mlp_ratio"], gated), gated


def dinov2_hidden_dim(width: int, ratio: float, gated: bool) -> int:
    """Of a gated MLP two thirds, rounded up to a multiple of 8, so that it has the parameters of one without a gate."""
    hidden_dim = int(width * ratio)
    return (int(hidden_dim * 2 / 3) + 7) // 8 * 8 if gated else hidden_dim


def _activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise WeightsError(f"The activation {name!r} has no counterpart here.", f"Known: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def _tokens(kind: str, classifier: str) -> dict[str, Any]:
    if kind.startswith("siglip"):
        return {"class_token": False}
    if kind == "dinov3_vit":
        return {"positions": "none", "rope": "axial"}
    if kind == "deit":
        # Their classifier without a teacher carries the distillation token and does not read it: a register.
        unread = classifier and not classifier.endswith("WithTeacher")
        return {"num_registers": 1} if unread else {"distillation_token": True}
    return {}


def _biases(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if kind != "dinov3_vit":
        return {"qkv_bias": False} if not settings.get("qkv_bias", True) else found
    if settings["rope_theta"] != 100.0:
        found["rope_theta"] = float(settings["rope_theta"])
    present = tuple(bool(settings[f"{name}_bias"]) for name in ("query", "key", "value"))
    # Any other choice is all three, with zeros for those that are missing.
    if present == (True, False, True):
        found["qkv_bias"] = "qv"
    elif not any(present):
        found["qkv_bias"] = False
    if not settings["proj_bias"] and not settings["mlp_bias"]:
        found["bias"] = False
    return found


def _readout(kind: str, settings: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    if kind.startswith("siglip"):
        return {"pooling": "attention" if settings["vision_use_head"] and not num_classes else "mean"}
    return {"pooling": "cls_mean"} if kind.startswith("dinov2") and num_classes else {}
