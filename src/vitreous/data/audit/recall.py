"""Balanced accuracy with an interval that knows which images belong together, and the simplest probe of one column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 300
Z = 1.959964
"""Standard normal quantile of a 95 % interval."""


@dataclass(frozen=True)
class Score:
    """Balanced accuracy and its 95 % interval."""

    value: float
    low: float
    high: float


def balanced_accuracy(
    predicted: np.ndarray, labels: np.ndarray, units: np.ndarray, num_classes: int, seed: int
) -> Score:
    """Mean over the classes of the share recognised.

    predicted, labels, units: int (n,)

    The interval joins two: a bootstrap that draws whole units with replacement, and Wilson's (1927) for as many
    independent trials as there are units, which does not shrink to a point where everything is right.
    """
    correct = (predicted == labels).astype(np.float64)
    unit_of = np.unique(units, return_inverse=True)[1].ravel()
    count = int(unit_of.max()) + 1
    value = float(_mean_recall(labels, correct, np.ones(len(labels)), num_classes))
    generator = np.random.default_rng([seed, 3])
    drawn = [
        _mean_recall(
            labels, correct, np.bincount(generator.integers(0, count, count), minlength=count)[unit_of], num_classes
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    wilson_low, wilson_high = _wilson(value, count)
    return Score(value, min(float(low), wilson_low), max(float(high), wilson_high))


def column_predictions(codes: np.ndarray, labels: np.ndarray, folds: np.ndarray, num_classes: int) -> np.ndarray:
    """The class that each level of a column speaks for, learnt from the other folds: int (n,).

    codes:  int (n,), levels from 0
    Every class counts the same; a level that no other fold has speaks for the first class.
    """
    levels, fold_count = int(codes.max()) + 1, int(folds.max()) + 1
    cells = (folds * levels + codes) * num_classes + labels
    counts = np.bincount(cells, minlength=fold_count * levels * num_classes).reshape(fold_count, levels, num_classes)
    others = counts.sum(0) - counts  # (folds, levels, k)
    shares = others / np.maximum(1, others.sum(1, keepdims=True))
    return shares.argmax(2)[folds, codes]


def _mean_recall(labels: np.ndarray, correct: np.ndarray, weights: np.ndarray, num_classes: int) -> np.floating:
    held = np.bincount(labels, weights=weights, minlength=num_classes)
    right = np.bincount(labels, weights=weights * correct, minlength=num_classes)
    return (right[held > 0] / held[held > 0]).mean()


def _wilson(share: float, trials: int) -> tuple[float, float]:
    middle = (share + Z * Z / (2 * trials)) / (1 + Z * Z / trials)
    half = Z / (1 + Z * Z / trials) * np.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))
