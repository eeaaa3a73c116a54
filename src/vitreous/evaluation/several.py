"""Accuracy of a recipe that was run with several seeds on the same test images: luck of the seed and luck of the images.

hits   bool (s, n): did the run of each seed get each image right
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri, stdtrit

from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import CONFIDENCE, Interval, proportion, wilson

_NORMAL = float(ndtri((1 + CONFIDENCE) / 2))


def mean_accuracy(hits: np.ndarray, grouping: Grouping) -> Interval:
    """Mean over the seeds, with an interval for another seed and other images of the same kind.

    The variance is that of drawing the images, by group, plus that between seeds over their number; the degrees of freedom
    follow from both (Satterthwaite 1946, Biometrics Bulletin 2:110), and the interval is Wilson's for as many trials as have
    this variance, as in `evaluation.intervals`. One seed: the interval of a plain share.
    """
    seeds, num_images = hits.shape
    if seeds == 1:
        return proportion(hits[0], grouping)
    each = hits.mean(axis=0)
    value = float(each.mean())
    images = clustered_variance(each, grouping)
    luck = float(hits.mean(axis=1).var(ddof=1)) / seeds
    method = f"wilson over {seeds} seeds and {grouping}"
    if images + luck < 1e-15:
        low, high = wilson(value * grouping.effective, grouping.effective)
        return Interval(value, low, high, num_images, method)
    most = num_images if grouping.count > 1 else grouping.effective  # one group says nothing of its own variance
    trials = min(value * (1 - value) / (images + luck), most)
    trials *= (_NORMAL / student(images, grouping.count - 1, luck, seeds - 1)) ** 2
    low, high = wilson(value * trials, trials)
    return Interval(value, low, high, num_images, method)


def widened(found: Interval, gains: np.ndarray, grouping: Grouping) -> Interval:
    """An interval of the mean difference of two models over the images, for other seeds too.

    gains: (s, n), 1 where only the first is right, -1 where only the second is. Each side of the interval grows as the
    standard error does, and by Student's quantile for the degrees of freedom of both sources.
    """
    seeds = len(gains)
    if seeds == 1 or found.low is None or found.high is None or found.value is None:
        return found
    images = clustered_variance(gains.mean(axis=0), grouping)
    luck = float(gains.mean(axis=1).var(ddof=1)) / seeds
    if luck < 1e-15:
        return found
    quantile = student(images, grouping.count - 1, luck, seeds - 1)
    arms = [
        math.hypot((found.value - found.low) * quantile / _NORMAL, quantile * math.sqrt(luck)),
        math.hypot((found.high - found.value) * quantile / _NORMAL, quantile * math.sqrt(luck)),
    ]
    low, high = max(-1.0, found.value - arms[0]), min(1.0, found.value + arms[1])
    return Interval(found.value, low, high, found.n, f"{found.method}, and {seeds} seeds")


def seeds_decide(gains: np.ndarray) -> bool:
    """Whether the difference of two models would stay open on any number of images, for the spread between seeds alone.

    gains: as in `widened`.
    """
    seeds = len(gains)
    if seeds == 1:
        return False
    luck = float(gains.mean(axis=1).var(ddof=1)) / seeds
    if luck < 1e-15:
        return False
    return float(stdtrit(seeds - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(luck) >= abs(float(gains.mean()))


def combined_p(p_values: Sequence[float]) -> float:
    """One p value of several tests of the same question that may depend on each other in any way: of K, the middle one
    p_(k) times K / k (Rüger 1978, Metrika 25:171; see Vovk and Wang 2020, Biometrika 107:791)."""
    count = len(p_values)
    middle = (count + 1) // 2
    return min(1.0, sorted(p_values)[middle - 1] * count / middle)


def clustered_variance(values: np.ndarray, grouping: Grouping) -> float:
    """Variance of the mean of values (n,) that resemble each other within groups."""
    if grouping.count < 2:
        return 0.0
    totals = grouping.totals(values - values.mean()) / len(values)
    return float((totals**2).sum()) * grouping.count / (grouping.count - 1)


def student(first: float, first_degrees: int, second: float, second_degrees: int) -> float:
    """Student's quantile for the sum of two variances, each known with its own degrees of freedom."""
    total = (first + second) ** 2
    parts = first**2 / max(1, first_degrees) + second**2 / max(1, second_degrees)
    return float(stdtrit(total / parts, (1 + CONFIDENCE) / 2)) if parts else _NORMAL
