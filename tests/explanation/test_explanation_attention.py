"""Rollout and relevance: cases solved on paper, then the real model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vitreous.explanation.attention import read_grid
from vitreous.explanation.relevance import propagate, relevance_map
from vitreous.explanation.rollout import rollout, rollout_map
from vitreous.models import VisionTransformer

torch.set_num_threads(1)

SHAPES: dict[str, dict[str, Any]] = {
    "cls": {},
    "cls_with_registers": {"num_registers": 3},
    "mean": {"pooling": "mean", "class_token": False},
    "mean_with_class_token_and_registers": {"pooling": "mean", "num_registers": 2},
    "attention_pooling": {"pooling": "attention", "class_token": False},
    "sequence_pooling": {"pooling": "sequence"},
    "cls_and_mean": {"pooling": "cls_mean", "num_registers": 1},
    "distillation_token": {"distillation_token": True},
    "rotary_positions": {"rope": "axial", "positions": "none"},
    "parallel_block": {"block": "parallel"},
    "branched_block": {"block": "branched"},
    "differential": {"differential": True},
    "patch_8x4_not_square": {"image_size": (16, 24), "patch_size": (8, 4)},
}


def tiny(seed: int = 0, **arguments: Any) -> VisionTransformer:
    torch.manual_seed(seed)
    settings = {"image_size": (12, 20), "patch_size": 4, "num_classes": 3, "embed_dim": 16, "depth": 3, "num_heads": 2}
    model = VisionTransformer(**{**settings, **arguments}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def images_for(model: VisionTransformer, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *model.image_size, generator=torch.Generator().manual_seed(5))


def test_rollout_of_tokens_that_see_only_themselves_is_the_identity() -> None:
    attention = torch.eye(4).expand(3, 2, 5, 4, 4)
    assert torch.allclose(rollout(attention), torch.eye(4).expand(2, 4, 4))


def test_rollout_of_one_uniform_layer_mixes_half_with_the_skip_connection() -> None:
    attention = torch.full((1, 1, 2, 4, 4), 0.25)
    expected = 0.5 * torch.eye(4) + 0.125
    assert torch.allclose(rollout(attention)[0], expected)


def test_rollout_multiplies_later_layers_from_the_left() -> None:
    # Layer 1: token 1 copies token 2. Layer 2: token 0 copies token 1. Only in that order does 0 learn of 2.
    copy_2 = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 1]])[None, None]
    copy_1 = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1]])[None, None]
    assert rollout([copy_2, copy_1])[0, 0, 2] == pytest.approx(0.25)
    assert rollout([copy_1, copy_2])[0, 0, 2] == 0


def test_rollout_rows_sum_to_one_for_any_share_of_the_skip_connection() -> None:
    attention = torch.randn(6, 2, 3, 9, 9, generator=torch.Generator().manual_seed(0)).softmax(-1)
    for residual in (0.0, 0.3, 0.5, 1.0):
        assert torch.allclose(rollout(attention, residual).sum(-1), torch.ones(2, 9), atol=1e-6)


def test_relevance_of_one_layer_is_the_positive_part_of_gradient_times_attention_averaged_over_heads() -> None:
    attention = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.2, 0.8], [0.0, 1.0]]])[None]  # one image, two heads
    gradient = torch.tensor([[[2.0, -1.0], [0.0, 3.0]], [[1.0, 1.0], [0.0, 0.0]]])[None]
    # Head 1: [[1, 0], [0, 0]]; head 2: [[0.2, 0.8], [0, 0]]; mean plus the identity.
    expected = torch.tensor([[1.6, 0.4], [0.0, 1.0]])
    assert torch.allclose(propagate([attention], [gradient])[0], expected)


def test_relevance_of_two_layers_carries_the_first_through_the_second() -> None:
    first, second = torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)
    first[..., 1, 2], second[..., 0, 1] = 0.5, 0.25
    found = propagate([first, second], [torch.ones(1, 1, 3, 3)] * 2)[0]
    expected = torch.eye(3)
    expected[1, 2], expected[0, 1], expected[0, 2] = 0.5, 0.25, 0.125
    assert torch.allclose(found, expected)


def test_relevance_of_a_real_block_equals_the_rule_with_gradients_by_finite_differences() -> None:
    model = tiny(depth=1, num_heads=1).double()
    images, block = images_for(model, 1).double(), model.blocks[0]
    _, attention = model.forward_features(images, attention=True)
    probabilities = attention[0].detach()[0, 0]
    tokens = model.embed(images).detach()
    values = block.attention.qkv(block.attention_norm(tokens)).chunk(3, -1)[2]  # type: ignore[operator, union-attr]

    def logit(matrix: torch.Tensor) -> float:
        mixed = tokens + block.attention.projection(matrix @ values)  # type: ignore[operator, union-attr]
        output = mixed + block.mlp(block.mlp_norm(mixed))  # type: ignore[operator]
        return float(model.head(model.pool(model.norm(output)))[0, 1].detach())

    n, step = len(probabilities), 1e-5
    row = torch.zeros(n, dtype=torch.float64)
    for column in range(n):
        nudge = torch.zeros(n, n, dtype=torch.float64)
        nudge[0, column] = step
        row[column] = (logit(probabilities + nudge) - logit(probabilities - nudge)) / (2 * step)
    expected = (row * probabilities[0]).clamp(min=0)[1:].reshape(3, 5)
    found = relevance_map(model, images, torch.tensor([1]))[0]
    assert expected.max() > 0
    assert torch.allclose(found, expected, atol=1e-8)


def test_reading_the_grid_leaves_out_class_token_and_registers() -> None:
    model = tiny(num_registers=2)  # 3 + 15 tokens
    relation = torch.arange(18.0).expand(1, 18, 18)
    assert torch.equal(read_grid(relation, model, torch.zeros(1, 18, 16))[0], torch.arange(3.0, 18.0).reshape(3, 5))


def test_reading_the_grid_with_mean_pooling_averages_the_rows_of_patches_only() -> None:
    model = tiny(pooling="mean", num_registers=2)
    relation = torch.zeros(1, 18, 18)
    relation[0, :3] = 100.0
    relation[0, 3, 4] = 15.0
    expected = torch.zeros(3, 5)
    expected[0, 1] = 1.0
    assert torch.equal(read_grid(relation, model, torch.zeros(1, 18, 16))[0], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_maps_have_the_models_grid_and_are_finite_and_not_negative(shape: str) -> None:
    model = tiny(**SHAPES[shape])
    images, target = images_for(model), torch.tensor([0, 2])
    for found in (rollout_map(model, images, target), relevance_map(model, images, target)):
        assert found.shape == (2, *model.grid_size)
        assert found.isfinite().all() and (found >= 0).all() and found.std() > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_explained_in_a_batch_gets_the_map_it_gets_alone(shape: str) -> None:
    model = tiny(**SHAPES[shape])
    images, target = images_for(model, 3), torch.tensor([0, 2, 1])
    together = relevance_map(model, images, target)
    alone = torch.cat([relevance_map(model, images[i : i + 1], target[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_another_target_changes_the_relevance_map_and_not_the_rollout() -> None:
    model = tiny()
    images = images_for(model, 1)
    one, other = torch.tensor([0]), torch.tensor([1])
    assert not torch.allclose(relevance_map(model, images, one), relevance_map(model, images, other), rtol=0.1)
    assert torch.equal(rollout_map(model, images, one), rollout_map(model, images, other))


def test_other_weights_change_the_maps() -> None:
    images, target = images_for(tiny(), 1), torch.tensor([0])
    for method in (rollout_map, relevance_map):
        maps = [method(tiny(seed), images, target).flatten() for seed in (0, 1)]
        assert abs(float(torch.corrcoef(torch.stack(maps))[0, 1])) < 0.9


def test_explaining_leaves_no_trace_in_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    images, target = images_for(model), torch.tensor([0, 1])
    # Short sequences on a CPU are computed in the open; make them take the fused kernel, and count its calls.
    monkeypatch.setattr("vitreous.models.layers.attention.PLAIN_ON_CPU_UP_TO", 0)
    calls = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *args, **how: calls.append(1) or fused(*args, **how))
    before = model(images)
    assert len(calls) == 3
    relevance_map(model, images, target)
    rollout_map(model, images)
    assert len(calls) == 3
    assert torch.equal(model(images), before)
    assert len(calls) == 6
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_relevance_works_for_frozen_models_and_inside_inference_mode() -> None:
    model = tiny()
    images, target = images_for(model), torch.tensor([0, 1])
    expected = relevance_map(model, images, target)
    model.requires_grad_(False)
    with torch.inference_mode():
        found = relevance_map(model, images * 1.0, target + 0)
    assert torch.equal(found, expected)
