"""What a model costs to compute: published numbers, and a closed form that is exact for every option."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitreous.errors import UsageError
from vitreous.models.build import architecture, build
from vitreous.models.cost import (
    ATTENTION,
    count_macs,
    count_parameters,
    curve_sizes,
    resolution_curve,
    vit_macs,
)
from vitreous.models.cost.numbers import ViTNumbers
from vitreous.models.vit import VisionTransformer

SMALL: dict[str, Any] = {
    "image_size": 32, "patch_size": 8, "num_classes": 7, "embed_dim": 48, "depth": 2, "num_heads": 3,
}  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {},
    {"stem": "conv"},
    {"stem": "pooled"},
    {"stem": "conv", "patch_size": 4},
    {"stem": "shifted"},
    {"patch_norm": True},
    {"image_size": (32, 64), "patch_size": (8, 16)},
    {"in_chans": 1},
    {"num_registers": 3},
    {"distillation_token": True},
    {"class_token": False, "pooling": "mean"},
    {"pooling": "cls_mean"},
    {"pooling": "attention"},
    {"pooling": "attention", "pool_prefix": True, "pool_mlp_ratio": 2.0},
    {"pooling": "sequence"},
    {"block": "parallel"},
    {"block": "branched"},
    {"block": "post_norm"},
    {"mlp": "swiglu"},
    {"differential": True},
    {"norm": "rms", "qk_norm": True},
    {"rope": "axial"},
    {"rope": "mixed"},
    {"sub_norm": ("attention", "mlp"), "layer_scale": 1e-5},
    {"output_norm": "pooled", "input_norm": True},
    {"num_classes": 0},
]


def small(**options: Any) -> VisionTransformer:
    return VisionTransformer(**{**SMALL, **options})


def on_meta(name: str, image_size: int = 0) -> nn.Module:
    with torch.device("meta"):
        return build(architecture(name, num_classes=1000, image_size=image_size))


@pytest.mark.parametrize(
    ("name", "image_size", "millions", "giga"),
    [
        ("vit_base_patch16_224", 224, "86.57", "17.56"),
        ("vit_base_patch16_384", 384, "86.86", "55.48"),
        ("vit_large_patch16_224", 224, "304.33", "61.55"),
        ("resnet50", 224, "25.56", "4.09"),
        ("efficientnet_b4", 380, "19.34", "4.39"),
    ],
)
def test_parameters_and_multiply_accumulates_are_the_published_ones(
    name: str, image_size: int, millions: str, giga: str
) -> None:
    model = on_meta(name, image_size)
    assert f"{count_parameters(model) / 1e6:.2f}" == millions
    assert f"{count_macs(model, (3, image_size, image_size)) / 1e9:.2f}" == giga


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())) or "plain")
def test_the_parts_add_up_to_what_is_counted_for_every_option(options: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = small(**options)
    parts = vit_macs(ViTNumbers.of(model))
    assert sum(parts.values()) == count_macs(model, (model.in_chans, *model.image_size))
    assert min(parts.values()) >= (0 if model.num_classes == 0 else 1)


def test_multiply_accumulates_are_half_of_what_torch_counts_as_floating_point_operations() -> None:
    model = small().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert 2 * count_macs(model, (3, 32, 32)) == counter.get_total_flops()


def test_counting_leaves_the_mode_of_the_model_as_it_was() -> None:
    model = small()
    for mode in (True, False):
        model.train(mode)
        count_macs(model, (3, 32, 32))
        assert model.training is mode


def test_on_paper_the_base_model_spends_what_the_paper_says() -> None:
    model = on_meta("vit_base_patch16_224")
    assert isinstance(model, VisionTransformer)
    n, d = 197, 768
    assert vit_macs(ViTNumbers.of(model)) == {
        "patch embedding": 196 * 768 * d,
        "queries, keys, values": 12 * n * 3 * d * d,
        "attention scores": 12 * n * n * d,
        "attention values": 12 * n * n * d,
        "projection": 12 * n * d * d,
        "mlp": 12 * n * 8 * d * d,
        "head": 1000 * d,
    }


def test_attention_grows_with_the_square_of_the_tokens_and_the_rest_in_proportion_to_them() -> None:
    found = architecture("vit_small_patch16_224", num_classes=0, class_token=False, pooling="mean")
    small, large = resolution_curve(found, [224, 448])
    assert small.tokens == 196 and large.tokens == 4 * 196
    assert small.attention_macs is not None and large.attention_macs is not None
    assert large.attention_macs == 16 * small.attention_macs
    assert large.macs - large.attention_macs == 4 * (small.macs - small.attention_macs)
    assert small.scores_bytes == 12 * 6 * 196**2 * 4 and large.scores_bytes == 16 * small.scores_bytes
    assert small.attention_share is not None and large.attention_share is not None
    assert large.attention_share > small.attention_share
    assert large.training_bytes > small.training_bytes


def test_a_point_of_the_curve_is_the_model_of_that_size() -> None:
    (point,) = resolution_curve(architecture("vit_tiny_patch16_224", num_classes=1000), [384])
    model = on_meta("vit_tiny_patch16_384")
    assert point.macs == count_macs(model, (3, 384, 384))
    assert isinstance(model, VisionTransformer)
    parts = vit_macs(ViTNumbers.of(model))
    assert point.attention_macs == sum(parts[name] for name in ATTENTION)


def test_a_model_without_attention_has_a_curve_too() -> None:
    found = architecture("resnet_micro", num_classes=10)
    small, large = resolution_curve(found, [32, 64])
    assert small.tokens is None and small.attention_share is None and small.scores_bytes is None
    assert large.macs / small.macs == pytest.approx(4, rel=0.02)
    assert large.inference_bytes == 4 * small.inference_bytes


def test_a_curve_keeps_the_patch_size_and_steps_in_whole_patches() -> None:
    found = architecture("vit_base_patch14_dinov2", num_classes=1000, image_size=224)
    sizes = curve_sizes(found, 224)
    assert sizes[0] == 112 and sizes[-1] == 896 and all(size % 14 == 0 for size in sizes)
    points = resolution_curve(found, sizes[:2])
    assert [point.tokens for point in points] == [1 + (size // 14) ** 2 for size in sizes[:2]]


def test_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="not divisible by the patch size 16"):
        resolution_curve(architecture("vit_tiny_patch16_224", num_classes=10), [100])
