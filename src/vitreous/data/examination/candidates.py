"""Which pairs of images deserve a closer look: neighbours by descriptor, then by thumbnails shifted over one another.

Thresholds chosen on the six development sets; benchmarks/near_duplicates.py measures what comes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.examination.perceptual import (
    SYMMETRIES,
    Axes,
    Floats,
    best_shift,
    describe,
    neighbours,
    normalise_contrast,
    to_grey,
)

Advance = Callable[[int], None]
"""Called with the images done since the last call."""

PASSES = 7
"""Of the eight symmetries the two quarter turns are one search: a turned left is b where b turned right is a."""

NEIGHBOUR = 0.55
"""Least similarity of descriptors. Of copies cropped by 5 %, halved and re-encoded, 99 % lie above 0.57; of the pairs of
different images one in 200 (X-rays) to one in 50,000 (satellite images)."""

NEIGHBOURS = 16
"""Neighbours kept of each image under each symmetry, for sets in which everything is alike."""

SHIFTED = 0.33
"""Least correlation of thumbnails shifted by up to two pixels. Below are 1 % of the cropped, halved and re-encoded
copies and three quarters of the different photographs that came as far."""

QUICK_PASSES, QUICK_SHIFTED = 2, 0.5
"""Of a quick search. On the 60,000 images of cifar10 it finds 465 of the 541 pairs that span its parts, in a fourth of the time."""

COMPARED = 60_000
COMPARED_EACH = (2, 8)
"""Pairs proposed in all, about, and bounds of how many each image proposes, its best ones. A full comparison costs a
hundredth of a second; only where nearly everything is alike (X-rays) are these bounds reached."""

CROPPED = 20_000
"""In sets of up to so many images, those are looked for too that show another one with a fifth cut away at one edge.
It would double the time for large sets. Photographs of one surface, cut out by hand, differ by as much."""

_EDGES = ((0, 0, 26, 32), (6, 0, 32, 32), (0, 0, 32, 26), (0, 6, 32, 32))
"""Left, top, right and bottom of what is left, in pixels of the thumbnail."""

EMBEDDING_NEIGHBOUR = 0.80
EMBEDDING_NEIGHBOURS = 4
"""Pairs whose features are at least this similar are looked at too, four of each image."""


@dataclass(frozen=True)
class Candidates:
    """Pairs first < second, where second is perhaps first under a symmetry. Arrays of one length."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    symmetry: NDArray[np.int64]
    """Index into SYMMETRIES."""
    score: Floats

    def take(self, kept: NDArray) -> Candidates:
        return Candidates(self.first[kept], self.second[kept], self.symmetry[kept], self.score[kept])

    @classmethod
    def join(cls, parts: Sequence[Candidates]) -> Candidates:
        fields = zip(*((part.first, part.second, part.symmetry, part.score) for part in parts), strict=True)
        return cls(*(np.concatenate(field) for field in fields))


def search(
    thumbnails: NDArray[np.uint8],
    descriptors: Floats,
    usable: NDArray[np.int64],
    advance: Advance,
    *,
    quick: bool = False,
) -> Candidates:
    """The pairs that thumbnails suggest.

    thumbnails: (n, 32, 32, 3). descriptors: (n, GRID, GRID). usable: the images that have structure, ascending.
    advance: called with PASSES times the number of usable images in all.
    quick: upright and mirrored left to right only, and only what agrees well: a fourth of the time.
    """
    if len(usable) < 2:
        advance(PASSES * len(usable))
        return _none()
    own = descriptors[usable]
    flat = own.reshape(len(own), -1)
    axes = Axes.fit(flat)
    points = axes.project(flat)
    normalised = _normalised(thumbnails)
    parts = []
    passes = QUICK_PASSES if quick else PASSES
    for number, symmetry in enumerate(SYMMETRIES[:passes]):
        queries = axes.project(symmetry.apply(own).reshape(len(own), -1)) if number else points
        found = _near(queries, points, usable, number, symmetry.inverse != number, advance)
        parts.append(_shifted(normalised, normalised, found, QUICK_SHIFTED if quick else SHIFTED))
    advance((PASSES - passes) * len(usable))
    if len(usable) <= CROPPED and not quick:
        parts += [_search_cropped(thumbnails, normalised, points, axes, usable, edges) for edges in _EDGES]
    return _best_of_each(Candidates.join(parts), len(thumbnails))


def _search_cropped(
    thumbnails: NDArray[np.uint8],
    normalised: NDArray[np.int8],
    points: Floats,
    axes: Axes,
    usable: NDArray[np.int64],
    edges: tuple[float, float, float, float],
) -> Candidates:
    """Images that look like others with one edge cut away."""
    cropped = thumbnails.copy()
    for index in usable:
        image = Image.fromarray(thumbnails[index])
        cropped[index] = np.asarray(image.resize(image.size, Image.Resampling.BILINEAR, box=edges))
    queries = axes.project(describe(cropped[usable])[0].reshape(len(usable), -1))
    return _shifted(_normalised(cropped), normalised, _near(queries, points, usable, 0, True, lambda _: None))


def _near(
    queries: Floats, points: Floats, usable: NDArray[np.int64], symmetry: int, both_ways: bool, advance: Advance
) -> Candidates:
    query, point, score = neighbours(
        queries, points, threshold=NEIGHBOUR, limit=NEIGHBOURS, both_ways=both_ways, advance=advance
    )
    return Candidates(usable[query], usable[point], np.full(len(query), symmetry, dtype=np.int64), score)


def search_embeddings(embeddings: Floats, descriptors: Floats) -> Candidates:
    """The pairs that a model's features suggest, under the symmetry that the descriptors favour; score is the
    similarity of the features.

    embeddings: (n, d). descriptors: (n, GRID, GRID).
    """
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    directions = (embeddings / np.maximum(length, 1e-9)).astype(np.float32)
    points = Axes.fit(directions).project(directions)
    first, second, score = neighbours(
        points,
        points,
        threshold=EMBEDDING_NEIGHBOUR,
        limit=EMBEDDING_NEIGHBOURS,
        both_ways=False,
        advance=lambda _: None,
    )
    products = [(symmetry.apply(descriptors[first]) * descriptors[second]).sum((1, 2)) for symmetry in SYMMETRIES]
    symmetry = np.argmax(products, axis=0) if len(first) else np.empty(0, np.int64)
    return Candidates(first, second, symmetry, score)


def _none() -> Candidates:
    empty = np.empty(0, np.int64)
    return Candidates(empty, empty, empty, np.empty(0, np.float32))


def _shifted(
    queries: NDArray[np.int8], thumbnails: NDArray[np.int8], candidates: Candidates, least: float = SHIFTED
) -> Candidates:
    """Those whose thumbnails agree once shifted, with that agreement as score; the lower index comes first then.

    queries: (n, 32, 32) normalised, what `first` looks like; thumbnails: what `second` does.
    """
    scores = np.empty(len(candidates.first), dtype=np.float32)
    for start in range(0, len(scores), 4096):
        part = candidates.take(np.arange(start, min(start + 4096, len(scores))))
        first = queries[part.first].astype(np.float32) / np.float32(24)
        second = thumbnails[part.second].astype(np.float32) / np.float32(24)
        for number in np.unique(part.symmetry):
            chosen = np.flatnonzero(part.symmetry == number)
            turned = np.ascontiguousarray(SYMMETRIES[number].apply(first[chosen]))
            scores[start + chosen] = best_shift(turned, second[chosen], reach=2)
    passed = candidates.take(scores >= least)
    swapped = passed.first > passed.second
    inverse = np.array([symmetry.inverse for symmetry in SYMMETRIES])[passed.symmetry]
    return Candidates(
        np.minimum(passed.first, passed.second),
        np.maximum(passed.first, passed.second),
        np.where(swapped, inverse, passed.symmetry),
        scores[scores >= least],
    )


def _normalised(thumbnails: NDArray[np.uint8]) -> NDArray[np.int8]:
    """(n, 32, 32, 3) -> (n, 32, 32), 24 to a standard deviation: bytes, for all are kept at once."""
    normalised = np.empty(thumbnails.shape[:3], dtype=np.int8)
    for start in range(0, len(thumbnails), 2048):
        part = slice(start, start + 2048)
        normalised[part] = np.clip(24 * normalise_contrast(to_grey(thumbnails[part]), radius=3), -127, 127)
    return normalised


def _best_of_each(candidates: Candidates, count: int) -> Candidates:
    """The best proposals of each image. An image may be in more: many images can propose the same one."""
    least, most = COMPARED_EACH
    order = np.argsort(-candidates.score, kind="stable")
    left = np.full(count, min(most, max(least, COMPARED // max(1, count))))
    kept = []
    for place, first, second in zip(
        order.tolist(), candidates.first[order].tolist(), candidates.second[order].tolist(), strict=True
    ):
        if left[first] > 0 or left[second] > 0:
            kept.append(place)
            left[first] -= 1
            left[second] -= 1
    return candidates.take(np.array(sorted(kept), dtype=np.int64))
