"""From a name, or from the architecture stored in a run, to a module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vitreous.errors import UsageError
from vitreous.models.cnn import ConvNet
from vitreous.models.layers.patch import Size, pair
from vitreous.models.presets import CNN_BASELINES, PRESETS, check_model_name, parse_vit
from vitreous.models.timm_models import plain_vits, timm_arguments
from vitreous.models.vit import VisionTransformer


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build the module again: what `run.json` stores under "architecture"."""

    name: str
    family: str
    """"vit" for our own model, "timm" for a convolutional baseline."""
    arguments: dict[str, Any]
    """Keyword arguments of `VisionTransformer` or `ConvNet`."""

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "family": self.family, "arguments": self.arguments}


def architecture(name: str, *, num_classes: int, image_size: Size = 0, in_chans: int = 3, **net: Any) -> Architecture:
    """The architecture a name stands for.

    image_size: pixels of a square's side, or (height, width); 0 takes the one in the name, or 224. net: `NetConfig` fields that replace the name's own.
    Raises UsageError for unknown names and sizes that do not fit, naming the nearest that do.
    """
    net = {key: value for key, value in net.items() if value is not None}
    parsed = parse_vit(name)
    # A full name that timm knows is what timm says it is: members of a family differ, as SigLIP's in their activation.
    if (parsed is None or parsed.preset.patch_size) and name not in PRESETS and name in plain_vits():
        return _of_timm(name, num_classes, image_size, in_chans, net)
    if parsed is None:
        check_known(name)
        return _convolutional(name, num_classes, image_size, in_chans, net)
    preset = parsed.preset
    image = _pair(image_size or default_image_size(name), "image_size")
    patch = net.pop("patch_size", None) or parsed.patch_size
    if patch is None:
        patch = preset.patch_size if preset.patch_size and min(image) > SMALL_IMAGE else default_patch_size(min(image))
    patch = _pair(patch, "patch_size")
    for side, part in zip(image, patch, strict=True):
        check_divides(side, part)
    arguments = {
        "image_size": image,
        "patch_size": patch,
        "num_classes": num_classes,
        "in_chans": in_chans,
        "stem": "linear",
        "pooling": "cls",
    }
    arguments |= _joined(preset.arguments, net)
    if "stem" not in net and arguments["stem"] == "pooled" and max(patch) > LARGEST_POOLED:
        arguments["stem"] = "conv"
    arguments.setdefault("class_token", arguments["pooling"] in ("cls", "cls_mean"))
    return Architecture(name, "vit", arguments)


def _pair(size: Size, name: str) -> list[int]:
    """[height, width] in pixels. Raises UsageError."""
    try:
        return list(pair(size))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name} is not a size: {error}.") from error


def _joined(preset: dict[str, Any], net: dict[str, Any]) -> dict[str, Any]:
    """A preset's arguments with the caller's in their place, without those that only made sense with what was replaced."""
    kept = dict(preset)
    if net.get("differential"):
        net = {"rope": "none", **net}
    if net.get("rope", preset.get("rope")) != preset.get("rope"):
        kept = {name: value for name, value in preset.items() if not name.startswith("rope")}
        if net["rope"] == "mixed":  # as in its paper
            kept |= {"rope_coordinates": "index", "rope_theta": 10.0}
    if net.get("num_registers", preset.get("num_registers")) != preset.get("num_registers"):
        kept.pop("rope_register_theta", None)
    return kept | net


def resized(
    found: Architecture, *, num_classes: int, image_size: Size = 0, in_chans: int = 3, **net: Any
) -> Architecture:
    """A Vision Transformer's architecture for other images, channels or classes; 0 keeps the image size.

    Raises UsageError for a size that the patch does not divide.
    """
    arguments: dict[str, Any] = dict(found.arguments) | {"num_classes": num_classes, "in_chans": in_chans}
    net = {key: value for key, value in net.items() if value is not None}
    if "patch_size" in net:
        arguments["patch_size"] = _pair(net.pop("patch_size"), "patch_size")
    if image_size:
        arguments["image_size"] = _pair(image_size, "image_size")
    for image, patch in zip(arguments["image_size"], arguments["patch_size"], strict=True):
        check_divides(image, patch)
    return Architecture(found.name, found.family, arguments | net)


def default_image_size(name: str) -> int:
    """Pixels of the square a model is counted and built at where nothing else is said: those in its name or paper, or 224."""
    parsed = parse_vit(name)
    if parsed is None:
        return CNN_BASELINES.get(name, 224)
    return parsed.image_size or parsed.preset.image_size or (SMALL_MODELS_AT if name.endswith(SMALL_MODELS) else 224)


def fitting_image_size(name: str) -> int | None:
    """The image size to train a named model at: the one in its name, else 224, to the next smaller multiple of its patch;
    None for families that fit themselves to the data, and for convolutional models."""
    if not is_vit(name):
        return None
    parsed = parse_vit(name)
    if parsed is not None and parsed.patch_size is None and parsed.preset.patch_size is None:
        return None
    if parsed is not None:
        patch, tail = parsed.patch_size or parsed.preset.patch_size or 16, parsed.image_size
    else:
        found = timm_arguments(name)
        patch = found["patch_size"][0]
        tail = found["image_size"][0] if name.rsplit("_", 1)[-1].isdigit() else None
    return max(1, (tail or 224) // patch) * patch


def is_vit(name: str) -> bool:
    """Whether a name stands for a Vision Transformer, ours or timm's."""
    return parse_vit(name) is not None or (name not in CNN_BASELINES and name in plain_vits())


SMALL_MODELS, SMALL_MODELS_AT = ("_micro", "_compact"), 64
"""How the names of sizes made for small images end, and the pixels those are counted at."""


def check_divides(image: int, patch: int) -> None:
    """Raise UsageError, naming the nearest sizes that fit, when the patch size does not divide the image size."""
    if image % patch == 0:
        return
    below, above = image // patch * patch, (image // patch + 1) * patch
    raise UsageError(
        f"The image size {image} is not divisible by the patch size {patch}.",
        f"Use --image-size {above}"
        + (f" or --image-size {below}" if below else "")
        + ", or a model with another patch size.",
    )


def _of_timm(name: str, num_classes: int, image_size: Size, in_chans: int, net: dict[str, Any]) -> Architecture:
    """One of timm's plain Vision Transformers that no table here names, at its own size or another."""
    arguments = timm_arguments(name, num_classes=num_classes, in_chans=in_chans)
    return resized(
        Architecture(name, "vit", arguments), num_classes=num_classes, image_size=image_size, in_chans=in_chans, **net
    )


def _convolutional(name: str, num_classes: int, image_size: Size, in_chans: int, net: dict[str, Any]) -> Architecture:
    foreign = sorted(set(net) - {"dropout", "drop_path"})
    if foreign:
        raise UsageError(
            f"{foreign[0]!r} shapes a Vision Transformer; {name!r} is convolutional and has none.",
            "Leave it out, or choose a --model whose name begins with vit_.",
        )
    arguments = {
        "name": name,
        "num_classes": num_classes,
        "in_chans": in_chans,
        "small_stem": name.startswith("resnet")
        and min(_pair(image_size or default_image_size(name), "image_size")) <= 64,
        "dropout": net.get("dropout", 0.0),
        "drop_path": net.get("drop_path", 0.0),
    }
    return Architecture(name, "timm", arguments)


def build(architecture: Architecture) -> nn.Module:
    """A freshly initialised module (weights from torch's global generator). Raises UsageError for numbers that do not fit."""
    try:
        if architecture.family == "vit":
            return VisionTransformer(**architecture.arguments)
        return ConvNet(**architecture.arguments)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"The model {architecture.name!r} cannot be built: {error}.") from error


SMALL_IMAGE = 112
"""Pixels up to which a published patch of 14 or 16 would leave too few tokens, and a patch is fitted instead."""


LARGEST_POOLED = 4
"""Pixels of a patch up to which a preset's pooled stem stands. Beyond, at the full size of larger images, max pooling takes
longer than all the rest, and without norms such a deep stem hardly learns (benchmarks/TRAINING_LOG.md): strided
convolutions with norms take its place."""


def default_patch_size(image_size: int) -> int:
    """A patch that gives 16 to about 200 tokens: 2 px for 8-px images, 4 for 16 to 48, 8 for 64 to 112, 16 beyond."""
    for limit, patch in ((12, 2), (48, 4), (112, 8)):
        if image_size <= limit:
            return patch
    return 16


_CONVOLUTIONAL = (
    "resnet", "resnetv2", "convnext", "efficientnet", "mobilenetv3", "densenet", "regnet", "vgg", "inception_v3",
    "inception_v4", "dla", "dpn", "ghostnet", "hrnet", "nfnet", "byobnet", "cspnet", "repghost", "repvit", "res2net",
    "resnest", "rexnet", "selecsls", "senet", "sknet", "tresnet", "xception", "xception_aligned", "starnet", "hardcorenas",
    "mobilenetv4", "fasternet", "vovnet", "edgenext", "inception_next",
)  # fmt: skip
"""timm's modules of convolutional models; its transformers fix the image size, and plain ViTs are ours."""


def timm_models() -> tuple[str, ...]:
    """The convolutional models and plain Vision Transformers that timm offers besides the listed ones."""
    import timm

    found = {name for module in _CONVOLUTIONAL for name in timm.list_models(module=module)}
    return tuple(sorted((found | set(plain_vits())) - set(CNN_BASELINES)))


def check_known(name: str) -> None:
    """Raise UsageError, naming the nearest, for a name no model answers to. Loads timm only for names that are not ours."""
    base = name.removeprefix("timm:").partition(".")[0]
    if base != name and (is_vit(base) or base in CNN_BASELINES):
        raise UsageError(
            f"{name!r} names published weights; a model's name is {base!r}.",
            f"Write {base} for the model and timm:{name.removeprefix('timm:')} for --init.",
        )
    if name != "auto" and parse_vit(name) is None and name not in CNN_BASELINES:
        check_model_name(name, timm_models())


def check_takes(model: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
    """Raise UsageError where the model cannot take images (channels, height, width), as deep networks cannot tiny ones."""
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"The model {name!r} does not take images of {shape[1]} x {shape[2]} pixels: {error}.",
            "Use a larger --image-size, or another --model.",
        ) from error
    finally:
        model.train(training)
