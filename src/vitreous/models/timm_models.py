"""timm's plain Vision Transformers as arguments of ours, read off the module that timm builds."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from vitreous.errors import WeightsError

MODULES = ("vision_transformer", "deit", "eva")
"""timm's files of plain Vision Transformers."""


@functools.cache
def plain_vits() -> tuple[str, ...]:
    """The names of timm's plain Vision Transformers. Imports timm."""
    import timm

    return tuple(sorted(name for module in MODULES for name in timm.list_models(module=module)))


def timm_arguments(name: str, **changes: Any) -> dict[str, Any]:
    """Arguments of `VisionTransformer` for a timm model, built without memory for its weights.

    changes: what timm's `create_model` takes, such as `img_size`, `in_chans`, `num_classes`.
    Raises WeightsError for a model with a part that is not a plain ViT's.
    """
    import timm

    with torch.device("meta"):
        return arguments_of(timm.create_model(name, **changes))


def arguments_of(model: Any) -> dict[str, Any]:
    """Arguments of `VisionTransformer` that compute what this timm module computes; defaults are left out.

    Raises WeightsError naming the part that is not a plain ViT's.
    """
    kind = type(model).__name__
    if kind not in ("VisionTransformer", "VisionTransformerDistilled", "Eva"):
        raise WeightsError(
            f"timm's {kind} is not a plain Vision Transformer.", "`vitreous models` lists those that are."
        )
    blocks = list(model.blocks)
    patch_size = model.patch_embed.patch_size
    found: dict[str, Any] = {
        # What a strided convolution sees: of 384 pixels and patches of 14 it leaves the last 6 out.
        "image_size": [count * side for count, side in zip(model.patch_embed.grid_size, patch_size, strict=True)],
        "patch_size": list(patch_size),
        "num_classes": model.num_classes,
        "in_chans": model.in_chans,
        "embed_dim": model.embed_dim,
        "depth": len(blocks),
    }
    found |= _tokens(model) | _block(blocks[0]) | _readout(model) | _norms(model) | _rope(model)
    return found


def _present(module: object) -> bool:
    return module is not None and not isinstance(module, nn.Identity)


def _tokens(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    has_class = model.cls_token is not None
    if not has_class:
        found["class_token"] = False
    if getattr(model, "dist_token", None) is not None:
        found["distillation_token"] = True
    if model.reg_token is not None:
        found["num_registers"] = model.reg_token.shape[1]
    if model.pos_embed is None:
        found["positions"] = "none"
    elif has_class and model.no_embed_class:
        found["class_position"] = False
    if model.patch_embed.proj.bias is None:
        found["patch_bias"] = False
    if _present(model.patch_embed.norm):
        found["patch_norm"] = True
    return found


def _norms(model: Any) -> dict[str, Any]:
    first = model.blocks[0]
    norm: Any = next(getattr(first, name) for name in ("norm1", "in_norm", "attns") if hasattr(first, name))
    norm = norm if not isinstance(norm, nn.ModuleList) else norm[0].norm
    found: dict[str, Any] = {}
    if "Rms" in type(norm).__name__:
        found["norm"] = "rms"
    if norm.eps != 1e-6:
        found["norm_eps"] = norm.eps
    if _present(model.norm_pre):
        found["input_norm"] = True
    if _present(model.fc_norm):
        found["output_norm"] = "pooled"
    elif not _present(model.norm):
        found["output_norm"] = "none"
    return found


def _readout(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if model.attn_pool is not None:
        if type(model.attn_pool).__name__ != "AttentionPoolLatent":
            raise WeightsError(f"{type(model.attn_pool).__name__} is a pooling that only timm has.")
        width = model.attn_pool.mlp.fc1.out_features
        found = {
            "pooling": "attention",
            "pool_heads": model.attn_pool.num_heads,
            "pool_mlp_ratio": width / model.embed_dim,
        }
    elif model.global_pool == "avg":
        found["pooling"] = "mean"
    elif model.global_pool != "token":
        raise WeightsError(f"timm's pooling {model.global_pool!r} has no counterpart here.")
    # timm's two classes differ here: attention pooling of `Eva` always sees every token.
    if getattr(model, "pool_include_prefix", type(model).__name__ == "Eva" and model.attn_pool is not None):
        found["pool_prefix"] = True
    return found


def _block(block: Any) -> dict[str, Any]:
    kind = type(block).__name__
    found: dict[str, Any] = {}
    if kind in ("ParallelScalingBlock", "DiffParallelScalingBlock"):
        found |= {"block": "parallel", "num_heads": block.num_heads}
        found |= {"mlp_ratio": block.in_split[0] / block.in_split[1], "qkv_bias": block.in_proj.bias is not None}
        attention, scales, mlp = block, (block.ls,), None
        activation = block.mlp_act
    else:
        if kind == "ParallelThingsBlock":
            found["block"] = "branched"
            attention, mlp = block.attns[0].attn, block.ffns[0].mlp
            scales = (block.attns[0].ls, block.ffns[0].ls)
        else:
            if kind in ("ResPostBlock", "EvaBlockPostNorm"):
                found["block"] = "post_norm"
            attention, mlp = block.attn, block.mlp
            scales = tuple(
                getattr(block, name, None)
                for name in (("gamma_1", "gamma_2") if hasattr(block, "gamma_1") else ("ls1", "ls2"))
            )
        of_attention, of_mlp = _attention(attention), _mlp(mlp)
        parts = of_attention.pop("sub_norm", []) + of_mlp.pop("sub_norm", [])
        found |= {"num_heads": attention.num_heads, **of_attention, **of_mlp}
        if parts:
            found["sub_norm"] = parts
        activation = mlp.act
    default = "silu" if found.get("mlp") == "swiglu" else "gelu"
    name = _activation(activation)
    if name != default:
        found["activation"] = name
    if "Diff" in kind or type(attention).__name__ == "DiffAttention":
        found["differential"] = True
    if _present(attention.q_norm):
        found["qk_norm"] = True
    if any(map(_present, scales)):
        found["layer_scale"] = 1e-5
        if len(scales) == 2 and not _present(scales[1]):
            found["layer_scale_on"] = ["attention"]
    return found


def _attention(attention: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if getattr(attention, "gate", None) is not None:
        raise WeightsError("Gated attention has no counterpart here.")
    separate = getattr(attention, "q_proj", None)
    if getattr(attention, "q_bias", None) is not None or (
        separate is not None and separate.bias is not None and attention.k_proj.bias is None
    ):
        found["qkv_bias"] = "qv"
    elif (separate if separate is not None else attention.qkv).bias is None:
        found["qkv_bias"] = False
    if attention.proj.bias is None:
        found["bias"] = False
    if _present(attention.norm):
        found["sub_norm"] = ["attention"]
    return found


def _mlp(mlp: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"mlp_ratio": mlp.fc2.in_features / mlp.fc2.out_features}
    if type(mlp).__name__ in ("GluMlp", "SwiGLU"):
        found["mlp"] = "swiglu"
        if getattr(mlp, "gate_last", False):
            raise WeightsError("A gate after its value has no counterpart here.")
    if _present(mlp.norm):
        found["sub_norm"] = ["mlp"]
    return found


def _activation(module: nn.Module) -> str:
    if isinstance(module, nn.GELU):
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    known = {"GELUTanh": "gelu_tanh", "GELU": "gelu", "QuickGELU": "quick_gelu", "SiLU": "silu", "ReLU": "relu"}
    if type(module).__name__ not in known:
        raise WeightsError(f"The activation {type(module).__name__} has no counterpart here.")
    return known[type(module).__name__]


def _rope(model: Any) -> dict[str, Any]:
    rope = getattr(model, "rope", None)
    if rope is None:
        return {}
    kind = type(rope).__name__
    found: dict[str, Any] = {"rope": "axial", "rope_theta": float(rope.temperature)}
    if kind == "RotaryEmbeddingMixed":
        found |= {"rope": "mixed", "rope_layout": "interleaved", "rope_coordinates": "index"}
    elif kind in ("RotaryEmbeddingCat", "RotaryEmbeddingDinoV3"):
        found["rope_layout"] = "half" if rope.rotate_half else "interleaved"
        if rope.grid_offset:
            found["rope_offset"] = float(rope.grid_offset)
        if kind == "RotaryEmbeddingCat":
            found["rope_coordinates"] = "index"
            if rope.ref_feat_shape is not None:
                found["rope_reference"] = list(rope.ref_feat_shape)
    else:
        raise WeightsError(f"timm's {kind} has no counterpart here.")
    if rope.grid_indexing == "xy":
        found["rope_axes"] = "xy"
    return found
