"""Folds for cross-validation: whole units, each fold with its share of every class.

Greedy, largest unit first, each to the fold that holds least of its classes (the idea of scikit-learn's
StratifiedGroupKFold).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from vitreous.errors import DataError


def make_folds(labels: np.ndarray, units: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Fold numbers int64 (n,), 0 to k - 1; equal for equal units.

    labels: whole numbers (n,). units: whole numbers (n,), equal for images that must not be separated.
    Raises DataError for fewer units than folds.
    """
    names, unit_of = np.unique(np.asarray(units), return_inverse=True)
    counts = [Counter[int]() for _ in names]
    for unit, label in zip(unit_of.tolist(), np.asarray(labels).tolist(), strict=True):
        counts[unit][label] += 1
    sizes = np.bincount(unit_of, minlength=len(names)).tolist()
    return np.asarray(deal_folds(counts, sizes, k, seed), np.int64)[unit_of]


def deal_folds(counts: Sequence[Mapping[int, int]], sizes: Sequence[int], k: int, seed: int) -> list[int]:
    """The fold of each unit. counts: {label: images} of each unit; sizes: images of each, one with several labels once.

    Raises DataError for fewer units than folds.
    """
    if not 2 <= k <= len(counts):
        raise DataError(
            f"{k} folds cannot be made of {len(counts):,} independent groups of images.",
            "At least 2 folds are needed, and no more than there are groups.",
        )
    totals: Counter[int] = Counter()
    for count in counts:
        totals.update(count)
    everything = sum(sizes)
    have = defaultdict[int, list[int]](lambda: [0] * k)
    filled, chosen = [0] * k, [0] * len(counts)
    shuffled = np.random.default_rng(seed).permutation(len(counts)).tolist()
    for unit in sorted(shuffled, key=lambda unit: -sizes[unit]):
        best, best_cost = 0, float("inf")
        for fold in range(k):
            # What adding the unit does to the sums of have^2 / total, of each class and of all images.
            cost = sizes[unit] * (2 * filled[fold] + sizes[unit]) / everything
            for label, count in counts[unit].items():
                cost += count * (2 * have[label][fold] + count) / totals[label]
            if cost < best_cost:
                best, best_cost = fold, cost
        chosen[unit] = best
        filled[best] += sizes[unit]
        for label, count in counts[unit].items():
            have[label][best] += count
    return chosen
