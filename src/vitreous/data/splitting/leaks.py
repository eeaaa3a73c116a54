"""Pairs of images that should not be where they are: the same in two parts, or the same under two labels."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from vitreous.data.sources.source import PARTS, Sample, natural_order

MOST_PAIRS = 1000
"""Pairs listed of one set of images that are alike: two parts with a thousand copies each make a million."""

IDENTICAL, GROUPED, SIMILAR = "identical pixels", "same group", "near-duplicate"


@dataclass(frozen=True)
class Leak:
    """Two images in different parts of which one tells about the other."""

    first: str
    """Path of the one in the earlier part (train before val before test)."""
    second: str
    reason: str
    """identical pixels, same group, or near-duplicate: the strongest that holds."""


def find_leaks(
    samples: Sequence[Sample], hashes: Sequence[str], parts: Sequence[str], near_pairs: Sequence[tuple[int, int]] = ()
) -> tuple[list[Leak], int]:
    """All pairs across parts, each once, and how many there are.

    near_pairs: positions of images verified to be near-duplicates. Of each set of images that are alike at most
    MOST_PAIRS pairs are listed; all are counted.
    """
    listed: list[Leak] = []
    count = 0

    def by_part(members: Sequence[int]) -> list[list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for index in members:
            found[parts[index]].append(index)
        return [found[part] for part in PARTS if part in found]

    def record(pairs: Iterator[tuple[int, int]], reason: str) -> None:
        for first, second in itertools.islice(pairs, MOST_PAIRS):
            listed.append(Leak(samples[first].path, samples[second].path, reason))

    for members in _sets(hashes):
        sides = by_part(members)
        count += _across(sides)
        record(_pairs(sides), IDENTICAL)
    for members in _sets([sample.group for sample in samples]):
        sides = by_part(members)
        within = defaultdict[str, list[int]](list)
        for index in members:
            within[hashes[index]].append(index)
        count += _across(sides) - sum(_across(by_part(copies)) for copies in within.values())
        record((pair for pair in _pairs(sides) if hashes[pair[0]] != hashes[pair[1]]), GROUPED)
    rank = {part: position for position, part in enumerate(PARTS)}
    for pair in dict.fromkeys((min(pair), max(pair)) for pair in near_pairs):
        if any(parts[index] not in rank for index in pair):
            continue
        first, second = sorted(pair, key=lambda index: rank[parts[index]])
        grouped = samples[first].group is not None and samples[first].group == samples[second].group
        if parts[first] != parts[second] and hashes[first] != hashes[second] and not grouped:
            count += 1
            listed.append(Leak(samples[first].path, samples[second].path, SIMILAR))
    return listed, count


def find_conflicts(samples: Sequence[Sample], hashes: Sequence[str]) -> list[tuple[str, str]]:
    """For each set of identical pixels: the first image of the first label with the first of each other label."""
    labels: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for sample, digest in zip(samples, hashes, strict=True):
        labels[digest].setdefault(sample.label, sample.path)
    pairs = []
    for by_label in labels.values():
        ordered = [by_label[label] for label in natural_order(by_label)]
        pairs += [(ordered[0], path) for path in ordered[1:]]
    return pairs


def _sets(keys: Sequence[Hashable | None]) -> Iterator[list[int]]:
    """Positions of equal keys, where there are several; None equals nothing."""
    counts = Counter(keys)
    found: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        if key is not None and counts[key] > 1:
            found[key].append(index)
    yield from found.values()


def _across(sides: Sequence[Sequence[int]]) -> int:
    return sum(len(one) * len(other) for one, other in itertools.combinations(sides, 2))


def _pairs(sides: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    for one, other in itertools.combinations(sides, 2):
        yield from itertools.product(one, other)
