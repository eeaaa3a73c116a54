"""Checkpoints in the layouts of their authors, read by ours and by timm: Google's `.npz`, DINO, DINOv2, DINOv3, MAE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from foreign_cases import fill, random_images, relative_difference, torchvision_model
from timm.layers.mlp import SwiGLUPacked
from timm.models import eva, vision_transformer
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn

from vitreous.errors import WeightsError
from vitreous.models import VisionTransformer
from vitreous.models.fit import load_into
from vitreous.models.foreign import convert, recognise
from vitreous.models.foreign.google import from_npz, npz_arguments, read_npz
from vitreous.models.foreign.original import from_original, unwrap
from vitreous.models.timm_models import arguments_of

TOLERANCE = 1e-5
D, HEADS, HIDDEN, PATCH, GRID, DEPTH, CLASSES = 48, 4, 80, 8, 4, 2, 7


def check(theirs: Any, ours: VisionTransformer, tolerance: float = TOLERANCE) -> None:
    """Tokens and logits are equal."""
    images = random_images(ours)
    with torch.inference_mode():
        expected = theirs.forward_features(images)
        assert relative_difference(ours.forward_features(images), expected) <= tolerance
        assert relative_difference(ours(images), theirs(images)) <= tolerance


# Google


def google_arrays(
    *, big_vision: bool = False, cls: bool = True, pooling: bool = False, positions: int | None = GRID**2 + 1
) -> dict[str, np.ndarray]:
    """Random numbers in the layout of vision_transformer, or of big_vision."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}

    def put(name: str, *shape: int, scale: float = 0.1) -> None:
        found[name] = (scale * rng.standard_normal(shape)).astype(np.float32)

    def norm(name: str) -> None:
        put(f"{name}/scale", D)
        found[f"{name}/scale"] += 1
        put(f"{name}/bias", D)

    def attention(name: str) -> None:
        for part in ("query", "key", "value"):
            put(f"{name}/{part}/kernel", D, HEADS, D // HEADS)
            put(f"{name}/{part}/bias", HEADS, D // HEADS)
        put(f"{name}/out/kernel", HEADS, D // HEADS, D)
        put(f"{name}/out/bias", D)

    def dense(name: str, *shape: int) -> None:
        put(f"{name}/kernel", *shape)
        put(f"{name}/bias", shape[-1])

    dense("embedding", PATCH, PATCH, 3, D)
    if cls:
        put("cls", 1, 1, D)
    if positions:
        put("pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding", 1, positions, D)
    for layer in range(DEPTH):
        block = f"Transformer/encoderblock_{layer}"
        norm(f"{block}/LayerNorm_0")
        attention(f"{block}/MultiHeadDotProductAttention_{0 if big_vision else 1}")
        norm(f"{block}/LayerNorm_{1 if big_vision else 2}")
        dense(f"{block}/MlpBlock_{0 if big_vision else 3}/Dense_0", D, HIDDEN)
        dense(f"{block}/MlpBlock_{0 if big_vision else 3}/Dense_1", HIDDEN, D)
    norm("Transformer/encoder_norm")
    if pooling:
        put("MAPHead_0/probe", 1, 1, D)
        attention("MAPHead_0/MultiHeadDotProductAttention_0")
        norm("MAPHead_0/LayerNorm_0")
        dense("MAPHead_0/MlpBlock_0/Dense_0", D, HIDDEN)
        dense("MAPHead_0/MlpBlock_0/Dense_1", HIDDEN, D)
    dense("head", D, CLASSES)
    return found


def scanned(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All layers in one array, as big_vision keeps them since it runs them in a scan."""
    first = "Transformer/encoderblock_0/"
    rest = {name: value for name, value in arrays.items() if "/encoderblock_" not in name}
    return rest | {
        f"Transformer/encoderblock/{name.removeprefix(first)}": np.stack(
            [arrays[name.replace("_0/", f"_{layer}/", 1)] for layer in range(DEPTH)]
        )
        for name in arrays
        if name.startswith(first)
    }


def prefixed(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {prefix + name: value for name, value in arrays.items()}


BIG_VISION: dict[str, Any] = {"big_vision": True, "positions": GRID**2}
MAP: dict[str, Any] = {"class_token": False, "global_pool": "map"}
GOOGLE: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {
    "vision_transformer": (google_arrays(), {}),
    "vision_transformer, training state": (
        prefixed("opt/target/", google_arrays()) | {"opt/state/step": np.ones(1, np.int32)},
        {},
    ),
    "big_vision, [CLS]": (google_arrays(**BIG_VISION), {"no_embed_class": True}),
    "big_vision, mean": (
        prefixed("params/", google_arrays(**BIG_VISION, cls=False)),
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
    ),
    "big_vision, attention pooling": (prefixed("params/", google_arrays(**BIG_VISION, cls=False, pooling=True)), MAP),
    "SigLIP, scanned": (
        prefixed("params/img/", scanned(google_arrays(**BIG_VISION, cls=False, pooling=True)))
        | {"params/t": np.ones(1, np.float32), "params/txt/head/bias": np.ones(3, np.float32)},
        MAP,
    ),
}


@pytest.mark.parametrize("layout", GOOGLE)
def test_googles_checkpoints_compute_what_timm_computes_with_them(layout: str, tmp_path: Path) -> None:
    arrays, options = GOOGLE[layout]
    path = tmp_path / "google.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    theirs = TimmViT(
        img_size=GRID * PATCH,
        patch_size=PATCH,
        embed_dim=D,
        depth=DEPTH,
        num_heads=HEADS,
        mlp_ratio=HIDDEN / D,
        num_classes=CLASSES,
        act_layer="gelu_tanh",
        **options,
    ).eval()
    theirs.load_pretrained(str(path))
    found = read_npz(path)
    assert recognise(found) == "google"
    ours = VisionTransformer(**npz_arguments(found)).eval()
    assert load_into(ours, convert(found), layout) == ()
    check(theirs, ours)


def test_older_places_of_positions_and_pooling_are_known() -> None:
    arrays = google_arrays(**BIG_VISION, cls=False, pooling=True)
    expected = from_npz(arrays)
    arrays["Transformer/pos_embedding"] = arrays.pop("pos_embedding")
    old = {name.removeprefix("MAPHead_0/"): value for name, value in arrays.items()}
    found = from_npz(old)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    assert npz_arguments(old)["pooling"] == "attention"


def test_patches_cut_beforehand_and_positions_in_a_grid_are_known() -> None:
    arrays = google_arrays(**BIG_VISION, cls=False)
    expected = from_npz(arrays)
    arrays["embedding/kernel"] = arrays["embedding/kernel"].reshape(-1, D)
    arrays["pos_embedding"] = arrays["pos_embedding"].reshape(GRID, GRID, D)
    found = from_npz(arrays)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert npz_arguments(arrays)["image_size"] == [GRID * PATCH] * 2 and npz_arguments(arrays)["in_chans"] == 3


def test_a_representation_layer_is_left_out_with_the_head_behind_it() -> None:
    arrays = google_arrays()
    arrays |= {"pre_logits/kernel": np.ones((D, D), np.float32), "pre_logits/bias": np.ones(D, np.float32)}
    assert npz_arguments(arrays)["num_classes"] == 0
    assert not any(name.startswith("head") for name in from_npz(arrays))


def test_bfloat16_is_read_and_computed_positions_are_said(tmp_path: Path) -> None:
    arrays = google_arrays(big_vision=True, cls=False, positions=None)
    assert npz_arguments(arrays)["positions"] == "sincos"
    expected = from_npz(arrays)["norm.weight"].bfloat16()
    arrays["Transformer/encoder_norm/scale"] = expected.view(torch.int16).numpy().view("V2")
    np.savez(tmp_path / "half.npz", **arrays)  # type: ignore[arg-type]
    assert torch.equal(from_npz(read_npz(tmp_path / "half.npz"))["norm.weight"], expected.float())


def test_a_pickle_or_a_damaged_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickle.npz", cls=np.array([{"a": 1}], dtype=object))
    with pytest.raises(WeightsError, match="refused without running it"):
        read_npz(tmp_path / "pickle.npz")
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_npz(tmp_path / "damaged.npz")
    np.save(tmp_path / "single.npy", np.ones(3))
    with pytest.raises(WeightsError, match="a single array"):
        read_npz(tmp_path / "single.npy")
    with pytest.raises(WeightsError, match="embedding/kernel"):
        from_npz({"conv_root/kernel": np.ones(3)})
    with pytest.raises(WeightsError, match="'conv_root/kernel' is no part"):
        from_npz(google_arrays() | {"conv_root/kernel": np.ones((3, 3))})


# DINO, DINOv2, DINOv3, MAE

SMALL: dict[str, Any] = {
    "img_size": GRID * PATCH,
    "patch_size": PATCH,
    "embed_dim": D,
    "depth": 4,
    "num_heads": HEADS,
    "num_classes": 0,
}


def loaded(saved: object, tmp_path: Path) -> dict[str, Tensor]:
    """What comes back from a file that is read without running any pickle."""
    torch.save(saved, tmp_path / "file.pth")
    return unwrap(torch.load(tmp_path / "file.pth", weights_only=True))


def filled(model: nn.Module) -> dict[str, Tensor]:
    fill(model)
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_dino_is_read_from_the_teacher_of_a_training_checkpoint(tmp_path: Path) -> None:
    theirs = TimmViT(**SMALL).eval()
    backbone = filled(theirs)
    head = {"head.mlp.0.weight": torch.ones(5, D), "head.last_layer.weight_g": torch.ones(9, 1)}
    teacher = {f"backbone.{name}": value for name, value in backbone.items()} | head
    student = {f"module.{name}": torch.zeros_like(value) for name, value in teacher.items()}
    state = loaded({"student": student, "teacher": teacher, "epoch": 3}, tmp_path)
    assert recognise(state) == "timm"  # nothing but wrapping tells it from timm's
    ours = VisionTransformer(**arguments_of(theirs)).eval()
    flat = {f"teacher.{name}": value for name, value in teacher.items()}
    flat |= {f"student.{name}": value for name, value in student.items()}
    for found in (from_original(state), convert(state), convert(flat)):
        load_into(ours, found, "dino")
        check(theirs, ours)


@pytest.mark.parametrize("gated", [False, True], ids=["mlp", "gated"])
@pytest.mark.parametrize("registers", [0, 3])
def test_dinov2_equals_what_timm_makes_of_it(registers: int, gated: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if gated else {}
    theirs = TimmViT(**SMALL, init_values=1e-5, reg_tokens=registers, no_embed_class=bool(registers), **options).eval()
    state = filled(theirs)
    if registers:
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([0.3 * torch.randn(1, 1, D), state["pos_embed"]], dim=1)
    state["mask_token"] = torch.ones(1, D)
    if gated:
        state = {n.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value for n, value in state.items()}
    # timm reads it through its own conversion, before the blocks are put in chunks, which it does not know.
    theirs.load_state_dict(vision_transformer.checkpoint_filter_fn(dict(state), theirs))
    chunked = {
        name.replace("blocks.", f"blocks.{int(name.split('.')[1]) // 2}.")
        if name.startswith("blocks.")
        else name: value
        for name, value in state.items()
    }
    arguments = arguments_of(theirs)
    arguments.pop("class_position", None)
    ours = VisionTransformer(**arguments).eval()
    for layout in (state, chunked):
        found = loaded(layout, tmp_path)
        assert recognise(found) == "original"
        assert load_into(ours, convert(found), "dinov2") == ()
        check(theirs, ours)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3_qkvb", "vit_small_plus_patch16_dinov3_qkvb"])
def test_dinov3_equals_what_timm_makes_of_it(name: str, tmp_path: Path) -> None:
    theirs = timm.create_model(name, depth=2, img_size=64).eval()
    timms = filled(theirs)
    state: dict[str, Tensor] = {"mask_token": torch.ones(1, 384), "rope_embed.periods": torch.ones(16)}
    state |= {"local_cls_norm.weight": torch.ones(384), "local_cls_norm.bias": torch.ones(384)}
    for key, value in timms.items():
        if key.endswith("v_bias"):
            continue
        if key.endswith("q_bias"):  # the key's third is stored and masked
            key, v = key.replace("q_bias", "qkv.bias"), timms[key.replace("q_bias", "v_bias")]
            state[f"{key}_mask"] = torch.cat([torch.ones(384), torch.zeros(384), torch.ones(384)])
            value = torch.cat([value, torch.full((384,), torch.nan), v])
        for timm_name, original in (
            ("gamma_", "ls"),
            ("reg_token", "storage_tokens"),
            ("fc1_g", "w1"),
            ("fc1_x", "w2"),
        ):
            key = key.replace(timm_name, original)
        key = key + ".gamma" if key.endswith((".ls1", ".ls2")) else key
        state[key.replace("fc2", "w3") if "plus" in name else key] = value
    theirs.load_state_dict(eva.checkpoint_filter_fn(dict(state), theirs))
    found = loaded(state, tmp_path)
    assert recognise(found) == "original"
    ours = VisionTransformer(**arguments_of(theirs)).eval()
    assert load_into(ours, convert(found), name) == ()
    check(theirs, ours)
    with pytest.raises(WeightsError, match="cls_norm"):
        from_original(found | {"cls_norm.weight": torch.ones(384)})


def test_of_mae_the_encoder_is_read(tmp_path: Path) -> None:
    theirs = TimmViT(**SMALL).eval()
    state = filled(theirs)
    decoder = {"decoder_embed.weight": torch.ones(8, D), "decoder_blocks.0.attn.qkv.weight": torch.ones(24, 8)}
    decoder |= {"mask_token": torch.ones(1, 1, 8), "decoder_pos_embed": torch.ones(1, 17, 8)}
    found = loaded({"model": state | decoder}, tmp_path)
    assert recognise(found) == "original"
    ours = VisionTransformer(**arguments_of(theirs)).eval()
    load_into(ours, convert(found), "mae")
    check(theirs, ours)


def test_layouts_are_told_apart_by_names_alone() -> None:
    ours = VisionTransformer(image_size=32, patch_size=8, embed_dim=D, depth=1, num_heads=HEADS)
    assert recognise(ours.state_dict()) == "vitreous"
    assert recognise({f"_orig_mod.{name}": value for name, value in ours.state_dict().items()}) == "vitreous"
    assert recognise(TimmViT(**SMALL).state_dict()) == "timm"
    assert recognise({f"module.{name}": value for name, value in TimmViT(**SMALL).state_dict().items()}) == "timm"
    torchvisions = torchvision_model("vit_b_32", depth=1).state_dict()
    assert recognise(torchvisions) == "torchvision"
    assert recognise({"vit.embeddings.patch_embeddings.projection.weight": torch.ones(1)}) == "huggingface"
    assert recognise({"vision_model.embeddings.patch_embedding.weight": torch.ones(1)}) == "huggingface"
    with pytest.raises(WeightsError, match=r"'conv1\.weight', 'bn1\.weight'.*vitreous, timm, huggingface"):
        recognise({"conv1.weight": torch.ones(1), "bn1.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match="nothing"):
        recognise({})


def test_converted_weights_are_the_same_whichever_way_they_are_wrapped() -> None:
    state = dict(VisionTransformer(image_size=32, patch_size=8, embed_dim=D, depth=1, num_heads=HEADS).state_dict())
    assert convert({f"module.{name}": value for name, value in state.items()}).keys() == state.keys()
    torchvisions = torchvision_model("vit_b_32", depth=1).state_dict()
    assert "blocks.0.mlp.expand.weight" in convert({f"module.{name}": value for name, value in torchvisions.items()})


def test_what_holds_no_tensors_is_refused() -> None:
    assert unwrap({"model": {"state_dict": {"a": torch.ones(1)}}, "epoch": 1}).keys() == {"a"}
    for nothing in ({}, [1], {"model": {"a": 1}}, None):
        with pytest.raises(WeightsError, match="no dictionary of tensors"):
            unwrap(nothing)
