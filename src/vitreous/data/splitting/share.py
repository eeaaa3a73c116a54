"""A share of the training part, for asking what more images would bring."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict

import numpy as np

from vitreous.data.splitting.stored import Split


def share_of_training(split: Split, share: float, seed: int) -> np.ndarray:
    """int64 positions, ascending, of about `share` of the training images of each class, at least one of each.

    Groups stay whole. Decided by their names and the seed, so a larger share holds every smaller one.
    """
    rows = split.indices("train")
    members: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows.tolist():
        members[split.groups[row]].append(row)
    by_class: defaultdict[str, list[str]] = defaultdict(list)
    for group, own in members.items():
        commonest = Counter(split.labels[row] for row in own).most_common(1)[0][0]
        by_class[commonest].append(group)
    kept: list[int] = []
    for label, groups in by_class.items():
        wanted, taken = share * sum(len(members[group]) for group in groups), 0
        for group in sorted(groups, key=lambda group: hashlib.sha256(f"{seed} {label} {group}".encode()).digest()):
            if taken >= wanted:
                break
            kept += members[group]
            taken += len(members[group])
    return np.array(sorted(kept), np.int64)
