"""Weights of one image size, patch size, number of channels or classes put into a model of another.

Positions are resampled to the model's grid, patches and channels of the first layer adapted, a head that does not fit
starts fresh; each is said in a note. Anything else that differs is refused by name.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from vitreous.errors import WeightsError
from vitreous.models.layers.patch import ConvStem, PatchEmbedding
from vitreous.models.layers.position import sincos_positions
from vitreous.models.resample import Convention, adapt_channels, resample_patches, resample_positions
from vitreous.models.vit import VisionTransformer
from vitreous.models.weights import State

PATCHES = "patch_embedding.projection.weight"
POSITIONS = "position_embedding"
TOKENS = ("class_token", "distillation_token", "registers")


def load_into(
    model: VisionTransformer,
    state: State,
    source: str,
    *,
    convention: Convention = "timm",
    kernel: tuple[int, int, int] | None = None,
    grid: tuple[int, int] | None = None,
) -> tuple[str, ...]:
    """Copy weights under our names into `model`, adapted where sizes differ; sentences on what was adapted are returned.

    convention: how positions are resampled, `models.resample.resample_positions`. kernel: (channels, height, width) of the
    patches the weights were made for, and grid: (rows, columns) of theirs, for where the shapes alone do not tell.
    Raises WeightsError naming the first tensor that is missing or cannot be made to fit.
    """
    notes: list[str] = []
    own, state = model.state_dict(), dict(state)
    if POSITIONS in own and not isinstance(model.position_embedding, nn.Parameter):
        _check_fixed(model, state, source)
        state[POSITIONS] = own[POSITIONS]  # sines and cosines of this grid, whatever the weights were made for
    elif POSITIONS in state:
        _fit_positions(model, state, source, convention, grid, notes)
    if PATCHES in state and isinstance(model.patch_embedding, PatchEmbedding):
        state[PATCHES] = _fit_patches(model, state[PATCHES], source, kernel, notes)
    elif isinstance(model.patch_embedding, ConvStem):
        _fit_stem(model, state, source, notes)
    _fit_head(model, state, own, notes)
    for name, value in own.items():
        if name not in state:
            raise WeightsError(f"The weights of {source!r} lack {name!r}, which the model has.", _hint(source))
        if state[name].shape != value.shape:
            raise WeightsError(
                f"{name!r} has shape {tuple(state[name].shape)} in {source!r} and {tuple(value.shape)} in the model.",
                _hint(source),
            )
    surplus = sorted(set(state) - set(own))
    if surplus:
        raise WeightsError(f"The weights of {source!r} hold {surplus[0]!r}, which the model lacks.", _hint(source))
    model.load_state_dict(state)
    return tuple(notes)


def _fit_positions(
    model: VisionTransformer,
    state: State,
    source: str,
    convention: Convention,
    grid: tuple[int, int] | None,
    notes: list[str],
) -> None:
    """Make positions cover the model's patches, and the tokens before them that have a place of their own there.

    A position of a token that has none in the model is a constant added to a constant: it is added to the token.
    """
    positions = state.pop(POSITIONS)
    wanted = model.state_dict().get(POSITIONS)
    if wanted is None:
        raise WeightsError(f"The weights of {source!r} hold {POSITIONS!r}, which the model lacks.", _hint(source))
    sizes = {name: state[name].shape[1] for name in TOKENS if name in state and state[name].ndim == 3}
    if positions.ndim != 3 or positions.shape[2] != wanted.shape[2]:
        raise WeightsError(
            f"{POSITIONS!r} has shape {tuple(positions.shape)} in {source!r} and {tuple(wanted.shape)} in the model.",
            _hint(source),
        )
    counts = (0, sum(size for name, size in sizes.items() if name != "registers"), sum(sizes.values()))
    prefix, grid = _split(positions.shape[1], counts, grid, model, source)
    before, patches = positions[:, :prefix], positions[:, prefix:]
    if grid != model.grid_size:
        patches = resample_positions(patches, grid, model.grid_size, convention)
        notes.append(
            f"Positions resampled from {grid[0]} x {grid[1]} to {model.grid_size[0]} x {model.grid_size[1]} patches."
        )
    placed, start = model.num_placed_tokens, 0
    for name, size in sizes.items():
        if start >= placed and start < prefix:
            state[name] = state[name] + before[:, start : start + size]
        start += size
    before = before[:, :placed]
    if before.shape[1] < placed:
        before = patches.new_zeros(1, placed, patches.shape[2])
    state[POSITIONS] = torch.cat([before, patches], dim=1)


def _check_fixed(model: VisionTransformer, state: State, source: str) -> None:
    """Raise WeightsError where learned positions would be thrown away for sines and cosines."""
    positions = state.get(POSITIONS)
    if positions is None or positions.ndim != 3:
        return
    side = math.isqrt(positions.shape[1])
    grid = model.grid_size if positions.shape[1] == math.prod(model.grid_size) else (side, side)
    if grid[0] * grid[1] == positions.shape[1]:
        fixed = sincos_positions(grid, model.embed_dim)
        if fixed.shape == positions.shape and torch.allclose(fixed, positions.float().cpu(), atol=1e-3):
            return
    raise WeightsError(
        f"The weights of {source!r} have learned positions; the model's are sines and cosines.",
        "Use positions='learned'.",
    )


def _split(
    length: int, counts: tuple[int, ...], grid: tuple[int, int] | None, model: VisionTransformer, source: str
) -> tuple[int, tuple[int, int]]:
    """How many of `length` positions are of tokens before the patches, and the grid of the others."""
    for known in (grid, model.grid_size):
        if known is not None and length - math.prod(known) in counts:
            return length - math.prod(known), known
    for count in dict.fromkeys((counts[1], 0, counts[2])):
        side = math.isqrt(max(0, length - count))
        if side and side * side == length - count:
            return count, (side, side)
    raise WeightsError(f"The {length} positions of {source!r} are not those of a square grid.", _hint(source))


def _fit_patches(
    model: VisionTransformer,
    weight: Tensor,
    source: str,
    kernel: tuple[int, int, int] | None,
    notes: list[str],
) -> Tensor:
    """weight: a kernel (d, c, ph, pw) or matrix (d, c * ph * pw) -> the matrix of the model's first layer."""
    ph, pw = model.patch_size
    if weight.ndim == 2:
        channels, height, width = kernel or _kernel_of(model, weight.shape[1])
        if channels * height * width != weight.shape[1]:
            return weight
        weight = rearrange(weight, "d (c ph pw) -> d c ph pw", c=channels, ph=height, pw=width)
    if weight.ndim != 4:
        return weight
    channels, height, width = weight.shape[1:]
    if (height, width) != (ph, pw):
        weight = resample_patches(weight, (ph, pw))
        notes.append(f"Patches resampled from {height} x {width} pixels to {ph} x {pw}.")
    if channels != model.in_chans:
        weight = adapt_channels(weight, model.in_chans)
        notes.append(f"The first layer was adapted from {channels} to {model.in_chans} channels.")
    return rearrange(weight, "d c ph pw -> d (c ph pw)")


def _fit_stem(model: VisionTransformer, state: State, source: str, notes: list[str]) -> None:
    """A convolutional stem for other channels. Another patch size is another number of layers, and is refused."""
    first, stem = "patch_embedding.layers.0.weight", "patch_embedding.layers."
    theirs = {name for name in state if name.startswith(stem)}
    ours = {name for name in model.state_dict() if name.startswith(stem)}
    if first in state and theirs != ours:
        raise WeightsError(
            f"The convolutional stem of {source!r} is for another patch size than {model.patch_size[0]} pixels, "
            "which takes another number of layers.",
            "Keep the patch size it was made with, by choosing --net.patch-size or another image size.",
        )
    if first in state and state[first].shape[1] != model.in_chans:
        notes.append(f"The first layer was adapted from {state[first].shape[1]} to {model.in_chans} channels.")
        state[first] = adapt_channels(state[first], model.in_chans)


def _kernel_of(model: VisionTransformer, numbers: int) -> tuple[int, int, int]:
    """(channels, height, width) that a bare matrix of so many columns most likely was: the model's own patch before
    another size, its channels before colour before grey."""
    ph, pw = model.patch_size
    for channels in (model.in_chans, 3, 1):
        if numbers == channels * ph * pw:
            return channels, ph, pw
    for channels in (model.in_chans, 3, 1):
        side = math.isqrt(numbers // channels)
        if channels * side * side == numbers:
            return channels, side, side
    return 0, 0, 0


def _fit_head(model: VisionTransformer, state: State, own: State, notes: list[str]) -> None:
    """A head for other classes, or none, is replaced by the model's fresh one."""
    names = [name for name in own if name.startswith("head.")]
    if names and all(name in state and state[name].shape == own[name].shape for name in names):
        return
    for name in [name for name in state if name.startswith("head.")]:
        del state[name]
    state.update({name: own[name] for name in names})
    if names:
        notes.append(f"The classification head starts fresh, for {model.num_classes} classes.")


def _hint(source: str) -> str:
    return f"Choose the --model that {source!r} was made with, or --init scratch."
