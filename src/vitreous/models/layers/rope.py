"""Rotary position embedding in two dimensions: queries and keys are turned by angles that grow with the position.

Shapes: b batch, n tokens, heads, l layers, e width of a head, gh gw patch grid.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Layout = Literal["half", "interleaved"]
Coordinates = Literal["index", "unit"]
Axes = Literal["yx", "xy"]


class Rotation(NamedTuple):
    """cos and sin of the angles, each (..., n, e / 2), and which two numbers of a head form a plane."""

    cos: Tensor
    sin: Tensor
    layout: Layout


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each plane of x (b, heads, n, e) by its angle (Su et al. 2021, arXiv:2104.09864, section 3.2.2).

    The planes are the pairs (j, j + e/2) in the "half" layout and (2j, 2j + 1) in the "interleaved" one.
    """
    cos, sin, layout = rotation
    if layout == "half":
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    first, second = x[..., ::2], x[..., 1::2]
    return torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(-2)


def take(rotation: Rotation, kept: Tensor) -> Rotation:
    """The rotation of the tokens that patch dropout left: kept (b, m) indices -> cos, sin (b, heads or 1, m, e / 2)."""

    def pick(table: Tensor) -> Tensor:
        table = table if table.ndim == 3 else table[None]
        return table[:, kept].transpose(0, 1)

    return Rotation(pick(rotation.cos), pick(rotation.sin), rotation.layout)


def coordinates(
    grid: tuple[int, int], kind: Coordinates, offset: float = 0.0, reference: tuple[int, int] | None = None
) -> Tensor:
    """Where the patches stand: (gh * gw, 2) of (y, x), row by row, float32.

    "index" counts patches from `offset`; with a `reference` grid the counts are stretched so that any grid spans what the
    reference spanned in pre-training (EVA-02, arXiv:2303.11331, section 2.1). "unit" places patch centres in [-1, 1]
    (DINOv3, arXiv:2508.10104, section 3.2).
    """
    axes = []
    for axis, size in enumerate(grid):
        if kind == "unit":
            axes.append(2 * (torch.arange(0.5, size) / size) - 1)
            continue
        steps = torch.arange(size).float() + offset
        axes.append(steps if reference is None else steps / size * reference[axis])
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)


def frequencies(head_dim: int, theta: float, kind: Coordinates) -> Tensor:
    """(e / 4,) angles per unit of a coordinate: theta^(-4j/e), times 2 pi where coordinates span [-1, 1]."""
    bands = theta ** (-torch.arange(0, head_dim // 4).float() / (head_dim // 4))
    return 2 * math.pi * bands if kind == "unit" else bands


def mixed_frequencies(depth: int, num_heads: int, head_dim: int, theta: float) -> Tensor:
    """(2, l, heads, e / 2): where learning starts, each head's two axes turned by a random angle, with magnitudes
    theta^(-4j/e) (arXiv:2403.13298, section 3.2)."""
    magnitude = frequencies(head_dim, theta, "index")
    turns = 2 * math.pi * torch.rand(depth, num_heads, 1)
    first = torch.cat([magnitude * turns.cos(), magnitude * (turns + math.pi / 2).cos()], dim=-1)
    second = torch.cat([magnitude * turns.sin(), magnitude * (turns + math.pi / 2).sin()], dim=-1)
    return torch.stack([first, second])


class RotaryEmbedding(nn.Module):
    """The angles of every layer, computed when asked for: nothing is stored that a change of grid could outdate.

    "axial" turns half of a head's planes by y and half by x (as DINOv3, EVA-02, ViT-5); "mixed" learns for each layer,
    head and plane how y and x add up (Heo et al. 2024, arXiv:2403.13298, section 3.2).
    """

    def __init__(
        self,
        kind: Literal["axial", "mixed"],
        *,
        depth: int,
        num_heads: int,
        head_dim: int,
        theta: float = 100.0,
        coordinates: Coordinates = "unit",
        layout: Layout = "half",
        axes: Axes = "yx",
        offset: float = 0.0,
        reference: tuple[int, int] | None = None,
        register_theta: float | None = None,
    ) -> None:
        """theta: base of the frequencies. axes: whose angles come first in a head. register_theta: where given, registers
        stand on a square grid of their own and are turned with this base (ViT-5, arXiv:2602.08071).

        Raises ValueError for a head whose width is not a multiple of 4, or registers' positions in a mixed embedding.
        """
        super().__init__()
        if kind not in ("axial", "mixed"):
            raise ValueError(f"rope={kind!r} is not one of none, axial, mixed")
        if head_dim % 4:
            raise ValueError(f"rotary positions need heads whose width is a multiple of 4, got {head_dim}")
        if kind == "mixed" and register_theta is not None:
            raise ValueError("rope_register_theta goes with rope='axial', not 'mixed'")
        self.kind, self.depth, self.head_dim, self.theta = kind, depth, head_dim, theta
        self.coordinates: Coordinates = coordinates
        self.layout: Layout = layout
        self.axes: Axes = axes
        self.offset, self.reference, self.register_theta = offset, reference, register_theta
        self.frequencies = (
            nn.Parameter(mixed_frequencies(depth, num_heads, head_dim, theta)) if kind == "mixed" else None
        )

    def forward(
        self, grid: tuple[int, int], num_plain: int, num_registers: int, device: torch.device
    ) -> list[Rotation]:
        """One rotation a layer, cos and sin (n, e / 2) or, when mixed, (heads, n, e / 2), in float32.

        num_plain: tokens before the registers ([CLS], distillation), which are not turned. n counts every token.
        """
        places = coordinates(grid, self.coordinates, self.offset, self.reference).to(device)
        if self.axes == "xy":
            places = places.flip(-1)
        if self.frequencies is not None:
            first, second = self.frequencies.float()[:, :, :, None, :]
            angles = places[:, :1] * first + places[:, 1:] * second  # (l, heads, n, e / 2)
        else:
            angles = self._axial(places, self.theta, self.coordinates)[None]
        prefix = angles.new_zeros(*angles.shape[:-2], num_plain + num_registers, angles.shape[-1])
        if self.register_theta is not None and num_registers:
            side = math.isqrt(num_registers)
            prefix[..., num_plain:, :] = self._axial(
                coordinates((side, side), "index").to(device), self.register_theta, "index"
            )
        angles = torch.cat([prefix, angles], dim=-2)
        rotations = [Rotation(layer.cos(), layer.sin(), self.layout) for layer in angles]
        return rotations if self.frequencies is not None else rotations * self.depth

    def _axial(self, places: Tensor, theta: float, kind: Coordinates) -> Tensor:
        """places (n, 2) -> angles (n, e / 2)."""
        bands = frequencies(self.head_dim, theta, kind).to(places.device)
        return (places[:, :, None] * bands).flatten(1)
