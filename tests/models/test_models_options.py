"""Every option of the Vision Transformer: that it does what its paper says, and that what is promised of the model holds
with it: every parameter learns, attention can be asked for, graphs can be captured, checkpointing changes nothing.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.engines.cpu import fast_matmul
from vitreous.models import VisionTransformer, architecture, build
from vitreous.models.layers import attention, pool
from vitreous.models.layers.norm import LayerScale
from vitreous.models.layers.pool import PairedHead
from vitreous.models.layers.position import sincos_positions
from vitreous.models.layers.rope import Rotation, coordinates, rotate
from vitreous.models.presets import PRESETS

TINY: dict[str, Any] = {
    "image_size": (32, 48),
    "patch_size": 8,
    "num_classes": 5,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "as in 2020": {},
    "distillation token": {"distillation_token": True},
    "registers": {"num_registers": 8},
    "mean pooling": {"pooling": "mean", "class_token": False},
    "mean of all tokens": {"pooling": "mean", "pool_prefix": True, "num_registers": 2},
    "[CLS] and mean": {"pooling": "cls_mean"},
    "attention pooling": {"pooling": "attention", "class_token": False, "pool_heads": 4, "pool_mlp_ratio": 2.0},
    "sequence pooling": {"pooling": "sequence", "class_token": False},
    "no norm at the end": {"output_norm": "none"},
    "norm of the pooled": {"pooling": "mean", "output_norm": "pooled"},
    "sines and cosines": {"positions": "sincos"},
    "no positions": {"positions": "none"},
    "patches placed, [CLS] not": {"class_position": False},
    "axial RoPE": {"rope": "axial", "positions": "none"},
    "axial RoPE on indices": {
        "rope": "axial",
        "rope_coordinates": "index",
        "rope_layout": "interleaved",
        "rope_axes": "xy",
        "rope_offset": 1.0,
        "rope_reference": 4,
    },
    "registers on a grid": {"rope": "axial", "num_registers": 4, "rope_register_theta": 100.0},
    "mixed RoPE": {"rope": "mixed", "rope_coordinates": "index", "rope_theta": 10.0},
    "RMSNorm": {"norm": "rms"},
    "QK-norm": {"qk_norm": True},
    "LayerScale": {"layer_scale": 0.1},
    "LayerScale on attention": {"layer_scale": 0.1, "layer_scale_on": ("attention",)},
    "SwiGLU": {"mlp": "swiglu"},
    "norms inside": {"sub_norm": ("attention", "mlp")},
    "no QKV bias": {"qkv_bias": False},
    "bias of queries and values": {"qkv_bias": "qv"},
    "no biases": {"qkv_bias": False, "bias": False, "patch_bias": False},
    "another activation": {"activation": "quick_gelu"},
    "norm of patches": {"patch_norm": True, "input_norm": True},
    "convolutional stem": {"stem": "conv"},
    "pooled stem": {"stem": "pooled"},
    "shifted patches": {"stem": "shifted"},
    "post-norm": {"block": "post_norm"},
    "parallel block": {"block": "parallel"},
    "branched block": {"block": "branched"},
    "differential attention": {"differential": True},
    "four bands": {"in_chans": 4},
    "oblong patches": {"patch_size": (8, 12)},
}


def make(**changes: Any) -> VisionTransformer:
    """A small model with weights away from their initial zeros."""
    torch.manual_seed(0)
    model = VisionTransformer(**{**TINY, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def images_for(model: VisionTransformer, count: int = 3) -> Tensor:
    return torch.randn(count, model.in_chans, *model.image_size, generator=torch.Generator().manual_seed(1))


def small(name: str, **changes: Any) -> VisionTransformer:
    """A preset at its own width, with two blocks, one of the widest, and few patches."""
    preset = PRESETS[name]
    patch, depth = preset.patch_size or 8, 1 if preset.arguments["embed_dim"] > 1400 else 2
    arguments = {"num_classes": 3, "image_size": 3 * patch, "patch_size": patch, "depth": depth, **changes}
    torch.manual_seed(0)
    model = build(architecture(name, **arguments))
    assert isinstance(model, VisionTransformer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def gradients(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    logits = model(images)
    (logits * torch.arange(1.0, 1 + logits.numel()).reshape(logits.shape)).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_parameter_learns_and_shapes_are_as_promised(option: str) -> None:
    model = make(**OPTIONS[option])
    images = images_for(model)
    tokens = model.forward_features(images)
    assert tokens.shape == (3, model.num_prefix_tokens + model.grid_size[0] * model.grid_size[1], 48)
    features = model.pool(tokens)
    assert features.shape == (3, model.num_features)
    torch.testing.assert_close(model.head(features), model(images))
    found = gradients(model, images)
    # Without a norm after it nothing of the last block's unread tokens matters, but every tensor still does something.
    still = [name for name, _ in model.named_parameters() if name not in found or not found[name].any()]
    assert still == []


@pytest.mark.parametrize("option", OPTIONS)
def test_attention_and_layers_on_request_change_nothing_and_agree(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(**OPTIONS[option]).eval()
    images = images_for(model)
    maps = {}
    for plain in (False, True):
        for place in (attention, pool):
            monkeypatch.setattr(place, "plain_is_faster", lambda _, answer=plain: answer)
        unasked = model.forward_features(images)
        tokens, maps[plain] = model.forward_features(images, attention=True)
        torch.testing.assert_close(tokens, unasked, atol=1e-5, rtol=1e-5)
    count = tokens.shape[1]
    recorded = 6 if OPTIONS[option].get("block") == "branched" else 3
    assert [tuple(layer.shape) for layer in maps[False]] == [(3, 3, count, count)] * recorded
    torch.testing.assert_close(maps[False], maps[True])
    found = model.forward_intermediates(images)
    assert len(found.layers) == 3
    assert found.attention == []
    torch.testing.assert_close(found.tokens, model.norm(found.layers[-1]))
    share = model.pool_weights(tokens)
    assert share.shape == (3, count)
    torch.testing.assert_close(share.sum(1), torch.ones(3))


@pytest.mark.parametrize("option", OPTIONS)
def test_checkpointing_gives_the_same_gradients(option: str) -> None:
    model = make(**OPTIONS[option], drop_path=0.2, projection_dropout=0.1, attention_dropout=0.1).train()
    images = images_for(model)
    torch.manual_seed(5)
    plain = gradients(model, images)
    model.checkpointing = True
    torch.manual_seed(5)
    again = gradients(model, images)
    for name, gradient in plain.items():
        scale = max(1.0, float(gradient.abs().max()))
        assert (again[name] - gradient).abs().max() <= 2e-6 * scale, (
            name
        )  # the sums of a last block for [CLS] alone are others


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_captured_whole_exported_and_checkpointed(name: str) -> None:
    model = small(name).eval()
    images = images_for(model, 2)
    with torch.no_grad():
        expected = model(images)
        torch._dynamo.reset()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(images), expected, atol=1e-5, rtol=1e-5)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (images,), dynamic_shapes=({0: batch},), strict=False).module()
    torch.testing.assert_close(exported(images.repeat(2, 1, 1, 1)), expected.repeat(2, 1), atol=1e-5, rtol=1e-5)
    model.train()
    plain = gradients(model, images)
    model.checkpointing = True
    for parameter, gradient in gradients(model, images).items():
        assert (gradient - plain[parameter]).abs().max() <= 4e-6 * max(1.0, float(plain[parameter].abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_plain_compact", "vit_base_siglip"])
def test_the_default_compiler_gives_the_same_logits_and_gradients(name: str) -> None:
    model = small(name, embed_dim=48, num_heads=3).train()
    images = images_for(model, 2)
    expected = gradients(model, images)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    model.zero_grad()
    logits = compiled(images)
    (logits * torch.arange(1.0, 1 + logits.numel()).reshape(logits.shape)).sum().backward()
    for parameter, value in model.named_parameters():
        assert value.grad is not None
        scale = max(1.0, float(expected[parameter].abs().max()))
        assert (value.grad - expected[parameter]).abs().max() <= 1e-4 * scale, parameter


def test_attention_on_a_cpu_takes_the_path_that_was_measured_to_be_faster() -> None:
    def chosen(dtype: torch.dtype, tokens: int) -> bool:
        return attention.plain_is_faster(torch.empty(1, 1, tokens, 8, dtype=dtype))

    assert not chosen(torch.float32, 50)
    assert chosen(torch.bfloat16, 50) and not chosen(torch.bfloat16, 5000)
    with fast_matmul():
        assert chosen(torch.float32, 50) == (torch.get_float32_matmul_precision() == "medium")
    assert not attention.plain_is_faster(torch.empty(1, 1, 50, 8, dtype=torch.bfloat16, device="meta"))


def test_rotation_turns_planes_and_leaves_lengths_and_relative_angles() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 1, 8, generator=generator).expand(1, 1, 12, 8) for _ in range(2))
    angles = torch.arange(12.0)[:, None] * torch.tensor([1.0, 0.5, 0.1, 0.01])
    for layout in ("half", "interleaved"):
        rotation = Rotation(angles.cos(), angles.sin(), layout)
        turned_q, turned_k = rotate(q, rotation), rotate(k, rotation)
        torch.testing.assert_close(turned_q.norm(dim=-1), q.norm(dim=-1))
        products = (turned_q @ turned_k.transpose(-2, -1))[0, 0]
        # What two tokens say to each other depends on how far apart they are, and on nothing else.
        for distance in range(-5, 6):
            diagonal = products.diagonal(distance)
            torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4, rtol=1e-4)


def test_coordinates_are_indices_stretched_indices_or_centres_in_one_to_one() -> None:
    assert coordinates((2, 3), "index").tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert coordinates((2, 2), "index", offset=1.0).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert coordinates((4, 1), "index", reference=(2, 3))[:, 0].tolist() == [0, 0.5, 1, 1.5]
    torch.testing.assert_close(coordinates((2, 4), "unit")[:4, 1], torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    assert coordinates((2, 4), "unit")[0, 0] == -0.5


def test_a_rotated_model_of_another_size_needs_no_new_weights() -> None:
    model = make(rope="axial", positions="none", pooling="mean", class_token=False)
    larger = make(rope="axial", positions="none", pooling="mean", class_token=False, image_size=(64, 96))
    larger.load_state_dict(model.state_dict())
    assert larger(images_for(larger)).shape == (3, 5)


def test_sines_and_cosines_are_those_of_the_paper_and_are_not_trained() -> None:
    found = sincos_positions((2, 3), 8)[0]
    omega = 1 / 10_000 ** (torch.arange(2) / 1)
    place = torch.tensor([2.0, 1.0])  # column, row of the last patch
    expected = torch.cat([wave(axis * omega) for axis in place for wave in (torch.sin, torch.cos)])
    torch.testing.assert_close(found[-1], expected)
    model = make(positions="sincos")
    assert "position_embedding" in model.state_dict()
    assert "position_embedding" not in dict(model.named_parameters())


def test_patch_dropout_keeps_the_prefix_and_each_tokens_own_position() -> None:
    seen = []
    model = make(patch_dropout=0.5, num_registers=2, rope="mixed", rope_coordinates="index").train()
    model.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given))
    images = images_for(model, 4)
    torch.manual_seed(3)
    model(images)
    tokens, rotation, _ = seen[0]
    whole = model.embed(images)
    assert tokens.shape == (4, 3 + 12, 48)
    torch.testing.assert_close(tokens[:, :3], whole[:, :3])
    full = model.rope(model.grid_size, 1, 2, whole.device)[0]  # type: ignore[misc]
    chosen = []
    for image in range(4):
        places = [int((whole[image] - token).abs().sum(-1).argmin()) for token in tokens[image]]
        torch.testing.assert_close(rotation.cos[image], full.cos[:, places])
        chosen.append(places)
    assert len({tuple(places) for places in chosen}) > 1, "each image drops its own patches"
    assert model.eval()(images).shape == (4, 5)
    assert seen[-1][0].shape[1] == 3 + 24


def test_shifted_patches_see_half_a_patch_around() -> None:
    model = make(stem="shifted", image_size=32)
    image = torch.zeros(1, 3, 32, 32)
    before = model.patch_embedding(image)
    image[0, :, 11, 11] = 1.0  # in patch (1, 1); moved by 4 along the diagonals into (1, 1), (0, 0), (0, 1) and (1, 0)
    changed = (model.patch_embedding(image) - before).abs().amax(dim=-1)[0].reshape(4, 4) > 0
    assert changed.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_biases_of_queries_and_values_leave_keys_alone() -> None:
    model = make(qkv_bias="qv").train()
    with torch.no_grad():
        for block in model.blocks:
            block.attention.qkv.bias.chunk(3)[1].fill_(7.0)  # type: ignore[union-attr, operator]
    images = images_for(model)
    expected = model(images)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.qkv.bias.chunk(3)[1].zero_()  # type: ignore[union-attr, operator]
    assert torch.equal(model(images), expected)
    found = gradients(model, images)
    assert not found["blocks.0.attention.qkv.bias"].chunk(3)[1].any()


def test_swiglu_gates_the_first_half() -> None:
    mlp = make(mlp="swiglu").blocks[0].mlp
    tokens = torch.randn(2, 4, 48)
    gate, value = F.linear(tokens, mlp.expand.weight, mlp.expand.bias).chunk(2, -1)  # type: ignore[union-attr, arg-type]
    torch.testing.assert_close(mlp(tokens), mlp.contract(F.silu(gate) * value))  # type: ignore[operator, union-attr]


def test_a_distilled_model_answers_with_the_mean_of_two_classifiers() -> None:
    model = make(distillation_token=True).eval()
    assert isinstance(model.head, PairedHead)
    features = model.pool(model.forward_features(images_for(model)))
    label, teacher = model.head.pair(features)
    torch.testing.assert_close(model.head(features), (label + teacher) / 2)
    assert not torch.allclose(label, teacher)


def test_layer_scale_starts_where_it_is_told_on_the_branches_it_is_told() -> None:
    model = VisionTransformer(**TINY, layer_scale=1e-4, layer_scale_on=("mlp",))
    scales = {name: module for name, module in model.named_modules() if isinstance(module, LayerScale)}
    assert list(scales) == [f"blocks.{layer}.mlp_scale" for layer in range(3)]
    assert all((scale.gamma == 1e-4).all() for scale in scales.values())


def test_stochastic_depth_rises_or_is_the_same_everywhere() -> None:
    def chances(shape: str) -> list[float]:
        model = VisionTransformer(**TINY, drop_path=0.3, drop_path_shape=shape)  # type: ignore[arg-type]
        return [round(block.drop_path.probability, 6) for block in model.blocks]  # type: ignore[union-attr, arg-type]

    assert chances("linear") == [0.0, 0.15, 0.3]
    assert chances("uniform") == [0.3, 0.3, 0.3]


def test_no_classes_leaves_the_features() -> None:
    model = make(num_classes=0).eval()
    assert model(images_for(model)).shape == (3, 48)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pooling": "cls", "class_token": False}, "class_token=False"),
        ({"pooling": "cls_mean", "class_token": False}, "class_token=False"),
        ({"distillation_token": True, "class_token": False, "pooling": "mean"}, "distillation_token=True"),
        ({"pooling": "median"}, "cls, mean, cls_mean, attention, sequence"),
        ({"stem": "resnet"}, "linear, conv, pooled, shifted"),
        ({"block": "windowed"}, "pre_norm, post_norm, parallel, branched"),
        ({"positions": "relative"}, "learned, sincos, none"),
        ({"norm": "batch"}, "layer, rms"),
        ({"mlp": "mixer"}, "mlp, swiglu"),
        ({"activation": "tanh"}, "gelu, gelu_tanh"),
        ({"rope": "spiral"}, "none, axial, mixed"),
        ({"rope": "axial", "num_heads": 8}, "multiple of 4"),
        ({"rope": "mixed", "rope_register_theta": 1.0}, "rope_register_theta"),
        ({"stem": "conv", "patch_norm": True}, "stem='linear'"),
        ({"positions": "sincos", "embed_dim": 42}, "multiple of 4"),
    ],
)
def test_options_that_do_not_fit_are_refused_naming_what_would(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        VisionTransformer(**{**TINY, **changes})


def test_rotary_positions_do_not_join_differential_attention() -> None:
    with pytest.raises(ValueError, match="differential"):
        make(rope="axial", differential=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"output_norm": "x"}, "tokens, pooled, none"),
        ({"drop_path_shape": "x"}, "linear, uniform"),
        ({"rope_layout": "x"}, "half, interleaved"),
        ({"rope_axes": "x"}, "yx, xy"),
        ({"rope_coordinates": "x"}, "index, unit"),
        ({"sub_norm": ("x",)}, "attention, mlp"),
        ({"layer_scale_on": ("x",)}, "attention, mlp"),
        ({"qkv_bias": "k"}, "qv"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"num_registers": -1}, "num_registers must be at least 0"),
        ({"in_chans": 0}, "in_chans"),
        ({"drop_path": 1.0}, r"\[0, 1\)"),
        ({"patch_dropout": -0.5}, r"\[0, 1\)"),
        ({"image_size": 32.5}, "size"),
        ({"patch_size": (8, 8, 8)}, "size"),
        ({"pooling": "attention", "pool_heads": 5}, "not divisible by num_heads 5"),
        ({"embed_dim": 100, "rope": "axial"}, "not divisible by num_heads 3"),
        ({"rope": "axial", "num_registers": 3, "rope_register_theta": 9.0}, "square grid"),
    ],
)
def test_values_that_mean_nothing_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=named):
        VisionTransformer(**{**TINY, **changes})


def test_shares_of_cls_and_mean_add_up_also_where_the_mean_takes_cls_in() -> None:
    model = make(pooling="cls_mean", pool_prefix=True, num_registers=2)
    tokens = model.forward_features(images_for(model))
    torch.testing.assert_close(model.pool_weights(tokens).sum(1), torch.ones(3))


def test_rmsnorm_under_autocast_is_quiet_and_keeps_the_type() -> None:
    model = make(norm="rms", qk_norm=True).eval()
    images = images_for(model)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = model(images)
    torch.testing.assert_close(found.float(), model(images), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("net", [{"rope": "mixed"}, {"rope": "none"}, {"differential": True}, {"num_registers": 3}])
def test_a_presets_parts_make_way_for_what_the_caller_asks_for(net: dict[str, Any]) -> None:
    model = build(architecture("vit_plain_micro", num_classes=3, image_size=32, **net)).eval()
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
