"""Activation memory: the closed form, the count on tensors without data, and the measurement must be one number."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import nn

from vitreous.models.build import architecture, build
from vitreous.models.cost.activations import ActivationMemory, checkpointing, count, measure
from vitreous.models.cost.memory import outside_closed_form, runs_fused, saved_by_part, vit_memory
from vitreous.models.cost.numbers import ViTNumbers
from vitreous.models.layers import attention as attention_module
from vitreous.models.layers import pool as pool_module
from vitreous.models.vit import VisionTransformer

SMALL: dict[str, Any] = {
    "image_size": 32, "patch_size": 4, "num_classes": 5, "embed_dim": 64, "depth": 4, "num_heads": 2,
}  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {},
    {"image_size": 64},
    {"mlp_ratio": 2},
    {"num_registers": 4, "distillation_token": True},
    {"qk_norm": True},
    {"norm": "rms"},
    {"norm": "rms", "qk_norm": True},
    {"rope": "axial"},
    {"rope": "mixed"},
    {"rope": "mixed", "qk_norm": True},
    {"layer_scale": 1e-5},
    {"sub_norm": ("attention", "mlp")},
    {"sub_norm": ("mlp",), "mlp": "swiglu", "norm": "rms"},
    {"mlp": "swiglu"},
    {"mlp": "swiglu", "layer_scale": 1e-5},
    {"activation": "quick_gelu"},
    {"activation": "relu"},
    {"class_token": False, "pooling": "mean", "output_norm": "pooled"},
    {"pooling": "cls_mean"},
    {"pooling": "sequence"},
    {"pooling": "attention"},
    {"stem": "conv"},
    {"stem": "pooled"},
    {"stem": "shifted"},
    {"input_norm": True, "patch_norm": True},
    {"drop_path": 0.1, "drop_path_shape": "uniform"},
    {"norm": "rms", "qk_norm": True, "rope": "axial", "layer_scale": 1e-5, "num_registers": 4, "mlp": "swiglu"},
]
TOLERANCE = 0.05


def small(**options: Any) -> VisionTransformer:
    return VisionTransformer(**{**SMALL, **options})


def words(options: dict[str, Any]) -> str:
    return "-".join(map(str, options.values())) or "plain"


def errors(predicted: ActivationMemory, true: ActivationMemory) -> dict[str, float]:
    pairs = zip(asdict(predicted).items(), asdict(true).values(), strict=True)
    return {name: ours / theirs - 1 for (name, ours), theirs in pairs}


@pytest.fixture(params=[False, True], ids=["plain", "fused"])
def fused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The way of attention, forced upon every model of the test."""
    for module in (attention_module, pool_module):
        monkeypatch.setattr(module, "plain_is_faster", lambda _: not request.param)
    return request.param


@pytest.mark.parametrize("options", OPTIONS, ids=words)
def test_the_closed_form_is_what_is_counted(options: dict[str, Any], fused: bool) -> None:
    with torch.device("meta"):
        model = small(**options)
    vit = ViTNumbers.of(model)
    for batch in (1, 3):
        found = errors(vit_memory(vit, batch, fused=fused), count(model, (3, *model.image_size), batch))
        assert max(map(abs, found.values())) < TOLERANCE, (batch, found)


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_prediction_count_and_measurement_agree_for_the_model_of_the_first_paper(batch: int, fused: bool) -> None:
    torch.manual_seed(0)
    model = small(depth=6, image_size=48)
    measured = measure(model, torch.randn(batch, 3, 48, 48))
    assert count(model, (3, 48, 48), batch) == measured
    found = errors(vit_memory(ViTNumbers.of(model), batch), measured)
    assert max(map(abs, found.values())) < 0.01, found


@pytest.mark.parametrize("name", ["vit_micro", "resnet_micro", "mobilenetv3_small_100"])
def test_what_is_counted_is_what_is_measured_for_any_model(name: str) -> None:
    torch.manual_seed(0)
    model = build(architecture(name, num_classes=10, image_size=32))
    assert count(model, (3, 32, 32), 2) == measure(model, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("name", "batch"), [("vit_tiny_patch16_224", 8), ("vit_small_patch16_384", 1), ("vit_base_patch16_224", 32)]
)
def test_the_closed_form_holds_for_the_published_sizes(name: str, batch: int) -> None:
    with torch.device("meta"):
        model = build(architecture(name, num_classes=1000))
    assert isinstance(model, VisionTransformer)
    found = errors(vit_memory(ViTNumbers.of(model), batch), count(model, (3, *model.image_size), batch))
    assert max(map(abs, found.values())) < 0.01, found


def test_on_paper_a_linear_layer_keeps_its_input_and_a_gelu_its_own() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(10, 20), nn.Linear(20, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.second(nn.functional.gelu(self.first(images.flatten(1))))

    found = measure(Two(), torch.randn(4, 1, 2, 5))
    # Inference: GELU's input and output at once. Kept: both of these, log-probabilities, the loss and what it divides by.
    assert found.inference == 2 * 4 * 20 * 4
    assert found.saved == (2 * 4 * 20 + 4 * 3 + 2) * 4
    assert found.training_checkpointed is None and found.saved_checkpointed is None


def test_parameters_their_gradients_and_the_input_do_not_count() -> None:
    wide = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 4))
    found = measure(wide, torch.randn(1, 3, 64, 64))
    assert found.training < 1000


def test_measuring_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = build(architecture("resnet_micro", num_classes=10, image_size=32)).eval()
    weight = next(model.parameters())
    weight.grad = torch.ones_like(weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    measure(model, torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    assert not any(module.training for module in model.modules())
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_counting_does_not_touch_the_model_and_needs_no_data() -> None:
    with torch.device("meta"):
        model = small()
    model.train()
    count(model, (3, 32, 32), 2)
    assert model.training and not model.checkpointing
    assert all(parameter.device.type == "meta" and parameter.grad is None for parameter in model.parameters())


def test_checkpointing_is_switched_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    with checkpointing(model) as possible:
        assert possible and model.checkpointing
    assert not model.checkpointing
    with checkpointing(nn.Linear(1, 1)) as possible:
        assert not possible


def test_recomputing_blocks_saves_most_of_the_memory_of_training() -> None:
    with torch.device("meta"):
        model = small(depth=12)
    found = count(model, (3, 32, 32), 4)
    assert found.training_checkpointed is not None
    assert found.training_checkpointed < found.training / 4


def test_memory_is_counted_in_proportion_to_the_batch_beyond_one_image() -> None:
    with torch.device("meta"):
        model = small()
    vit = ViTNumbers.of(model)
    two, eight = vit_memory(vit, 2), vit_memory(vit, 8)
    assert eight.inference == 4 * two.inference
    assert eight.training == pytest.approx(4 * two.training, rel=1e-3)


def test_half_as_many_bytes_a_number_take_half_the_memory_but_for_statistics() -> None:
    with torch.device("meta"):
        vit = ViTNumbers.of(small())
    full, half = vit_memory(vit, 4), vit_memory(vit, 4, element_size=2)
    assert half.inference == full.inference // 2
    assert half.training == pytest.approx(full.training / 2, rel=0.01)


def test_what_is_kept_is_told_by_part_and_adds_up(fused: bool) -> None:
    with torch.device("meta"):
        vit = ViTNumbers.of(small())
    parts = saved_by_part(vit, 2)
    assert sum(parts.values()) == vit_memory(vit, 2).saved
    probabilities = 4 * 2 * 2 * 65 * (1 if fused else 65) * 4
    assert parts["attention: probabilities"] == probabilities
    assert parts["MLP: hidden layers"] == 4 * 2 * (2 * 65 * 256 * 4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"block": "parallel"}, "block='parallel'"),
        ({"differential": True}, "differential attention"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"patch_dropout": 0.5}, "patch_dropout"),
        ({"qk_norm": True}, ""),
    ],
)
def test_an_option_outside_the_closed_form_is_named_and_counted_all_the_same(
    options: dict[str, Any], reason: str
) -> None:
    with torch.device("meta"):
        model = small(**options)
    assert outside_closed_form(ViTNumbers.of(model)) == reason
    assert count(model, (3, 32, 32), 2).training > 0


def test_attention_is_fused_wherever_the_model_runs_it_so() -> None:
    with torch.device("meta"):
        vit = ViTNumbers.of(small())
    assert runs_fused(vit) is not attention_module.plain_is_faster(torch.empty(1, 2, 65, 32))
    assert runs_fused(vit, "cuda")
    assert runs_fused(vit.at(32 * 16))
