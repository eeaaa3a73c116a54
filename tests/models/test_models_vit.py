from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitreous.models import MultiHeadAttention, PatchEmbedding, TransformerBlock, VisionTransformer
from vitreous.models.layers import attention
from vitreous.models.layers.norm import DropPath
from vitreous.models.layers.patch import ConvStem

TINY: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 3,
}


def make(**changes: Any) -> VisionTransformer:
    """A small model with weights away from their initial zeros."""
    torch.manual_seed(0)
    model = VisionTransformer(**{**TINY, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def gradients(model: nn.Module, images: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> dict[str, Tensor]:
    model.zero_grad()
    logits = (forward or model)(images)
    (logits * torch.arange(logits.numel()).reshape(logits.shape)).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def test_the_fused_path_gives_the_same_logits_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make().eval()
    monkeypatch.setattr(attention, "plain_is_faster", lambda _: True)
    plain, plain_gradients = model(IMAGES), gradients(model, IMAGES)
    calls = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(attention, "plain_is_faster", lambda _: False)
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *given, **how: calls.append(1) or real(*given, **how),
    )
    fused, fused_gradients = model(IMAGES), gradients(model, IMAGES)
    assert len(calls) == 2 * TINY["depth"]
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=0)
    assert plain_gradients.keys() == fused_gradients.keys() == dict(model.named_parameters()).keys()
    for name, gradient in plain_gradients.items():
        scale = max(1.0, float(gradient.abs().max()))
        assert (fused_gradients[name] - gradient).abs().max() <= 1e-5 * scale, name


@pytest.mark.parametrize("plain", [False, True], ids=["fused", "plain"])
def test_asking_for_attention_changes_nothing_and_gives_probabilities(
    plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "plain_is_faster", lambda _: plain)
    model = make(num_registers=2).eval()
    tokens, collected = model.forward_features(IMAGES, attention=True)
    torch.testing.assert_close(tokens, model.forward_features(IMAGES), atol=1e-5, rtol=1e-5)
    assert [tuple(layer.shape) for layer in collected] == [(4, 3, 19, 19)] * 3
    stacked = torch.stack(collected)
    torch.testing.assert_close(stacked.sum(-1), torch.ones(3, 4, 3, 19), atol=1e-6, rtol=0)
    assert stacked.min() >= 0
    assert stacked.std() > 1e-4
    assert all(layer.requires_grad for layer in collected), "explanations need its gradient"


@pytest.mark.parametrize(
    ("changes", "prefix"),
    [
        ({}, 1),
        ({"pooling": "mean"}, 1),
        ({"pooling": "mean", "class_token": False}, 0),
        ({"num_registers": 4}, 5),
        ({"pooling": "mean", "class_token": False, "num_registers": 4}, 4),
        ({"stem": "conv", "pooling": "mean"}, 1),
    ],
)
def test_the_model_says_how_its_tokens_are_laid_out(changes: dict[str, Any], prefix: int) -> None:
    model = make(image_size=(32, 48), **changes).eval()
    images = torch.randn(2, 3, 32, 48)
    assert (model.grid_size, model.patch_size, model.image_size) == ((4, 6), (8, 8), (32, 48))
    assert model.num_prefix_tokens == prefix
    assert model.embed(images).shape == model.forward_features(images).shape == (2, prefix + 24, 24)
    assert model.pool(model.forward_features(images)).shape == (2, 24)
    assert model(images).shape == (2, 5)


def test_mean_pooling_averages_the_patches_and_nothing_else() -> None:
    model = make(pooling="mean", num_registers=2)
    tokens = torch.randn(2, 3 + 16, 24)
    expected = tokens[:, 3:].mean(1)
    torch.testing.assert_close(model.pool(tokens), expected)
    tokens[:, :3] = 1e6
    torch.testing.assert_close(model.pool(tokens), expected)


def test_cls_pooling_takes_the_first_token_also_before_registers() -> None:
    model = make(num_registers=2)
    tokens = torch.randn(2, 3 + 16, 24)
    assert torch.equal(model.pool(tokens), tokens[:, 0])
    assert model.class_token is not None
    assert model.registers is not None
    assert model.position_embedding is not None
    sequence = model.embed(IMAGES)
    expected = model.class_token[0, 0] + model.position_embedding[0, 0]
    torch.testing.assert_close(sequence[:, 0], expected.expand(4, -1))
    torch.testing.assert_close(sequence[:, 1:3], model.registers.expand(4, -1, -1))


def test_patches_become_tokens_row_by_row() -> None:
    model = make(image_size=(16, 32), pooling="mean", class_token=False).eval()
    lit = torch.zeros(1, 3, 16, 32)
    lit[..., 8:16, 16:24] = 1.0  # second row, third column of a 2 x 4 grid
    change = (model.patch_embedding(lit) - model.patch_embedding(torch.zeros_like(lit))).norm(dim=-1)[0]
    assert change.nonzero().flatten().tolist() == [1 * 4 + 2]


def test_a_convolutional_stem_gives_tokens_in_the_same_order() -> None:
    stem = make(image_size=(16, 32), stem="conv").patch_embedding
    assert isinstance(stem, ConvStem)
    images = torch.randn(2, 3, 16, 32)
    maps = stem.projection(stem.layers(images))
    assert maps.shape == (2, 24, 2, 4)
    tokens = stem(images)
    for row in range(2):
        for column in range(4):
            assert torch.equal(tokens[:, row * 4 + column], maps[:, :, row, column])


def test_a_patch_projection_is_a_strided_convolution() -> None:
    torch.manual_seed(0)
    embedding = PatchEmbedding((4, 8), 3, 10)
    convolution = nn.Conv2d(3, 10, kernel_size=(4, 8), stride=(4, 8))
    with torch.no_grad():
        convolution.weight.copy_(embedding.projection.weight.reshape(10, 3, 4, 8))
        convolution.bias.copy_(embedding.projection.bias)  # type: ignore[union-attr]
    images = torch.randn(2, 3, 12, 16)
    torch.testing.assert_close(embedding(images), convolution(images).flatten(2).transpose(1, 2), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "shape", [(1, 3, 32, 40), (1, 3, 40, 32), (1, 3, 8, 8), (1, 1, 32, 32), (3, 32, 32), (1, 3, 31, 32)]
)
def test_images_of_another_shape_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes images \(b, 3, 32, 32\), got"):
        make()(torch.zeros(*shape))


def test_height_and_width_are_not_interchangeable() -> None:
    # Both have eight patches, so nothing but the check would notice.
    model = make(image_size=(16, 32))
    model(torch.zeros(1, 3, 16, 32))
    with pytest.raises(ValueError, match="16, 32"):
        model(torch.zeros(1, 3, 32, 16))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_size": 30}, "30 x 30 is not divisible by the patch size 8 x 8"),
        ({"image_size": (32, 36)}, "32 x 36 is not divisible"),
        ({"num_heads": 5}, "embed_dim 24 is not divisible by num_heads 5"),
        ({"class_token": False}, "pooling='cls' reads the class token"),
        ({"stem": "pooled", "patch_size": (8, 16)}, "pooled stem needs a square patch"),
        ({"stem": "conv", "patch_size": 1}, "convolutional stem needs a square patch"),
        ({"stem": "conv", "patch_size": (8, 16)}, "convolutional stem needs a square patch"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        VisionTransformer(**{**TINY, **changes})


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="dropuot"):
        VisionTransformer(**TINY, dropuot=0.1)  # type: ignore[call-arg]


def test_checkpointing_gives_the_same_gradients() -> None:
    model = make(drop_path=0.3)
    model.train()

    def seeded() -> dict[str, Tensor]:
        torch.manual_seed(7)
        return gradients(model, IMAGES)

    usual = seeded()
    model.checkpointing = True
    runs = 0

    def count(*_: object) -> None:
        nonlocal runs
        runs += 1

    model.blocks[0].register_forward_pre_hook(count)
    recomputed = seeded()
    assert runs == 2, "the block must have run again in the backward pass"
    for name, gradient in usual.items():
        scale = max(1.0, float(gradient.abs().max()))
        assert (recomputed[name] - gradient).abs().max() <= 1e-6 * scale, name


def test_drop_path_keeps_the_mean_and_drops_whole_images() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.25).train()
    branch = torch.randn(4000, 3, 2)
    dropped = layer(branch)
    kept = (dropped != 0).flatten(1)
    assert torch.equal(kept.all(1), kept.any(1)), "an image's branch goes as a whole"
    torch.testing.assert_close(dropped[kept.all(1)], branch[kept.all(1)] / 0.75)
    assert abs(float(kept.all(1).float().mean()) - 0.75) < 4 * math.sqrt(0.25 * 0.75 / 4000)
    ones = layer(torch.ones(40_000, 1))
    assert abs(float(ones.mean()) - 1) < 4 * math.sqrt(0.25 / 0.75 / 40_000)


def test_drop_path_and_dropout_are_off_in_evaluation() -> None:
    model = make(drop_path=0.5, dropout=0.5).eval()
    assert torch.equal(model(IMAGES), model(IMAGES))
    model.train()
    assert not torch.equal(model(IMAGES), model(IMAGES))


def test_stochastic_depth_rises_linearly_with_depth() -> None:
    model = VisionTransformer(**{**TINY, "depth": 5}, drop_path=0.4)
    rates = [block.drop_path.probability for block in model.blocks]  # type: ignore[union-attr]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_weights_start_as_the_papers_code_draws_them() -> None:
    torch.manual_seed(0)
    d = 96
    model = VisionTransformer(image_size=64, patch_size=8, embed_dim=d, depth=2, num_heads=3, num_registers=4)
    for block in model.blocks:
        matrices = {
            "qkv": block.attention.qkv.weight.chunk(3),  # type: ignore[union-attr, operator]
            "projection": [block.attention.projection.weight],  # type: ignore[union-attr]
            "expand": [block.mlp.expand.weight],  # type: ignore[union-attr]
            "contract": [block.mlp.contract.weight],  # type: ignore[union-attr]
        }
        for name, parts in matrices.items():
            for part in parts:
                bound = math.sqrt(6 / (part.shape[0] + part.shape[1]))
                assert 0.98 * bound < float(part.detach().abs().max()) <= bound, name
                assert float(part.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.03), name
    biases = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
    assert all(not bias.any() for bias in biases)
    assert model.class_token is not None
    assert model.registers is not None
    assert not model.class_token.any()
    assert not model.head.weight.any()
    assert model.position_embedding is not None
    assert float(model.position_embedding.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(model.registers.detach().std()) == pytest.approx(0.02, rel=0.15)
    assert float(model.patch_embedding.projection.weight.detach().std()) == pytest.approx((3 * 64) ** -0.5, rel=0.03)
    assert all((norm.weight == 1).all() for norm in model.modules() if isinstance(norm, nn.LayerNorm))


@pytest.mark.parametrize("kind", [PatchEmbedding, ConvStem])
def test_one_number_is_a_square_patch(kind: type[PatchEmbedding] | type[ConvStem]) -> None:
    one, two = kind(16, 3, 64), kind((16, 16), 3, 64)
    assert one.patch_size == two.patch_size == (16, 16)
    two.load_state_dict(one.state_dict())
    images = torch.randn(2, 3, 32, 48)
    assert one(images).shape == (2, 6, 64)
    assert torch.equal(one(images), two(images))


def test_a_fresh_model_is_undecided() -> None:
    assert not VisionTransformer(**TINY)(IMAGES).any()


def test_the_parts_work_on_their_own() -> None:
    tokens = torch.randn(2, 5, 24)
    assert MultiHeadAttention(24, 3)(tokens).shape == (2, 5, 24)
    assert TransformerBlock(24, 3)(tokens).shape == (2, 5, 24)
    assert PatchEmbedding((8, 8), 3, 24)(torch.randn(2, 3, 16, 24)).shape == (2, 6, 24)


def test_a_convolutional_stem_keeps_images_of_a_batch_apart() -> None:
    model = make(stem="conv", pooling="mean", class_token=False).train()
    torch.testing.assert_close(model(IMAGES)[:1], model(IMAGES[:1]), atol=1e-5, rtol=1e-4)
