"""Which images of a set show the same picture, stored, sized, lit, cropped or turned another way.

Two answers, for two uses. `pairs` are reported to people and counted as leaks, so they must be right: every one was
laid over the other at up to 128 pixels a side and agreed nearly everywhere. `clusters` decide which images a split may
not separate, so they must be complete: they also join what was photographed again under another exposure.

Three sieves, each finer and dearer than the one before: products of descriptors among all images under the eight
symmetries, thumbnails shifted over one another, pictures aligned (see perceptual.py and alignment.py). The thresholds
were chosen by looking at six sets of 650 to 10,000 images: X-rays, scanned pages, surfaces,
satellite images, garments, 32-pixel objects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.examination.alignment import Match, Picture, compare, to_picture
from vitreous.data.examination.candidates import PASSES, Candidates, search, search_embeddings
from vitreous.data.examination.perceptual import SYMMETRIES, describe
from vitreous.data.parallel import parallel

Progress = Callable[[int, int], None]
Link: TypeAlias = tuple[float, int, int]
"""How similar, and which two."""

SAME = 0.80
SAME_PIECES = 0.85
"""Least correlation, and share of pieces that agree, of a pair. Re-encoded, resized and brightened copies reach 0.80
and 0.85 in 97 % of cases. Below lie two X-rays of one person (0.79) and e-mails of one form (0.77 and 0.82)."""

SAME_SMALL = 0.86
SAME_SMALL_TURNED = 0.90
"""The same where fewer than 64 pixels a side can be compared, upright and under a symmetry: horses in one pose reach
0.79 at 32 pixels, two bombers before an empty sky 0.80 upright and 0.88 turned over."""

SAME_GREY = 0.985
SAME_GREY_STRUCTURE = 0.60
"""A pair also where the grey values themselves correlate this much and the structure fairly: strong compression takes
faint texture away and leaves the picture. X-rays of one person reach 0.977."""

LINKED = 0.68
LINKED_SMALL = 0.80
"""Least correlation within a cluster, with and without 64 pixels a side. Exposures of one surface have 0.70 to 0.97,
and no pair of the surfaces lies between 0.60 and 0.70; elsewhere only forms, and X-rays of one person, exceed 0.62."""

LINKED_PIECES = 0.70
"""Share of pieces that must agree within a cluster."""

CHAIN = 24
"""Images in a cluster beyond which it takes in another one only if the representatives of both are directly linked, so
that a chain of overlapping pictures does not swallow a set."""

GREY = 3.0
"""Mean distance from grey of a thumbnail, in levels, below which it has no color to compare."""

COLOR = 20.0
"""Mean difference of color between thumbnails, in levels, above which a pair is not one: a product in another color."""

FLAT = 0.12
"""Structure below which an image is blank: normalising it would compare noise."""

FLAT_DIFFERENCE = 1.5
"""Mean difference of two blank thumbnails, in levels, up to which they are the same."""

EMBEDDING_LINKED = 0.95
"""Similarity of a model's features above which two images share a cluster whatever their pixels say. A cautious guess: no
trained features were measured."""


@dataclass(frozen=True)
class Pair:
    """Two images that show the same picture; first < second."""

    first: int
    second: int
    how: str
    """Completes "the second image is the first one, ..."."""
    similarity: float
    """Correlation once aligned and normalised for contrast, at most 1."""


@dataclass(frozen=True)
class Similar:
    pairs: list[Pair]
    """In order. Of images with identical pixels only the first is named; `representatives` tells the others."""
    clusters: list[int]
    """For each image the number of its cluster, from 0 in order of first appearance; most clusters are one image."""
    representatives: list[int]
    """For each image the first one with identical pixels, often itself."""

    def copies(self, index: int) -> list[int]:
        """All images with the pixels of this one, itself included."""
        own = self.representatives[index]
        return [other for other, representative in enumerate(self.representatives) if representative == own]


@dataclass(frozen=True)
class _Compared:
    first: int
    second: int
    symmetry: int
    match: Match

    def pair(self, indices: NDArray[np.int64]) -> Pair:
        how, similarity = SYMMETRIES[self.symmetry].name, round(self.match.correlation, 4)
        return Pair(int(indices[self.first]), int(indices[self.second]), how, similarity)


def equal_pixels(digests: Sequence[str]) -> Similar:
    """What is alike where nothing but equal pixels counts. digests: n texts, equal exactly where all pixels are."""
    firsts: dict[str, int] = {}
    representatives = [firsts.setdefault(digest, index) for index, digest in enumerate(digests)]
    return Similar([], _numbered(representatives, {first: first for first in firsts.values()}), representatives)


def search_seconds(count: int, threads: int) -> float:
    """About how long `find_similar` takes for so many images, not quick: an order of magnitude, from 60,000 of them."""
    return 2 * (1e-3 * count + 1.2e-8 * count**2) / max(1, threads)


def find_similar(
    thumbnails: NDArray[np.uint8],
    digests: Sequence[str],
    load: Callable[[int], Image.Image],
    *,
    threads: int,
    progress: Progress | None = None,
    extra_embeddings: NDArray | None = None,
    quick: bool = False,
) -> Similar:
    """Find copies and groups of images.

    thumbnails: (n, 32, 32, 3), the whole image squashed, RGB.
    digests: n texts, equal exactly where all pixels are.
    load: opens image i for a closer look; only called for candidates. What it raises reaches the caller.
    progress: called with (done, total); a tenth of the total for each of ten equal shares of the work.
    quick: look for pairs that are upright or mirrored left to right, and less far apart, only.
    extra_embeddings: (n, d), a model's features. They propose further pairs, and join clusters where nearly equal.
    """
    firsts: dict[str, int] = {}
    representatives = [firsts.setdefault(digest, index) for index, digest in enumerate(digests)]
    unique = np.array(list(firsts.values()), dtype=np.int64)
    small = np.asarray(thumbnails)[unique]
    report = _Report(progress, len(unique))
    descriptors, structure = describe(small)

    @lru_cache(maxsize=4096)  # of about 100 KiB each
    def picture(index: int) -> Picture:
        return to_picture(load(int(unique[index])))

    links: list[Link] = []
    candidates = search(small, descriptors, np.flatnonzero(structure >= FLAT), report.searched, quick=quick)
    if extra_embeddings is not None:
        proposed = search_embeddings(np.asarray(extra_embeddings, dtype=np.float32)[unique], descriptors)
        near = proposed.take(proposed.score >= EMBEDDING_LINKED)
        links += zip(near.score.tolist(), near.first.tolist(), near.second.tolist(), strict=True)
        candidates = Candidates.join([candidates, proposed])
    compared = _compare_all(candidates, picture, threads, report.compared)
    compared += _compare_flat(small, np.flatnonzero(structure < FLAT), picture)
    links += [(entry.match.correlation, entry.first, entry.second) for entry in compared if _is_linked(entry.match)]
    same = [entry for entry in compared if _is_same(entry.match, entry.symmetry) and not _recolored(small, entry)]
    roots = cluster(len(unique), links, lambda one, other: _is_linked(compare(picture(one), picture(other))))
    report.finish()
    return Similar(
        pairs=[entry.pair(unique) for entry in sorted(same, key=lambda entry: (entry.first, entry.second))],
        clusters=_numbered(representatives, dict(zip(unique.tolist(), roots, strict=True))),
        representatives=representatives,
    )


class _Report:
    """Progress in ten shares of n images: seven for the search, three for the comparison."""

    def __init__(self, progress: Progress | None, count: int) -> None:
        self._progress, self._count, self._done = progress, count, 0

    def searched(self, images: int) -> None:
        self._done = min(self._done + images, PASSES * self._count)
        self._tell(self._done)

    def compared(self, done: int, total: int) -> None:
        self._tell(PASSES * self._count + 3 * self._count * done // total)

    def finish(self) -> None:
        self._tell((PASSES + 3) * self._count)

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, (PASSES + 3) * self._count)


def _compare_all(
    candidates: Candidates, picture: Callable[[int], Picture], threads: int, progress: Progress
) -> list[_Compared]:
    """The best symmetry of every pair, compared in full."""
    proposals: defaultdict[int, set[tuple[int, int]]] = defaultdict(set)
    fields = (candidates.first.tolist(), candidates.second.tolist(), candidates.symmetry.tolist())
    for first, second, symmetry in zip(*fields, strict=True):
        proposals[first].add((second, symmetry))

    def look(first: int) -> list[_Compared]:
        best: dict[int, _Compared] = {}
        turned = {number: picture(first).turned(SYMMETRIES[number]) for number in {n for _, n in proposals[first]}}
        for second, number in sorted(proposals[first]):
            match = compare(turned[number], picture(second))
            if second not in best or match.correlation > best[second].match.correlation:
                best[second] = _Compared(first, second, number, match)
        return list(best.values())

    return [entry for found in parallel(look, sorted(proposals), threads=threads, progress=progress) for entry in found]


def _compare_flat(
    thumbnails: NDArray[np.uint8], flat: NDArray[np.int64], picture: Callable[[int], Picture]
) -> list[_Compared]:
    """Blank images against the first one that looks the same; all pairs among thousands would help nobody."""
    found = []
    left = flat
    while len(left) > 1:
        first, left = int(left[0]), left[1:]
        difference = np.abs(thumbnails[left].astype(np.float32) - thumbnails[first]).mean((1, 2, 3))
        near = [
            int(index) for index in left[difference <= FLAT_DIFFERENCE] if _look_equal(picture(first), picture(index))
        ]
        found += [_Compared(first, second, 0, Match(1.0, 1.0, 1.0, 1.0, len(picture(second).grey))) for second in near]
        left = left[~np.isin(left, near)]
    return found


def _look_equal(first: Picture, second: Picture) -> bool:
    """No piece of two blank pictures differs: a signature on an empty page does."""
    side = min(len(first.grey), len(second.grey))
    difference = np.abs(first.shrunk(side) - second.shrunk(side))
    return bool(difference.mean() <= FLAT_DIFFERENCE and difference.max() <= 8 * FLAT_DIFFERENCE)


def _is_same(match: Match, symmetry: int = 0) -> bool:
    least = SAME if match.side >= 64 else SAME_SMALL_TURNED if symmetry else SAME_SMALL
    structure = match.correlation >= least and match.agreeing >= SAME_PIECES
    return structure or (match.correlation >= SAME_GREY_STRUCTURE and match.plain >= SAME_GREY)


def _is_linked(match: Match) -> bool:
    least = LINKED if match.side >= 64 else LINKED_SMALL
    return _is_same(match) or (match.correlation >= least and match.agreeing >= LINKED_PIECES)


def _recolored(thumbnails: NDArray[np.uint8], entry: _Compared) -> bool:
    """Both are colored, and differently. A grey copy of a colored picture is a copy."""
    first, second = (thumbnails[index].astype(np.float32) for index in (entry.first, entry.second))
    turned = np.moveaxis(SYMMETRIES[entry.symmetry].apply(np.moveaxis(first, -1, 0)), 0, -1)
    colors = [picture - picture.mean(-1, keepdims=True) for picture in (turned, second)]
    if min(np.abs(color).mean() for color in colors) < GREY:
        return False
    return bool(np.abs(colors[0] - colors[1]).mean() > COLOR)


def cluster(count: int, links: Sequence[Link], similar: Callable[[int, int], bool]) -> list[int]:
    """Join linked images, best links first: single linkage up to CHAIN images, beyond it only where the images with
    the most links in either cluster are themselves similar.

    returns: for each image a member of its cluster, the same for all of them.
    """
    degree = np.zeros(count, dtype=np.int64)
    for _, first, second in links:
        degree[[first, second]] += 1
    parent, size, center = list(range(count)), [1] * count, list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for _, first, second in sorted(links, key=lambda link: (-link[0], link[1], link[2])):
        one, other = root(first), root(second)
        if one == other:
            continue
        if size[one] + size[other] > CHAIN and not similar(center[one], center[other]):
            continue
        parent[other] = one
        size[one] += size[other]
        center[one] = max(center[one], center[other], key=lambda index: (degree[index], -index))
    return [root(index) for index in range(count)]


def _numbered(representatives: Sequence[int], roots: dict[int, int]) -> list[int]:
    numbers: dict[int, int] = {}
    return [numbers.setdefault(roots[first], len(numbers)) for first in representatives]
