"""Our Vision Transformer against those of Hugging Face transformers, with weights mapped both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch
from foreign_cases import HUGGINGFACE, fill, huggingface_case, huggingface_model, random_images, relative_difference
from safetensors.torch import load_file, save_file
from torch import nn

from vitreous.errors import WeightsError
from vitreous.models import VisionTransformer
from vitreous.models.fit import load_into
from vitreous.models.foreign import convert
from vitreous.models.foreign.huggingface import from_huggingface, to_huggingface
from vitreous.models.foreign.huggingface_config import huggingface_arguments, huggingface_convention
from vitreous.models.foreign.huggingface_folder import huggingface_config, huggingface_like
from vitreous.models.layers.attention import KeyUnbiasedLinear

TOLERANCE = 1e-5
CLASSES = ("ant", "bee", "cat", "dog", "elk")
OURS: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 4,
    "mlp_ratio": 2.0,
    "num_classes": len(CLASSES),
}


@pytest.mark.parametrize("name", HUGGINGFACE)
@torch.inference_mode()
def test_tokens_and_logits_equal_theirs_and_come_back(name: str) -> None:
    _, theirs, ours, images = huggingface_case(name)
    expected = theirs(images)
    assert relative_difference(ours.forward_features(images), theirs.forward_features(images)) <= TOLERANCE
    assert relative_difference(ours(images), expected) <= TOLERANCE

    back = to_huggingface(ours.state_dict(), theirs.model.state_dict())
    fill(theirs.model, seed=2)
    theirs.model.load_state_dict(back)
    assert relative_difference(theirs(images), expected) <= TOLERANCE


@pytest.mark.parametrize("name", HUGGINGFACE)
@torch.inference_mode()
def test_files_of_theirs_are_read_without_transformers(name: str, tmp_path: Path) -> None:
    _, theirs, ours, images = huggingface_case(name)
    expected = ours(images)
    theirs.model.save_pretrained(tmp_path)  # type: ignore[operator]
    config = json.loads((tmp_path / "config.json").read_text())
    state = load_file(tmp_path / "model.safetensors")
    again = VisionTransformer(**huggingface_arguments(config)).eval()
    assert load_into(again, convert(state, config), name) == ()
    assert torch.equal(again(images), expected)


@pytest.mark.parametrize("name", [name for name in HUGGINGFACE if not name.startswith(("SigLIP 2", "MAE"))])
def test_names_and_shapes_of_their_files_are_known(name: str, tmp_path: Path) -> None:
    huggingface_model(name).save_pretrained(tmp_path)  # type: ignore[operator]
    config = json.loads((tmp_path / "config.json").read_text())
    expected = {name: value.shape for name, value in load_file(tmp_path / "model.safetensors").items()}
    found = {name: value.shape for name, value in huggingface_like(config).items()}
    if name == "SigLIP":  # release 4 wrote a prefix and needs it; release 5 writes none and reads both
        found = {name.removeprefix("vision_model."): shape for name, shape in found.items()}
    assert found == expected


WRITTEN: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit", {}),
    "vit, wide images, keys without bias": ("vit", {"image_size": (24, 40), "qkv_bias": "qv"}),
    "vit, fixed positions": ("vit", {"positions": "sincos", "norm_eps": 1e-5}),
    "deit with teacher": ("deit", {"distillation_token": True}),
    "deit": ("deit", {"num_registers": 1}),
    "deit, [CLS] without a position": ("deit", {"num_registers": 1, "class_position": False}),
    "dinov2": ("dinov2", {"pooling": "cls_mean", "layer_scale": 0.1}),
    "dinov2 without LayerScale": ("dinov2", {"pooling": "cls_mean", "class_position": False}),
    "dinov2, head on [CLS]": ("dinov2", {"layer_scale": 0.1, "qkv_bias": False}),
    "dinov2 gated": ("dinov2", {"pooling": "cls_mean", "mlp": "swiglu", "mlp_ratio": 64 / 48}),
    "dinov2 with registers": ("dinov2_with_registers", {"pooling": "cls_mean", "num_registers": 3}),
    "siglip": ("siglip", {"class_token": False, "pooling": "mean", "activation": "gelu_tanh"}),
}


@pytest.mark.parametrize("case", WRITTEN)
@torch.inference_mode()
def test_a_folder_that_we_write_gives_our_logits(case: str, tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    kind, options = WRITTEN[case]
    arguments: dict[str, Any] = OURS | options
    ours = VisionTransformer(**arguments).eval()
    fill(ours)
    clear_unread_biases(ours)
    config = huggingface_config(arguments, CLASSES)
    assert config["model_type"] == kind
    write(ours, config, tmp_path)
    theirs, info = AutoModelForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert tuple(theirs.config.id2label.values()) == CLASSES
    images = random_images(ours)
    assert relative_difference(ours(images), theirs.eval()(images).logits) <= TOLERANCE
    again = VisionTransformer(**huggingface_arguments(config)).eval()
    load_into(again, from_huggingface(load_file(tmp_path / "model.safetensors"), config), case)
    assert relative_difference(again(images), ours(images)) <= TOLERANCE


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("vit", {}),
        ("dinov2_with_registers", {"layer_scale": 0.1, "num_registers": 4}),
        ("dinov2_with_registers", {"num_registers": 1}),
        (
            "dinov3_vit",
            {"positions": "none", "rope": "axial", "layer_scale": 0.1, "num_registers": 4, "qkv_bias": "qv"},
        ),
        ("dinov3_vit", {"positions": "none", "rope": "axial", "mlp": "swiglu", "bias": False, "image_size": (24, 40)}),
        ("siglip_vision_model", {"class_token": False, "pooling": "attention", "activation": "gelu_tanh"}),
    ],
)
@torch.inference_mode()
def test_a_folder_without_a_head_gives_our_tokens_and_features(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import AutoModel

    arguments: dict[str, Any] = OURS | {"num_classes": 0, **options}
    ours = VisionTransformer(**arguments).eval()
    fill(ours)
    clear_unread_biases(ours)
    config = huggingface_config(arguments)
    assert config["model_type"] == kind
    write(ours, config, tmp_path)
    theirs = AutoModel.from_pretrained(tmp_path, **({"add_pooling_layer": False} if kind == "vit" else {})).eval()
    images = random_images(ours)
    found = theirs(images)
    assert relative_difference(ours.forward_features(images), found.last_hidden_state) <= TOLERANCE
    pooled = found.last_hidden_state[:, 0] if kind == "vit" else found.pooler_output
    assert relative_difference(ours(images), pooled) <= TOLERANCE


@torch.no_grad()
def clear_unread_biases(model: VisionTransformer) -> None:
    """The bias of keys, where it is not used, is zero: no gradient ever reaches it."""
    for module in model.modules():
        if isinstance(module, KeyUnbiasedLinear):
            module.bias.chunk(3)[1].zero_()


def write(model: nn.Module, config: dict[str, Any], folder: Path) -> None:
    state = to_huggingface(model.state_dict(), huggingface_like(config))
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def test_the_vision_encoder_of_a_siglip_pair_is_taken_out() -> None:
    from transformers import SiglipConfig, SiglipModel

    _, settings = HUGGINGFACE["SigLIP"]
    text = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = SiglipConfig(
        text_config=text | {"vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2}, vision_config=settings
    )
    config.architectures = ["SiglipModel"]
    pair = SiglipModel(config).eval()
    fill(pair)
    ours = VisionTransformer(**huggingface_arguments(config.to_dict())).eval()
    load_into(ours, from_huggingface(dict(pair.state_dict())), "pair")
    images = random_images(ours)
    with torch.inference_mode():
        assert relative_difference(ours(images), pair.vision_model(images).pooler_output) <= TOLERANCE


def test_a_configuration_may_leave_out_what_is_default() -> None:
    found = huggingface_arguments({"model_type": "siglip", "vision_config": {"image_size": 256}})
    assert found["image_size"] == [256, 256] and found["embed_dim"] == 768 and found["activation"] == "gelu_tanh"
    assert (
        huggingface_arguments({"model_type": "vit", "architectures": ["ViTForImageClassification"]})["num_classes"] == 2
    )
    assert huggingface_convention({"model_type": "vit"}) == "dinov2_hf"
    assert huggingface_convention({"model_type": "dinov2_with_registers"}) == "dinov2_reg"


def test_another_kind_of_model_is_refused_naming_the_known() -> None:
    with pytest.raises(WeightsError, match=r"'swinv2'.*dinov3_vit.*vit_mae"):
        huggingface_arguments({"model_type": "swinv2"})
    with pytest.raises(WeightsError, match="relative_position_bias"):
        from_huggingface({"encoder.layer.0.attention.relative_position_bias.table": torch.zeros(2)})
    with pytest.raises(WeightsError, match="read, not written"):
        huggingface_like({"model_type": "vit_mae"})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"norm": "rms"}, "norm='rms'"),
        ({"block": "parallel"}, "block='parallel'"),
        ({"stem": "conv"}, "stem='conv'"),
        ({"qk_norm": True}, "qk_norm=True"),
        ({"output_norm": "pooled"}, "output_norm='pooled'"),
        ({"sub_norm": ["mlp"]}, "sub_norm"),
        ({"pooling": "mean"}, "pooling='mean'"),
        ({"bias": False}, "bias=False"),
        ({"positions": "none"}, "positions='none'"),
        ({"positions": "none", "rope": "axial"}, "head beside rope"),
        ({"positions": "none", "rope": "mixed", "num_classes": 0}, "rope='mixed'"),
        ({"class_token": False, "pooling": "attention"}, "pooling='attention'"),
        ({"layer_scale": 0.1, "image_size": (24, 40)}, "image_size"),
        ({"layer_scale": 0.1, "mlp_ratio": 2.5}, "mlp_ratio=2.5"),
    ],
)
def test_a_model_that_theirs_lacks_is_refused_saying_why(options: dict[str, Any], reason: str) -> None:
    arguments: dict[str, Any] = OURS | options
    with pytest.raises(WeightsError) as raised:
        huggingface_config(arguments, CLASSES[: arguments["num_classes"]])
    assert reason in str(raised.value)


def test_class_names_must_be_as_many_as_logits() -> None:
    with pytest.raises(ValueError, match="num_classes is 5, but 2"):
        huggingface_config(OURS, CLASSES[:2])


def test_nothing_is_lost_silently_on_the_way_to_theirs() -> None:
    ours = VisionTransformer(**OURS, qk_norm=True)
    like = huggingface_like(huggingface_config(OURS, CLASSES))
    with pytest.raises(WeightsError, match=r"no part for 'blocks.0.attention.query_norm"):
        to_huggingface(ours.state_dict(), like)
    state = VisionTransformer(**OURS).state_dict()
    fewer = {name: value for name, value in like.items() if not name.endswith("key.bias")}
    to_huggingface(state, fewer)  # zeros, as training starts
    state["blocks.1.attention.qkv.bias"].fill_(1.0)
    with pytest.raises(WeightsError, match=r"no part for 'blocks.1.attention.qkv.bias'"):
        to_huggingface(state, fewer)
    del state["blocks.0.mlp_norm.weight"]
    with pytest.raises(WeightsError, match=r"layernorm_after.weight', which these weights lack"):
        to_huggingface(state, like)
