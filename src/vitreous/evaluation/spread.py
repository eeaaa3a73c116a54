"""Mean and spread of a number over several runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from vitreous.evaluation.intervals import CONFIDENCE


@dataclass(frozen=True)
class Spread:
    """What several runs say together. `mean` is None where a run has no number, the others too where there is one run."""

    mean: float | None
    deviation: float | None
    """Standard deviation between the runs (n - 1 in the denominator)."""
    low: float | None
    high: float | None
    """95 % interval of the mean, by Student's t: of what this recipe gives on these data, not on others."""
    n: int
    """Runs."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def spread(values: Sequence[float | None], overlap: float = 0.0) -> Spread:
    """values: one of each run. overlap: images that a run is judged on over those that it learns from, where other runs
    learn from the former, as in folds (1 / (K - 1) for K of them). Such runs are not independent, and the variance of their
    mean is nearer (1 / n + overlap) times that between them than 1 / n (Nadeau and Bengio 2003, Machine Learning 52:239,
    eq. 9)."""
    numbers = [value for value in values if value is not None]
    if not values or len(numbers) < len(values):
        return Spread(None, None, None, None, len(values))
    mean = float(np.mean(numbers))
    if len(numbers) < 2:
        return Spread(mean, None, None, None, 1)
    deviation = float(np.std(numbers, ddof=1))
    half = float(stdtrit(len(numbers) - 1, (1 + CONFIDENCE) / 2)) * deviation * math.sqrt(1 / len(numbers) + overlap)
    return Spread(mean, deviation, mean - half, mean + half, len(numbers))
