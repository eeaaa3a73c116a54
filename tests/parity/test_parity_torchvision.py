"""A reference written independently of timm: torchvision's Vision Transformer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from foreign_cases import fill, random_images, relative_difference, torchvision_case
from torch import Tensor
from torchvision.models import VisionTransformer as TorchvisionViT

from vitreous.errors import UsageError, WeightsError
from vitreous.models import VisionTransformer
from vitreous.models.fit import load_into
from vitreous.models.foreign.torchvision import NAMES, from_torchvision, torchvision_arguments

TOLERANCE = 1e-5
TINY: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 3,
    "hidden_dim": 48,
    "mlp_dim": 96,
    "num_classes": 5,
}


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_tokens_and_logits_equal_torchvisions(name: str) -> None:
    _, theirs, ours, images = torchvision_case(name)
    assert relative_difference(ours.forward_features(images), theirs.forward_features(images)) <= TOLERANCE
    assert relative_difference(ours(images), theirs(images)) <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stands_for_the_whole_model(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)()
        ours = VisionTransformer(**torchvision_arguments(name))
    found = from_torchvision(dict(theirs.state_dict()))
    expected = {name: value.numel() for name, value in ours.state_dict().items()}
    assert {name: value.numel() for name, value in found.items()} == expected


def test_attention_equals_torchvisions() -> None:
    theirs = TorchvisionViT(**TINY).eval()
    fill(theirs)
    ours = VisionTransformer(**torchvision_arguments(theirs)).eval()
    load_into(ours, from_torchvision(dict(theirs.state_dict())), "torchvision")
    images = random_images(ours)
    # torch's own attention layer can name its probabilities: the first block's, from the same tokens.
    block: Any = theirs.encoder.layers[0]
    x = block.ln_1(ours.embed(images))
    _, expected = block.self_attention(x, x, x, need_weights=True, average_attn_weights=False)
    _, found = ours.forward_features(images, attention=True)
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=1e-5)


def test_files_of_before_2022_are_read() -> None:
    theirs = TorchvisionViT(**TINY).eval()
    fill(theirs)
    expected = from_torchvision(dict(theirs.state_dict()))
    old: dict[str, Tensor] = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value
        for name, value in theirs.state_dict().items()
    }
    found = from_torchvision(old)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_tanh_layer_before_the_head_is_refused_and_its_weights_leave_the_head_out() -> None:
    theirs = TorchvisionViT(**TINY, representation_size=12)
    with pytest.raises(WeightsError, match="representation_size"):
        torchvision_arguments(theirs)
    assert not any("head" in name for name in from_torchvision(dict(theirs.state_dict())))


def test_another_model_is_refused() -> None:
    with pytest.raises(UsageError, match="vit_b_16"):
        torchvision_arguments("vit_b_61")
    with pytest.raises(WeightsError, match="ResNet is not a plain Vision Transformer"):
        torchvision_arguments(torchvision.models.resnet18())
