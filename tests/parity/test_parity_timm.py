"""Our Vision Transformer against timm's: the same weights must give the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from einops import rearrange
from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn

from vitreous.models import VisionTransformer, architecture, build
from vitreous.models.fit import load_into
from vitreous.models.layers import attention
from vitreous.models.weights import from_timm

TOLERANCE = 1e-5
SMALL: dict[str, Any] = {"embed_dim": 48, "depth": 3, "num_heads": 4, "num_classes": 7}


def fill(model: nn.Module, seed: int = 0) -> None:
    """Random weights everywhere, also where training starts from zero or one: a forgotten tensor must show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.empty_like(parameter).normal_(generator=generator)
            is_scale = parameter.ndim == 1 and "norm" in name and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if is_scale else (0.1 if parameter.ndim == 1 else 0.04) * noise)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05, "a reference that is all but constant proves nothing"
    return float((ours - theirs).detach().abs().max())


@pytest.mark.parametrize(("size", "batch"), [("tiny", 2), ("small", 2), ("base", 1)])
@torch.inference_mode()
def test_logits_tokens_and_features_equal_timms(size: str, batch: int) -> None:
    name = f"vit_{size}_patch16_224"
    with torch.device("meta"):
        theirs, ours = timm.create_model(name), build(architecture(name, num_classes=1000))
    theirs, ours = theirs.to_empty(device="cpu").eval(), ours.to_empty(device="cpu").eval()
    assert isinstance(ours, VisionTransformer)
    fill(theirs)
    assert load_into(ours, from_timm(dict(theirs.state_dict())), name) == ()

    x = images(batch, 3, 224, 224)
    their_tokens = theirs.forward_features(x)  # type: ignore[operator]
    our_tokens = ours.forward_features(x)
    assert largest_difference(our_tokens, their_tokens) <= TOLERANCE
    their_features = theirs.forward_head(their_tokens, pre_logits=True)  # type: ignore[operator]
    assert largest_difference(ours.pool(our_tokens), their_features) <= TOLERANCE
    assert largest_difference(ours(x), theirs(x)) <= TOLERANCE


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize(
    ("timm_arguments", "our_arguments"),
    [
        pytest.param({"global_pool": "avg", "fc_norm": False}, {"pooling": "mean"}, id="mean of patches, unread [CLS]"),
        pytest.param(
            {
                "class_token": False,
                "reg_tokens": 4,
                "no_embed_class": True,
                "global_pool": "avg",
                "fc_norm": False,
            },
            {"class_token": False, "num_registers": 4, "pooling": "mean"},
            id="registers and mean",
        ),
        pytest.param({"class_token": True, "mlp_ratio": 2.0}, {"mlp_ratio": 2.0}, id="narrow MLP"),
    ],
)
def test_variants_equal_timms(
    timm_arguments: dict[str, Any],
    our_arguments: dict[str, Any],
    fused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "plain_is_faster", lambda _: not fused)
    theirs = TimmViT(img_size=(32, 48), patch_size=8, **SMALL, **timm_arguments).eval()
    ours = VisionTransformer(image_size=(32, 48), patch_size=8, **SMALL, **our_arguments).eval()
    fill(theirs)
    load_into(ours, from_timm(dict(theirs.state_dict())), "timm")
    x = images(3, 3, 32, 48)
    assert largest_difference(ours.forward_features(x), theirs.forward_features(x)) <= TOLERANCE
    assert largest_difference(ours(x), theirs(x)) <= TOLERANCE


def test_class_token_and_registers_stand_where_timm_puts_them() -> None:
    theirs = TimmViT(img_size=32, patch_size=8, reg_tokens=3, no_embed_class=True, **SMALL).eval()
    ours = VisionTransformer(image_size=32, patch_size=8, num_registers=3, **SMALL).eval()
    fill(theirs)
    state = from_timm(dict(theirs.state_dict()))
    # timm gives this model no position for [CLS]; ours has one, so it is zero.
    state["position_embedding"] = torch.cat([torch.zeros(1, 1, 48), state["position_embedding"]], dim=1)
    load_into(ours, state, "timm")
    x = images(2, 3, 32, 32)
    assert largest_difference(ours.forward_features(x), theirs.forward_features(x)) <= TOLERANCE
    assert largest_difference(ours(x), theirs(x)) <= TOLERANCE


def test_gradients_equal_timms() -> None:
    theirs = TimmViT(img_size=32, patch_size=8, **SMALL)
    ours = VisionTransformer(image_size=32, patch_size=8, **SMALL)
    fill(theirs)
    load_into(ours, from_timm(dict(theirs.state_dict())), "timm")
    x, weights = images(2, 3, 32, 32), images(2, 7)
    for model in (theirs, ours):
        (model(x) * weights).sum().backward()
    expected = from_timm({name: value.grad for name, value in theirs.named_parameters() if value.grad is not None})
    found = {name: value.grad for name, value in ours.named_parameters()}
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        gradient = gradient.flatten(1) if gradient.ndim == 4 else gradient  # the patch kernel
        torch.testing.assert_close(found[name], gradient, atol=2e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_weights_for_another_image_size_act_as_in_timm() -> None:
    source = TimmViT(img_size=64, patch_size=8, **SMALL)
    fill(source)
    theirs = TimmViT(img_size=(48, 80), patch_size=8, **SMALL).eval()
    state = dict(source.state_dict())
    theirs.load_state_dict(state | {"pos_embed": resample_abs_pos_embed(state["pos_embed"], [6, 10], [8, 8])})
    ours = VisionTransformer(image_size=(48, 80), patch_size=8, **SMALL).eval()
    assert load_into(ours, from_timm(state), "timm") == ("Positions resampled from 8 x 8 to 6 x 10 patches.",)
    x = images(2, 3, 48, 80)
    assert largest_difference(ours(x), theirs(x)) <= TOLERANCE


def test_the_first_layer_for_grey_images_equals_timms_and_sees_grey_as_before() -> None:
    source = TimmViT(img_size=32, patch_size=8, **SMALL).eval()
    fill(source)
    ours = VisionTransformer(image_size=32, patch_size=8, in_chans=1, **SMALL).eval()
    notes = load_into(ours, from_timm(dict(source.state_dict())), "timm")
    assert notes == ("The first layer was adapted from 3 to 1 channels.",)
    kernel = adapt_input_conv(1, source.patch_embed.proj.weight.detach())
    weight = ours.patch_embedding.projection.weight.detach()
    torch.testing.assert_close(weight, rearrange(kernel, "d c ph pw -> d (c ph pw)"))
    grey = images(2, 1, 32, 32)
    assert largest_difference(ours(grey), source(grey.expand(-1, 3, -1, -1))) <= TOLERANCE


def test_grey_weights_in_a_colour_model_see_grey_as_before() -> None:
    grey_model = VisionTransformer(image_size=32, patch_size=8, in_chans=1, **SMALL).eval()
    fill(grey_model)
    colour = VisionTransformer(image_size=32, patch_size=8, **SMALL).eval()
    load_into(colour, dict(grey_model.state_dict()), "own")
    grey = images(2, 1, 32, 32)
    assert largest_difference(colour(grey.expand(-1, 3, -1, -1)), grey_model(grey)) <= TOLERANCE
