"""The 95 % interval of a calibration error, which no percentiles of resamples give.

The error is a sum of absolute values. Each bin's gap is partly chance, and absolute values turn chance into error: a perfectly
calibrated model shows 4 to 8 % on 200 images. A bootstrap adds the chance a second time; its interval held the truth 55 to
75 times in 100 (benchmarks/coverage.py).

So the interval is what a test would not reject. Suppose the true gap of image i were e * g_i, where e is the error and g the
curve, of mean absolute value one, by which a logistic recalibration (Cox 1958, Biometrika 45:562: the log odds of being
right are a straight line of those of the score) departs from the scores. Then the sums of the bins are normal around it with
a covariance that follows from the shares right and, where images come in groups, from their likeness within a group. All e
are kept under which an error as large, or as small, as the one seen is no surprise at 2.5 %; the one under which it is the
median is the error without the chance in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from vitreous.evaluation.calibration import score_bins
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import MIN_GROUPS, Interval, proportion, widened_tail
from vitreous.evaluation.metrics import NUM_BINS, binned_error, confidence_bins

DRAWS = 4000
NEAREST = 1e-4
"""Scores are kept this far from 0 and 1, where log odds have no end."""
LEAST_SHARE = 0.005
"""Shares right are kept this far from 0 and 1, so that no score counts as certain."""
STEPS = 25
"""Of Newton's method, which needs about 6."""


@dataclass(frozen=True)
class CalibrationError:
    """Of scores on some images."""

    interval: Interval
    """Around the plain error, which may lie above `high` on few images."""
    corrected: float | None
    """The error without what chance adds to it: the median-unbiased estimate; None where there is no interval."""


def calibration_error(
    confidence: np.ndarray, correct: np.ndarray, grouping: Grouping, seed: int = 0
) -> CalibrationError:
    """The expected calibration error of 15 equal-width bins with its interval.

    confidence: scores (n,) in [0, 1]; correct: whether what each stands for is so, bool (n,); grouping: of the same n.
    """
    num = len(confidence)
    bins = confidence_bins(confidence)
    seen = float(binned_error(confidence, correct))
    if grouping.effective < MIN_GROUPS:  # fewer, or a few that hold most images
        only = f"{grouping.effective:.1f} effective groups" if grouping.count >= MIN_GROUPS else str(grouping)
        return CalibrationError(Interval(seen, None, None, num, f"no interval: only {only}"), None)
    share = recalibrated(confidence, correct)
    gaps = share - confidence
    size = float(np.abs(gaps).mean())
    # Where the curve shows no departure at all, one to the same side everywhere is as good as any.
    curve = gaps / size if size > 1e-9 else np.ones(num)
    likeness = _likeness(correct - share, _deviation(share), grouping)
    rng = np.random.default_rng(seed)
    normal, drift = rng.standard_normal((2, DRAWS, NUM_BINS))
    # Another part would hold other scores, and so another sum of the curve in each bin.
    directions = np.bincount(bins, curve, NUM_BINS) / num + drift @ _root(_spread(bins, curve, grouping)).T

    def solved(tail: float) -> float:
        error = size
        for _ in range(2):  # how far hits scatter depends on the shares, which depend on the error
            covariance = bin_covariance(bins, _deviation(confidence + error * curve), likeness, grouping)
            noise = (
                normal @ _root(covariance * grouping.effective / (grouping.effective - 2)).T
            )  # a curve has two parameters
            error = _solved(lambda e, noise=noise: _quantile(np.abs(e * directions + noise).sum(axis=1), tail), seen)
        return error

    tail = widened_tail(grouping.effective)
    low, middle, high = solved(1 - tail), solved(0.5), solved(tail)
    if correct.all() or not correct.any():  # no scatter at all to judge by: as far as the share that is right may lie
        hits, mean = proportion(correct, grouping), float(confidence.mean())
        assert hits.low is not None and hits.high is not None
        high = max(high, mean - hits.low, hits.high - mean)
    by = " by group" if grouping.named else ""
    method = f"errors that a test does not reject{by} ({grouping}); without chance {middle:.4f}"
    return CalibrationError(Interval(seen, low, high, num, method), middle)


def calibration_facts(
    temperature: float, before: np.ndarray, after: np.ndarray, correct: np.ndarray, grouping: Grouping, seed: int = 0
) -> tuple[Interval, dict[str, Any]]:
    """The error after temperature scaling, and what `metrics.json` says of both: errors, their intervals, the bins of a
    reliability diagram.

    before, after: scores (n,) with and without the temperature; correct: whether what they stand for is so, bool (n,).
    """
    facts: dict[str, Any] = {"temperature": float(temperature)}
    for when, confidence in (("before", before), ("after", after)):
        found = calibration_error(confidence, correct, grouping, seed)
        facts[f"ece_{when}"] = found.interval.value
        facts[f"ece_{when}_interval"] = {**found.interval.to_dict(), "corrected": found.corrected}
        facts[f"bins_{when}"] = [each.to_dict() for each in score_bins(confidence, correct, grouping)]
    return found.interval, facts


def recalibrated(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """What share is right at each score by a logistic recalibration, (n,): the likeliest straight line of log odds."""
    odds = logit(np.clip(confidence.astype(np.float64), NEAREST, 1 - NEAREST))
    design = np.stack([np.ones_like(odds), odds], axis=1)
    weights = np.array([0.0, 1.0])
    # A weak pull towards the scores themselves: where all images are right the likelihood has no summit.
    pull = np.diag([0.1, 0.1])
    for _ in range(STEPS):
        share = expit(design @ weights)
        slope = design.T @ (correct - share) - pull @ (weights - [0.0, 1.0])
        bend = (design * (share * (1 - share))[:, None]).T @ design + pull
        step = np.linalg.solve(bend, slope)
        weights = weights + step * min(1.0, 2.0 / float(np.abs(step).max() + 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return expit(design @ weights)


def bin_covariance(bins: np.ndarray, deviation: np.ndarray, likeness: float, grouping: Grouping) -> np.ndarray:
    """Of the sums of gaps in the bins, each divided by the number of images: (b, b).

    deviation: of each image's hit, (n,). likeness: the correlation of hits within a group.
    """
    num = len(bins)
    own = np.bincount(bins, deviation**2, NUM_BINS)
    if not grouping.named:
        return np.diag(own) / num**2
    cells = np.bincount(grouping.index * NUM_BINS + bins, deviation, grouping.count * NUM_BINS)
    cells = cells.reshape(grouping.count, NUM_BINS)
    return (np.diag((1 - likeness) * own) + likeness * cells.T @ cells) / num**2


def _deviation(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, LEAST_SHARE, 1 - LEAST_SHARE)
    return np.sqrt(share * (1 - share))


def _likeness(residuals: np.ndarray, deviation: np.ndarray, grouping: Grouping) -> float:
    """Mean correlation, in [0, 1], of the residuals of two images of one group."""
    scaled, sizes = residuals / deviation, grouping.totals(np.ones(len(residuals)))
    pairs = float((sizes * (sizes - 1)).sum())
    together = float((grouping.totals(scaled) ** 2 - grouping.totals(scaled**2)).sum())
    return min(max(together / pairs, 0.0), 1.0) if pairs else 0.0


def _spread(bins: np.ndarray, curve: np.ndarray, grouping: Grouping) -> np.ndarray:
    """Covariance of the mean of the curve's values in each bin, over parts of as many groups: (b, b)."""
    num = len(bins)
    cells = np.bincount(grouping.index * NUM_BINS + bins, curve, grouping.count * NUM_BINS)
    sizes = grouping.totals(np.ones(num))
    apart = cells.reshape(grouping.count, NUM_BINS) - np.outer(sizes / num, np.bincount(bins, curve, NUM_BINS))
    return apart.T @ apart / num**2


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share))


def _solved(quantile: Callable[[float], float], seen: float) -> float:
    """The error in [0, 1] under which a quantile is what was seen; an end where there is none."""
    if quantile(0.0) >= seen:
        return 0.0
    if quantile(1.0) <= seen:
        return 1.0
    found: Any = brentq(lambda error: quantile(error) - seen, 0.0, 1.0, xtol=1e-5)
    return float(found)
