"""Every plain Vision Transformer that timm lists, beside ours with the same random weights. Shared by the test that walks
them all and by benchmarks/parity.py, which prints the table.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from vitreous.models import VisionTransformer
from vitreous.models.fit import load_into
from vitreous.models.timm_models import MODULES, arguments_of, plain_vits
from vitreous.models.weights import from_timm, to_timm

TOLERANCE = 1e-5
"""Largest difference of tokens or logits, relative to the largest number of the reference."""

LEFT_OUT = {
    "vision_transformer_hybrid": "its patches come from a ResNet",
    "vision_transformer_relpos": "attention has a learned bias for relative positions",
    "vision_transformer_sam": "attention is windowed, with relative positions",
    "beit": "attention has a learned bias for relative positions",
    "naflexvit": "takes sequences of patches of any shape; the same weights at one shape are the vit_ models' ",
    "vitamin": "its patches come from convolutional stages",
    "cait": "class attention in separate blocks at the end",
}
"""timm's files whose models look like plain ViTs by name and are not, and why."""

_POOL = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
"""Numbers to fill weights with, of a prime length so that rows differ: much faster than drawing billions."""


@dataclass(frozen=True)
class Case:
    """One entry point: timm's module, ours, and images for both."""

    name: str
    theirs: Any
    ours: VisionTransformer
    images: Tensor
    depth: tuple[int, int]
    """Blocks built, and blocks of the model itself."""
    notes: tuple[str, ...]

    @torch.inference_mode()
    def difference(self) -> float:
        """The larger of the relative differences of tokens and of logits."""
        ours, theirs = self.ours.forward_features(self.images), self.theirs.forward_features(self.images)
        logits = relative(self.ours.head(self.ours.pool(ours)), self.theirs.forward_head(theirs))
        return max(relative(ours, theirs), logits)

    @torch.inference_mode()
    def difference_back(self) -> float:
        """The same of timm's weights before and after they came back from ours: the largest of all tensors, except where
        ours folds positions into tokens, which only their sum shows."""
        before = {name: value.clone() for name, value in self.theirs.state_dict().items()}
        back = to_timm(dict(self.ours.state_dict()), before)
        folded = {"pos_embed", "cls_token", "dist_token", "reg_token"}
        same = max(
            float((back[name] - value).abs().max() / value.abs().max().clamp(min=1e-12))
            for name, value in before.items()
            if name not in folded and not name.endswith("out_proj.bias")
        )
        self.theirs.load_state_dict(back)
        prefix = self.theirs._pos_embed(self.theirs.patch_embed(self.images))
        self.theirs.load_state_dict(before)
        placed = self.theirs._pos_embed(self.theirs.patch_embed(self.images))
        if isinstance(placed, tuple):  # timm's Eva returns rotary tables beside the tokens
            prefix, placed = prefix[0], placed[0]
        return max(same, relative(prefix, placed))


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.01 * theirs.abs().max(), "a reference that is all but constant proves nothing"
    return float((ours - theirs).abs().max() / theirs.abs().max())


def case(name: str, *, depth: int = 0, side: int = 0) -> Case:
    """depth: blocks to build at most, 0 for all of them; side: patches along an image's side, 0 for the published size."""
    theirs, blocks = _skeleton(name, depth, side)
    theirs = theirs.to_empty(device="cpu").eval()
    for module in theirs.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
    fill(theirs)
    with torch.device("meta"):
        ours = VisionTransformer(**arguments_of(theirs))
    ours = ours.to_empty(device="cpu").eval()
    notes = load_into(ours, from_timm(dict(theirs.state_dict())), name)
    height, width = theirs.patch_embed.img_size
    images = _POOL.repeat(-(-3 * height * width // len(_POOL)))[: 3 * height * width].reshape(1, 3, height, width)
    images = images[..., : ours.image_size[0], : ours.image_size[1]]
    if ours.image_size != tuple(theirs.patch_embed.img_size):  # timm's convolution leaves the last pixels out
        theirs.patch_embed.img_size = ours.image_size
    return Case(name, theirs, ours, images, (len(theirs.blocks), blocks), notes)


def signature(name: str, *, depth: int = 0, side: int = 0) -> str:
    """Everything that decides what timm's module and ours compute, as text: two names of one signature are one test."""
    theirs, _ = _skeleton(name, depth, side)
    flags = {key: value for key, value in vars(theirs).items() if isinstance(value, bool | int | float | str)}
    shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    return f"{type(theirs)} {theirs} {flags} {shapes} {sorted(arguments_of(theirs).items(), key=str)}"


def _skeleton(name: str, depth: int, side: int) -> tuple[Any, int]:
    """timm's module without memory, and how many blocks the whole model has."""
    with torch.device("meta"):
        whole: Any = create(name)
    blocks = len(whole.blocks)
    changes: dict[str, Any] = {"num_classes": 7}
    if side:
        ph, pw = whole.patch_embed.patch_size
        changes["img_size"] = (side * ph, side * pw)
    if depth and depth < blocks:
        changes["depth"] = depth
        heads = [getattr(block.attn, "num_kv_heads", None) for block in whole.blocks if hasattr(block, "attn")]
        if any(heads):  # grouped-query attention, in some models of the middle blocks only: keep one of each kind
            changes["num_kv_heads"] = tuple(([heads[0], heads[blocks // 2]] * depth)[:depth])
    with torch.device("meta"):
        return create(name, **changes), blocks


def fill(model: nn.Module) -> None:
    """Random weights everywhere, also where training starts from zero, one or 1e-5: a forgotten tensor must show."""
    start = 0
    # A norm after a branch is that branch's scale. At 1 the residual stream grows until softmax saturates, and then timm's own
    # tokens in float32 are as far from its float64 as ours are, 1.2e-5 for vit_base_patch16_rpn_224.
    posts: list[Any] = [block for block in model.modules() if "Post" in type(block).__name__]
    scales = {id(norm.weight) for block in posts for norm in (block.norm1, block.norm2)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            count = parameter.numel()
            start = (start + 7919) % len(_POOL)
            noise = _POOL.roll(-start).repeat(-(-count // len(_POOL)))[:count].reshape(parameter.shape)
            if parameter.ndim == 1 and name.endswith("weight") and id(parameter) not in scales:  # of a norm
                parameter.copy_(1 + 0.2 * noise)
            elif "gamma" in name or id(parameter) in scales:
                parameter.copy_(0.5 + 0.2 * noise)
            elif parameter.ndim >= 2 and name.endswith("weight"):
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                parameter.copy_((0.1 if parameter.ndim == 1 else 0.3) * noise)


def left_out() -> dict[str, str]:
    """{name: reason} for the models of timm named like plain ViTs that are not."""
    return {name: why for module, why in LEFT_OUT.items() for name in timm.list_models(module=module)}


def create(name: str, **changes: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's initialisers warn of tensors without memory
        return timm.create_model(name, **changes)


__all__ = [
    "LEFT_OUT",
    "MODULES",
    "TOLERANCE",
    "Case",
    "case",
    "create",
    "fill",
    "left_out",
    "plain_vits",
    "relative",
    "signature",
]
