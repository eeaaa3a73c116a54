"""Named architectures. Adding one is a line in a table here and a parity test.

Vision Transformers are ours; convolutional baselines are built by timm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vitreous.errors import unknown_name


@dataclass(frozen=True)
class ViTSize:
    """The numbers that a size letter stands for."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    stem: str = "linear"
    pooling: str = "cls"
    source: str = ""


VIT_SIZES: dict[str, ViTSize] = {
    "tiny": ViTSize(192, 12, 3, source="DeiT-Ti, Touvron et al. 2021, arXiv:2012.12877, table 1"),
    "small": ViTSize(384, 12, 6, source="DeiT-S, Touvron et al. 2021, arXiv:2012.12877, table 1"),
    "base": ViTSize(768, 12, 12, source="ViT-B, Dosovitskiy et al. 2021, arXiv:2010.11929, table 1"),
    "large": ViTSize(1024, 24, 16, source="ViT-L, Dosovitskiy et al. 2021, arXiv:2010.11929, table 1"),
    # For small images and small sets: convolutional stem and mean pooling, as the compact transformers that do best
    # there (Hassani et al. 2021, arXiv:2104.05704), heads of width 32.
    "micro": ViTSize(96, 6, 3, 2.0, stem="conv", pooling="mean", source="ours; after CCT-6, arXiv:2104.05704"),
    "compact": ViTSize(192, 8, 6, 2.0, stem="conv", pooling="mean", source="ours; after CCT-7, arXiv:2104.05704"),
}

CNN_BASELINES: tuple[str, ...] = (
    "resnet_micro",
    "resnet18",
    "resnet34",
    "resnet50",
    "efficientnet_b0",
    "mobilenetv3_small_100",
    "convnext_tiny",
)
"""Shown by `vitreous models`; any other convolutional model that timm lists works too. `resnet_micro` is timm's ResNet
with four narrow stages of one block, for images of 8 to 64 pixels."""

VIT_NAME = re.compile(r"vit_(?P<size>[a-z]+)(?:_patch(?P<patch>\d+)(?:_(?P<image>\d+))?)?")


@dataclass(frozen=True)
class ViTName:
    """A parsed name: `vit_tiny_patch16_224` fixes patch and image size, `vit_tiny` leaves them to the data."""

    size: str
    patch_size: int | None
    image_size: int | None


def parse_vit(name: str) -> ViTName | None:
    """The parts of a Vision Transformer's name, or None when the name is not one."""
    match = VIT_NAME.fullmatch(name)
    if match is None or match["size"] not in VIT_SIZES:
        return None
    return ViTName(
        match["size"], int(match["patch"]) if match["patch"] else None, int(match["image"]) if match["image"] else None
    )


def known_models() -> list[str]:
    """Names offered in listings and for misspelt names: families first, then full names, then CNN baselines."""
    families = [f"vit_{size}" for size in VIT_SIZES]
    full = [
        f"vit_{size}_patch{patch}_{image}"
        for size in ("tiny", "small", "base", "large")
        for patch, image in ((16, 224), (32, 224), (16, 384), (8, 224))
    ]
    return [*families, *full, *CNN_BASELINES]


def check_model_name(name: str, also_known: tuple[str, ...] = ()) -> None:
    """Raise UsageError, naming the nearest, for a name that is neither ours nor among `also_known`."""
    if name == "auto" or parse_vit(name) or name in CNN_BASELINES or name in also_known:
        return
    raise unknown_name("model", name, list(dict.fromkeys(["auto", *known_models(), *also_known])))
