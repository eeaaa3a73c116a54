"""Adapters change nothing at first, are the formula of the paper, and become part of the weights without a trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from vitreous.config.lora import LoraConfig
from vitreous.errors import UsageError
from vitreous.models import VisionTransformer
from vitreous.models.cnn import ConvNet
from vitreous.models.layers.pool import HiddenHead
from vitreous.models.lora import LoraLinear, add_lora, has_lora, without_lora
from vitreous.models.packed import pack
from vitreous.training.learning import head_only, settle_learning
from vitreous.training.losses import cross_entropy
from vitreous.training.objective import classify


def small(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    made: dict[str, Any] = {
        "image_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 3, "embed_dim": 16, "depth": 2, "num_heads": 2,
    }  # fmt: skip
    model = VisionTransformer(**(made | options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def stirred(model: nn.Module) -> nn.Module:
    """With adapters that have learned something."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LoraLinear):
                module.up.normal_(std=0.1)
    return model


IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_an_adapter_is_the_formula_written_out() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 5)
    layer = LoraLinear(linear, rank=2, alpha=8.0)
    assert layer.down.shape == (2, 6) and layer.up.shape == (5, 2) and (layer.up == 0).all()
    assert layer.down.std() > 0 and layer.down.abs().max() <= 6**-0.5  # Kaiming's uniform bound for a = sqrt(5)
    nn.init.normal_(layer.up)
    x = torch.randn(3, 6)
    wanted = x @ linear.weight.T + linear.bias + (8.0 / 2) * (x @ layer.down.T) @ layer.up.T
    torch.testing.assert_close(layer(x), wanted)


OPTIONS = [
    {},
    {"mlp": "swiglu", "qkv_bias": "qv", "rope": "axial", "layer_scale": 0.1},
    {"block": "branched"},
    {"block": "parallel"},
    {"differential": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_model_with_adapters_begins_as_it_was_and_merges_into_a_plain_one_that_answers_the_same(
    options: dict[str, Any],
) -> None:
    model = small(**options)
    names, before = set(model.state_dict()), model(IMAGES)
    adapted = copy.deepcopy(model)
    count = add_lora(adapted, rank=3, alpha=6.0)
    assert (
        count == sum(type(each) is not nn.Identity for each in adapted.modules() if isinstance(each, LoraLinear)) >= 8
    )
    torch.testing.assert_close(adapted(IMAGES), before, rtol=0, atol=0)

    after = stirred(adapted)(IMAGES)
    assert (after - before).abs().max() > 1e-2
    plain = without_lora(adapted)
    assert set(plain.state_dict()) == names and not has_lora(plain) and has_lora(adapted)
    torch.testing.assert_close(plain(IMAGES), after, rtol=1e-4, atol=1e-5)
    assert without_lora(plain) is plain


def test_a_merged_model_packs() -> None:
    plain = without_lora(stirred(_with_adapters(small())))
    try:
        packed = pack(plain)
    except RuntimeError:
        pytest.skip("this torch has no packed layers")
    torch.testing.assert_close(packed(IMAGES), plain(IMAGES), rtol=1e-4, atol=1e-5)


def _with_adapters(model: VisionTransformer) -> VisionTransformer:
    add_lora(model, rank=3, alpha=6.0)
    return model


def test_with_lora_only_adapters_and_head_learn_and_the_sentence_counts_them() -> None:
    model = small()
    found = settle_learning(model, "lora", LoraConfig(rank=2, alpha=4.0, dropout=0.0), seed=0)
    learning = {name for name, each in model.named_parameters() if each.requires_grad}
    assert all(name.startswith("head.") or name.endswith((".up", ".down")) for name in learning)
    adapters = 2 * 2 * ((16 + 48) + (16 + 16) + (16 + 64) + (64 + 16))
    assert found.learning == adapters + 3 * 17 and found.adapters == 8
    assert f"{found.learning:,} of {found.parameters:,} parameters learn" in str(found)


def test_the_same_seed_gives_the_same_adapters() -> None:
    def weights(seed: int) -> torch.Tensor:
        model = small()
        settle_learning(model, "lora", LoraConfig(rank=2, alpha=4.0, dropout=0.0), seed)
        return model.blocks[0].attention.qkv.down.detach()  # type: ignore[union-attr, return-value]

    assert (weights(1) == weights(1)).all() and (weights(1) != weights(2)).any()


def test_adapters_for_a_convolutional_model_are_refused() -> None:
    model = ConvNet(name="resnet_micro", num_classes=3, in_chans=1)
    with pytest.raises(UsageError, match="convolutional"):
        settle_learning(model, "lora", LoraConfig(rank=2, alpha=4.0), seed=0)


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_with_head_only_the_body_stays_as_it_is_and_acts_as_in_evaluation(kind: str) -> None:
    torch.manual_seed(0)
    model: nn.Module = (
        small(drop_path=0.5, projection_dropout=0.5)
        if kind == "vit"
        else ConvNet(name="resnet_micro", num_classes=3, in_chans=1)
    )
    settle_learning(model, "head", LoraConfig(), seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    objective = head_only(classify(cross_entropy))
    targets = torch.eye(3)[torch.tensor([0, 1, 2, 0])]
    images = torch.rand(4, 1, 32, 32) if kind == "cnn" else IMAGES
    first = objective(model, images, targets)
    torch.testing.assert_close(first, objective(model, images, targets), rtol=0, atol=0)
    first.backward()
    touched = [name for name, each in model.named_parameters() if each.grad is not None]
    assert len(touched) == 2 and model.training
    model.eval()
    torch.testing.assert_close(first, cross_entropy(model(images), targets))
    assert all((value == before[name]).all() for name, value in model.state_dict().items())


def test_a_head_with_a_hidden_layer_is_two_linear_layers_and_starts_at_zero_logits() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=8,
        patch_size=4,
        in_chans=1,
        num_classes=2,
        embed_dim=16,
        depth=1,
        num_heads=2,
        head_hidden=12,
        dropout=0.5,
    ).eval()
    assert isinstance(model.head, HiddenHead) and (model(IMAGES) == 0).all()
    assert model.head.hidden.weight.abs().max() > 0 and model.head.dropout.p == 0.5
    nn.init.normal_(model.head.output.weight)
    features = model.pool(model.forward_features(IMAGES))
    hidden = nn.functional.gelu(features @ model.head.hidden.weight.T + model.head.hidden.bias)
    torch.testing.assert_close(model(IMAGES), hidden @ model.head.output.weight.T + model.head.output.bias)
    model.train()
    assert (model(IMAGES) != model(IMAGES)).any()


def test_a_hidden_head_and_a_distillation_token_are_refused_together() -> None:
    with pytest.raises(ValueError, match="head_hidden"):
        small(head_hidden=8, distillation_token=True)
