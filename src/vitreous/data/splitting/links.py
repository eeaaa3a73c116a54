"""Which images may not be separated, and where those must go that are joined with images that have a part already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass

from vitreous.data.sources.source import Sample

Keys = Sequence[tuple[Hashable, ...]]
"""For each image what joins it to others: images that share any key stay together."""


def link_keys(samples: Sequence[Sample], hashes: Sequence[str], clusters: Sequence[int] | None) -> Keys:
    """Identical pixels, the group, and the cluster of near-duplicates (a negative number is none)."""
    keys: list[tuple[Hashable, ...]] = []
    for index, (sample, digest) in enumerate(zip(samples, hashes, strict=True)):
        own: list[Hashable] = [("pixels", digest)]
        if sample.group is not None:
            own.append(("group", sample.group))
        if clusters is not None and clusters[index] >= 0:
            own.append(("cluster", int(clusters[index])))
        keys.append(tuple(own))
    return keys


def connected(keys: Keys, among: Iterable[int]) -> list[list[int]]:
    """The positions in `among`, in sets joined by common keys directly or through each other (union-find)."""
    members = list(among)
    parent = {index: index for index in members}

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first_of: dict[Hashable, int] = {}
    for index in members:
        for key in keys[index]:
            other = first_of.setdefault(key, index)
            if other != index:
                parent[root(index)] = root(other)
    sets: defaultdict[int, list[int]] = defaultdict(list)
    for index in members:
        sets[root(index)].append(index)
    return list(sets.values())


@dataclass(frozen=True)
class Placement:
    """What became of the images that had no part and are joined with some that have one."""

    follows: dict[int, str]
    """{image: the part it follows its like into}"""
    aside: dict[int, list[int]]
    """{image: images of different parts that it resembles}; it can be in none of them without joining them."""


def place(keys: Keys, fixed: Sequence[str | None], barred: Collection[int] = ()) -> Placement:
    """Where images without a part must go. fixed: the part of each image, None where it is open.

    An image that resembles images of two parts itself is set aside first, so that the rest of its set need not be.
    barred: open images that are set aside whatever they resemble.
    """
    holders: defaultdict[Hashable, dict[str, int]] = defaultdict(dict)  # {key: {part: its first image there}}
    for index, part in enumerate(fixed):
        if part is not None:
            for key in keys[index]:
                holders[key].setdefault(part, index)

    def near(index: int) -> dict[str, int]:
        found: dict[str, int] = {}
        for key in keys[index]:
            for part, holder in holders[key].items() if key in holders else ():
                found.setdefault(part, holder)
        return found

    nearest = {index: near(index) for index, part in enumerate(fixed) if part is None}
    aside = {i: list(found.values()) for i, found in nearest.items() if len(found) > 1 or i in barred}
    follows: dict[int, str] = {}
    for members in connected(keys, (index for index in nearest if index not in aside)):
        together: dict[str, int] = {}
        for index in members:
            together = nearest[index] | together
        if len(together) == 1:
            follows.update(dict.fromkeys(members, next(iter(together))))
        elif together:
            aside.update({index: list(together.values()) for index in members})
    return Placement(follows, aside)
