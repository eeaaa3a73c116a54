"""Hugging Face transformers' names, shapes and settings of a plain ViT as ours, and ours as theirs. Mapping only.

Their tensors are known by name alone, in the names of files (and of transformers 4) as well as in those that models have
inside transformers 5. Where their parts and ours are not one to one, a part that is missing on one side is written so that
it computes nothing: zeros for a bias or a position, ones for LayerScale. A part that has no such counterpart is refused.
Their configurations are `models.huggingface_config`'s and `models.foreign.huggingface_folder`'s.

Shapes: c channels, ph pw patch in pixels, d width, k classes, n positions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.models.weights import State

_PREFIXES = re.compile(r"^(vit|deit|dinov2|dinov2_with_registers|vision_model|model)\.")
_LAYER = re.compile(r"^(?:encoder\.|model\.)?layers?\.(\d+)\.(.+)\.(\w+)$")

_MODULES: dict[str, tuple[str, int]] = {
    "layernorm_before": ("attention_norm", 0),
    "norm1": ("attention_norm", 0),
    "layer_norm1": ("attention_norm", 0),
    "attention.attention.query": ("attention.qkv", 0),
    "attention.attention.key": ("attention.qkv", 1),
    "attention.attention.value": ("attention.qkv", 2),
    "attention.q_proj": ("attention.qkv", 0),
    "attention.k_proj": ("attention.qkv", 1),
    "attention.v_proj": ("attention.qkv", 2),
    "self_attn.q_proj": ("attention.qkv", 0),
    "self_attn.k_proj": ("attention.qkv", 1),
    "self_attn.v_proj": ("attention.qkv", 2),
    "attention.output.dense": ("attention.projection", 0),
    "attention.o_proj": ("attention.projection", 0),
    "self_attn.out_proj": ("attention.projection", 0),
    "layer_scale1": ("attention_scale", 0),
    "layernorm_after": ("mlp_norm", 0),
    "norm2": ("mlp_norm", 0),
    "layer_norm2": ("mlp_norm", 0),
    "intermediate.dense": ("mlp.expand", 0),
    "mlp.fc1": ("mlp.expand", 0),
    "mlp.weights_in": ("mlp.expand", 0),
    "mlp.gate_proj": ("mlp.expand", 0),
    "mlp.up_proj": ("mlp.expand", 1),
    "output.dense": ("mlp.contract", 0),
    "mlp.fc2": ("mlp.contract", 0),
    "mlp.weights_out": ("mlp.contract", 0),
    "mlp.down_proj": ("mlp.contract", 0),
    "layer_scale2": ("mlp_scale", 0),
}
"""{module of a layer of theirs: (of a block of ours, which of the parts that ours stacks)}."""

_PATCHES, _POSITIONS = "patch_embedding.projection.weight", "position_embedding"

_RENAMED: tuple[tuple[str, str], ...] = (
    (r"^embeddings\.cls_token$", "class_token"),
    (r"^embeddings\.distillation_token$", "distillation_token"),
    (r"^embeddings\.register_tokens$", "registers"),
    (r"^embeddings\.position_embeddings?(\.weight)?$", _POSITIONS),
    (r"^embeddings\.patch_embeddings?(\.projection)?\.(weight|bias)$", r"patch_embedding.projection.\2"),
    (r"^(layernorm|norm|post_layernorm)\.", "norm."),
    (r"^head\.probe$", "pooler.probe"),
    (r"^head\.attention\.in_proj_", "pooler.in_projection."),
    (r"^head\.attention\.out_proj\.", "pooler.projection."),
    (r"^head\.layernorm\.", "pooler.norm."),
    (r"^head\.mlp\.fc1\.", "pooler.mlp.expand."),
    (r"^head\.mlp\.fc2\.", "pooler.mlp.contract."),
    (r"^classifier\.", "head."),
    (r"^cls_classifier\.", "head.label."),
    (r"^distillation_classifier\.", "head.teacher."),
)
"""The rest of their names as patterns; what none matches is no part of a plain ViT."""

_UNREAD = re.compile(
    r"^(embeddings\.(mask_token|position_ids)$|pooler\.|decoder|text_model\.|logit_(scale|bias)$|rope_embeddings\.)"
)
"""Parts for pre-training, of a text encoder, and the tanh layer over [CLS] that their image classifiers leave out too."""


def from_huggingface(state: State, config: Mapping[str, Any] | None = None) -> State:
    """Their names and shapes to ours; of a SigLIP with a text encoder, the vision encoder.

    config: a `config.json`, asked only for `num_channels` of SigLIP 2, whose patch projection is a matrix.
    `DeiTForImageClassification` carries a distillation token that its head does not read: here that is a register.

    Raises WeightsError naming a tensor that is no part of a plain ViT.
    """
    parts: dict[str, dict[int, Tensor]] = {}
    for name, value in state.items():
        place = _place(name)
        if place is not None and value.numel():  # a model without registers holds an empty tensor of them
            parts.setdefault(place[0], {})[place[1]] = value
    found = {name: _joined(name, pieces) for name, pieces in parts.items()}
    _fill_biases(found)
    if _PATCHES in found and found[_PATCHES].ndim == 2:
        settings = config or {}
        channels = int((settings.get("vision_config") or settings).get("num_channels", 3))
        side = math.isqrt(found[_PATCHES].shape[1] // channels)
        found[_PATCHES] = rearrange(found[_PATCHES], "d (ph pw c) -> d c ph pw", ph=side, pw=side)
    if _POSITIONS in found and found[_POSITIONS].ndim == 2:
        found[_POSITIONS] = found[_POSITIONS][None]
    if "distillation_token" in found and "head.weight" in found:
        positions = found[_POSITIONS]
        found["registers"] = found.pop("distillation_token") + positions[:, 1:2]
        found[_POSITIONS] = torch.cat([positions[:, :1], positions[:, 2:]], dim=1)
    for leaf in ("weight", "bias"):
        if f"pooler.in_projection.{leaf}" in found:
            stacked = found.pop(f"pooler.in_projection.{leaf}")
            width = stacked.shape[0] // 3
            found[f"pooler.query.{leaf}"], found[f"pooler.key_value.{leaf}"] = stacked[:width], stacked[width:]
    if "head.weight" in found:  # their SigLIP classifier reads the mean of the patches and leaves the pooling unread
        found = {name: value for name, value in found.items() if not name.startswith("pooler.")}
    return found


def to_huggingface(state: State, like: Mapping[str, Tensor]) -> State:
    """Our weights under the names and in the shapes of `like`: the `state_dict()` of a model of theirs, or what
    `huggingface_folder.huggingface_like` says that a file of theirs holds.

    Raises WeightsError for a part that is on one side only and computes something.
    """
    ours = _joined_for_theirs(state, like)
    places = {name: _place(name) for name in like}
    ranks: dict[str, set[int]] = {}
    for place in places.values():
        if place is not None:
            ranks.setdefault(place[0], set()).add(place[1])
    found: State = {}
    for name, wanted in like.items():
        place = places[name]
        if not math.prod(wanted.shape) or _is_unread(name, place, like):
            found[name] = torch.zeros(wanted.shape)
            continue
        if place is None:
            hint = "Build theirs with add_pooling_layer=False." if "pooler." in name else ""
            raise WeightsError(f"{name!r} has no counterpart here.", hint)
        target, rank = place
        value = ours.get(target)
        if value is None:
            value = _neutral(target, wanted, name)
        else:
            total = 3 if target.split(".")[-2:-1] == ["qkv"] else len(ranks[target])
            value = value.chunk(total)[rank if total == 3 else sorted(ranks[target]).index(rank)]
        found[name] = _shaped(target, value, wanted, name)
    _check_nothing_lost(ours, ranks)
    return found


def _place(name: str) -> tuple[str, int] | None:
    """(name of ours, which of its parts) for a name of theirs; None for what no classifier reads. Raises WeightsError."""
    if name.startswith("text_model."):
        return None
    bare = _PREFIXES.sub("", name)
    if layer := _LAYER.match(bare):
        number, module, leaf = layer.groups()
        if module in _MODULES:
            target, rank = _MODULES[module]
            return f"blocks.{number}.{target}.{'gamma' if leaf == 'lambda1' else leaf}", rank
    if _UNREAD.match(bare):
        return None
    for pattern, replacement in _RENAMED:
        if re.match(pattern, bare):
            return re.sub(pattern, replacement, bare), 0
    raise WeightsError(
        f"{name!r} is no part of a plain ViT of Hugging Face transformers.", "Pass other weights to --init."
    )


def _is_unread(name: str, place: tuple[str, int] | None, like: Mapping[str, Tensor]) -> bool:
    """Whether no logit depends on a tensor of theirs: the mask token, and SigLIP's pooling beside a classifier."""
    if place is None:
        return name.endswith("embeddings.mask_token")
    return place[0].startswith("pooler.") and "classifier.weight" in like


def _joined(name: str, pieces: dict[int, Tensor]) -> Tensor:
    """Parts stacked in order; a bias that query, key or value lacks is zero."""
    if ".qkv." in name and len(pieces) < 3:
        zeros = torch.zeros_like(next(iter(pieces.values())))
        pieces = {rank: pieces.get(rank, zeros) for rank in range(3)}
    return torch.cat([pieces[rank] for rank in sorted(pieces)]) if len(pieces) > 1 else next(iter(pieces.values()))


def _fill_biases(found: State) -> None:
    """DINOv3 can have biases in its MLP only, or in its projection only. Ours has both or neither: the others are zero."""
    linear = re.compile(r"^blocks\.\d+\.(attention\.projection|mlp\.expand|mlp\.contract)\.(weight|bias)$")
    names = [name for name in found if linear.match(name)]
    if any(name.endswith("bias") for name in names):
        for name in names:
            if name.endswith("weight"):
                found.setdefault(name[:-6] + "bias", found[name].new_zeros(found[name].shape[0]))


def _joined_for_theirs(state: State, like: Mapping[str, Tensor]) -> State:
    """Our state with the pooling's projections stacked and an unread distillation token made from a register."""
    ours = dict(state)
    for leaf in ("weight", "bias"):
        if f"pooler.query.{leaf}" in ours:
            stacked = torch.cat([ours.pop(f"pooler.query.{leaf}"), ours.pop(f"pooler.key_value.{leaf}")])
            ours[f"pooler.in_projection.{leaf}"] = stacked
    wants_distillation = any(name.endswith("embeddings.distillation_token") for name in like)
    if wants_distillation and "distillation_token" not in ours and "registers" in ours:
        ours["distillation_token"] = ours.pop("registers")
        positions = ours[_POSITIONS]
        wanted = next(value for name, value in like.items() if name.endswith("embeddings.position_embeddings"))
        placed = positions.shape[1] - (wanted.shape[1] - 2)  # [CLS] has a position of its own, or none
        zero = positions.new_zeros(1, 1, positions.shape[2])
        ours[_POSITIONS] = torch.cat([positions[:, :placed], zero, positions[:, placed:]], dim=1)
    return ours


def _neutral(target: str, wanted: Tensor, name: str) -> Tensor:
    """What computes nothing in place of a part that ours lacks."""
    if target.endswith(".gamma"):
        return torch.ones(wanted.shape)
    if target.endswith(".bias") and target.startswith("blocks.") and "_norm." not in target:
        return torch.zeros(wanted.shape)
    raise WeightsError(f"Theirs has {name!r}, which these weights lack ({target!r}).")


def _shaped(target: str, value: Tensor, wanted: Tensor, name: str) -> Tensor:
    if target == _PATCHES and wanted.ndim == 2:  # SigLIP 2
        side = math.isqrt(value.shape[1] // (1 if math.isqrt(value.shape[1]) ** 2 == value.shape[1] else 3))
        value = rearrange(value, "d (c ph pw) -> d (ph pw c)", ph=side, pw=side)
    if target == _POSITIONS and wanted.ndim == 3 and value.shape[1] < wanted.shape[1]:
        value = torch.cat([value.new_zeros(1, wanted.shape[1] - value.shape[1], value.shape[2]), value], dim=1)
    if target == "head.weight" and wanted.shape[1] == 2 * value.shape[1]:
        value = torch.cat([value, torch.zeros_like(value)], dim=1)  # DINOv2: [CLS], and a mean that is not read
    if value.numel() != math.prod(wanted.shape):
        raise WeightsError(f"{name!r} has shape {tuple(wanted.shape)} in theirs and {tuple(value.shape)} in ours.")
    return value.reshape(wanted.shape)


def _check_nothing_lost(ours: State, ranks: dict[str, set[int]]) -> None:
    for name, value in ours.items():
        if name in ranks:
            if ".qkv." in name and len(ranks[name]) < 3:
                value = torch.cat([part for rank, part in enumerate(value.chunk(3)) if rank not in ranks[name]])
            else:
                continue
        if not (name.endswith(".bias") and name.startswith("blocks.") and not value.any()):
            raise WeightsError(f"Theirs has no part for {name!r}.")
