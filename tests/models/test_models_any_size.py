"""Training a Vision Transformer on images of other sizes than the one it is built for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vitreous.models.vit import VisionTransformer, side_unit, train_at_any_size

torch.set_num_threads(1)
TINY: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_classes": 3,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
}
KINDS: dict[str, dict[str, Any]] = {
    "learned, class token": {},
    "sincos, mean": {"positions": "sincos", "pooling": "mean", "class_token": False},
    "axial rotary, registers": {"positions": "none", "rope": "axial", "num_registers": 4},
    "mixed rotary": {"rope": "mixed"},
    "pooled stem": {"stem": "pooled", "pooling": "mean", "class_token": False},
    "conv stem, sequence pooling": {"stem": "conv", "pooling": "sequence", "class_token": False},
    "attention pooling, patch dropout": {"pooling": "attention", "patch_dropout": 0.25},
    "shifted patches, distilled": {"stem": "shifted", "distillation_token": True},
    "checkpointing": {"checkpointing": True},
}


def _model(**changes: Any) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(**{**TINY, **changes})
    nn.init.normal_(model.head.weight if isinstance(model.head, nn.Linear) else model.head.label.weight)
    train_at_any_size(model)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(16, 16), (24, 40), (48, 48)])
def test_training_takes_other_multiples_of_the_patch_and_every_weight_learns(kind: str, size: tuple[int, int]) -> None:
    model = _model(**KINDS[kind]).train()
    logits = model(torch.randn(2, 3, *size))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    if model.position_embedding is not None and model.position_embedding.requires_grad:
        moved = model.position_embedding.grad
        assert moved is not None
        assert (moved[:, model.num_placed_tokens :].abs().sum(-1) > 0).all(), (
            "each position has a share in the new ones"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_size_gives_the_same_bits_with_and_without(kind: str) -> None:
    model = _model(**KINDS[kind]).train()
    images = torch.randn(2, 3, 32, 32)
    results = []
    for allowed in (True, False):
        model.any_size = allowed
        torch.manual_seed(1)
        results.append(model(images))
    assert torch.equal(*results)


@pytest.mark.parametrize("kind", ["learned, class token", "mixed rotary"])
def test_it_computes_what_a_model_of_that_size_computes_with_resampled_weights(kind: str) -> None:
    from vitreous.models.resample import resample_positions

    large, small = _model(**KINDS[kind]), _model(**KINDS[kind], image_size=16)
    state = large.state_dict()
    positions = state["position_embedding"]
    resampled = resample_positions(positions[:, 1:], large.grid_size, small.grid_size)
    small.load_state_dict({**state, "position_embedding": torch.cat([positions[:, :1], resampled], 1)})
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(large.train()(images), small.eval()(images))


def test_evaluation_stays_strict_and_so_does_a_model_that_was_not_asked() -> None:
    small = torch.randn(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"takes images \(b, 3, 32, 32\), got \(1, 3, 16, 16\)"):
        _model().eval()(small)
    with pytest.raises(ValueError, match=r"takes images \(b, 3, 32, 32\)"):
        VisionTransformer(**TINY).train()(small)


@pytest.mark.parametrize("shape", [(1, 3, 20, 16), (1, 1, 16, 16), (3, 16, 16), (1, 3, 4, 16), (1, 3, 0, 16)])
def test_training_refuses_what_is_no_multiple_of_the_patch(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of the patch, 8 x 8"):
        _model().train()(torch.zeros(shape))


def test_any_model_says_what_its_sides_are_multiples_of() -> None:
    assert side_unit(nn.Sequential(_model())) == (8, 8)
    assert side_unit(_model(patch_size=(16, 4))) == (16, 4)
    assert side_unit(nn.Conv2d(3, 3, 3)) == (8, 8)
    wrapped = nn.Sequential(VisionTransformer(**TINY))
    train_at_any_size(wrapped)
    assert wrapped.train()(torch.zeros(1, 3, 16, 16)).shape == (1, 3)


def test_autocast_takes_other_sizes_too() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert _model().train()(torch.randn(2, 3, 16, 16)).isfinite().all()
