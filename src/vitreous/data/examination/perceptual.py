"""What an image looks like, apart from how it was stored: descriptors under which copies of a picture are neighbours.

The means are old and cheap. Grey values are normalised by the mean and the spread of their surroundings, so that
brightness, contrast and exposure drop out (local contrast normalisation: Jarrett et al. 2009, "What is the best
multi-stage architecture for object recognition?", section 2). What all images of a set share (the outline of every
chest X-ray) is weakened by dividing each principal axis of the set by the fourth root of its variance, half of the
usual whitening (Jegou and Chum 2012, "Negative evidences and co-occurences in image retrieval", section 3, whiten in
full). Measured by benchmarks/near_duplicates.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

GRID = 16
"""Side of the descriptor, in cells."""

AXES = 64
"""Principal axes compared in large sets. The product of 100,000 descriptors with each other costs 11 s on two cores
with 64 axes; 96 axes found no more copies on the development sets."""

_LARGE = 4096
"""Sets of more images are compared on AXES axes, smaller ones on all: there speed does not matter."""

_PRIOR = 300
"""Weight, in images, of the assumption that no axis stands out. Makes small sets behave like plain correlation."""


@dataclass(frozen=True)
class Symmetry:
    """One of the eight ways to lay a square picture onto its place."""

    name: str
    """Completes "the second image is the first one, ..."."""
    apply: Callable[[NDArray], NDArray]
    """Turns arrays (..., s, s)."""
    inverse: int
    """Index of what undoes it in SYMMETRIES."""
    quarter: bool = False
    """Width and height change places."""


SYMMETRIES = (
    Symmetry("stored, sized or lit differently", lambda a: a, 0),
    Symmetry("mirrored left to right", lambda a: a[..., ::-1], 1),
    Symmetry("mirrored top to bottom", lambda a: a[..., ::-1, :], 2),
    Symmetry("turned by 180 degrees", lambda a: a[..., ::-1, ::-1], 3),
    Symmetry("mirrored at the diagonal from top left", lambda a: np.swapaxes(a, -1, -2), 4, True),
    Symmetry("mirrored at the diagonal from top right", lambda a: np.swapaxes(a[..., ::-1, ::-1], -1, -2), 5, True),
    Symmetry("turned left by 90 degrees", lambda a: np.swapaxes(a, -1, -2)[..., ::-1, :], 7, True),
    Symmetry("turned right by 90 degrees", lambda a: np.swapaxes(a, -1, -2)[..., ::-1], 6, True),
)


def to_grey(thumbnails: NDArray[np.uint8]) -> Floats:
    """(n, s, s, 3) RGB -> (n, s, s), 0 to 255 (ITU-R BT.601, as Pillow's mode L)."""
    return thumbnails.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def normalise_contrast(pictures: Floats, radius: int, floor: float = 3.0) -> Floats:
    """Subtract the mean of the surroundings and divide by their spread.

    pictures: (..., s, s) grey levels, 0 to 255.
    radius: of the square surroundings, in pixels.
    floor: spread in grey levels below which nothing is amplified; JPEG noise on blank paper stays below it.
    """
    rest: Floats = pictures - blur(pictures, radius)
    spread: Floats = np.sqrt(blur(np.square(rest), radius) + np.float32(floor**2))
    return rest / spread


def blur(pictures: Floats, radius: int) -> Floats:
    """Mean over squares of 2 radius + 1 pixels; at the edge over what there is of them. pictures: (..., s, s)."""
    for _ in range(2):
        pictures = np.swapaxes(_blur_rows(pictures, radius), -1, -2)
    return pictures


def _blur_rows(pictures: Floats, radius: int) -> Floats:
    side = pictures.shape[-1]
    sums = np.zeros((*pictures.shape[:-1], side + 1), dtype=np.float64)
    np.cumsum(pictures, axis=-1, dtype=np.float64, out=sums[..., 1:])
    places = np.arange(side)
    first, last = np.maximum(places - radius, 0), np.minimum(places + radius + 1, side)
    return ((sums[..., last] - sums[..., first]) / (last - first)).astype(np.float32)


def describe(thumbnails: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Descriptors of unit length, and how much structure each image has.

    thumbnails: (n, 32, 32, 3).
    returns: (n, GRID, GRID) and (n,): root mean square of the normalised picture, 0 for a uniform one.
    """
    count = len(thumbnails)
    descriptors = np.empty((count, GRID, GRID), dtype=np.float32)
    structure = np.empty(count, dtype=np.float32)
    for start in range(0, count, 2048):  # bounds the memory: floats are four times the bytes
        part = slice(start, start + 2048)
        normalised = blur(normalise_contrast(to_grey(thumbnails[part]), radius=6), radius=1)
        cells = normalised.reshape(-1, GRID, 2, GRID, 2).mean((2, 4))
        cells -= cells.mean((1, 2), keepdims=True)
        length = np.sqrt((cells * cells).sum((1, 2)))
        descriptors[part] = cells / (length + 1e-6)[:, None, None]
        structure[part] = length / GRID
    return descriptors, structure


@dataclass(frozen=True)
class Axes:
    """The directions in which the descriptors of a set differ, scaled so that common differences count less."""

    mean: Floats
    """(d,)"""
    weights: Floats
    """(d, axes)"""

    @classmethod
    def fit(cls, points: Floats) -> Axes:
        """points: (n, d), of unit length."""
        count, width = points.shape
        trust = count / (count + _PRIOR)
        mean = trust * points.mean(0)
        second = (points.T @ points) / count - np.outer(points.mean(0), mean) * 2 + np.outer(mean, mean)
        variance, directions = np.linalg.eigh(second.astype(np.float64))
        kept = np.argsort(-variance)[: AXES if count > _LARGE else width]
        scale = (np.maximum(variance[kept], 0) + _PRIOR / count / width + 1e-9) ** -0.25
        return cls(mean.astype(np.float32), (directions[:, kept] * scale).astype(np.float32))

    def project(self, points: Floats) -> Floats:
        """(n, d) -> (n, axes) of unit length: products are similarities in [-1, 1]."""
        projected = (points - self.mean) @ self.weights
        return projected / (np.linalg.norm(projected, axis=1, keepdims=True) + 1e-9)


def neighbours(
    queries: Floats,
    points: Floats,
    *,
    threshold: float,
    limit: int,
    both_ways: bool,
    advance: Callable[[int], None],
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """For each query the most similar points: all above the threshold, but no more than `limit`.

    queries, points: (n, axes) of unit length; query i is never paired with point i.
    both_ways: False compares query i with points beyond i only, for relations that hold both ways or not at all.
    advance: called with the number of further queries done.
    returns: indices of queries, indices of points, similarities; three arrays of equal length, in order of the queries.

    In sets where nearly everything passes the threshold (X-rays of one view), a sample of the points tells a higher
    one for each query, so that the lists stay short; about 200 pass it, of which the best are kept.
    """
    found = []
    sample = points[:: max(1, len(points) // 4096)][:4096] if len(points) > 2 * 4096 else None
    tile = np.empty((1024, 4096), dtype=np.float32)  # reused: fresh memory costs as much as the product
    for start in range(0, len(queries), 1024):
        block = queries[start : start + 1024]
        least = np.full(len(block), threshold, dtype=np.float32)
        if sample is not None:
            least = np.maximum(least, (block @ sample.T).reshape(len(block), 4, -1).max(2).min(1) - 1e-6)
        rows, columns, scores = [], [], []
        for column in range(0 if both_ways else start, len(points), tile.shape[1]):
            other = points[column : column + tile.shape[1]]
            fits = len(block) == len(tile) and len(other) == tile.shape[1]
            similar = np.matmul(block, other.T, out=tile) if fits else block @ other.T
            # On the flat array, for that is ten times as fast as on two axes.
            row, other = np.divmod(np.flatnonzero(similar > least[:, None]), similar.shape[1])
            rows.append(row)
            columns.append(other + column)
            scores.append(similar[row, other])
        row, other, score = (np.concatenate(parts) for parts in (rows, columns, scores))
        wanted = (other != row + start) if both_ways else (other > row + start)
        found.append(_best(row[wanted], other[wanted], score[wanted], limit, start))
        advance(len(block))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    first, second, score = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second, score


def _best(
    rows: NDArray[np.int64], columns: NDArray[np.int64], scores: Floats, limit: int, start: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    order = np.lexsort((columns, -scores, rows))
    rows, columns, scores = rows[order], columns[order], scores[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank < limit
    return rows[kept] + start, columns[kept], scores[kept]


def best_shift(first: Floats, second: Floats, reach: int) -> Floats:
    """Greatest correlation of the middle of one picture with the other, over shifts of up to `reach` pixels.

    first, second: (m, s, s) normalised pictures.
    returns: (m,)
    """
    side = first.shape[-1] - 2 * reach
    middle = np.ascontiguousarray(first[:, reach : reach + side, reach : reach + side])
    length = np.sqrt(np.einsum("mij,mij->m", middle, middle)) + 1
    energy = second * second
    best = np.full(len(first), -1, dtype=np.float32)
    for top in range(2 * reach + 1):
        for left in range(2 * reach + 1):
            window = (slice(None), slice(top, top + side), slice(left, left + side))
            other = np.sqrt(energy[window].sum((1, 2))) + 1
            np.maximum(best, np.einsum("mij,mij->m", middle, second[window]) / (length * other), out=best)
    return best
