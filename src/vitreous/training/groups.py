"""Which parameters are treated alike: weight decay, layer-wise learning rates, and what kind of weight it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from vitreous.models.layers.mlp import SwiGLU

UNDECAYED_NAMES = (
    "class_token",
    "distillation_token",
    "registers",
    "position_embedding",
    "frequencies",
    "lambdas",
    "probe",
)
FIRST_LAYER = (
    "class_token",
    "distillation_token",
    "registers",
    "position_embedding",
    "patch_embedding",
    "input_norm",
    "rope",
)
"""Parts of a Vision Transformer before its first block."""


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    layer_decay: float = 1.0,
    kinds: Mapping[str, dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """The trainable parameters in groups that share `weight_decay` and `lr_scale`, those that decay first.

    weight_decay: of matrices and kernels; norms, biases, tokens and positions have none. lr_scale: what the loop
    multiplies the learning rate with, see `layer_scales`. kinds: by name of a parameter, what else its group must share.
    """
    scales = layer_scales(model, layer_decay)
    groups: dict[tuple[object, ...], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        spared = is_spared(name, parameter)
        facts = {
            "weight_decay": 0.0 if spared else weight_decay,
            "lr_scale": scales[name],
            **(kinds or {}).get(name, {}),
        }
        groups.setdefault((spared, *facts.items()), {"params": [], **facts})["params"].append(parameter)
    return [groups[key] for key in sorted(groups, key=lambda key: bool(key[0]))]


def is_spared(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is none that decays: a norm's, a bias, a token, a position."""
    return parameter.ndim <= 1 or name.rsplit(".", 1)[-1] in UNDECAYED_NAMES


def layer_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """For each parameter layer_decay^(layers behind its own) (BEiT, arXiv:2106.08254; MAE, arXiv:2111.06377, appendix A.2).

    A Vision Transformer of depth d has the layers 0 (patches, tokens, positions), 1 to d (blocks) and d + 1 (the last
    norm, pooling, head), which has the scale 1. A convolutional network of timm's has its stem, its stages, and its
    head. Any other module is one layer.
    """
    layers = _layers(model)
    last = max(layers.values(), default=0)
    return {name: layer_decay ** (last - layer) for name, layer in layers.items()}


def _layers(model: nn.Module) -> dict[str, int]:
    names = [name for name, _ in model.named_parameters()]
    blocks, body = getattr(model, "blocks", None), getattr(model, "body", None)
    if isinstance(blocks, nn.ModuleList):
        return {name: _vit_layer(name, len(blocks)) for name in names}
    matcher: Any = getattr(body, "group_matcher", None)
    if isinstance(body, nn.Module) and matcher is not None:
        from timm.models import group_parameters  # here, since it takes seconds; such a body has imported it already

        stages: dict[int, list[str]] = group_parameters(body, matcher(coarse=True))
        head, last = head_names(model), max(stages)
        found = {f"body.{name}": layer for layer, members in stages.items() for name in members}
        return {name: last if name in head else found[name] for name in names}
    return dict.fromkeys(names, 0)


def _vit_layer(name: str, depth: int) -> int:
    first, _, rest = name.partition(".")
    if first == "blocks":
        return int(rest.partition(".")[0]) + 1
    return 0 if first in FIRST_LAYER else depth + 1


def head_names(model: nn.Module) -> set[str]:
    """The parameters of the classifier."""
    classifier: Any = getattr(getattr(model, "body", None), "get_classifier", None)
    if classifier is not None:
        head = classifier()
        heads: Iterable[nn.Module] = head if isinstance(head, list | tuple) else (head,)
    else:
        found = getattr(model, "head", None)
        heads = (found,) if isinstance(found, nn.Module) else ()
    inside = {id(parameter) for module in heads for parameter in module.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in inside}


def unadapted(model: nn.Module) -> set[str]:
    """Parameters whose step LAMB does not fit to their length: norms, biases and tokens, as in NVIDIA's and timm's code,
    and the head, which starts at zero and would hardly leave it by steps as long as itself."""
    return head_names(model) | {name for name, parameter in model.named_parameters() if is_spared(name, parameter)}


def hidden_matrices(model: nn.Module) -> dict[str, int]:
    """The weights that Muon moves, and of how many matrices each is made.

    In a Vision Transformer the matrices of the blocks. In a convolutional network all kernels and matrices save those of
    the first layer and the head, and save depthwise kernels, which are no matrices: each channel has a filter of its own.
    """
    weights = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.ndim in (2, 4) and not is_spared(name, parameter)
    ]
    encoder = getattr(model, "encoder", None)  # of a masked autoencoder, whose decoder is thrown away
    inner, prefix = (model, "blocks.") if encoder is None else (encoder, "encoder.blocks.")
    if isinstance(getattr(inner, "blocks", None), nn.ModuleList):
        stacked = {f"{name}.expand.weight" for name, module in model.named_modules() if isinstance(module, SwiGLU)}
        return {
            name: 3 if name.endswith(".qkv.weight") else 2 if name in stacked else 1
            for name, _ in weights
            if name.startswith(prefix)
        }
    head = head_names(model)
    return {name: 1 for name, parameter in weights[1:] if name not in head and parameter.shape[1] > 1}
