"""Named architectures. Adding one is a line in a table here and a parity test.

A family's name is timm's without patch and image size: `vit_small_dinov2` stands for vit_small_patch14_dinov2. Vision
Transformers are ours, those of timm that no table here names are read off timm (`models.timm_models`); convolutional
baselines are built by timm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vitreous.errors import unknown_name

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Preset:
    """A family of Vision Transformers: what its name stands for besides patch and image size."""

    arguments: Arguments
    """Keyword arguments of `VisionTransformer` that are not its defaults."""
    source: str
    """Paper and table."""
    patch_size: int | None = None
    """Pixels of the published patch; None fits it to the image."""
    image_size: int | None = None
    """Pixels of the published image; None takes the data's."""
    published: bool = False
    """Whether timm publishes weights for it."""


def _size(embed_dim: int, depth: int, num_heads: int, mlp_ratio: float = 4.0) -> Arguments:
    return {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, "mlp_ratio": mlp_ratio}


SIZES: dict[str, Arguments] = {
    "tiny": _size(192, 12, 3),
    "small": _size(384, 12, 6),
    "medium": _size(512, 12, 8),
    "base": _size(768, 12, 12),
    "large": _size(1024, 24, 16),
    "huge": _size(1280, 32, 16),
    "giant": _size(1408, 40, 16, 48 / 11),
    "so400m": _size(1152, 27, 16, 4304 / 1152),
}
"""What the size letters stand for: tiny and small from DeiT (arXiv:2012.12877, table 1), base to huge from the first paper
(arXiv:2010.11929, table 1), giant and so400m from the scaling studies (arXiv:2106.04560, table 2; arXiv:2305.13035)."""

_GAP: Arguments = {"class_token": False, "pooling": "mean", "output_norm": "pooled"}
_DEIT3: Arguments = {"class_position": False, "layer_scale": 1e-4}
_DINOV2: Arguments = {"class_token": True, "layer_scale": 1e-5}
_DINOV2_REG: Arguments = _DINOV2 | {"num_registers": 4, "class_position": False}
_SWIGLU: Arguments = {"mlp": "swiglu"}
_DINOV3: Arguments = {
    "class_token": True,
    "pooling": "mean",
    "num_registers": 4,
    "positions": "none",
    "rope": "axial",
    "qkv_bias": False,
    "layer_scale": 1e-5,
    "norm_eps": 1e-5,
}
_SIGLIP: Arguments = {"class_token": False, "pooling": "attention"}
_SBB: Arguments = _GAP | {"layer_scale": 1e-5}
_ROPE_INDEX: Arguments = {"rope": "axial", "rope_coordinates": "index", "rope_layout": "interleaved"}
_SBB_ROPE: Arguments = (
    _SBB | _ROPE_INDEX | {"positions": "none", "rope_theta": 10_000.0, "rope_reference": [16, 16], "qkv_bias": "qv"}
)
_ROPE_VIT: Arguments = {"layer_scale": 1e-5, "rope_axes": "xy"}
_VIT5: Arguments = _ROPE_INDEX | {
    "class_position": False,
    "num_registers": 4,
    "rope_theta": 10_000.0,
    "rope_register_theta": 100.0,
    "norm": "rms",
    "qkv_bias": False,
    "qk_norm": True,
    "layer_scale": 1e-4,
    "drop_path_shape": "uniform",
}
_PLAIN: Arguments = _VIT5 | {"class_token": False, "pooling": "mean"}

_VIT = "Dosovitskiy et al. 2021, arXiv:2010.11929, table 1; weights of Steiner et al. 2022 (AugReg), arXiv:2106.10270"
_OURS = "the block of ViT-5, arXiv:2602.08071, with mean pooling and four registers instead of [CLS]"


def _rows() -> Iterator[tuple[str, Preset]]:
    for size in ("tiny", "small", "base", "large", "huge", "giant"):
        patch = 14 if size in ("huge", "giant") else None
        yield f"vit_{size}", Preset(SIZES[size], _VIT, patch, published=size != "giant")
    # For small images and small sets: convolutions with max pooling as stem (for larger patches strided ones, see
    # `build.LARGEST_POOLED`) and mean pooling, as the compact transformers that do best there (Hassani et al. 2021,
    # arXiv:2104.05704), heads of width 32.
    compact = {"stem": "pooled", "pooling": "mean"}
    yield "vit_micro", Preset(_size(128, 4, 4, 2.0) | compact, "ours; after CCT-6, arXiv:2104.05704")
    yield "vit_compact", Preset(_size(192, 8, 6, 2.0) | compact, "ours; after CCT-7, arXiv:2104.05704")
    for size in ("tiny", "small", "base", "large"):
        yield f"vit_plain_{size}", Preset(SIZES[size] | _PLAIN, _OURS)
    small_images = {"plain_micro": _size(96, 6, 3), "plain_compact": _size(192, 9, 6, 2.0)}
    for name, size in small_images.items():
        yield (
            f"vit_{name}",
            Preset(size | _PLAIN | {"stem": "conv"}, f"{_OURS}; convolutional stem, for 32 to 96 pixels"),
        )

    deit = "Touvron et al. 2021, arXiv:2012.12877, table 1"
    for size in ("tiny", "small", "base"):
        yield f"deit_{size}", Preset(SIZES[size] | {"class_token": True}, deit, 16, 224, True)
        both = {"class_token": True, "distillation_token": True}
        yield f"deit_{size}_distilled", Preset(SIZES[size] | both, f"{deit}, section 4", 16, 224, True)
    for size in ("small", "medium", "base", "large", "huge"):
        patch = 14 if size == "huge" else 16
        yield f"deit3_{size}", Preset(SIZES[size] | _DEIT3, "Touvron et al. 2022, arXiv:2204.07118", patch, 224, True)

    giant = _size(1536, 40, 24, 8 / 3) | _SWIGLU
    dinov2 = {size: SIZES[size] for size in ("small", "base", "large")} | {"giant": giant}
    for size, arguments in dinov2.items():
        source = "Oquab et al. 2024, arXiv:2304.07193, table 16"
        yield f"vit_{size}_dinov2", Preset(arguments | _DINOV2, source, 14, 518, True)
        source = "Darcet et al. 2024, arXiv:2309.16588"
        yield f"vit_{size}_reg4_dinov2", Preset(arguments | _DINOV2_REG, source, 14, 518, True)
    dinov3 = {
        "small": SIZES["small"],
        "small_plus": SIZES["small"] | _SWIGLU,
        "base": SIZES["base"],
        "large": SIZES["large"],
        "huge_plus": _size(1280, 32, 20) | _SWIGLU,
        "7b": _size(4096, 40, 32, 2.0) | _SWIGLU,
    }
    for size, arguments in dinov3.items():
        source = "Siméoni et al. 2025, arXiv:2508.10104, table 2"
        yield f"vit_{size}_dinov3", Preset(arguments | _DINOV3, source, 16, 256, True)
    for size in ("base", "large", "so400m"):
        source = "Zhai et al. 2023, arXiv:2303.15343; SigLIP 2, Tschannen et al. 2025, arXiv:2502.14786"
        patch = 14 if size == "so400m" else 16
        arguments = SIZES[size] | _SIGLIP
        yield f"vit_{size}_siglip", Preset(arguments, source, patch, 256 if size == "large" else 224, True)

    sbb = "Wightman 2024, searching for better baselines (timm's sbb recipes)"
    wide = _size(256, 14, 4, 5)
    for name, size, more in (
        ("wee_reg1", wide, {"num_registers": 1}),
        ("pwee_reg1", wide | {"depth": 16}, {"num_registers": 1, "block": "parallel"}),
        ("little_reg1", _size(320, 14, 5, 5.6), {"num_registers": 1}),
        ("medium_reg1", SIZES["medium"], {"num_registers": 1}),
        ("medium_reg4", SIZES["medium"], {"num_registers": 4}),
        ("mediumd_reg4", SIZES["medium"] | {"depth": 20}, {"num_registers": 4}),
        ("betwixt_reg1", _size(640, 12, 10), {"num_registers": 1}),
        ("betwixt_reg4", _size(640, 12, 10), {"num_registers": 4}),
    ):
        yield f"vit_{name}_gap", Preset(size | _SBB | more, sbb, 16, 256, True)
    for name, size, registers in (
        ("medium_rope_reg1", SIZES["medium"], 1),
        ("mediumd_rope_reg1", SIZES["medium"] | {"depth": 20, "qkv_bias": False}, 1),
        ("betwixt_rope_reg4", _size(640, 12, 10), 4),
        ("base_rope_reg1", SIZES["base"], 1),
    ):
        yield f"vit_{name}_gap", Preset(_SBB_ROPE | size | {"num_registers": registers}, sbb, 16, 256, True)

    source = "Heo et al. 2024, arXiv:2403.13298"
    for size in ("small", "base", "large"):
        axial = SIZES[size] | _ROPE_VIT | _ROPE_INDEX | {"rope_theta": 100.0}
        mixed = axial | {"rope": "mixed", "rope_theta": 10.0}
        yield f"vit_{size}_rope", Preset(axial | {"positions": "none"}, source, 16, 224, True)
        placed = {"class_position": False}
        yield f"vit_{size}_rope_ape", Preset(axial | placed, source, 16, 224, True)
        yield f"vit_{size}_rope_mixed", Preset(mixed | {"positions": "none"}, source, 16, 224, True)
        yield f"vit_{size}_rope_mixed_ape", Preset(mixed | placed, source, 16, 224, True)
    for size, arguments in {**SIZES, "xlarge": _size(1152, 28, 16)}.items():
        if size in ("small", "base", "large", "xlarge"):
            yield f"vit5_{size}", Preset(arguments | _VIT5, "Wang et al. 2026 (ViT-5), arXiv:2602.08071", 16, 224)


PRESETS: dict[str, Preset] = dict(_rows())

CNN_BASELINES: dict[str, int] = {
    "resnet_micro": 64,
    "resnet18": 224,
    "resnet34": 224,
    "resnet50": 224,
    "efficientnet_b0": 224,
    "efficientnet_b4": 380,
    "mobilenetv3_small_100": 224,
    "convnext_tiny": 224,
}
"""Name and the pixels its paper counts its cost at. Shown by `vitreous models`; any other convolutional model that timm lists works too. `resnet_micro` is timm's ResNet
with four narrow stages of one block, for images of 8 to 64 pixels."""


@dataclass(frozen=True)
class ViTName:
    """A parsed name: `vit_tiny_patch16_224` fixes patch and image size, `vit_tiny` leaves them to the data."""

    family: str
    """A key of `PRESETS`."""
    patch_size: int | None
    image_size: int | None

    @property
    def preset(self) -> Preset:
        return PRESETS[self.family]


def parse_vit(name: str) -> ViTName | None:
    """The parts of a Vision Transformer's name, or None when the name is not that of a preset."""
    if name in PRESETS:
        return ViTName(name, None, None)
    match = re.fullmatch(r"(?P<before>\w+?)_patch(?P<patch>\d+)(?P<after>_[a-z]\w*?)?(?:_(?P<image>\d+))?", name)
    if match is None:
        return None
    family = match["before"] + (match["after"] or "")
    if family not in PRESETS:
        return None
    return ViTName(family, int(match["patch"]), int(match["image"]) if match["image"] else None)


def full_name(family: str) -> str:
    """timm's name of a published family at its published size: vit_small_dinov2 -> vit_small_patch14_dinov2."""
    preset = PRESETS[family]
    head, *tail = re.split(r"_(?=(?:reg\d|rope|siglip|gap|dinov\d))", family, maxsplit=1)
    after = "".join(f"_{part}" for part in tail)
    image = "" if "dinov" in family else f"_{preset.image_size or 224}"
    return f"{head}_patch{preset.patch_size or 16}{after}{image}"


def known_models() -> list[str]:
    """Names offered in listings and for misspelt names: families first, then full names, then CNN baselines."""
    first = [
        f"vit_{size}_patch{patch}_{image}"
        for size in ("tiny", "small", "base", "large")
        for patch, image in ((16, 224), (32, 224), (16, 384), (8, 224))
    ]
    published = [full_name(family) for family, preset in PRESETS.items() if preset.published and preset.patch_size]
    return [*PRESETS, *first, *published, *CNN_BASELINES]


def check_model_name(name: str, also_known: tuple[str, ...] = ()) -> None:
    """Raise UsageError, naming the nearest, for a name that is neither ours nor among `also_known`."""
    if name == "auto" or parse_vit(name) or name in CNN_BASELINES or name in also_known:
        return
    raise unknown_name("model", name, list(dict.fromkeys(["auto", *known_models(), *also_known])))
