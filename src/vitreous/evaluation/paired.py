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
from vitreous.evaluation.several import combined_p, seeds_decide, widened

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
    """Images that only `a` got right; of several seeds all together."""
    only_b: int
    """Images that only `b` got right."""
    mcnemar_p: float
    """Exact McNemar test: the chance of so uneven a split of the images on which just one is right, were both as good. Of
    several seeds the tests are combined, see `several.combined_p`."""
    holm_p: float
    """The same, corrected for the number of pairs compared; equal to `mcnemar_p` for a single pair."""
    seeds: int
    """Runs of each model."""
    groups: str
    """What was independent, in words: "360 images" or "1200 images in 34 groups and 3 seeds"."""
    margin: float
    """Difference of accuracy that counts as none, stated beforehand."""
    equivalent: bool
    """Whether the whole interval lies within the margin: then both are as good, which a large p value alone never says
    (two one-sided tests: Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15:657; at 2.5 % each)."""
    more_images: int | None
    """Test images beyond these after which a difference as large as this one would be shown four times in five. None where
    the question is settled, or the models hardly differ on any image."""
    more_seeds: bool
    """Whether no number of images would settle it with these seeds, which differ too much among themselves."""
    verdict: str

    @property
    def settled(self) -> bool:
        """Whether one of them is shown to be better."""
        assert self.difference.low is not None and self.difference.high is not None
        return self.holm_p < SIGNIFICANCE and not self.difference.low <= 0 <= self.difference.high

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
    """Two models on the same images. a_correct, b_correct: bool (n,), n >= 1, or (s, n) for runs with s seeds each, paired
    in their order. groups: (n,) names or None. margin: share of the images, in (0, 1)."""
    return _judged(_unjudged(a_correct, b_correct, groups, names, seed, margin))


def _unjudged(
    a_correct: np.ndarray,
    b_correct: np.ndarray,
    groups: Sequence[Hashable] | np.ndarray | None,
    names: tuple[str, str],
    seed: int,
    margin: float,
) -> PairResult:
    """Everything but what depends on the corrected p value."""
    a_correct, b_correct = np.atleast_2d(a_correct), np.atleast_2d(b_correct)
    assert a_correct.shape == b_correct.shape and a_correct.size
    seeds, number = a_correct.shape
    grouping = Grouping.of(groups, number)
    only_a, only_b = (a_correct & ~b_correct).sum(axis=1), (b_correct & ~a_correct).sum(axis=1)
    p_value = combined_p([mcnemar(int(a), int(b)) for a, b in zip(only_a, only_b, strict=True)])
    images = f"{number} images"
    gains = a_correct.astype(np.float64) - b_correct
    more_seeds = seeds_decide(gains)
    return PairResult(
        a=names[0],
        b=names[1],
        difference=widened(_difference(gains.mean(axis=0), grouping, seed), gains, grouping),
        only_a=int(only_a.sum()),
        only_b=int(only_b.sum()),
        mcnemar_p=p_value,
        holm_p=p_value,
        groups=(f"{images} in {grouping}" if grouping.named else images) + (f" and {seeds} seeds" if seeds > 1 else ""),
        seeds=seeds,
        margin=margin,
        equivalent=False,
        more_images=None if more_seeds else _more_images(gains.mean(axis=0), grouping),
        more_seeds=more_seeds,
        verdict="",
    )


def compare_all(
    correct: Mapping[str, np.ndarray],
    groups: Sequence[Hashable] | np.ndarray | None,
    seed: int = 0,
    margin: float = MARGIN,
) -> list[PairResult]:
    """Every pair of models, in the order given, with verdicts that allow for the number of pairs (Holm)."""
    pairs = [_unjudged(correct[a], correct[b], groups, (a, b), seed, margin) for a, b in combinations(correct, 2)]
    corrected = [
        replace(pair, holm_p=p_value)
        for pair, p_value in zip(pairs, holm([pair.mcnemar_p for pair in pairs]), strict=True)
    ]
    return [_judged(pair) for pair in corrected]


def _difference(gain: np.ndarray, grouping: Grouping, seed: int) -> Interval:
    """Paired bootstrap by group. gain: (n,) in [-1, 1]. Where no resample could differ (models never disagree, few groups), the widest
    difference that Wilson's bound on the share of disagreement leaves open."""
    value = float(gain.mean())
    if grouping.count >= MIN_GROUPS and np.ptp(gain):
        return mean(gain, grouping, seed)
    trials = grouping.effective
    low, high = wilson(float(np.abs(gain).mean()) * trials, trials)
    unit = "groups" if grouping.named else "images"
    bounds = {1.0: (low, 1.0), -1.0: (-1.0, -low)}.get(value, (-high, high))
    return Interval(value, *bounds, len(gain), f"wilson on the disagreement of {trials:.3g} effective {unit}")


def _more_images(gain: np.ndarray, grouping: Grouping) -> int | None:
    """How many more images would show this difference, if it is real. gain: (n,) in [-1, 1].

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
    if pair.holm_p >= SIGNIFICANCE and not low <= 0 <= high and pair.seeds > 1:
        # The tests of the single seeds have no one interval to widen it to.
        method = f"{pair.difference.method}, widened to 0, which the exact tests leave open"
        low, high = min(low, 0.0), max(high, 0.0)
        pair = replace(pair, difference=replace(pair.difference, low=low, high=high, method=method))
    elif pair.holm_p >= SIGNIFICANCE and not low <= 0 <= high:
        discordant = pair.only_a + pair.only_b
        level = 1 - SIGNIFICANCE * pair.mcnemar_p / pair.holm_p
        won = binomtest(pair.only_a, discordant).proportion_ci(level, "exact")
        exact = [(2 * bound - 1) * discordant / pair.difference.n for bound in (won.low, won.high)]
        method = f"{pair.difference.method}, widened to the exact interval of {discordant} discordant images"
        wide = replace(pair.difference, low=min(low, exact[0], 0.0), high=max(high, exact[1], 0.0), method=method)
        pair = replace(pair, difference=wide)
        low, high = wide.low, wide.high
        assert low is not None and high is not None
    equivalent = max(-low, high) <= pair.margin
    more = None if pair.settled or equivalent else pair.more_images
    seeds = pair.more_seeds and not pair.settled and not equivalent
    pair = replace(pair, equivalent=equivalent, more_images=more, more_seeds=seeds)
    return replace(pair, verdict=_verdict(pair))


def _verdict(pair: PairResult) -> str:
    low, high = pair.difference.low, pair.difference.high
    assert pair.difference.value is not None and low is not None and high is not None
    if not pair.settled:
        largest = f"{100 * max(-low, high):.1f} points"
        if pair.equivalent:
            return f"as good as each other: {pair.groups} leave no difference larger than {largest} open"
        found = f"no difference that {pair.groups} could show, and none larger than {largest} can be claimed"
        if pair.more_seeds:
            return f"{found}; the seeds differ too much among themselves, so more of them come before more images"
        return f"{found}; about {_rounded(pair.more_images)} more images would settle it" if pair.more_images else found
    better = pair.a if low > 0 else pair.b
    points = [abs(100 * bound) for bound in (pair.difference.value, low, high)]
    return f"{better} is better by {points[0]:.1f} points ({min(points[1:]):.1f} to {max(points[1:]):.1f})"


def _rounded(number: int) -> str:
    """Two digits that count: 2,100 for 2,078."""
    step = 10 ** max(0, len(str(number)) - 2)
    return f"{-(-number // step) * step:,}"
