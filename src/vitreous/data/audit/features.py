"""What the audit's quick probes see of an image: numbers computed from its 32 x 32 thumbnail.

No network and no weights: a probe that needs a model cannot be run before every training. Each function works in
chunks, so beside its result it needs a few tens of megabytes.

    visual_features   what is in the picture: edges and colours by place, texture and colours wherever they are
    border_features   only the outermost ring
    tiny_features     only 8 x 8 pixels
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vitreous.data.examination.finding import THUMBNAIL

CHUNK = 1024
"""Thumbnails described at a time."""

DIRECTIONS = 12
"""Directions of a gradient that are told apart, over the full turn: dark-to-light differs from light-to-dark."""

CELL = 4
"""Side in thumbnail pixels of the cells in which gradients and colours are collected: 8 x 8 cells."""

RING = 2
"""Thickness in thumbnail pixels of the ring that the border probe sees: a sixteenth of the side."""

SEGMENTS = 8
"""Pieces of each side of a ring."""

VISUAL_BLOCKS = (780, 160)
"""Columns of the visual features that depend on place, and that do not: the probe gives each block a kernel of its own.
On textures the second does better alone (satellite scenes: 77 % against 57 %), on objects the first."""

PATTERNS = np.asarray(
    [bin(code).count("1") if bin(code ^ (code >> 1 | (code & 1) << 7)).count("1") <= 2 else 9 for code in range(256)]
)
"""Rotation-invariant uniform pattern, 0 to 9, of a pixel's eight brighter-or-not neighbours."""


def visual_features(thumbnails: np.ndarray) -> np.ndarray:
    """Edges, layout, texture and colours of each thumbnail.

    thumbnails: uint8 (n, 32, 32, 3)
    returns:    float32 (n, 940), in the blocks of VISUAL_BLOCKS. By place: histograms of oriented gradients (Dalal and
                Triggs 2005, section 6; 7 x 7 overlapping cells of 8 pixels, 12 signed directions) and mean colours of
                8 x 8 cells. Wherever it is: a colour histogram of 4 x 4 x 4, local binary patterns (Ojala et al. 2002),
                quantiles of colour, strength of gradients at three scales, and the gradients pooled over places.
    """

    def describe(images: np.ndarray) -> np.ndarray:
        gradients = _gradients(images)
        pooled = gradients.reshape(len(images), -1, DIRECTIONS)
        free = [_colors(images), _patterns(images), _strengths(images), _spreads(images), pooled.mean(1), pooled.std(1)]
        return np.hstack([gradients, _layout(images), *free])

    return _in_chunks(thumbnails, describe)


def tiny_features(thumbnails: np.ndarray) -> np.ndarray:
    """Mean colours of 8 x 8 cells: uint8 (n, 32, 32, 3) to float32 (n, 192)."""
    return _in_chunks(thumbnails, _layout)


def border_features(thumbnails: np.ndarray) -> np.ndarray:
    """The outermost two pixels of each side: uint8 (n, 32, 32, 3) to float32 (n, 128)."""
    return ring_features(thumbnails, 0)


def ring_features(thumbnails: np.ndarray, inset: int) -> np.ndarray:
    """Mean colour and spread of grey in eight pieces of each side of a ring.

    thumbnails: uint8 (n, 32, 32, 3)
    inset:      thumbnail pixels between the ring and the edge of the image
    returns:    float32 (n, 128), whatever the inset, so that rings can be compared
    """
    return _in_chunks(thumbnails, lambda some: _ring(some, inset))


def _in_chunks(thumbnails: np.ndarray, describe: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    if thumbnails.dtype != np.uint8 or thumbnails.shape[1:] != (THUMBNAIL, THUMBNAIL, 3):
        raise ValueError(f"thumbnails are uint8 (n, {THUMBNAIL}, {THUMBNAIL}, 3), not {thumbnails.shape}")
    width = describe(np.zeros((1, THUMBNAIL, THUMBNAIL, 3), np.float32)).shape[1]
    result = np.empty((len(thumbnails), width), np.float32)
    for start in range(0, len(thumbnails), CHUNK):
        stop = start + CHUNK
        result[start:stop] = describe(thumbnails[start:stop].astype(np.float32) / 255)
    return result


def _grey(images: np.ndarray) -> np.ndarray:
    return images @ np.asarray([0.299, 0.587, 0.114], np.float32)


def _gradients(images: np.ndarray) -> np.ndarray:
    """images (b, 32, 32, 3) in [0, 1]; returns (b, 7 * 7 * DIRECTIONS), each cell of unit length at most."""
    grey = np.sqrt(_grey(images))  # the root evens out light and shade
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    turn = np.arctan2(down, across) * np.float32(DIRECTIONS / (2 * np.pi))  # (b, 32, 32)
    lower = np.floor(turn)
    upper_share, size = turn - lower, np.hypot(across, down)
    cells = THUMBNAIL // CELL
    place = np.arange(THUMBNAIL) // CELL
    cell = np.arange(len(images))[:, None, None] * cells**2 + place[:, None] * cells + place
    histogram = np.zeros(len(images) * cells**2 * DIRECTIONS)
    for step, share in ((0, 1 - upper_share), (1, upper_share)):
        index = cell * DIRECTIONS + (lower.astype(np.int64) + step) % DIRECTIONS
        histogram += np.bincount(index.ravel(), weights=(size * share).ravel(), minlength=len(histogram))
    grid = histogram.reshape(-1, cells, cells, DIRECTIONS).astype(np.float32)
    blocks = grid[:, 1:, 1:] + grid[:, 1:, :-1] + grid[:, :-1, 1:] + grid[:, :-1, :-1]  # (b, 7, 7, DIRECTIONS)
    blocks /= np.sqrt((blocks**2).sum(-1, keepdims=True) + 0.05)
    return blocks.reshape(len(images), -1)


def _layout(images: np.ndarray) -> np.ndarray:
    cells = THUMBNAIL // CELL
    return images.reshape(-1, cells, CELL, cells, CELL, 3).mean((2, 4)).reshape(len(images), -1)


def _colors(images: np.ndarray) -> np.ndarray:
    """Roots of the shares of pixels in each of 4 x 4 x 4 colours: (b, 64)."""
    level = np.minimum((images * 4).astype(np.int64), 3)
    color = (level[..., 0] * 4 + level[..., 1]) * 4 + level[..., 2] + np.arange(len(images))[:, None, None] * 64
    counts = np.bincount(color.ravel(), minlength=len(images) * 64).reshape(-1, 64)
    return np.sqrt(counts / THUMBNAIL**2).astype(np.float32)


def _ring(images: np.ndarray, inset: int) -> np.ndarray:
    """The four sides laid out as strips (b, RING, side, 3), each cut into pieces along its length."""
    low, high = inset, THUMBNAIL - inset
    strips = [
        images[:, low : low + RING, low:high],
        images[:, high - RING : high, low:high],
        images[:, low:high, low : low + RING].swapaxes(1, 2),
        images[:, low:high, high - RING : high].swapaxes(1, 2),
    ]
    starts = np.linspace(0, high - low, SEGMENTS, endpoint=False).astype(int)
    sizes = np.diff([*starts, high - low])[:, None] * RING
    blocks = []
    for strip in strips:
        mean = np.add.reduceat(strip.sum(1), starts, axis=1) / sizes  # (b, SEGMENTS, 3)
        grey = _grey(strip)
        square = np.add.reduceat((grey**2).sum(1), starts, axis=1) / sizes[:, 0]
        spread = np.sqrt(np.maximum(0, square - (np.add.reduceat(grey.sum(1), starts, axis=1) / sizes[:, 0]) ** 2))
        blocks += [mean.reshape(len(images), -1), spread]
    return np.hstack(blocks)


def _patterns(images: np.ndarray) -> np.ndarray:
    """Roots of the shares of pixels with each pattern of brighter neighbours: (b, 10)."""
    grey, side = _grey(images), THUMBNAIL - 2
    code = np.zeros((len(images), side, side), np.int64)
    for bit, (down, across) in enumerate([(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]):
        brighter = grey[:, down : down + side, across : across + side] > grey[:, 1:-1, 1:-1] + 0.01
        code |= brighter.astype(np.int64) << bit
    pattern = PATTERNS[code] + np.arange(len(images))[:, None, None] * 10
    counts = np.bincount(pattern.ravel(), minlength=len(images) * 10).reshape(-1, 10)
    return np.sqrt(counts / side**2).astype(np.float32)


def _strengths(images: np.ndarray) -> np.ndarray:
    """Quantiles and spread of each colour, and how strong differences of neighbours are at three scales: (b, 42)."""
    count, grey = len(images), _grey(images)
    quantiles = np.quantile(images.reshape(count, -1, 3), [0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98], axis=1)
    blocks = [quantiles.swapaxes(0, 1).reshape(count, -1), images.std((1, 2))]
    for size in (1, 2, 4):
        cells = grey.reshape(count, THUMBNAIL // size, size, THUMBNAIL // size, size).mean((2, 4))
        for axis in (1, 2):
            steps = np.abs(np.diff(cells, axis=axis)).reshape(count, -1)
            found = np.stack([steps.mean(1), steps.std(1), np.quantile(steps, 0.9, axis=1)], 1)
            blocks.append(np.log(found + 1e-3))
    return np.hstack(blocks).astype(np.float32)


def _spreads(images: np.ndarray) -> np.ndarray:
    """Every seventh of the sorted contrasts, and of the sorted means, of the 8 x 8 cells: (b, 20)."""
    cells = THUMBNAIL // CELL
    grey = _grey(images).reshape(-1, cells, CELL, cells, CELL)
    found = [grey.std((2, 4)), grey.mean((2, 4))]
    return np.hstack([np.sort(values.reshape(len(images), -1), axis=1)[:, ::7] for values in found])
