"""Comparing models on the same images: a paired test, an interval of the difference, and a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import binomtest

from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import MIN_GROUPS, Interval, mean, wilson

SIGNIFICANCE = 0.05
MARGIN = 0.01
"""Differences of accuracy below one point are none, unless the caller says otherwise."""
POWER = 0.8
MOST_TIMES = 100
"""More images than this many times those at hand are no advice."""


@dataclass(frozen=True)
class PairResult:
    """Model `a` against model `b` on the same images."""

    a: str
    b: str
    difference: Interval
    """Accuracy of `a` less accuracy of `b`, in [-1, 1]."""
    only_a: int
    """Images that only `a` got right."""
    only_b: int
    """Images that only `b` got right."""
    mcnemar_p: float
    """Exact McNemar test: the chance of so uneven a split of the images on which just one is right, were both as good."""
    holm_p: float
    """The same, corrected for the number of pairs compared; equal to `mcnemar_p` for a single pair."""
    groups: str
    """What was independent, in words: "360 images" or "1200 images in 34 groups"."""
    margin: float
    """Difference of accuracy that counts as none, stated beforehand."""
    equivalent: bool
    """Whether the whole interval lies within the margin: then both are as good, which a large p value alone never says
    (two one-sided tests: Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15:657; at 2.5 % each)."""
    more_images: int | None
    """Test images beyond these after which a difference as large as this one would be shown four times in five. None where
    the question is settled, or the models hardly differ on any image."""
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """The form of `--json`."""
        return asdict(self)


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p value of McNemar's test (1947): the binomial test of the discordant images. 1 without any."""
    discordant = only_a + only_b
    return float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979), in the order given; each at most 1 and never below its own p value."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    stepped = np.minimum(np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors), 1)
    corrected = np.empty(len(p_values))
    corrected[order] = stepped
    return corrected.tolist()


def compare_pair(
    a_correct: np.ndarray,
    b_correct: np.ndarray,
    groups: Sequence[Hashable] | np.ndarray | None,
    names: tuple[str, str],
    seed: int = 0,
    margin: float = MARGIN,
) -> PairResult:
    """Two models on the same images. a_correct, b_correct: bool (n,), n >= 1. groups: (n,) names or None. margin: share of
    the images, in (0, 1)."""
    assert len(a_correct) == len(b_correct) > 0
    grouping = Grouping.of(groups, len(a_correct))
    only_a = int((a_correct & ~b_correct).sum())
    only_b = int((b_correct & ~a_correct).sum())
    p_value = mcnemar(only_a, only_b)
    images = f"{len(a_correct)} images"
    unjudged = PairResult(
        a=names[0],
        b=names[1],
        difference=_difference(a_correct, b_correct, grouping, seed),
        only_a=only_a,
        only_b=only_b,
        mcnemar_p=p_value,
        holm_p=p_value,
        groups=f"{images} in {grouping}" if grouping.named else images,
        margin=margin,
        equivalent=False,
        more_images=_more_images(a_correct.astype(np.float64) - b_correct, grouping),
        verdict="",
    )
    return _judged(unjudged)


def compare_all(
    correct: Mapping[str, np.ndarray],
    groups: Sequence[Hashable] | np.ndarray | None,
    seed: int = 0,
    margin: float = MARGIN,
) -> list[PairResult]:
    """Every pair of models, in the order given, with verdicts that allow for the number of pairs (Holm)."""
    pairs = [compare_pair(correct[a], correct[b], groups, (a, b), seed, margin) for a, b in combinations(correct, 2)]
    corrected = [
        replace(pair, holm_p=p_value)
        for pair, p_value in zip(pairs, holm([pair.mcnemar_p for pair in pairs]), strict=True)
    ]
    return [_judged(pair) for pair in corrected]


def _difference(a_correct: np.ndarray, b_correct: np.ndarray, grouping: Grouping, seed: int) -> Interval:
    """Paired bootstrap by group. Where no resample could differ (models never disagree, few groups), the widest
    difference that Wilson's bound on the share of disagreement leaves open."""
    gain = a_correct.astype(np.float64) - b_correct
    value = float(gain.mean())
    if grouping.count >= MIN_GROUPS and np.ptp(gain):
        return mean(gain, grouping, seed)
    trials = grouping.effective
    low, high = wilson(float(np.abs(gain).mean()) * trials, trials)
    unit = "groups" if grouping.named else "images"
    bounds = {1.0: (low, 1.0), -1.0: (-1.0, -low)}.get(value, (-high, high))
    return Interval(value, *bounds, len(gain), f"wilson on the disagreement of {trials:.3g} effective {unit}")


def _more_images(gain: np.ndarray, grouping: Grouping) -> int | None:
    """How many more images would show this difference, if it is real. gain: (n,), 1, 0 or -1.

    The usual size of a paired comparison (Connor 1987, Biometrics 43:207), times what groups cost in independence.
    """
    value, spread, number = float(gain.mean()), float(gain.var()), len(gain)
    if value == 0 or spread == 0 or grouping.count < 2:
        return None
    clustered = float((grouping.totals(gain - value) ** 2).sum()) * grouping.count / (grouping.count - 1)
    cost = max(1.0, clustered / (spread * number))
    needed = (float(ndtri(1 - SIGNIFICANCE / 2)) + float(ndtri(POWER))) ** 2 * spread * cost / value**2
    return max(1, math.ceil(needed - number)) if needed <= MOST_TIMES * number else None


def _judged(pair: PairResult) -> PairResult:
    """With its verdict, and with an interval that says no more than the test does.

    A bootstrap of a handful of disagreements can leave out 0 where the exact test sees nothing. There the interval is
    widened to the one that belongs to that test: Clopper and Pearson's (1934) for the share that `a` won of the
    discordant images, which holds one half exactly where p reaches the level; corrected as p was for several pairs.
    """
    low, high = pair.difference.low, pair.difference.high
    assert low is not None and high is not None
    if pair.holm_p >= SIGNIFICANCE and not low <= 0 <= high:
        discordant = pair.only_a + pair.only_b
        level = 1 - SIGNIFICANCE * pair.mcnemar_p / pair.holm_p
        won = binomtest(pair.only_a, discordant).proportion_ci(level, "exact")
        exact = [(2 * bound - 1) * discordant / pair.difference.n for bound in (won.low, won.high)]
        method = f"{pair.difference.method}, widened to the exact interval of {discordant} discordant images"
        wide = replace(pair.difference, low=min(low, exact[0], 0.0), high=max(high, exact[1], 0.0), method=method)
        pair = replace(pair, difference=wide)
        low, high = wide.low, wide.high
        assert low is not None and high is not None
    settled = pair.holm_p < SIGNIFICANCE and not low <= 0 <= high
    equivalent = max(-low, high) <= pair.margin
    more = None if settled or equivalent else pair.more_images
    pair = replace(pair, equivalent=equivalent, more_images=more)
    return replace(pair, verdict=_verdict(pair))


def _verdict(pair: PairResult) -> str:
    low, high = pair.difference.low, pair.difference.high
    assert pair.difference.value is not None and low is not None and high is not None
    if pair.holm_p >= SIGNIFICANCE or low <= 0 <= high:
        largest = f"{100 * max(-low, high):.1f} points"
        if pair.equivalent:
            return f"as good as each other: {pair.groups} leave no difference larger than {largest} open"
        found = f"no difference that {pair.groups} could show, and none larger than {largest} to be claimed"
        return f"{found}; about {_rounded(pair.more_images)} more would settle it" if pair.more_images else found
    better = pair.a if low > 0 else pair.b
    points = [abs(100 * bound) for bound in (pair.difference.value, low, high)]
    return f"{better} is better by {points[0]:.1f} points ({min(points[1:]):.1f} to {max(points[1:]):.1f})"


def _rounded(number: int) -> str:
    """Two digits that count: 2,100 for 2,078."""
    step = 10 ** max(0, len(str(number)) - 2)
    return f"{-(-number // step) * step:,}"
