"""Google's own `.npz` checkpoints of the ViT (vision_transformer and big_vision) as ours. Reading and mapping.

Names are those of Flax modules, kernels are transposed, and heads are an axis of their own.

Shapes: ph pw patch in pixels, c channels, d width, heads, e width of a head, n positions, l layers, k classes.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.models.weights import State

Arrays = dict[str, np.ndarray]

# Where the encoder is among the arrays: a training state, the parameters of a pair of towers, parameters, or at the top.
_PREFIXES = ("opt/target/img/", "opt/target/", "params/img/", "params/", "img/", "")
_POSITIONS = ("pos_embedding", "Transformer/pos_embedding", "Transformer/posembed_input/pos_embedding")
_INLINED_POOLING = ("probe", "MultiHeadDotProductAttention_0", "LayerNorm_0", "MlpBlock_0")
_BLOCK = r"Transformer/encoderblock_(\d+)/"

_RENAMED: tuple[tuple[str, str], ...] = (
    (r"^embedding/", "patch_embedding.projection/"),
    (r"^cls$", "class_token"),
    (r"^Transformer/encoder_norm/", "norm/"),
    (rf"^{_BLOCK}LayerNorm_0/", r"blocks.\1.attention_norm/"),
    (rf"^{_BLOCK}LayerNorm_[12]/", r"blocks.\1.mlp_norm/"),
    (rf"^{_BLOCK}MultiHeadDotProductAttention_\d/out/", r"blocks.\1.attention.projection/"),
    (rf"^{_BLOCK}MultiHeadDotProductAttention_\d/", r"blocks.\1.attention."),
    (rf"^{_BLOCK}MlpBlock_\d/Dense_0/", r"blocks.\1.mlp.expand/"),
    (rf"^{_BLOCK}MlpBlock_\d/Dense_1/", r"blocks.\1.mlp.contract/"),
    (r"^MAPHead_0/probe$", "pooler.probe"),
    (r"^MAPHead_0/LayerNorm_0/", "pooler.norm/"),
    (r"^MAPHead_0/MultiHeadDotProductAttention_0/out/", "pooler.projection/"),
    (r"^MAPHead_0/MultiHeadDotProductAttention_0/", "pooler."),
    (r"^MAPHead_0/MlpBlock_0/Dense_0/", "pooler.mlp.expand/"),
    (r"^MAPHead_0/MlpBlock_0/Dense_1/", "pooler.mlp.contract/"),
    (r"^head/", "head/"),
)
"""Their names as patterns; what none matches is no part of a plain ViT. A slash before the leaf is left."""


def read_npz(path: Path) -> Arrays:
    """The arrays of a file. Nothing that is pickled is unpacked: a file that holds any is refused. Raises WeightsError."""
    try:
        with path.open("rb") as stream:  # NumPy leaves a damaged file open
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise WeightsError(f"{str(path)!r} is a single array, not a checkpoint.")
            return dict(loaded)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{str(path)!r} cannot be read ({type(error).__name__}).", "Fetch or copy it again."
        ) from error
    except ValueError as error:  # how NumPy refuses a pickle
        raise WeightsError(
            f"{str(path)!r} is not a file of plain arrays and was refused without running it.",
            "Fetch or copy it again, or save the weights as .safetensors.",
        ) from error


def is_npz(names: Iterable[str]) -> bool:
    """Whether the names are a Google checkpoint's."""
    return any(name == prefix + "embedding/kernel" for name in names for prefix in _PREFIXES)


def from_npz(arrays: Arrays) -> State:
    """Google's names and shapes to ours.

    A "representation layer" (`pre_logits`, tanh), which some checkpoints of ImageNet-21k have before their head, has no
    counterpart: it is left out together with the head that reads it, so that a fresh head starts on the features.

    Raises WeightsError naming an array that is no part of a plain ViT.
    """
    found: State = {}
    joined: dict[str, dict[str, Tensor]] = {}
    plain = _plain(arrays)
    unread = ("pre_logits/", "head/") if "pre_logits/kernel" in plain else ()
    for name, array in plain.items():
        if name.startswith(unread):
            continue
        value = _tensor(array)
        if name == "pos_embedding":
            found["position_embedding"] = _positions(value)
            continue
        target = _rename(name)
        module, _, leaf = target.partition("/")
        parent, _, last = module.rpartition(".")
        if last in ("query", "key", "value"):
            value = rearrange(value, "d heads e -> (heads e) d" if leaf == "kernel" else "heads e -> (heads e)")
            joined.setdefault(f"{parent}/{'weight' if leaf == 'kernel' else leaf}", {})[last] = value
            continue
        if leaf == "kernel":
            value = _kernel(module, value)
        found[module + {"kernel": ".weight", "scale": ".weight", "bias": ".bias", "": ""}[leaf]] = value.contiguous()
    for name, parts in joined.items():
        parent, _, leaf = name.partition("/")
        if parent == "pooler":
            found[f"pooler.query.{leaf}"] = parts["query"]
            found[f"pooler.key_value.{leaf}"] = torch.cat([parts["key"], parts["value"]])
        else:
            found[f"{parent}.qkv.{leaf}"] = torch.cat([parts["query"], parts["key"], parts["value"]])
    return found


def npz_arguments(arrays: Arrays) -> dict[str, Any]:
    """Arguments of `VisionTransformer` for a checkpoint, read off its shapes; defaults are left out.

    Images are taken for square, of 224 pixels where positions are computed and not stored. The activation is the
    approximation of GELU by tanh, which is Flax's default; timm runs the older of these checkpoints with the exact one.
    """
    plain = _plain(arrays)
    kernel = plain["embedding/kernel"]
    ph, pw = kernel.shape[:2] if kernel.ndim == 4 else (_side(kernel.shape[0]),) * 2
    width = kernel.shape[-1]
    expand = plain["Transformer/encoderblock_0/" + _first(plain, "MlpBlock_", "Dense_0/kernel")]
    query = plain["Transformer/encoderblock_0/" + _first(plain, "MultiHeadDotProductAttention_", "query/kernel")]
    has_class = "cls" in plain
    has_head = "head/bias" in plain and "pre_logits/kernel" not in plain
    found: dict[str, Any] = {
        "image_size": [224, 224],
        "patch_size": [int(ph), int(pw)],
        "num_classes": plain["head/bias"].shape[0] if has_head else 0,
        "in_chans": kernel.shape[2] if kernel.ndim == 4 else kernel.shape[0] // (ph * pw),
        "embed_dim": width,
        "depth": sum(name.endswith("/LayerNorm_0/scale") and "/encoderblock_" in name for name in plain),
        "num_heads": query.shape[1],
        "mlp_ratio": expand.shape[1] / width,
        "activation": "gelu_tanh",
    }
    if not has_class:
        found |= {"class_token": False, "pooling": "mean"}
    if "pos_embedding" in plain:
        length = _positions(torch.empty(plain["pos_embedding"].shape, device="meta")).shape[1]
        has_place = has_class and math.isqrt(length) ** 2 != length
        rows = columns = math.isqrt(length - has_place)
        if plain["pos_embedding"].ndim == 3 and plain["pos_embedding"].shape[0] != 1:
            rows, columns = plain["pos_embedding"].shape[:2]
        found["image_size"] = [rows * int(ph), columns * int(pw)]
        if has_class and not has_place:  # big_vision puts [CLS] before the patches after positions were added
            found["class_position"] = False
    else:
        found["positions"] = "sincos"
    if "MAPHead_0/probe" in plain:
        found["pooling"] = "attention"
        found["pool_heads"] = plain["MAPHead_0/MultiHeadDotProductAttention_0/query/kernel"].shape[1]
        found["pool_mlp_ratio"] = plain["MAPHead_0/MlpBlock_0/Dense_0/kernel"].shape[1] / width
    return found


def _plain(arrays: Arrays) -> Arrays:
    """The encoder's arrays under the names of today's big_vision, one block after the other."""
    prefix = next((prefix for prefix in _PREFIXES if prefix + "embedding/kernel" in arrays), None)
    if prefix is None:
        raise WeightsError(
            "There is no embedding/kernel among the arrays, so this is not a checkpoint of Google's ViT."
        )
    found: Arrays = {}
    for name, array in arrays.items():
        if not name.startswith(prefix):
            continue
        name = name.removeprefix(prefix)
        if name in _POSITIONS:
            name = "pos_embedding"
        elif name.partition("/")[0] in _INLINED_POOLING:
            name = f"MAPHead_0/{name}"
        if name.startswith("Transformer/encoderblock/"):  # all layers in one array (l, ...)
            rest = name.removeprefix("Transformer/encoderblock/")
            found |= {f"Transformer/encoderblock_{layer}/{rest}": each for layer, each in enumerate(array)}
        else:
            found[name] = array
    return found


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMED:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name)
    raise WeightsError(f"{name!r} is no part of a plain ViT.", "Pass other weights to --init.")


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # bfloat16, which NumPy does not know
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16).float()
    return torch.from_numpy(np.array(array))


def _kernel(module: str, value: Tensor) -> Tensor:
    if module == "patch_embedding.projection":
        if value.ndim == 2:  # of patches that were cut beforehand
            side = _side(value.shape[0])
            return rearrange(value, "(ph pw c) d -> d c ph pw", ph=side, pw=side)
        return rearrange(value, "ph pw c d -> d c ph pw")
    return rearrange(value, "heads e d -> d (heads e)") if value.ndim == 3 else value.T


def _positions(value: Tensor) -> Tensor:
    """(1, n, d) of positions stored so, or as (n, d), or as a grid (rows, columns, d)."""
    return value.reshape(1, -1, value.shape[-1])


def _side(numbers: int) -> int:
    """Side of a square patch of 3 channels, or 1."""
    side = math.isqrt(numbers // 3)
    return side if 3 * side * side == numbers else math.isqrt(numbers)


def _first(plain: Arrays, module: str, leaf: str) -> str:
    start = "Transformer/encoderblock_0/"
    return next(
        name.removeprefix(start) for name in plain if name.startswith(start + module) and name.endswith("/" + leaf)
    )
