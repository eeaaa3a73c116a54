"""Weights of one input made to fit another: positions of another patch grid, patches of another size, other channels.

Pure functions from tensor to tensor, used once, while weights are loaded. What already fits comes back as it is.

Shapes: gh gw patch grid, n = gh * gw tokens, ph pw patch in pixels, c channels, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor
from torch.nn.functional import interpolate

Grid = tuple[int, int]
"""(rows, columns)."""

Convention = Literal["timm", "dinov2", "dinov2_reg", "dinov2_hf", "big_vision"]
"""Whose rule of resampling positions; a model keeps its accuracy at a new size only under the one it was made with."""

DINOV2_OFFSET = 0.1


def resample_positions(positions: Tensor, old: Grid, new: Grid, convention: Convention = "timm") -> Tensor:
    """Position embeddings of one patch grid for another, as the publisher of the weights computes them.

    positions: (1, n_old, d), patches only: class and register tokens have no place in the grid.
    returns:   (1, n_new, d) in the dtype given, computed in float32 or better; an equal grid is returned unchanged.

    "timm"        bicubic with antialiasing (`timm.layers.resample_abs_pos_embed`).
    "dinov2"      bicubic without antialiasing, where 0.1 is added to each new side to form the scale (Oquab et al.
                  2023, arXiv:2304.07193; `interpolate_pos_encoding` of facebookresearch/dinov2).
    "dinov2_reg"  what Meta's DINOv2 with registers does (Darcet et al. 2023, arXiv:2309.16588): the same as "timm".
    "dinov2_hf"   bicubic without antialiasing and without the 0.1: how `Dinov2Model` of transformers 5 runs the
                  original DINOv2 weights, which differs from Meta's code.
    "big_vision"  bilinear, the corners of both grids in one place (`resample_posemb` of google-research/big_vision).
                  There `scipy.ndimage.zoom` lets the last row or column round to outside the grid and come out as zeros
                  for some sizes, such as 16 to 30; here it is the old last row, as it is there for other sizes.

    Raises ValueError for an unknown convention, a side below 1, or a count of positions that is not the old grid's.
    """
    if convention not in _RESAMPLE:
        known = ", ".join(repr(name) for name in get_args(Convention))
        raise ValueError(f"there is no convention {convention!r} for resampling positions; known are {known}")
    _check_sides("a patch grid", new)
    if positions.ndim != 3 or positions.shape[0] != 1 or positions.shape[1] != old[0] * old[1]:
        raise ValueError(
            f"positions of a {old[0]} x {old[1]} grid have shape (1, {old[0] * old[1]}, d), "
            f"got {tuple(positions.shape)}; leave out those of class and register tokens"
        )
    if tuple(old) == tuple(new):
        return positions
    grid = rearrange(positions, "1 (gh gw) d -> 1 d gh gw", gh=old[0], gw=old[1])
    return rearrange(_RESAMPLE[convention](grid, new), "1 d gh gw -> 1 (gh gw) d").to(positions)


def resample_patches(kernel: Tensor, new: Grid) -> Tensor:
    """The first layer for patches of another size, by the pseudo-inverse of resizing the patch.

    kernel:  (d, c, ph, pw).
    returns: (d, c, *new) in the dtype given; an equal size is returned unchanged.

    Beyer et al. 2023 (FlexiViT, arXiv:2212.08013, section 3.4): with B the matrix that resizes a patch (here bicubic
    with antialiasing, as in `timm.layers.resample_patch_embed`), the new kernel is pinv(B)^T w. For larger patches
    <B x, w_new> = <x, w> for every patch x, so an enlarged image gives the same tokens; for smaller ones it is the
    closest in the mean over patches of white noise, because detail that the smaller patch cannot hold is lost.

    A round trip is therefore not the identity, in either order (32 -> 8 -> 32, nor 8 -> 16 -> 8, since shrinking does
    not undo enlarging): it keeps what is smooth in the kernel and dampens its finest detail.

    Raises ValueError for a kernel that has not four axes or a side below 1.
    """
    _check_kernel(kernel)
    _check_sides("a patch", new)
    ph, pw = kernel.shape[2:]
    if (ph, pw) == tuple(new):
        return kernel
    # B is a Kronecker product of one matrix for each axis, and so is its pseudo-inverse: two small decompositions in
    # place of one with ph * pw rows. In float64, which `set_float32_matmul_precision` cannot turn into bfloat16.
    rows, columns = torch.linalg.pinv(_resize_matrix(ph, new[0])), torch.linalg.pinv(_resize_matrix(pw, new[1]))
    exact = kernel.to("cpu", torch.float64)
    return torch.einsum("d c h w, h i, w j -> d c i j", exact, rows, columns).to(kernel)


def adapt_channels(kernel: Tensor, channels: int) -> Tensor:
    """The first layer for images with another number of channels.

    kernel:  (d, c_old, ph, pw).
    returns: (d, channels, ph, pw) in the dtype given, computed in float32; an equal count is returned unchanged.

    From colour (c_old = 3) as `timm.models.adapt_input_conv` does it. To 1 channel: the sum, so a grey image gives the
    tokens it gave as three equal channels. To N > 1: the channels tiled R, G, B, R, G ... and scaled by 3 / N, which
    keeps the three filters apart and the size of the tokens about the same; where N is no multiple of 3 the colours
    that come once more weigh more.

    From any other count, whose channels have no order to repeat: the mean, repeated and scaled by c_old / N, so an
    image whose channels are all equal gives the tokens it gave before. That covers grey to colour: kernel / N each.

    Raises ValueError for a kernel that has not four axes or fewer than 1 channel.
    """
    _check_kernel(kernel)
    if channels < 1:
        raise ValueError(f"an image has at least 1 channel, got {channels}")
    before = kernel.shape[1]
    if channels == before:
        return kernel
    if before == 3 and channels > 1:
        tiled = repeat(kernel.float(), "d c ph pw -> d (times c) ph pw", times=math.ceil(channels / 3))
        return (tiled[:, :channels] * (3 / channels)).to(kernel.dtype)
    total = reduce(kernel.float(), "d c ph pw -> d ph pw", "sum")
    return (repeat(total, "d ph pw -> d c ph pw", c=channels) / channels).to(kernel.dtype)


def _antialiased(grid: Tensor, new: Grid) -> Tensor:
    # torch 2.15 resizes to a single column wrongly where it takes the memory for contiguous, and to a single row rightly.
    if new[1] == 1 < new[0]:
        return rearrange(_antialiased(rearrange(grid, "b d h w -> b d w h"), (1, new[0])), "b d w h -> b d h w")
    return interpolate(grid.float(), size=new, mode="bicubic", antialias=True, align_corners=False)


def _plain(grid: Tensor, new: Grid) -> Tensor:
    return interpolate(grid.float(), size=new, mode="bicubic", align_corners=False)


def _offset(grid: Tensor, new: Grid) -> Tensor:
    # torch samples at the scale given, not at the ratio of the sides, so the 0.1 moves the last samples by a tenth of a
    # new token. It was meant to keep a side from being rounded down (facebookresearch/dino issue 8), and it stayed.
    scale = [(side + DINOV2_OFFSET) / before for side, before in zip(new, grid.shape[2:], strict=True)]
    return interpolate(grid.float(), scale_factor=scale, mode="bicubic", align_corners=False)


def _corners(grid: Tensor, new: Grid) -> Tensor:
    # In float64 as scipy does: float32 places the far end of a large grid wrongly by more than 1e-6 of a step.
    return interpolate(grid.to("cpu", torch.float64), size=new, mode="bilinear", align_corners=True)


_RESAMPLE: dict[str, Callable[[Tensor, Grid], Tensor]] = {
    "timm": _antialiased,
    "dinov2": _offset,
    "dinov2_reg": _antialiased,
    "dinov2_hf": _plain,
    "big_vision": _corners,
}


def _resize_matrix(old: int, new: int) -> Tensor:
    """(new, old) float64: bicubic resizing with antialiasing along one axis."""
    # Impulses lie along the row, for the reason given in `_antialiased`.
    impulses = rearrange(torch.eye(old, dtype=torch.float64), "impulse side -> impulse 1 1 side")
    resized = interpolate(impulses, size=(1, new), mode="bicubic", antialias=True, align_corners=False)
    return rearrange(resized, "impulse 1 1 side -> side impulse")


def _check_kernel(kernel: Tensor) -> None:
    if kernel.ndim != 4:
        raise ValueError(f"a patch kernel has shape (d, c, ph, pw), got {tuple(kernel.shape)}")


def _check_sides(what: str, sides: Grid) -> None:
    if min(sides) < 1:
        raise ValueError(f"each side of {what} is at least 1, got {sides[0]} x {sides[1]}")
