"""Would more labels help, and by how much? A learning curve, and the power law that goes on from it.

Error falls with the number of labelled images n about as floor + factor * n ** -exponent (Cortes et al. 1993, "Learning curves:
asymptotic values and rate of convergence"; Hestness et al. 2017, arXiv:1712.00409). Fitted to what shares of the training
images give, it says what twice as many would. Intervals come from resampling both the images that are asked about, by
group, and the draws of training images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitreous.evaluation.groups import Grouping, class_trials
from vitreous.evaluation.intervals import MIN_GROUPS, Interval, effective_wilson, group_counts, widened_tail

EXPONENTS = np.geomspace(0.1, 1.5, 28)
"""Of the power laws that are tried; below lies no decline that a few points could tell from a floor."""
RESAMPLES = 500
FURTHER = (2, 4)
"""Times the training images of today that the curve is carried on to."""
LEAST_GAIN = 0.005
"""Gain in accuracy below which more labels are said to bring nothing."""


@dataclass(frozen=True)
class PowerLaws:
    """One for each of r resamples: error = floor + factor * n ** -exponent, each (r,), none below 0."""

    floor: np.ndarray
    factor: np.ndarray
    exponent: np.ndarray

    def errors(self, images: float) -> np.ndarray:
        """The error (r,) with so many images."""
        return self.floor + self.factor * images**-self.exponent


def fit_power_laws(images: np.ndarray, errors: np.ndarray) -> PowerLaws:
    """The laws nearest, in squares, to errors (r, p) with images (p,), p >= 3."""
    best = np.full(len(errors), np.inf)
    found = np.zeros((3, len(errors)))
    for exponent in EXPONENTS:
        powers = images**-exponent
        apart = powers - powers.mean()
        factor = np.maximum((errors - errors.mean(axis=1, keepdims=True)) @ apart / (apart @ apart), 0.0)
        floor = errors.mean(axis=1) - factor * powers.mean()
        # A floor below 0 is none: then a line through 0.
        under = floor < 0
        factor = np.where(under, np.maximum(errors @ powers / (powers @ powers), 0.0), factor)
        floor = np.where(under, 0.0, floor)
        missed = ((floor[:, None] + factor[:, None] * powers - errors) ** 2).sum(axis=1)
        nearer = missed < best
        best = np.where(nearer, missed, best)
        found = np.where(nearer, np.stack([floor, factor, np.full(len(errors), exponent)]), found)
    return PowerLaws(*found)


def learning_curve(
    hits: Mapping[int, Sequence[np.ndarray]], strata: np.ndarray, grouping: Grouping, seed: int = 0
) -> dict[str, Any]:
    """Accuracy by the number of training images, and what more of them would bring.

    hits: of each number of training images, for every draw of them, whether each of m other images was answered rightly, bool
    (m,); at least three numbers. strata: int (m,), what is averaged over: the classes for balanced accuracy, all 0 for accuracy.
    grouping: of the m images.

    returns: {"points": [{"images", "accuracy", "draws"}], "further": [{"images", "accuracy", "gain"}], "verdict"}; values with
    intervals as in `metrics.json`.
    """
    counts = sorted(hits)
    drawn = {count: np.stack([each.astype(np.float64) for each in hits[count]]) for count in counts}
    points = [
        {
            "images": count,
            "accuracy": _stratified(drawn[count].mean(axis=0), strata, grouping).to_dict(),
            "draws": len(drawn[count]),
        }
        for count in counts
    ]
    images = np.array(counts, np.float64)
    plain = np.array([[1 - point["accuracy"]["value"] for point in points]])
    law = fit_power_laws(images, plain)
    laws = fit_power_laws(images, _resampled_errors(drawn, counts, strata, grouping, seed))
    further = []
    for times in FURTHER:
        more = times * counts[-1]
        gain = float((law.errors(counts[-1]) - law.errors(more))[0])
        gains = laws.errors(counts[-1]) - laws.errors(more)
        reached = min(1.0, 1 - plain[0, -1] + gain)
        further.append(
            {
                "images": more,
                "accuracy": _interval(reached, np.clip(1 - laws.errors(more), 0, 1), grouping).to_dict(),
                "gain": _interval(gain, gains, grouping).to_dict(),
            }
        )
    return {"points": points, "further": further, "verdict": _verdict(further[0])}


def _stratified(shares: np.ndarray, strata: np.ndarray, grouping: Grouping) -> Interval:
    """Wilson's interval of the mean over the strata of their mean shares (m,), each in [0, 1]."""
    kinds, place, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    means = np.bincount(place, shares) / sizes
    influences = (shares - means[place]) / sizes[place] / len(kinds)
    return effective_wilson(
        float(means.mean()), influences, grouping, most=math.inf, least=class_trials(strata, grouping)
    )


def _resampled_errors(
    drawn: Mapping[int, np.ndarray], counts: Sequence[int], strata: np.ndarray, grouping: Grouping, seed: int
) -> np.ndarray:
    """Errors (RESAMPLES, points) with other images asked about and other draws of training images."""
    rng = np.random.default_rng(seed)
    weights = group_counts(grouping.count, RESAMPLES, rng)[:, grouping.index]
    members = [strata == each for each in np.unique(strata)]
    sizes = np.stack([weights[:, own].sum(axis=1) for own in members])  # (strata, resamples)
    there = (sizes > 0).sum(axis=0)
    found = np.empty((RESAMPLES, len(counts)))
    for column, count in enumerate(counts):
        sums = [weights[:, own] @ drawn[count][:, own].T for own in members]  # each (resamples, draws)
        # A stratum that a resample has no image of is left out of its mean.
        scores = sum(one / np.maximum(size, 1)[:, None] for one, size in zip(sums, sizes, strict=True)) / there[:, None]
        chosen = rng.integers(scores.shape[1], size=scores.shape)
        found[:, column] = 1 - np.take_along_axis(scores, chosen, axis=1).mean(axis=1)
    return found


def _interval(value: float, samples: np.ndarray, grouping: Grouping) -> Interval:
    num_images = len(grouping.index)
    if grouping.count < MIN_GROUPS:
        return Interval(value, None, None, num_images, f"no interval: only {grouping}")
    tail = widened_tail(grouping.count)
    low, high = (float(bound) for bound in np.quantile(samples, [tail, 1 - tail]))
    method = f"power law, bootstrap ({grouping}, {RESAMPLES} resamples)"
    return Interval(value, min(low, value), max(high, value), num_images, method)


def _verdict(doubled: Mapping[str, Any]) -> str:
    gain, images = doubled["gain"], f"{doubled['images']:,}"
    if gain["low"] is None:
        return f"What {images} labelled images would bring cannot be said from so few groups."
    span = f"{100 * gain['low']:.1f} to {100 * gain['high']:.1f}"
    if gain["high"] < LEAST_GAIN:
        return (
            f"More labels of this kind would bring a classifier on these features nothing: twice as many ({images}) less than "
            f"{100 * LEAST_GAIN:.1f} points."
        )
    if gain["low"] < LEAST_GAIN / 5:
        return (
            f"Twice as many labelled images ({images}) would bring {100 * gain['value']:.1f} points ({span}); these images "
            "cannot tell that from nothing."
        )
    return f"Twice as many labelled images ({images}) would bring about {100 * gain['value']:.1f} points ({span})."
