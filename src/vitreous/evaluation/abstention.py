"""Saying "I don't know": the score below which a prediction abstains, and what abstaining buys."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import proportion, wilson

MIN_COVERAGE = 0.05
"""At least this share of the images must be answered."""
CURVE_POINTS = 200


@dataclass(frozen=True)
class Abstention:
    """A threshold, and what answering only at or above it did on the validation images."""

    threshold: float
    """Scores below it abstain; 0.0 answers everything."""
    target: float
    """The accuracy asked of the answered images."""
    coverage: float
    """Share of the images answered."""
    accuracy: float
    """Share of the answered that is right, with Wilson's 95 % interval from `low` to `high`."""
    low: float
    high: float
    n: int
    """Images answered."""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose_threshold(confidence: np.ndarray, correct: np.ndarray, target: float = 0.95) -> Abstention:
    """The smallest threshold at which the answered validation images are right at the target rate.

    confidence: calibrated top scores (n,). correct: bool (n,). n >= 1. Where no threshold that still answers 5 % of the
    images reaches the target, the most accurate one is taken and a note says so.
    """
    thresholds, counts, hits = _by_threshold(confidence, correct)
    shares = hits / counts
    allowed = counts >= MIN_COVERAGE * len(confidence)
    reached = np.flatnonzero(allowed & (shares >= target))
    note = ""
    if len(reached):
        chosen = int(reached[0])
    else:
        chosen = int(np.flatnonzero(allowed)[np.argmax(shares[allowed])])
        note = (
            f"No threshold reaches {target:.1%} on the validation part while answering at least {MIN_COVERAGE:.0%} "
            f"of it; this one comes closest, at {shares[chosen]:.1%}."
        )
    answered = int(counts[chosen])
    low, high = wilson(int(hits[chosen]), answered)
    return Abstention(
        threshold=_between(thresholds, chosen),
        target=target,
        coverage=answered / len(confidence),
        accuracy=float(shares[chosen]),
        low=low,
        high=high,
        n=answered,
        note=note,
    )


def judge_threshold(
    threshold: float, confidence: np.ndarray, correct: np.ndarray, grouping: Grouping
) -> dict[str, Any]:
    """{"threshold", "coverage", "accuracy"} of answering from a threshold on, chosen elsewhere, on these images: the share that
    is answered and the share of it that is right, with intervals. "accuracy" is None where nothing is answered."""
    answered = confidence >= threshold
    right = proportion(correct[answered], grouping.among(answered)).to_dict() if answered.any() else None
    return {"threshold": threshold, "coverage": proportion(answered, grouping).to_dict(), "accuracy": right}


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> dict[str, list[float]]:
    """The curve of error rate against share answered (Geifman and El-Yaniv 2017, arXiv:1705.08500), the threshold rising.

    returns: {"threshold", "coverage", "risk"}, lists of at most 200 points, coverage falling.
    """
    thresholds, counts, hits = _by_threshold(confidence, correct)
    kept = np.unique(np.linspace(0, len(thresholds) - 1, min(CURVE_POINTS, len(thresholds))).round().astype(int))
    return {
        "threshold": thresholds[kept].tolist(),
        "coverage": (counts[kept] / len(confidence)).tolist(),
        "risk": (1 - hits[kept] / counts[kept]).tolist(),
    }


def _by_threshold(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each score that occurs, ascending, with the images scoring at least that and how many of those are right."""
    thresholds, starts = np.unique(np.sort(confidence), return_index=True)
    right = np.cumsum(correct[np.argsort(confidence, kind="stable")][::-1])[::-1]
    return thresholds, len(confidence) - starts, right[starts]


def _between(thresholds: np.ndarray, chosen: int) -> float:
    """Halfway down to the next lower score, so that rounding in another engine does not turn an answer over."""
    if chosen == 0:
        return 0.0
    halfway = float(thresholds[chosen - 1] + thresholds[chosen]) / 2
    return halfway if halfway > thresholds[chosen - 1] else float(thresholds[chosen])
