"""What a model says of one image while cells of it are hidden: the measurement under occlusion and faithfulness.

Shapes: c channels, h w image in pixels, gh gw cells, m masked copies. No torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from vitreous.engines.protocol import Engine
from vitreous.runs.decision import probabilities

Predict: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Prepared images float32 (b, c, h, w) to class probabilities (b, k)."""

BATCH = 32
"""Masked copies in one forward pass."""


def predict_with(engine: Engine, scores: Callable[[np.ndarray], np.ndarray] = probabilities) -> Predict:
    """The probabilities of an engine. scores: from logits (b, k), as `RunFolder.scores`."""
    return lambda batch: scores(engine.predict(batch).logits)


def masked_scores(predict: Predict, image: np.ndarray, shown: np.ndarray, target: int) -> np.ndarray:
    """image (c, h, w) and cells shown, bool (m, gh, gw) -> probability of the target (m,), float64.

    Hidden cells take the mean of the image over its pixels, per channel: unlike a fixed colour it is no edge in a
    flat image, and an image hidden altogether carries no shape.
    """
    canvas = np.broadcast_to(image.mean(axis=(1, 2), keepdims=True), image.shape)
    rows = cell_of_pixel(image.shape[1], shown.shape[1])
    columns = cell_of_pixel(image.shape[2], shown.shape[2])
    scores = []
    for start in range(0, len(shown), BATCH):
        mask = shown[start : start + BATCH][:, rows][:, :, columns]
        scores.append(predict(np.where(mask[:, None], image, canvas).astype(np.float32))[:, target])
    return np.concatenate(scores).astype(np.float64)


def cell_of_pixel(pixels: int, cells: int) -> np.ndarray:
    """The cell each of a row of pixels lies in, int (pixels,); cells differ by at most one pixel in size."""
    return np.arange(pixels) * cells // pixels
