"""The names of groups and clusters in a split. Names that an earlier split gave are kept."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from vitreous.data.sources.source import Sample
from vitreous.data.splitting.earlier import Earlier

_PSEUDONYM = re.compile(r"[0-9a-f]{12}")


def name_groups(
    samples: Sequence[Sample],
    hashes: Sequence[str],
    members: Sequence[Sequence[int]],
    parts: Sequence[str],
    earlier: Sequence[Earlier | None],
    *,
    private: bool,
) -> list[str]:
    """The name of what each image must not be separated from.

    The first name of a group in it, else the first 16 digits of the smallest sha256. private: never a name from the
    data, but the first 12 digits. members: sets of images that stay together; images in none stand alone.
    """

    def invent(indices: Sequence[int]) -> str:
        if private:
            return min(hashes[index] for index in indices)[:12]
        names = [group for index in indices if (group := samples[index].group) is not None]
        return min(names) if names else min(hashes[index] for index in indices)[:16]

    def recall(index: int) -> str:
        row = earlier[index]
        known = row.group if row is not None and row.part is not None else ""
        return "" if private and not _PSEUDONYM.fullmatch(known) else known

    groups = [invent([index]) for index in range(len(samples))]
    for indices in members:
        name = invent(indices)
        of_part: defaultdict[str, list[str]] = defaultdict(list)
        for index in indices:
            if known := recall(index):
                of_part[parts[index]].append(known)
        for index in indices:
            groups[index] = recall(index) or min(of_part[parts[index]], default=name)
    return groups


def name_clusters(
    hashes: Sequence[str], clusters: Sequence[int] | None, earlier: Sequence[Earlier | None]
) -> list[str]:
    """The first 12 digits of the smallest sha256 in the cluster of each image, empty for images alone in theirs."""
    names = [row.cluster if row is not None else "" for row in earlier]
    found: defaultdict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(clusters if clusters is not None else ()):
        if number >= 0:
            found[number].append(index)
    for indices in found.values():
        if len(indices) > 1:
            known = [names[index] for index in indices if names[index]]
            name = min(known) if known else min(hashes[index] for index in indices)[:12]
            for index in indices:
                names[index] = names[index] or name
    return names
