"""Checkpoints as the authors of DINO, DINOv2, DINOv3 and MAE published them, as ours. Mapping only.

All of them grew out of timm's ViT, so their names are brought to timm's and `models.weights` does the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.models.weights import State, from_timm

_CONTAINERS = ("teacher", "model_ema", "model", "state_dict", "module", "student")
"""Keys under which training scripts keep a model; of a student and its moving average, the average is what is evaluated."""

_WRAPPERS = re.compile(r"^((module|_orig_mod|backbone|model|teacher|student)\.)+")

_UNREAD = re.compile(
    r"^(mask_token$|decoder_|rope_embed\.|local_cls_norm\.|(dino_|ibot_)?head\.(mlp|last_layer)\.|(dino|ibot)_head\.)"
    r"|\.bias_mask$"
)
"""Parts for pre-training: the masked patch, MAE's decoder, DINO's projection heads, the norm of local crops, and what is
computed anew (the periods of rotary positions, the mask of biases)."""

_RENAMED: tuple[tuple[str, str], ...] = (
    (r"^(register_tokens|storage_tokens)$", "reg_token"),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # chunks of blocks; the second number counts through all chunks
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
"""Their names as patterns, to timm's."""


def unwrap(loaded: object) -> State:
    """The model's tensors in what a training script saved: a `state_dict()`, or one inside of named containers.

    Raises WeightsError when there are none.
    """
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in _CONTAINERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    named = isinstance(loaded, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    )
    if not named or not loaded:
        raise WeightsError("There is no dictionary of tensors in the checkpoint.", "Save the model's state_dict().")
    return dict(loaded)  # type: ignore[arg-type]


def bare(state: State) -> State:
    """Names without the prefixes of what a model was wrapped in; beside a `backbone`, what is not part of it is left out,
    and beside a `teacher`, the student."""
    for part in ("teacher.", "backbone."):
        inside = [name for name in state if f".{name}".find(f".{part}") >= 0]
        if inside:
            state = {name: state[name] for name in inside}
    return {_WRAPPERS.sub("", name): value for name, value in state.items()}


def is_original(names: Iterable[str]) -> bool:
    """Whether bare names, otherwise timm's, are those of an author's checkpoint."""
    return any(_UNREAD.search(name) or any(re.search(pattern, name) for pattern, _ in _RENAMED) for name in names)


def from_original(state: State) -> State:
    """The authors' names and shapes to ours, without the parts that only pre-training needs.

    Raises WeightsError for a DINOv3 that normalises [CLS] and the patches apart.
    """
    state = bare(state)
    if "cls_norm.weight" in state:
        raise WeightsError(
            "These weights have a norm of their own for [CLS] ('cls_norm'), which has no counterpart here."
        )
    found: State = {}
    for name, value in state.items():
        if _UNREAD.search(name):
            continue
        if name.endswith("attn.qkv.bias"):
            value = _masked(value, state.get(f"{name}_mask"))
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        found[name] = value
    return from_timm(found)


def _masked(bias: Tensor, mask: Tensor | None) -> Tensor:
    """DINOv3 multiplies the bias by a mask that is zero for the keys; what is stored there can be anything, even NaN."""
    return bias if mask is None else torch.where(mask.bool(), bias, torch.zeros_like(bias))
