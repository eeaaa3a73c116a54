"""Initial weights: reading files and timm's published checkpoints, and mapping their names to ours. Mapping only.

A checkpoint of another image size, number of channels or classes is adapted: positions are resampled, the first layer
is summed over colours for grey images, and a head that does not fit starts fresh; each is said in a note.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.models.patch import PatchEmbedding, resample_grid
from vitreous.models.vit import VisionTransformer
from vitreous.runs.folder import MODEL

State = dict[str, Tensor]

# timm's names for the plain ViT, as patterns; the order matters only in that each name is changed by all that match.
_FROM_TIMM: tuple[tuple[str, str], ...] = (
    (r"^patch_embed\.proj\.", "patch_embedding.projection."),
    (r"^cls_token$", "class_token"),
    (r"^reg_token$", "registers"),
    (r"^pos_embed$", "position_embedding"),
    (r"\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".mlp_norm."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.projection."),
    (r"\.mlp\.fc1\.", ".mlp.expand."),
    (r"\.mlp\.fc2\.", ".mlp.contract."),
)


@dataclass(frozen=True)
class Fetched:
    """Weights and where they came from."""

    state: State
    source: str
    licence: str
    notes: tuple[str, ...] = ()


def from_timm(state: State) -> State:
    """timm's plain-ViT names and shapes to ours. The patch kernel (d, c, ph, pw) becomes a matrix (d, c * ph * pw)."""
    renamed = {}
    for original, value in state.items():
        name = original
        for pattern, replacement in _FROM_TIMM:
            name = re.sub(pattern, replacement, name)
        if original == "patch_embed.proj.weight" and value.ndim == 4:  # not our own convolutional stem
            value = rearrange(value, "d c ph pw -> d (c ph pw)")
        renamed[name] = value
    return renamed


def load_into(model: VisionTransformer, state: State, source: str) -> tuple[str, ...]:
    """Copy weights of another size, channel count or head into `model`; sentences on what was adapted are returned.

    Raises WeightsError naming the first tensor that is missing or cannot be made to fit.
    """
    notes: list[str] = []
    own = model.state_dict()
    state = dict(state)
    if "position_embedding" in state:
        state["position_embedding"] = _fit_positions(model, state["position_embedding"], source, notes)
    first = "patch_embedding.projection.weight"
    if first in state and isinstance(model.patch_embedding, PatchEmbedding):
        state[first] = _fit_channels(model, state[first], notes)
    for name in ("head.weight", "head.bias"):
        if name not in state or state[name].shape != own[name].shape:
            state[name] = own[name]
            if name == "head.weight":
                notes.append(f"The classification head starts fresh, for {model.num_classes} classes.")
    for name, value in own.items():
        if name not in state:
            raise WeightsError(f"The weights of {source!r} lack {name!r}, which the model has.", _fit_hint(source))
        if state[name].shape != value.shape:
            raise WeightsError(
                f"{name!r} has shape {tuple(state[name].shape)} in {source!r} and {tuple(value.shape)} in the model.",
                _fit_hint(source),
            )
    surplus = sorted(set(state) - set(own))
    if surplus:
        raise WeightsError(f"The weights of {source!r} hold {surplus[0]!r}, which the model lacks.", _fit_hint(source))
    model.load_state_dict(state)
    return tuple(notes)


def read_weights(path: Path) -> State:
    """Weights from a run folder, a .safetensors file, or a .pt/.pth file of plain tensors, with names made ours.

    A pickled file is read with `weights_only=True`: one that holds anything but tensors is refused without running it.
    Raises WeightsError.
    """
    if path.is_dir():
        path = path / MODEL
    if not path.is_file():
        raise WeightsError(
            f"There are no weights at {str(path)!r}.", "Pass a run folder, .safetensors or .pth to --init."
        )
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError) as error:
        raise WeightsError(
            f"{str(path)!r} cannot be read ({type(error).__name__}).", "Fetch or copy it again."
        ) from error
    except Exception as error:  # torch raises pickle's own errors for a refused payload
        raise WeightsError(
            f"{str(path)!r} holds more than plain tensors and was refused without running it.",
            "Save it again as .safetensors.",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise WeightsError(f"{str(path)!r} is not a dictionary of tensors.", "Save the model's state_dict().")
    return from_timm(state)


def fetch_timm(name: str, *, offline: bool, say: Callable[[str], None] | None = None) -> Fetched:
    """A published timm checkpoint, from the local cache or the Hugging Face hub.

    say: called with one sentence before anything is downloaded, giving size, source and licence.
    Raises WeightsError when the name is unknown, or when it is not cached and the network is away or forbidden.
    """
    import timm
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    if not timm.is_model(name.split(".")[0]):
        raise WeightsError(f"timm has no model {name!r}.", "`vitreous models` lists names.")
    full = name if "." in name else _default_tag(name)
    repository, file = f"timm/{full}", "model.safetensors"
    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Fetched(read_weights(Path(cached)), f"timm:{full} (cached)", "see the model card")
    if offline:
        raise WeightsError(
            f"The weights {full!r} are not in the local cache, and --offline forbids fetching them.",
            "Download model.safetensors elsewhere and pass it with --init FILE.",
        )
    try:
        facts = HfApi().model_info(repository, files_metadata=True, timeout=5)
        size = next((entry.size or 0 for entry in facts.siblings or [] if entry.rfilename == file), 0)
        licence = str(getattr(facts.card_data, "license", None) or "not stated")
        if say is not None:
            say(f"Fetching {size / 1e6:.0f} MB of weights from huggingface.co/{repository}, licence {licence}.")
        path = hf_hub_download(repository, file)
    except Exception as error:  # the hub client raises many kinds for one meaning
        raise WeightsError(
            f"The weights {full!r} could not be fetched ({type(error).__name__}).",
            "Check the network, pass a file with --init FILE, or train from scratch with --init scratch.",
        ) from error
    return Fetched(read_weights(Path(path)), f"timm:{full}", licence)


def hub_is_reachable(seconds: float = 3.0) -> bool:
    """Whether a connection to the hub opens within the given time. Sends nothing."""
    import socket

    try:
        with socket.create_connection(("huggingface.co", 443), timeout=seconds):
            return True
    except OSError:
        return False


def _default_tag(name: str) -> str:
    import timm

    tags = timm.list_pretrained(f"{name}.*")
    if not tags:
        raise WeightsError(f"timm publishes no weights for {name!r}.", "Train from scratch with --init scratch.")
    config = timm.get_pretrained_cfg(name)
    tag = getattr(config, "tag", "") if config else ""
    return f"{name}.{tag}" if tag else tags[0]


def _fit_positions(model: VisionTransformer, positions: Tensor, source: str, notes: list[str]) -> Tensor:
    prefix = int(model.class_token is not None)
    wanted = model.position_embedding.shape
    if positions.shape == wanted or positions.ndim != 3:
        return positions
    count = positions.shape[1] - prefix
    side = round(count**0.5)
    if side * side != count or positions.shape[2] != wanted[2]:
        raise WeightsError(
            f"The position embedding of {source!r} has shape {tuple(positions.shape)}, not a square grid of the model's width.",
            _fit_hint(source),
        )
    grid = resample_grid(positions[:, prefix:], (side, side), model.grid_size)
    notes.append(f"Positions resampled from a {side} x {side} grid to {model.grid_size[0]} x {model.grid_size[1]}.")
    return torch.cat([positions[:, :prefix], grid], dim=1)


def _fit_channels(model: VisionTransformer, weight: Tensor, notes: list[str]) -> Tensor:
    ph, pw = model.patch_size
    channels = weight.shape[1] // (ph * pw)
    # Any other count is a patch of another size: 3 x 32 x 32 numbers are not twelve channels of 16 x 16.
    if channels == model.in_chans or channels not in (1, 3) or weight.shape[1] % (ph * pw):
        return weight
    kernel = rearrange(weight, "d (c ph pw) -> d c ph pw", ph=ph, pw=pw)
    notes.append(f"The first layer was adapted from {channels} to {model.in_chans} channels.")
    if model.in_chans == 1:
        kernel = kernel.sum(dim=1, keepdim=True)
    else:
        kernel = kernel.mean(dim=1, keepdim=True).repeat(1, model.in_chans, 1, 1) * channels / model.in_chans
    return rearrange(kernel, "d c ph pw -> d (c ph pw)")


def _fit_hint(source: str) -> str:
    return f"Choose the --model that {source!r} was made with, or --init scratch."
