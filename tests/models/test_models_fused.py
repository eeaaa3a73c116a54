"""The fused halves of the block against the plain block: values, gradients, random numbers, and when they are used."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from vitreous.models import VisionTransformer
from vitreous.models.layers import fused_cpu

SMALL: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 4,
    "num_classes": 5,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 4,
}


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which fused halves have run."""
    names: list[str] = []
    for name in ("attend", "transform"):
        real = getattr(fused_cpu, name)

        def noted(*arguments: Any, name: str = name, real: Any = real) -> Tensor:
            names.append(name)
            return real(*arguments)

        monkeypatch.setattr(fused_cpu, name, noted)
    return names


def _model(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(**(SMALL | options)).train()
    with torch.no_grad():
        for parameter in model.parameters():  # so that no bias, scale or head is zero or one
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def _gradients(model: VisionTransformer, *, bf16: bool = False, batch: int = 6) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(1)
    images = torch.randn(batch, 3, 16, 16, requires_grad=True)
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(images).float()
    (logits * torch.arange(5)).square().sum().backward()
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    assert images.grad is not None
    return logits.detach(), found | {"images": images.grad}


def _both(
    monkeypatch: pytest.MonkeyPatch, model: VisionTransformer, **options: Any
) -> tuple[tuple[Tensor, dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]:
    """What the fused path says, then what the plain one does."""
    plain = copy.deepcopy(model)
    fused = _gradients(model, **options)
    monkeypatch.setenv("VITREOUS_CPU", "plain")
    return fused, _gradients(plain, **options)


OPTIONS = {
    "plain": {},
    "LayerScale": {"layer_scale": 0.3},
    "mean pooling": {"pooling": "mean"},
    "no biases": {"qkv_bias": False, "bias": False, "layer_scale": 0.3},
    "stochastic depth": {"drop_path": 0.5, "drop_path_shape": "uniform", "layer_scale": 0.3},
    "patch dropout": {"patch_dropout": 0.5},
    "checkpointing": {"checkpointing": True, "drop_path": 0.3},
    "two first tokens": {"distillation_token": True},
    "registers": {"num_registers": 2},
    "rotary positions": {"rope": "axial"},
    "normalised queries": {"qk_norm": True},
    "gated MLP": {"mlp": "swiglu"},
    "many tokens": {"patch_size": 2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_the_fused_block_has_the_gradients_of_the_plain_one(
    options: dict[str, Any], used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (logits, fused), (expected, plain) = _both(monkeypatch, _model(**options))
    assert used
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert fused.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(
            fused[name], gradient, rtol=2e-4, atol=2e-5 * float(gradient.abs().max() + 1), msg=name
        )


@pytest.mark.parametrize("name", ["plain", "LayerScale", "stochastic depth", "two first tokens", "many tokens"])
def test_in_bf16_the_fused_block_is_as_near_to_fp32_as_autocast_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(**OPTIONS[name])
    exact = copy.deepcopy(model)
    (_, fused), (_, autocast) = _both(monkeypatch, model, bf16=True)
    _, expected = _gradients(exact)

    def error(found: dict[str, Tensor]) -> float:
        off = sum(float((found[each] - expected[each]).square().sum()) for each in expected)
        return (off / sum(float(each.square().sum()) for each in expected.values())) ** 0.5

    assert all(each.dtype == torch.float32 for each in fused.values())
    assert error(fused) < 1.5 * error(autocast) + 1e-3
    assert error(fused) < 0.05


def test_the_first_tokens_alone_leave_the_last_block_that_is_read_for_them() -> None:
    model = _model()
    shapes: list[tuple[int, ...]] = []
    model.norm.register_forward_hook(lambda module, given, result: shapes.append(tuple(result.shape)))
    model(torch.zeros(2, 3, 16, 16))
    model.forward_features(torch.zeros(2, 3, 16, 16))
    model.eval()(torch.zeros(2, 3, 16, 16))
    assert shapes == [(2, 1, 32), (2, 17, 32), (2, 17, 32)]


def test_a_block_that_skips_every_image_gives_its_weights_zero_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(drop_path=0.9, drop_path_shape="uniform")
    (_, fused), (_, plain) = _both(monkeypatch, model, batch=1)
    for name, gradient in plain.items():
        torch.testing.assert_close(fused[name], gradient, rtol=2e-4, atol=1e-4, msg=name)
    assert any(not gradient.any() for name, gradient in fused.items() if name.endswith("qkv.weight"))


def test_frozen_weights_get_no_gradient_and_the_others_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(layer_scale=0.3)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("gamma" in name or name.endswith("qkv.weight") or name.startswith("head"))
    (_, fused), (_, plain) = _both(monkeypatch, model)
    assert fused.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(
            fused[name], gradient, rtol=2e-4, atol=2e-5 * float(gradient.abs().max() + 1), msg=name
        )


def test_evaluation_explanation_and_attention_maps_take_the_plain_path(used: list[str]) -> None:
    model = _model()
    images = torch.zeros(2, 3, 16, 16, requires_grad=True)
    model.forward_features(images, attention=True)
    model.eval()
    model(images).sum().backward()
    with torch.no_grad():
        model(images)
        model.train()(images)
    assert used == []


def test_dropout_hooks_and_changed_layers_take_the_plain_path(used: list[str]) -> None:
    images = torch.zeros(2, 3, 16, 16)
    _model(attention_dropout=0.1, projection_dropout=0.1)(images)
    _model(block="post_norm")(images)
    _model(norm="rms")(images)
    hooked = _model()
    for block in hooked.blocks:
        block.attention.projection.register_forward_hook(lambda *_: None)  # type: ignore[union-attr]
        block.mlp.expand.register_forward_hook(lambda *_: None)  # type: ignore[union-attr]
    hooked(images)
    assert used == []


def test_the_same_step_twice_is_the_same_bit_for_bit() -> None:
    model = _model(drop_path=0.3)
    first, second = (_gradients(copy.deepcopy(model), bf16=True)[1] for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
