"""Sets of classes that hold the truth as often as promised: split conformal prediction.

The scores of the true classes on validation give a threshold; a new image's set is every class at or above it. For images
that come as the validation images did, the set holds the truth with at least the promised probability, whatever the model
(Sadinle, Lei and Wasserman 2019, "Least ambiguous set-valued classifiers", JASA 114:223; Angelopoulos and Bates 2023,
arXiv:2107.07511, section 1).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import proportion


@dataclass(frozen=True)
class Conformal:
    """A threshold on calibrated scores."""

    coverage: float
    """What is promised, in (0, 1)."""
    threshold: float
    """Classes scoring at least this are in the set; 0 where validation is too small to leave any class out."""
    n: int
    """Validation images behind it."""

    def sets(self, scores: np.ndarray) -> np.ndarray:
        """bool (n, k): which classes are in each set. The likeliest class always is, which only adds to the coverage."""
        inside = scores >= self.threshold
        inside[np.arange(len(scores)), scores.argmax(axis=1)] = True
        return inside

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def fit_conformal(scores: np.ndarray, labels: np.ndarray, coverage: float) -> Conformal:
    """scores: (n, k) calibrated scores of the validation images, n >= 1."""
    own = np.sort(np.take_along_axis(scores, labels[:, None], axis=1)[:, 0])
    # The ceil((n + 1) * coverage)-th largest true score; with fewer images than that asks for, nothing can be left out.
    rank = math.ceil((len(own) + 1) * coverage)
    threshold = 0.0 if rank > len(own) else float(own[len(own) - rank])
    return Conformal(coverage, threshold, len(own))


def judge_conformal(found: Conformal, scores: np.ndarray, labels: np.ndarray, grouping: Grouping) -> dict[str, Any]:
    """{"promised", "threshold", "coverage" with interval, "mean_size", "sizes" {size: images}} on other images."""
    sets = found.sets(scores)
    sizes = sets.sum(axis=1)
    numbers, counts = np.unique(sizes, return_counts=True)
    held = sets[np.arange(len(labels)), labels]
    return {
        "promised": found.coverage,
        "threshold": found.threshold,
        "coverage": proportion(held, grouping).to_dict(),
        "mean_size": float(sizes.mean()),
        "sizes": {str(size): int(count) for size, count in zip(numbers, counts, strict=True)},
    }
