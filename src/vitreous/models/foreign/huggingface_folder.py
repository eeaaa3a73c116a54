"""What a folder of Hugging Face transformers holds for a ViT of ours: its `config.json`, and which tensors go with it.

With `config.json` and the tensors that `models.huggingface.to_huggingface` makes for `huggingface_like` as
`model.safetensors`, `from_pretrained(folder)` works offline. Names are those of files, which releases 4 and 5 both read;
transformers itself is not needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from vitreous.errors import WeightsError
from vitreous.models.foreign.huggingface_config import (
    ACTIVATIONS,
    classes_of,
    dinov2_hidden_dim,
    hidden_dim_of,
    settings_of,
)
from vitreous.models.layers.patch import pair
from vitreous.models.vit import VisionTransformer
from vitreous.models.weights import State


def huggingface_config(arguments: Mapping[str, Any], classes: Sequence[str] = ()) -> dict[str, Any]:
    """The `config.json` of a model of theirs that computes what ours with these arguments computes.

    classes: names in the order of the logits, none for a model without a head.
    Raises WeightsError, saying what stands in the way, where theirs has no such model.
    """
    ours = _complete(arguments)
    if len(classes) != ours["num_classes"]:
        raise ValueError(f"num_classes is {ours['num_classes']}, but {len(classes)} class names are given")
    _refuse_what_theirs_lack(ours)
    build = _dinov3 if ours["rope"] != "none" else _siglip if not ours["class_token"] else _with_class_token
    found = build(ours)
    if classes:
        found["id2label"] = {str(number): name for number, name in enumerate(classes)}
        found["label2id"] = {name: number for number, name in enumerate(classes)}
    return found | {"dtype": "float32"}


def huggingface_like(config: Mapping[str, Any]) -> State:
    """Names and shapes, without data, of the file that belongs to a `config.json`: what `to_huggingface` fills."""
    kind, settings = settings_of(config)
    if kind not in _NAMES:
        raise WeightsError(f"Models of type {kind!r} are read, not written.", f"Written: {', '.join(_NAMES)}.")
    num_classes, classifier = classes_of(config)
    # SigLIP's encoder has its prefix in every file.
    prefix = _NAMES[kind].prefix if num_classes or kind == "siglip_vision_model" else ""
    shapes = {prefix + name: shape for name, shape in _encoder_shapes(kind, settings)}
    if num_classes:
        width = settings["hidden_size"] * (2 if kind.startswith("dinov2") else 1)
        both = ("cls_classifier", "distillation_classifier")
        for name in both if classifier.endswith("WithTeacher") else ("classifier",):
            shapes |= dict(_with_bias(name, (num_classes, width)))
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _complete(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument of `VisionTransformer`, with sizes as pairs."""
    parameters = inspect.signature(VisionTransformer).parameters
    found = {name: parameter.default for name, parameter in parameters.items()} | dict(arguments)
    for name in ("image_size", "patch_size"):
        found[name] = pair(found[name])
    return found


def _refuse_what_theirs_lack(ours: Mapping[str, Any]) -> None:
    wanted: dict[str, tuple[Any, ...]] = {
        "stem": ("linear",),
        "patch_bias": (True,),
        "patch_norm": (False,),
        "block": ("pre_norm",),
        "norm": ("layer",),
        "qk_norm": (False,),
        "differential": (False,),
        "input_norm": (False,),
        "output_norm": ("tokens",),
        "pool_prefix": (False,),
    }
    if ours["positions"] == "none" and ours["rope"] == "none":
        _refuse("positions='none'", "known positions: learned, sincos, or rope='axial'")
    for name, known in wanted.items():
        if ours[name] not in known:
            _refuse(f"{name}={ours[name]!r}", f"known: {known[0]!r}")
    if ours["sub_norm"]:
        _refuse(f"sub_norm={tuple(ours['sub_norm'])!r}", "known: none")


def _refuse(what: str, known: str) -> None:
    raise WeightsError(
        f"No Vision Transformer of Hugging Face transformers has {what} in such a model ({known}).",
        "Use our own folder, or timm's names.",
    )


def _require(ours: Mapping[str, Any], kind: str, **wanted: Any) -> None:
    for name, value in wanted.items():
        known = value if isinstance(value, tuple) else (value,)
        if ours[name] not in known:
            _refuse(f"{name}={ours[name]!r}", f"{kind} has {' or '.join(repr(each) for each in known)}")


def _common(ours: Mapping[str, Any]) -> dict[str, Any]:
    (height, width), (ph, pw) = ours["image_size"], ours["patch_size"]
    names = {value: key for key, value in reversed(ACTIVATIONS.items())} | {"gelu_tanh": "gelu_pytorch_tanh"}
    return {
        "hidden_size": ours["embed_dim"],
        "num_hidden_layers": ours["depth"],
        "num_attention_heads": ours["num_heads"],
        "hidden_act": names[ours["activation"] or ("silu" if ours["mlp"] == "swiglu" else "gelu")],
        "layer_norm_eps": ours["norm_eps"],
        "image_size": height if height == width else [height, width],
        "patch_size": ph if ph == pw else [ph, pw],
        "num_channels": ours["in_chans"],
    }


def _our_hidden_dim(ours: Mapping[str, Any]) -> int:
    return int(ours["embed_dim"] * ours["mlp_ratio"] + 1e-6)


def _with_class_token(ours: Mapping[str, Any]) -> dict[str, Any]:
    """ViT, DeiT or DINOv2: the first that has what ours has."""
    plain = ours["layer_scale"] is None and ours["mlp"] == "mlp" and ours["pooling"] == "cls"
    # DeiT's classifier without a teacher carries one token that it does not read.
    unread = ours["num_registers"] == 1 and not ours["distillation_token"] and ours["num_classes"] > 0
    if plain and (unread or ours["num_registers"] == 0):
        _require(ours, "a ViT", bias=True)
        kind, classifier, bare = "vit", "ViTForImageClassification", "ViTModel"
        if unread or ours["distillation_token"]:
            kind, classifier, bare = "deit", "DeiTForImageClassification", "DeiTModel"
            classifier += "" if unread else "WithTeacher"
        return {
            "model_type": kind,
            "architectures": [classifier if ours["num_classes"] else bare],
            "intermediate_size": _our_hidden_dim(ours),
            "qkv_bias": ours["qkv_bias"] is not False,
            **_common(ours),
        }
    poolings = ("cls_mean", "cls") if ours["num_classes"] else ("cls",)
    _require(ours, "a DINOv2", distillation_token=False, bias=True, pooling=poolings)
    (height, width), gated = ours["image_size"], ours["mlp"] == "swiglu"
    if height != width:
        _refuse(f"image_size=({height}, {width})", "DINOv2 has square ones")
    if gated and ours["activation"] not in (None, "silu"):
        _refuse(f"activation={ours['activation']!r}", "a gated DINOv2 has 'silu'")
    ratios = [r for r in range(1, 17) if dinov2_hidden_dim(ours["embed_dim"], r, gated) == _our_hidden_dim(ours)]
    if not ratios:
        _refuse(f"mlp_ratio={ours['mlp_ratio']}", "DINOv2 has whole numbers, and of a gated MLP two thirds of them")
    kind, name = ("dinov2", "Dinov2") if not ours["num_registers"] else ("dinov2_with_registers", "Dinov2WithRegisters")
    return {
        "model_type": kind,
        "architectures": [name + ("ForImageClassification" if ours["num_classes"] else "Model")],
        "mlp_ratio": ratios[0],
        "qkv_bias": ours["qkv_bias"] is not False,
        "layerscale_value": 1.0 if ours["layer_scale"] is None else ours["layer_scale"],
        "use_swiglu_ffn": gated,
        **({"num_register_tokens": ours["num_registers"]} if ours["num_registers"] else {}),
        **_common(ours),
    }


def _dinov3(ours: Mapping[str, Any]) -> dict[str, Any]:
    if ours["num_classes"]:
        _refuse("a classification head beside rope", "their DINOv3 has none")
    _require(
        ours,
        "a DINOv3",
        rope="axial",
        rope_coordinates="unit",
        rope_layout="half",
        rope_axes="yx",
        positions="none",
        class_token=True,
        distillation_token=False,
        pooling="cls",
    )
    if ours["rope_register_theta"] is not None:
        _refuse("rope_register_theta", "registers of a DINOv3 are not turned")
    key = ours["qkv_bias"] is True
    value = ours["qkv_bias"] is not False
    return {
        "model_type": "dinov3_vit",
        "architectures": ["DINOv3ViTModel"],
        "intermediate_size": _our_hidden_dim(ours),
        "rope_theta": ours["rope_theta"],
        "query_bias": value,
        "key_bias": key,
        "value_bias": value,
        "proj_bias": ours["bias"],
        "mlp_bias": ours["bias"],
        "layerscale_value": 1.0 if ours["layer_scale"] is None else ours["layer_scale"],
        "use_gated_mlp": ours["mlp"] == "swiglu",
        "num_register_tokens": ours["num_registers"],
        **_common(ours),
    }


def _siglip(ours: Mapping[str, Any]) -> dict[str, Any]:
    pooling = "mean" if ours["num_classes"] else "attention"
    _require(ours, "a SigLIP", mlp="mlp", bias=True, num_registers=0, layer_scale=None, pooling=pooling)
    _require(ours, "a SigLIP", pool_heads=(None, ours["num_heads"]), pool_mlp_ratio=(None, ours["mlp_ratio"]))
    for name in ("image_size", "patch_size"):
        if ours[name][0] != ours[name][1]:
            _refuse(f"{name}={ours[name]}", "SigLIP has square ones")
    vision = {
        "model_type": "siglip_vision_model",
        "intermediate_size": _our_hidden_dim(ours),
        "vision_use_head": not ours["num_classes"],
        **_common(ours),
    }
    if not ours["num_classes"]:
        return {"architectures": ["SiglipVisionModel"], **vision}
    return {"model_type": "siglip", "architectures": ["SiglipForImageClassification"], "vision_config": vision}


class _Names(NamedTuple):
    """What a model type calls the parts of its files."""

    prefix: str
    """Of the encoder, in a file that has a classifier."""
    kernel: str
    layers: str
    norms: tuple[str, str]
    qkv: tuple[str, str, str]
    projection: str
    expand: tuple[str, ...]
    contract: str
    norm: str
    gated: tuple[tuple[str, ...], str] = ((), "")
    """`expand` and `contract` of a gated MLP."""


_VIT_NAMES = _Names(
    "vit.",
    "embeddings.patch_embeddings.projection",
    "encoder.layer",
    ("layernorm_before", "layernorm_after"),
    ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "attention.output.dense",
    ("intermediate.dense",),
    "output.dense",
    "layernorm",
)
_DINOV2_NAMES = _VIT_NAMES._replace(
    prefix="dinov2.",
    norms=("norm1", "norm2"),
    expand=("mlp.fc1",),
    contract="mlp.fc2",
    gated=(("mlp.weights_in",), "mlp.weights_out"),
)
_NAMES: dict[str, _Names] = {
    "vit": _VIT_NAMES,
    "deit": _VIT_NAMES._replace(prefix="deit."),
    "dinov2": _DINOV2_NAMES,
    "dinov2_with_registers": _DINOV2_NAMES._replace(prefix="dinov2_with_registers."),
    "dinov3_vit": _Names(
        "",
        "embeddings.patch_embeddings",
        "layer",
        ("norm1", "norm2"),
        ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
        "attention.o_proj",
        ("mlp.up_proj",),
        "mlp.down_proj",
        "norm",
        (("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
    ),
    "siglip_vision_model": _Names(
        "vision_model.",
        "embeddings.patch_embedding",
        "encoder.layers",
        ("layer_norm1", "layer_norm2"),
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attn.out_proj",
        ("mlp.fc1",),
        "mlp.fc2",
        "post_layernorm",
    ),
}

_Shapes = Iterator[tuple[str, tuple[int, ...]]]


def _encoder_shapes(kind: str, settings: Mapping[str, Any]) -> _Shapes:
    names, width = _NAMES[kind], settings["hidden_size"]
    yield from _embedding_shapes(kind, settings)
    for layer in range(settings["num_hidden_layers"]):
        for name, shape in _layer_shapes(kind, settings):
            yield f"{names.layers}.{layer}.{name}", shape
    yield from _with_bias(names.norm, (width,))
    if settings.get("vision_use_head"):
        hidden_dim, _ = hidden_dim_of(kind, settings)
        yield "head.probe", (1, 1, width)
        yield "head.attention.in_proj_weight", (3 * width, width)
        yield "head.attention.in_proj_bias", (3 * width,)
        yield from _with_bias("head.attention.out_proj", (width, width))
        yield from _with_bias("head.layernorm", (width,))
        yield from _with_bias("head.mlp.fc1", (hidden_dim, width))
        yield from _with_bias("head.mlp.fc2", (width, hidden_dim))


def _embedding_shapes(kind: str, settings: Mapping[str, Any]) -> _Shapes:
    width, token = settings["hidden_size"], (1, 1, settings["hidden_size"])
    (ph, pw), (height, image_width) = pair(settings["patch_size"]), pair(settings["image_size"])
    patches = (height // ph) * (image_width // pw)
    yield from _with_bias(_NAMES[kind].kernel, (width, settings["num_channels"], ph, pw))
    if kind == "siglip_vision_model":
        yield "embeddings.position_embedding.weight", (patches, width)
        return
    yield "embeddings.cls_token", token
    if kind == "deit":
        yield "embeddings.distillation_token", token
    if kind != "dinov3_vit":
        yield "embeddings.position_embeddings", (1, (2 if kind == "deit" else 1) + patches, width)
    if kind.startswith("dino"):
        yield "embeddings.mask_token", token if kind == "dinov3_vit" else (1, width)
    if "num_register_tokens" in settings:
        yield "embeddings.register_tokens", (1, settings["num_register_tokens"], width)


def _layer_shapes(kind: str, settings: Mapping[str, Any]) -> _Shapes:
    names, width = _NAMES[kind], settings["hidden_size"]
    hidden_dim, gated = hidden_dim_of(kind, settings)
    expand, contract = names.gated if gated else (names.expand, names.contract)
    for name in names.norms:
        yield from _with_bias(name, (width,))
    for name, part in zip(names.qkv, ("query", "key", "value"), strict=True):
        bias = settings.get(f"{part}_bias", settings.get("qkv_bias", True))
        yield from _with_bias(name, (width, width), bias)
    yield from _with_bias(names.projection, (width, width), settings.get("proj_bias", True))
    rows = 2 * hidden_dim if gated and len(expand) == 1 else hidden_dim
    for name in expand:
        yield from _with_bias(name, (rows, width), settings.get("mlp_bias", True))
    yield from _with_bias(contract, (width, hidden_dim), settings.get("mlp_bias", True))
    if "layerscale_value" in settings:
        yield "layer_scale1.lambda1", (width,)
        yield "layer_scale2.lambda1", (width,)


def _with_bias(name: str, shape: tuple[int, ...], bias: bool = True) -> _Shapes:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]
