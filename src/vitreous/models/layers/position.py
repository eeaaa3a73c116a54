"""Fixed position embeddings: sines and cosines of the row and the column."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_positions(grid: tuple[int, int], embed_dim: int, temperature: float = 10_000.0) -> Tensor:
    """(1, gh * gw, d): sines and cosines of the column, then of the row ("Better plain ViT", arXiv:2205.01580).

    Raises ValueError when the width is not a multiple of 4.
    """
    if embed_dim % 4:
        raise ValueError(f"positions='sincos' needs a width that is a multiple of 4, got {embed_dim}")
    rows, columns = torch.meshgrid(*(torch.arange(size).float() for size in grid), indexing="ij")
    bands = embed_dim // 4
    omega = temperature ** (-torch.arange(bands).float() / max(1, bands - 1))
    angles = [place.flatten()[:, None] * omega for place in (columns, rows)]
    parts = [wave for angle in angles for wave in (angle.sin(), angle.cos())]
    return torch.cat(parts, dim=1)[None]
