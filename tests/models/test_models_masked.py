from __future__ import annotations

from typing import Any

import pytest
import torch

from vitreous.models import VisionTransformer
from vitreous.models.masked import MaskedAutoencoder, images_of, normalised, patches_of

SHAPES: dict[str, dict[str, Any]] = {
    "2020 paper": {},
    "rotary, registers, mean": {
        "rope": "axial",
        "num_registers": 2,
        "class_token": False,
        "pooling": "mean",
        "positions": "none",
    },
    "mixed rotary, conv stem": {"rope": "mixed", "stem": "conv"},
    "shifted stem": {"stem": "shifted"},
}


def make(**changes: Any) -> VisionTransformer:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"image_size": 16, "patch_size": 4, "in_chans": 2, "num_classes": 3}
    model = VisionTransformer(**sizes, embed_dim=16, depth=2, num_heads=2, **changes)
    return model.eval()


def autoencoder(ratio: float = 0.75, **changes: Any) -> MaskedAutoencoder:
    return MaskedAutoencoder(make(**changes), mask_ratio=ratio, decoder_dim=16, decoder_depth=1).eval()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_with_every_patch_visible_the_tokens_are_those_of_the_plain_forward_pass(shape: dict[str, Any]) -> None:
    model, images = make(**shape), torch.randn(3, 2, 16, 16)
    visible = torch.arange(16).expand(3, -1)
    assert torch.allclose(model.forward_visible(images, visible), model.forward_features(images), atol=1e-6)


def test_visible_patches_keep_their_places() -> None:
    """Which patches are left is told by their rotations and positions, not by their order alone."""
    model, image = make(rope="axial"), torch.randn(1, 2, 16, 16).expand(2, -1, -1, -1)
    image = patches_of(image, (4, 4))[:, :1].expand(-1, 16, -1)  # sixteen equal patches
    tokens = model.forward_visible(images_of(image, (4, 4), (4, 4)), torch.tensor([[0, 1, 2], [0, 5, 9]]))
    assert tokens.shape == (2, 4, 16)
    assert not torch.allclose(tokens[0], tokens[1], atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_no_hidden_pixel_reaches_what_is_drawn(shape: dict[str, Any]) -> None:
    model, images = autoencoder(**shape), torch.randn(2, 2, 16, 16)
    order = torch.rand(2, 16).argsort(dim=1)
    drawn, hidden = model(images, order)
    other = torch.where(hidden[:, :, None], torch.randn(2, 16, 32), patches_of(images, (4, 4)))
    again, _ = model(images_of(other, (4, 4), (4, 4)), order)
    assert torch.equal(drawn, again)
    changed = torch.where(hidden[:, :, None], patches_of(images, (4, 4)), torch.randn(2, 16, 32))
    assert not torch.allclose(drawn, model(images_of(changed, (4, 4), (4, 4)), order)[0])


@pytest.mark.parametrize(("ratio", "visible"), [(0.75, 4), (0.5, 8), (0.001, 15), (0.999, 1)])
def test_the_mask_ratio_decides_how_many_patches_are_hidden(ratio: float, visible: int) -> None:
    drawn, hidden = autoencoder(ratio)(torch.randn(5, 2, 16, 16))
    assert drawn.shape == (5, 16, 32)
    assert ((~hidden).sum(dim=1) == visible).all()
    assert len({tuple(row.tolist()) for row in hidden}) > 1  # another choice for each image


def test_the_read_out_of_the_encoder_is_not_trained() -> None:
    model = autoencoder().train()
    drawn, _ = model(torch.randn(2, 2, 16, 16))
    drawn.sum().backward()
    without = {name for name, value in model.named_parameters() if value.grad is None}
    assert without == {"encoder.head.weight", "encoder.head.bias"}


def test_patches_and_images_are_two_forms_of_one_thing() -> None:
    images = torch.randn(2, 3, 8, 12)
    patches = patches_of(images, (4, 2))
    assert torch.equal(images_of(patches, (4, 2), (2, 6)), images)
    assert torch.equal(patches[0, 7], images[0, :, 4:8, 2:4].reshape(-1))


def test_normalised_patches_have_mean_0_and_deviation_1_and_even_ones_are_0() -> None:
    patches = normalised(torch.cat([torch.randn(4, 3, 48) * 3 + 1, torch.full((4, 1, 48), 0.7)], dim=1))
    assert torch.allclose(patches.mean(dim=2), torch.zeros(4, 4), atol=1e-4)
    assert torch.allclose(patches[:, :3].std(dim=2, unbiased=False), torch.ones(4, 3), atol=1e-4)
    assert patches[:, 3].abs().max() < 1e-2


@pytest.mark.parametrize(("changes", "words"), [({"decoder_dim": 18}, "multiple of 4"), ({"image_size": 4}, "single")])
def test_impossible_sizes_are_refused(changes: dict[str, int], words: str) -> None:
    encoder = VisionTransformer(
        image_size=changes.get("image_size", 16), patch_size=4, embed_dim=16, depth=1, num_heads=2
    )
    with pytest.raises(ValueError, match=words):
        MaskedAutoencoder(encoder, mask_ratio=0.5, decoder_dim=changes.get("decoder_dim", 16), decoder_depth=1)
