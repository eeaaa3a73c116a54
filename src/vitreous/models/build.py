"""From a name, or from the architecture stored in a run, to a module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vitreous.errors import UsageError
from vitreous.models.cnn import ConvNet
from vitreous.models.presets import CNN_BASELINES, VIT_SIZES, check_model_name, parse_vit
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


def architecture(name: str, *, num_classes: int, image_size: int = 0, in_chans: int = 3, **net: Any) -> Architecture:
    """The architecture a name stands for.

    image_size: pixels; 0 takes the one in the name, or 224. net: `NetConfig` fields that replace the name's own.
    Raises UsageError for unknown names and sizes that do not fit, naming the nearest that do.
    """
    net = {key: value for key, value in net.items() if value is not None}
    parsed = parse_vit(name)
    if parsed is None:
        check_known(name)
        foreign = sorted(set(net) - {"dropout", "drop_path"})
        if foreign:
            raise UsageError(
                f"{foreign[0]!r} shapes a Vision Transformer; {name!r} is convolutional and has none.",
                "Leave it out, or choose a --model whose name begins with vit_.",
            )
        image = image_size or 224
        arguments = {
            "name": name,
            "num_classes": num_classes,
            "in_chans": in_chans,
            "small_stem": name.startswith("resnet") and image <= 64,
            "dropout": net.get("dropout", 0.0),
            "drop_path": net.get("drop_path", 0.0),
        }
        return Architecture(name, "timm", arguments)
    size = VIT_SIZES[parsed.size]
    image = image_size or parsed.image_size or 224
    patch = net.pop("patch_size", None) or parsed.patch_size or default_patch_size(image)
    if image % patch:
        below, above = image // patch * patch, (image // patch + 1) * patch
        raise UsageError(
            f"The image size {image} is not divisible by the patch size {patch}.",
            f"Use --image-size {above}"
            + (f" or --image-size {below}" if below else "")
            + ", or another --net.patch-size.",
        )
    arguments = {
        "image_size": [image, image],
        "patch_size": [patch, patch],
        "num_classes": num_classes,
        "in_chans": in_chans,
        "embed_dim": size.embed_dim,
        "depth": size.depth,
        "num_heads": size.num_heads,
        "mlp_ratio": size.mlp_ratio,
        "stem": size.stem,
        "pooling": size.pooling,
    } | net
    arguments.setdefault("class_token", arguments["pooling"] == "cls")
    return Architecture(name, "vit", arguments)


def build(architecture: Architecture) -> nn.Module:
    """A freshly initialised module (weights from torch's global generator). Raises UsageError for numbers that do not fit."""
    try:
        if architecture.family == "vit":
            return VisionTransformer(**architecture.arguments)
        return ConvNet(**architecture.arguments)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"The model {architecture.name!r} cannot be built: {error}.") from error


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
    """The convolutional models that timm offers besides the listed baselines."""
    import timm

    found = {name for module in _CONVOLUTIONAL for name in timm.list_models(module=module)}
    return tuple(sorted(found - set(CNN_BASELINES)))


def check_known(name: str) -> None:
    """Raise UsageError, naming the nearest, for a name no model answers to. Loads timm only for names that are not ours."""
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
