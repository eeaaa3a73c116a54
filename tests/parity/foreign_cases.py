"""Models of Hugging Face transformers and torchvision beside ours with the same weights, for tests and for the script that
measures them. All weights are random and none is zero, so that a tensor that is forgotten or misplaced shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from vitreous.models import VisionTransformer
from vitreous.models.fit import load_into
from vitreous.models.foreign.huggingface import from_huggingface
from vitreous.models.foreign.huggingface_config import huggingface_arguments
from vitreous.models.foreign.torchvision import NAMES, from_torchvision, torchvision_arguments


class Reference(nn.Module):
    """A model of theirs that is called as ours is."""

    def __init__(
        self, model: nn.Module, logits: Callable[[Tensor], Tensor], tokens: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.model, self._logits, self._tokens = model, logits, tokens

    def forward(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> logits (b, k), or the pooled features of a model without a head."""
        return self._logits(images)

    def forward_features(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> tokens (b, n, d) after the last norm."""
        return self._tokens(images)


class Case(NamedTuple):
    name: str
    reference: Reference
    ours: VisionTransformer
    images: Tensor


def cases() -> Iterator[Case]:
    """Every model of both libraries; `transformers` and `torchvision` must be installed."""
    for name in HUGGINGFACE:
        yield huggingface_case(name)
    for name in NAMES:
        yield torchvision_case(name)


@torch.no_grad()
def fill(model: nn.Module, seed: int = 0) -> None:
    """Random weights everywhere, of a size that keeps signals alive; no bias, norm or LayerScale as training starts."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.empty_like(parameter).normal_(generator=generator)
            if isinstance(module, nn.LayerNorm) and name == "weight":
                parameter.copy_(1 + 0.2 * noise)
            elif name in ("lambda1", "gamma"):
                parameter.copy_(0.5 + 0.2 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.1 * noise)
            elif name.endswith("weight") and not isinstance(module, nn.Embedding):
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                parameter.copy_(0.3 * noise)


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference over the largest number."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((ours - theirs).abs().max() / theirs.abs().max())


def random_images(ours: VisionTransformer) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, ours.in_chans, *ours.image_size, generator=generator)


SMALL: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 7,
}
MLP: dict[str, Any] = SMALL | {"intermediate_size": 96}
DINOV2: dict[str, Any] = SMALL | {"mlp_ratio": 2}
DINOV3: dict[str, Any] = MLP | {"num_register_tokens": 4}
SIGLIP: dict[str, Any] = {key: value for key, value in MLP.items() if key != "num_labels"}
SIGLIP2: dict[str, Any] = {key: value for key, value in SIGLIP.items() if key != "image_size"} | {"num_patches": 16}

HUGGINGFACE: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViTForImageClassification", MLP),
    "ViT without a head": ("ViTModel", MLP),
    "ViT of wide images, no qkv bias, tanh": (
        "ViTForImageClassification",
        MLP | {"image_size": (24, 40), "qkv_bias": False, "hidden_act": "gelu_pytorch_tanh"},
    ),
    "DeiT": ("DeiTForImageClassification", MLP),
    "DeiT with teacher": ("DeiTForImageClassificationWithTeacher", MLP),
    "DINOv2": ("Dinov2ForImageClassification", DINOV2),
    "DINOv2 without a head": ("Dinov2Model", DINOV2),
    "DINOv2 gated": ("Dinov2ForImageClassification", DINOV2 | {"use_swiglu_ffn": True}),
    "DINOv2 with registers": ("Dinov2WithRegistersForImageClassification", DINOV2),
    "DINOv2 with registers, gated": ("Dinov2WithRegistersForImageClassification", DINOV2 | {"use_swiglu_ffn": True}),
    "DINOv3": ("DINOv3ViTModel", DINOV3),
    "DINOv3 gated, wide images": (
        "DINOv3ViTModel",
        DINOV3 | {"use_gated_mlp": True, "hidden_act": "silu", "image_size": (24, 40), "rope_theta": 50.0},
    ),
    "DINOv3 of other biases, no registers": (
        "DINOv3ViTModel",
        MLP | {"value_bias": False, "proj_bias": False},
    ),
    "SigLIP": ("SiglipVisionModel", SIGLIP),
    "SigLIP classifier": ("SiglipForImageClassification", SIGLIP),
    "SigLIP 2": ("Siglip2VisionModel", SIGLIP2),
    "SigLIP 2 classifier": ("Siglip2ForImageClassification", SIGLIP2),
    "MAE": ("ViTMAEModel", {key: value for key, value in MLP.items() if key != "num_labels"} | {"mask_ratio": 0.0}),
}
"""{name: (class, settings that differ from their defaults)}."""


def huggingface_model(name: str) -> nn.Module:
    """A model of theirs with random weights, in evaluation mode."""
    import transformers

    architecture, settings = HUGGINGFACE[name]
    kind: Any = getattr(transformers, architecture)
    if architecture in ("SiglipForImageClassification", "Siglip2ForImageClassification"):
        text = {"num_hidden_layers": 1, "bos_token_id": 1, "eos_token_id": 2}
        config = kind.config_class(vision_config=settings, text_config=text, num_labels=7)
    else:
        config = kind.config_class(**settings)
    config.architectures = [architecture]
    options = {"add_pooling_layer": False} if architecture == "ViTModel" else {}
    model = kind(config, **options).eval()
    fill(model)
    return model


def huggingface_case(name: str) -> Case:
    model = huggingface_model(name)
    config = model.config.to_dict()  # type: ignore[operator, union-attr]
    ours = VisionTransformer(**huggingface_arguments(config)).eval()
    notes = load_into(ours, from_huggingface(dict(model.state_dict()), config), name)
    assert notes == (), notes
    return Case(name, huggingface_reference(model), ours, random_images(ours))


def huggingface_reference(model: Any) -> Reference:
    architecture = type(model).__name__
    encoder = getattr(model, "vision_model", None) or getattr(model, getattr(model, "base_model_prefix", ""), model)
    if architecture == "DINOv3ViTModel":
        encoder = model

    def arguments(images: Tensor) -> dict[str, Tensor]:
        if architecture.startswith("Siglip2"):  # takes patches, each (row, column, channel), and the grid
            size = model.config.vision_config.patch_size if "For" in architecture else model.config.patch_size
            patches = rearrange(images, "b c (gh ph) (gw pw) -> b (gh gw) (ph pw c)", ph=size, pw=size)
            grid = torch.tensor([[images.shape[2] // size, images.shape[3] // size]] * len(images))
            mask = torch.ones(patches.shape[:2], dtype=torch.int64)
            return {"pixel_values": patches, "spatial_shapes": grid, "pixel_attention_mask": mask}
        if architecture == "ViTMAEModel":  # "masks" none, in the order that sorted noise keeps
            count = math.prod(side // model.config.patch_size for side in images.shape[2:])
            return {"pixel_values": images, "noise": torch.linspace(0, 1, count).expand(len(images), -1)}
        return {"pixel_values": images}

    def tokens(images: Tensor) -> Tensor:
        return encoder(**arguments(images)).last_hidden_state

    def logits(images: Tensor) -> Tensor:
        found = model(**arguments(images))
        if hasattr(found, "logits"):
            return found.logits
        pooled = getattr(found, "pooler_output", None)
        return found.last_hidden_state[:, 0] if pooled is None else pooled

    return Reference(model, logits, tokens)


def torchvision_model(name: str, depth: int = 2) -> nn.Module:
    """torchvision's own widths, with fewer layers and a grid of 3 x 3 patches."""
    import torchvision
    from torchvision.models import VisionTransformer as TorchvisionViT

    with torch.device("meta"):
        whole = getattr(torchvision.models, name)()
    model = TorchvisionViT(
        image_size=3 * whole.patch_size,
        patch_size=whole.patch_size,
        num_layers=depth,
        num_heads=whole.encoder.layers[0].num_heads,
        hidden_dim=whole.hidden_dim,
        mlp_dim=whole.mlp_dim,
        num_classes=7,
    ).eval()
    fill(model)
    return model


def torchvision_case(name: str) -> Case:
    model: Any = torchvision_model(name)
    ours = VisionTransformer(**torchvision_arguments(model)).eval()
    notes = load_into(ours, from_torchvision(dict(model.state_dict())), name)
    assert notes == (), notes

    def tokens(images: Tensor) -> Tensor:
        patches = model._process_input(images)
        return model.encoder(torch.cat([model.class_token.expand(len(images), -1, -1), patches], dim=1))

    return Case(name, Reference(model, model, tokens), ours, random_images(ours))
