"""Resampled positions and first layers against timm, DINOv2, Hugging Face and big_vision's scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from scipy import ndimage
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models import adapt_input_conv
from torch import Tensor
from torch.nn.functional import interpolate

from vitreous.models.resample import Grid, adapt_channels, resample_patches, resample_positions

TOLERANCE = 1e-6
WIDTH = 24
GRIDS: list[tuple[Grid, Grid]] = [
    ((14, 14), (7, 7)),
    ((7, 7), (12, 12)),
    ((16, 16), (37, 37)),
    ((8, 8), (6, 10)),
    ((6, 10), (3, 20)),
    ((9, 4), (4, 9)),
    ((6, 1), (3, 1)),
    ((1, 5), (4, 1)),
    ((5, 3), (1, 1)),
    ((1, 1), (2, 3)),
]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05, "a reference that is all but constant proves nothing"
    return float((ours - theirs).detach().abs().max())


@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_timm_positions_equal_timms(old: Grid, new: Grid) -> None:
    positions = noise(1, old[0] * old[1], WIDTH)
    theirs = resample_abs_pos_embed(positions, list(new), list(old), num_prefix_tokens=0)
    assert largest_difference(resample_positions(positions, old, new), theirs) <= TOLERANCE


def cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution with a = -0.75, the weight of a sample at some distance."""
    x, a = distance.abs(), -0.75
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))


def dinov2_matrix(old: int, new: int, offset: float) -> Tensor:
    """(new, old): sample at (i + 0.5) / scale - 0.5 with scale (new + offset) / old, edges repeated."""
    centres = (torch.arange(new, dtype=torch.float64) + 0.5) * old / (new + offset) - 0.5
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for tap in range(-1, 3):
        source = centres.floor() + tap
        weights = cubic(centres - source)
        cells = (torch.arange(new), source.long().clamp(0, old - 1))
        matrix.index_put_(cells, weights, accumulate=True)  # taps beyond an edge add up on the edge
    return matrix


def dinov2_positions(positions: Tensor, new: Grid) -> Tensor:
    """`interpolate_pos_encoding` of facebookresearch/dinov2 for its square grids, class token left out."""
    side = int(positions.shape[1] ** 0.5)
    grid = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (float(new[0] + 0.1) / side, float(new[1] + 0.1) / side)
    grid = interpolate(grid, mode="bicubic", antialias=False, scale_factor=scale)
    assert tuple(grid.shape[2:]) == new
    return grid.permute(0, 2, 3, 1).reshape(1, -1, positions.shape[2])


@pytest.mark.parametrize("new", [(7, 7), (16, 16), (37, 37), (12, 20), (20, 12), (14, 9), (1, 3)])
def test_dinov2_positions_equal_metas(new: Grid) -> None:
    positions = noise(1, 14 * 14, WIDTH)
    ours = resample_positions(positions, (14, 14), new, "dinov2")
    assert largest_difference(ours, dinov2_positions(positions, new)) <= TOLERANCE


@pytest.mark.parametrize("offset", [0.1, 0.0])
@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_dinov2_positions_equal_cubic_convolution_written_out(old: Grid, new: Grid, offset: float) -> None:
    positions = noise(1, old[0] * old[1], WIDTH)
    grid = rearrange(positions.double(), "1 (gh gw) d -> gh gw d", gh=old[0], gw=old[1])
    rows, columns = dinov2_matrix(old[0], new[0], offset), dinov2_matrix(old[1], new[1], offset)
    theirs = rearrange(torch.einsum("i h, j w, h w d -> i j d", rows, columns, grid), "i j d -> 1 (i j) d")
    ours = resample_positions(positions, old, new, "dinov2" if offset else "dinov2_hf")
    # torch finds sample places in float32, which a grid of 37 shows in the sixth digit.
    assert largest_difference(ours, theirs.float()) <= 1e-5


@pytest.mark.parametrize(("registers", "convention"), [(False, "dinov2_hf"), (True, "dinov2_reg")])
@pytest.mark.parametrize("new", [(7, 7), (20, 20), (12, 20), (20, 3)])
def test_dinov2_positions_equal_hugging_faces(new: Grid, registers: bool, convention: Any) -> None:
    pytest.importorskip("transformers")
    from transformers.models.dinov2 import modeling_dinov2 as plain
    from transformers.models.dinov2_with_registers import modeling_dinov2_with_registers as with_registers

    shape: dict[str, Any] = {"hidden_size": WIDTH, "image_size": 14 * 4, "patch_size": 4, "num_attention_heads": 2}
    if registers:
        theirs = with_registers.Dinov2WithRegistersEmbeddings(with_registers.Dinov2WithRegistersConfig(**shape))
    else:
        theirs = plain.Dinov2Embeddings(plain.Dinov2Config(**shape))
    positions = noise(1, 1 + 14 * 14, WIDTH)
    theirs.position_embeddings.data.copy_(positions)
    tokens = torch.zeros(1, 1 + new[0] * new[1], WIDTH)
    expected = theirs.interpolate_pos_encoding(tokens, new[0] * 4, new[1] * 4)
    ours = resample_positions(positions[:, 1:], (14, 14), new, convention)
    assert largest_difference(ours, expected[:, 1:]) <= TOLERANCE


def zoom(positions: Tensor, old: Grid, new: Grid, **arguments: Any) -> Tensor:
    """`resample_posemb` of google-research/big_vision, for grids that need not be square."""
    grid = positions.reshape(*old, -1).numpy()
    grid = ndimage.zoom(grid, (new[0] / old[0], new[1] / old[1], 1), order=1, **arguments)
    return torch.from_numpy(np.asarray(grid)).reshape(1, new[0] * new[1], -1)


@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_big_vision_positions_equal_scipys(old: Grid, new: Grid) -> None:
    positions = noise(1, old[0] * old[1], WIDTH)
    ours = resample_positions(positions, old, new, "big_vision")
    assert largest_difference(ours, zoom(positions, old, new)) <= TOLERANCE


def test_big_vision_positions_keep_the_last_row_that_scipy_may_round_away() -> None:
    """At 16 to 30 scipy's default takes the last row for one outside the grid; `mode="nearest"` is free of that."""
    positions = noise(1, 16 * 16, WIDTH)
    ours = resample_positions(positions, (16, 16), (30, 30), "big_vision")
    assert largest_difference(ours, zoom(positions, (16, 16), (30, 30), mode="nearest")) <= TOLERANCE
    as_published = rearrange(zoom(positions, (16, 16), (30, 30)), "1 (h w) d -> h w d", h=30)
    inside = rearrange(ours, "1 (h w) d -> h w d", h=30)
    assert largest_difference(inside[:-1, :-1], as_published[:-1, :-1]) <= TOLERANCE


PATCHES: list[tuple[Grid, Grid]] = [
    ((16, 16), (8, 8)),
    ((8, 8), (16, 16)),
    ((16, 16), (14, 14)),
    ((14, 14), (16, 16)),
    ((16, 16), (30, 30)),
    ((8, 12), (10, 5)),
    ((4, 8), (8, 4)),
    ((4, 4), (1, 1)),
]


def published_resample(kernel: Tensor, new: Grid) -> Tensor:
    """FlexiViT's algorithm as published, with one resize matrix over all pixels, in float64."""
    old = (kernel.shape[2], kernel.shape[3])
    impulses = torch.eye(old[0] * old[1], dtype=torch.float64).reshape(1, -1, *old)
    resize = rearrange(interpolate(impulses, size=new, mode="bicubic", antialias=True), "1 old h w -> (h w) old")
    return (kernel.double().flatten(2) @ torch.linalg.pinv(resize)).reshape(*kernel.shape[:2], *new)


@pytest.mark.parametrize(("old", "new"), PATCHES)
def test_resampled_patches_equal_timms(old: Grid, new: Grid) -> None:
    kernel = noise(6, 3, *old)
    ours = resample_patches(kernel, new)
    exact = published_resample(kernel, new)
    scale = float(exact.abs().max())
    assert largest_difference(ours, exact.float()) <= TOLERANCE * scale
    # timm takes the pseudo-inverse in float32, which costs it some 3e-6; the line above shows on which side that lies.
    assert largest_difference(ours, resample_patch_embed(kernel, list(new))) <= 5 * TOLERANCE * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 13])
def test_the_first_layer_for_other_channels_equals_timms(channels: int, dtype: torch.dtype) -> None:
    kernel = noise(6, 3, 8, 8).to(dtype)
    ours, theirs = adapt_channels(kernel, channels), adapt_input_conv(channels, kernel)
    assert ours.dtype == theirs.dtype == dtype
    assert largest_difference(ours.float(), theirs.float()) <= TOLERANCE
