"""Changes that blank a part of an image or join two: random erasing, mixup and CutMix."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vitreous.config.train import AugmentConfig

ERASE_AREA = (0.02, 1 / 3)
"""Share of the image that erasing blanks; with ERASE_RATIO the values of arXiv:1708.04896."""
ERASE_RATIO = 3.3


def draw_erased(
    probability: float, size: tuple[int, int], count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Which images are erased, the share `probability` of `count`, and where.

    returns: int64 (m,) their places in the batch; bool (m, 1, *size), true in the rectangle to be blanked.
    """
    rows, columns = size
    draws = torch.rand(5, count, generator=generator)
    area = draws[0] * (ERASE_AREA[1] - ERASE_AREA[0]) + ERASE_AREA[0]
    ratio = torch.exp((draws[1] * 2 - 1) * math.log(ERASE_RATIO))
    height = ((area * ratio).sqrt().clamp(max=1) * rows).round().clamp(min=1)
    width = ((area / ratio).sqrt().clamp(max=1) * columns).round().clamp(min=1)
    top = (draws[2] * (rows - height + 1)).floor()
    left = (draws[3] * (columns - width + 1)).floor()
    chosen = (draws[4] < probability).nonzero()[:, 0]
    return chosen, _box(top[chosen], left[chosen], height[chosen], width[chosen], rows, columns)


def mix(images: Tensor, targets: Tensor, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899) of each image with its neighbour in the batch, one ratio a
    batch.

    images (b, c, h, w), changed in place; targets (b, k), rows of any sum: what a row weighs is mixed with it.
    """
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(config, kind)]
    # torch's Beta takes no generator; NumPy's does, and is seeded from ours.
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    if not kinds or rng.random() >= (config.mix_probability or 0):
        return images, targets
    kind = kinds[int(rng.integers(len(kinds)))]
    share = float(rng.beta(getattr(config, kind), getattr(config, kind)))
    if kind == "mixup":
        images.lerp_(images.roll(1, 0), 1 - share)
    else:
        height, width = images.shape[-2:]
        side = math.sqrt(1 - share)
        middle = rng.random(2) * (height, width)
        low = np.clip(np.rint(middle - np.array([height, width]) * side / 2), 0, (height, width)).astype(int)
        high = np.clip(np.rint(middle + np.array([height, width]) * side / 2), 0, (height, width)).astype(int)
        box = (..., slice(low[0], high[0]), slice(low[1], high[1]))
        images[box] = images[box].roll(1, 0)
        share = 1 - float((high - low).prod()) / (height * width)
    return images, targets * share + targets.roll(1, 0) * (1 - share)


def _box(top: Tensor, left: Tensor, height: Tensor, width: Tensor, rows: int, columns: int) -> Tensor:
    """bool (b, 1, rows, columns), true inside each image's box."""
    y, x = torch.arange(rows), torch.arange(columns)
    inside_y = (y >= top[:, None]) & (y < (top + height)[:, None])
    inside_x = (x >= left[:, None]) & (x < (left + width)[:, None])
    return (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
