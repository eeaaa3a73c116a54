"""A share of the training part, for asking what more images would bring."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from vitreous.data.splitting.stored import Split


def share_of_training(split: Split, labels: Sequence[Sequence[str]], share: float, seed: int) -> np.ndarray:
    """int64 positions, ascending, of about `share` of the training images of each class, at least one of each.

    labels: of every image of the split, one, or several or none. A group counts for the rarest label in it. Groups stay whole.
    Decided by their names and the seed, so a larger share holds every smaller one.
    """
    rows = split.indices("train").tolist()
    counts = Counter(name for row in rows for name in labels[row])
    members: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        members[split.groups[row]].append(row)
    order = sorted(members, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest())
    by_class: defaultdict[str, list[str]] = defaultdict(list)
    kept: set[str] = set()
    seen: set[str] = set()
    for group in order:
        own = {name for row in members[group] for name in labels[row]}
        by_class[min(own, key=lambda name: (counts[name], name), default="")].append(group)
        if own - seen:  # the first of a class is always kept
            kept.add(group)
            seen |= own
    for groups in by_class.values():
        wanted, taken = share * sum(len(members[group]) for group in groups), 0
        for group in groups:
            if taken >= wanted:
                break
            kept.add(group)
            taken += len(members[group])
    return np.array(sorted(row for group in kept for row in members[group]), np.int64)
