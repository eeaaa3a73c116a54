"""The packed copy of a model must say what the model says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.engines.cpu import cpu_has_fast_bf16, cpu_path, fast_matmul, medium_is_exact
from vitreous.models import VisionTransformer, packed
from vitreous.models.cnn import ConvNet
from vitreous.models.layers.block import TransformerBlock
from vitreous.models.packed import PackedBlock, PackedLinear, mix, operators, pack

pytestmark = pytest.mark.skipif(not cpu_path().fast, reason=f"nothing is packed here: {cpu_path().reason}")
bf16 = pytest.param(
    torch.bfloat16, marks=pytest.mark.skipif(not cpu_has_fast_bf16(), reason="this processor has no bf16")
)
AGREES = {torch.float32: 1e-5, torch.bfloat16: 0.1}
"""Shares of the largest number. In models this narrow bf16's rounding averages out less than in real ones."""

SMALL: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 64,
    "depth": 3,
    "num_heads": 4,
    "num_classes": 7,
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"activation": "gelu_tanh"},
    {"activation": "quick_gelu"},
    {"activation": "relu"},
    {"mlp": "swiglu"},
    {"mlp": "swiglu", "activation": "gelu", "sub_norm": ("attention", "mlp")},
    {"norm": "rms", "qk_norm": True},
    {"qk_norm": True, "embed_dim": 48},
    {"layer_scale": 0.1, "num_registers": 3},
    {"qkv_bias": "qv"},
    {"bias": False, "qkv_bias": False},
    {"rope": "axial"},
    {"rope": "mixed", "rope_layout": "interleaved", "pooling": "mean"},
    {"stem": "conv", "pooling": "sequence", "class_token": False},
    {"stem": "pooled", "pooling": "mean", "class_token": False},
    {"pooling": "attention"},
    {"pooling": "cls_mean", "output_norm": "pooled"},
    {"distillation_token": True, "num_registers": 2},
    {"block": "parallel"},
    {"block": "post_norm"},
    {"block": "branched"},
    {"differential": True},
]


def vit(**options: Any) -> VisionTransformer:
    """With random numbers also where training starts from zero or one."""
    torch.manual_seed(0)
    model = VisionTransformer(**{**SMALL, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def images(count: int, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def distance(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    assert expected.std() > 0.05, "a reference that is all but constant proves nothing"
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, bf16])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@torch.inference_mode()
def test_every_kind_of_vision_transformer_answers_the_same_packed(options: dict[str, Any], dtype: torch.dtype) -> None:
    model = vit(**options)
    copy: Any = pack(model, dtype)
    for count in (1, 5):
        x = images(count)
        logits, features = copy(x), copy.pool(copy.forward_features(x))
        assert logits.dtype == features.dtype == torch.float32
        assert distance(logits, model(x)) <= AGREES[dtype]
        assert distance(features, model.pool(model.forward_features(x))) <= AGREES[dtype]


@pytest.mark.skipif(not medium_is_exact(), reason="the fast products are not exact on this processor")
@pytest.mark.parametrize("options", [{}, {"rope": "mixed"}, {"pooling": "mean"}], ids=str)
@torch.inference_mode()
def test_it_answers_the_same_where_attention_is_computed_in_the_open(options: dict[str, Any]) -> None:
    model, x = vit(**options), images(5)
    expected, copy = model(x), pack(model)
    with fast_matmul():
        assert distance(copy(x), expected) <= AGREES[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, bf16])
@pytest.mark.parametrize("name", ["resnet_micro", "resnet26d", "convnext_atto", "efficientnet_b0"])
@torch.inference_mode()
def test_convolutional_models_answer_the_same_packed(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = ConvNet(name=name, num_classes=7).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.normal_(0, 0.1)
    nn.init.normal_(model.body.get_classifier().weight, std=0.1)
    x, copy = images(3, 64), pack(model, dtype)
    assert copy(x).dtype == torch.float32
    assert distance(copy(x), model(x)) <= AGREES[dtype]


@torch.inference_mode()
def test_any_tree_of_modules_can_be_packed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 48), nn.LayerNorm(48), nn.GELU(), nn.Linear(48, 5, bias=False))
    x = torch.randn(3, 24)
    assert distance(pack(model)(x), model(x)) <= AGREES[torch.float32]
    assert distance(pack(model[0])(x), model[0](x)) <= AGREES[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, bf16])
@torch.inference_mode()
def test_no_images_give_no_answers(dtype: torch.dtype) -> None:
    with fast_matmul():
        assert pack(vit(), dtype)(images(0)).shape == (0, 7)


def test_the_model_itself_is_left_as_it_was() -> None:
    model = vit(layer_scale=0.1).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copy = pack(model)
    assert model.training
    assert not copy.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_no_linear_layer_is_forgotten() -> None:
    for options in OPTIONS:
        assert not any(type(module) is nn.Linear for module in pack(vit(**options)).modules()), options


@pytest.mark.parametrize(
    ("options", "tokens"),
    [({}, 1), ({"num_registers": 2}, 1), ({"distillation_token": True}, 2), ({"pooling": "mean"}, 17)],
    ids=str,
)
@torch.inference_mode()
def test_the_last_block_computes_only_what_the_pooling_reads(options: dict[str, Any], tokens: int) -> None:
    model, copy = vit(**options), pack(vit(**options))
    assert isinstance(copy, VisionTransformer)
    found = copy.forward_features(images(2))
    assert found.shape[1] == tokens
    assert distance(found, model.forward_features(images(2))[:, :tokens]) <= AGREES[torch.float32]


def test_a_packed_copy_gives_no_attention_maps() -> None:
    copy: Any = pack(vit())
    with pytest.raises(ValueError, match="keeps no attention maps"):
        copy.forward_features(images(1), attention=True)


@torch.inference_mode()
def test_rotations_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copy: Any = pack(vit(rope="axial"))
    first = copy(images(1))

    def refuse(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(copy.rope.rope, "forward", refuse)
    assert torch.equal(copy(images(1)), first)


def test_the_group_of_images_shrinks_as_the_model_grows() -> None:
    small: Any = pack(vit())
    wide: Any = pack(vit(embed_dim=128))
    assert small.images_at_once // 2 == wide.images_at_once
    # 17 tokens, a hidden layer of 256 numbers of 4 bytes.
    assert small.images_at_once == packed.ACTIVATION_BYTES // (17 * 256 * 4)


@pytest.mark.parametrize("room", [1, 2 * 9 * 9 * 4, 8 * 9 * 9 * 4, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, bf16])
@torch.inference_mode()
def test_attention_is_the_same_in_parts_of_any_size(
    room: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads of one image, all heads of one image, several images, everything at once."""
    monkeypatch.setattr(packed, "SCORES_BYTES", room)
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 5, 9, 3, 16).transpose(2, 3).unbind(0)
    expected = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    with fast_matmul():
        found = mix(q.to(dtype), k.to(dtype), v.to(dtype))
        few = mix(q[:, :, :2].to(dtype), k.to(dtype), v.to(dtype))
    assert distance(found.float(), expected) <= AGREES[dtype]
    assert distance(few.float(), expected[:, :, :2]) <= AGREES[dtype]


def test_a_block_with_a_part_of_ones_own_keeps_its_own_forward() -> None:
    class Doubled(nn.Identity):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return 2 * x

    model = vit(pooling="mean")
    block = model.blocks[1]
    assert isinstance(block, TransformerBlock)
    block.mlp_scale = Doubled()
    copy = pack(model)
    assert sum(isinstance(module, PackedBlock) for module in copy.modules()) == 2
    with torch.inference_mode():
        assert distance(copy(images(2)), model(images(2))) <= AGREES[torch.float32]


def test_a_torch_without_the_operators_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    operators.cache_clear()
    monkeypatch.setattr(packed.torch, "ops", SimpleNamespace(mkldnn=SimpleNamespace()))
    with pytest.raises(RuntimeError, match="has no packed linear layers"):
        pack(vit())
