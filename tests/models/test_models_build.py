from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vitreous.errors import UsageError
from vitreous.models import Architecture, VisionTransformer, architecture, build
from vitreous.models.build import default_patch_size
from vitreous.models.cnn import ConvNet
from vitreous.models.cost import count_macs, count_parameters
from vitreous.models.layers import attention
from vitreous.models.presets import check_model_name, known_models, parse_vit


def on_meta(name: str, **arguments: int) -> nn.Module:
    """Shapes without memory: enough to count."""
    with torch.device("meta"):
        return build(architecture(name, num_classes=1000, **arguments))


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("vit_tiny_patch16_224", 5_717_416, 1.25e9),
        ("vit_small_patch16_224", 22_050_664, 4.60e9),
        ("vit_base_patch16_224", 86_567_656, 17.56e9),
        ("vit_large_patch16_224", 304_326_632, 61.55e9),
        ("resnet18", 11_689_512, 1.81e9),
        ("resnet50", 25_557_032, 4.09e9),
    ],
)
def test_parameters_and_cost_are_the_published_ones(name: str, parameters: int, macs: float) -> None:
    model = on_meta(name)
    assert count_parameters(model) == parameters
    assert count_macs(model, (3, 224, 224)) == pytest.approx(macs, rel=0.01)


def test_cost_is_the_same_whichever_attention_path_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(architecture("vit_tiny", num_classes=10, image_size=32, patch_size=4))
    monkeypatch.setattr(attention, "plain_is_faster", lambda _: True)
    plain = count_macs(model, (3, 32, 32))
    monkeypatch.setattr(attention, "plain_is_faster", lambda _: False)
    assert count_macs(model, (3, 32, 32)) == plain
    d, n, depth = 192, 65, 12
    blocks = depth * (n * (4 * d * d + 8 * d * d) + 2 * n * n * d)
    assert plain == 64 * 48 * d + blocks + 10 * d


def test_counting_leaves_the_model_as_it_was() -> None:
    model = build(architecture("resnet_micro", num_classes=3, image_size=16)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_macs(model, (3, 16, 16))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_frozen_parameters_are_not_counted_as_trainable() -> None:
    layer = nn.Linear(3, 4)
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == 12


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("vit_tiny", ("vit_tiny", None, None)),
        ("vit_base_patch32", ("vit_base", 32, None)),
        ("vit_small_patch16_384", ("vit_small", 16, 384)),
        ("vit_compact", ("vit_compact", None, None)),
    ],
)
def test_vit_names_are_read(name: str, parts: tuple[str, int | None, int | None]) -> None:
    parsed = parse_vit(name)
    assert parsed is not None
    assert (parsed.family, parsed.patch_size, parsed.image_size) == parts


@pytest.mark.parametrize(
    "name", ["vit_enormous", "vit_tiny_patch", "vit_tiny_224", "resnet18", "vit_tiny_patch16_224x"]
)
def test_other_names_are_not_vits(name: str) -> None:
    assert parse_vit(name) is None


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("vit_tinny", "vit_tiny"),
        ("vit_base_patch16_225x", "vit_base_patch16_224"),
        ("resnet5O", "resnet50"),
        ("vit_compct", "vit_compact"),
        ("efficientnet-b0", "efficientnet_b0"),
    ],
)
def test_a_mistyped_model_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UsageError) as caught:
        architecture(wrong, num_classes=2)
    assert repr(wrong) in caught.value.message
    assert repr(right) in caught.value.hint


def test_every_listed_name_passes_the_check() -> None:
    for name in known_models():
        check_model_name(name)
    with pytest.raises(UsageError):
        check_model_name("no such thing")


@pytest.mark.parametrize("size", ["micro", "compact", "tiny"])
@pytest.mark.parametrize("image_size", [8, 32, 64, 224])
def test_every_family_fits_every_size(size: str, image_size: int) -> None:
    model = on_meta(f"vit_{size}", image_size=image_size)
    assert isinstance(model, VisionTransformer)
    assert 16 <= model.grid_size[0] * model.grid_size[1] <= 200
    assert model(torch.zeros(1, 3, image_size, image_size, device="meta")).shape == (1, 1000)


def test_the_name_decides_patch_and_size_and_explicit_settings_win() -> None:
    named = architecture("vit_tiny_patch32_384", num_classes=4)
    assert named.arguments["image_size"] == [384, 384]
    assert named.arguments["patch_size"] == [32, 32]
    chosen = architecture("vit_tiny_patch32_384", num_classes=4, image_size=64, patch_size=8, depth=2, pooling="mean")
    assert chosen.arguments["image_size"] == [64, 64]
    assert chosen.arguments["patch_size"] == [8, 8]
    assert chosen.arguments["depth"] == 2
    assert chosen.arguments["class_token"] is False, "mean pooling needs no [CLS]"


def test_what_run_json_stores_builds_the_same_module() -> None:
    import json

    for name in ("vit_micro", "resnet_micro"):
        found = architecture(name, num_classes=4, image_size=16, in_chans=1)
        again = Architecture(**json.loads(json.dumps(found.to_dict())))
        one, two = build(found), build(again)
        assert {n: v.shape for n, v in one.state_dict().items()} == {n: v.shape for n, v in two.state_dict().items()}


def test_a_size_the_patch_does_not_divide_is_answered_with_those_it_does() -> None:
    with pytest.raises(UsageError, match="30 is not divisible by the patch size 8") as caught:
        architecture("vit_tiny_patch8", num_classes=2, image_size=30)
    assert "--image-size 32 or --image-size 24" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        architecture("vit_tiny_patch16", num_classes=2, image_size=8)
    assert "--image-size 0" not in caught.value.hint


@pytest.mark.parametrize("net", [{"num_heads": 5}, {"stem": "conv", "patch_size": 3}])
def test_numbers_that_do_not_fit_name_the_model(net: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="'vit_tiny' cannot be built"):
        build(architecture("vit_tiny", num_classes=2, image_size=24, **net))


@pytest.mark.parametrize("image_size", [4, 8, 16, 20, 28, 32, 48, 56, 64, 96, 112, 128, 224])
def test_the_default_patch_divides_the_sizes_recipes_choose(image_size: int) -> None:
    assert image_size % default_patch_size(image_size) == 0


@pytest.mark.parametrize(
    "name", ["resnet_micro", "resnet18", "efficientnet_b0", "mobilenetv3_small_100", "convnext_tiny", "regnetx_002"]
)
@torch.inference_mode()
def test_a_cnn_is_head_after_pool_after_features(name: str) -> None:
    torch.manual_seed(0)
    model = build(architecture(name, num_classes=5, image_size=64)).eval()
    assert isinstance(model, ConvNet)
    images = torch.randn(2, 3, 64, 64)
    maps = model.forward_features(images)
    assert maps.ndim == 4
    features = model.pool(maps)
    assert features.ndim == 2
    torch.testing.assert_close(model.head(features), model(images))
    assert model(images).std() > 0


def test_resnets_for_small_images_do_not_shrink_them_at_once() -> None:
    small, large = (build(architecture("resnet18", num_classes=5, image_size=size)).eval() for size in (32, 128))
    assert isinstance(small, ConvNet)
    assert isinstance(large, ConvNet)
    assert small.forward_features(torch.zeros(1, 3, 32, 32)).shape[-2:] == (4, 4)
    assert large.forward_features(torch.zeros(1, 3, 32, 32)).shape[-2:] == (1, 1)


def test_a_cnn_takes_grey_images_and_dropout() -> None:
    model = build(architecture("resnet_micro", num_classes=5, image_size=16, in_chans=1, dropout=0.5, drop_path=0.1))
    images = torch.randn(4, 1, 16, 16)
    torch.manual_seed(0)
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))
