"""Occlusion: what the target loses when a part of the image is hidden. Works with any model and any engine. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from vitreous.engines.protocol import Engine
from vitreous.explanation.masking import masked_scores, predict_with
from vitreous.runs.decision import probabilities

MOST_CELLS = 14
"""Cells along the longer side, at most."""
SMALLEST_CELL = 2
"""Pixels; a single hidden pixel says nothing."""


def occlusion_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of nearly square cells for an image of this size, at most 14 along the longer side."""
    cell = max(SMALLEST_CELL, math.ceil(max(height, width) / MOST_CELLS))
    return max(1, math.ceil(height / cell)), max(1, math.ceil(width / cell))


def occlusion_map(
    engine: Engine,
    images: np.ndarray,
    target: np.ndarray,
    *,
    grid: tuple[int, int] | None = None,
    window: int = 2,
    scores: Callable[[np.ndarray], np.ndarray] = probabilities,
) -> np.ndarray:
    """Slide a patch over the image and note how far the target's probability falls (Zeiler and Fergus 2014,
    arXiv:1311.2901, section 4.2).

    images: prepared, float32 (b, c, h, w); target: class indices (b,).
    grid:   rows and columns of the result; from the image size when None.
    window: side of the hidden patch in cells; it moves by one cell, and a cell's value is the mean over the patches
            that hid it, so that an object larger than one cell is seen and the map is smooth.
    scores: from logits (b, k) to probabilities, as `RunFolder.scores`.
    returns: float32 (b, gh, gw), negative where hiding helps the target.
    """
    gh, gw = grid or occlusion_grid(*images.shape[2:])
    hidden = _windows(gh, gw, min(window, gh, gw))
    everything = np.ones((1, gh, gw), bool)
    predict = predict_with(engine, scores)
    maps = []
    for image, wanted in zip(images, target, strict=True):
        found = masked_scores(predict, image, np.concatenate([everything, ~hidden]), int(wanted))
        drops = found[0] - found[1:]
        maps.append(np.einsum("m,mhw->hw", drops, hidden) / hidden.sum(axis=0))
    return np.stack(maps).astype(np.float32)


def _windows(gh: int, gw: int, window: int) -> np.ndarray:
    """Every position of the patch, those half over the edge too, so that each cell is hidden equally often: bool (m, gh, gw)."""
    rows = _spans(gh, window)
    columns = _spans(gw, window)
    return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(-1, gh, gw)


def _spans(cells: int, window: int) -> np.ndarray:
    """bool (cells + window - 1, cells): row i marks the cells i - window + 1 to i."""
    offset = np.arange(cells) - np.arange(1 - window, cells)[:, None]
    return (offset >= 0) & (offset < window)
