"""Influence of each image on a score: what the score would gain, to first order, if that image counted a little more.

Each function returns the score and the influences (n,), which sum to 0. Summed within groups and squared they give the
score's variance with groups taken into account (the linearised, or cluster-robust, variance of survey statistics). A
factor sqrt(m / (m - 1)) for m independent groups makes the variance of a mean unbiased.
"""

from __future__ import annotations

import math

import numpy as np

from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.metrics import class_counts, placements


def share(hits: np.ndarray, grouping: Grouping) -> tuple[float, np.ndarray]:
    """Of a plain share: accuracy, recall, top-5 accuracy. hits: bool (n,)."""
    value = float(hits.mean())
    return value, (hits - value) / len(hits) * small_sample(grouping.count)


def balanced_accuracy(probabilities: np.ndarray, labels: np.ndarray, grouping: Grouping) -> tuple[float, np.ndarray]:
    recall = class_counts(probabilities, labels).recall
    hits = probabilities.argmax(axis=1) == labels
    seen = np.unique(labels)
    influence = np.zeros(len(labels))
    for label in seen:
        own = labels == label
        factor = small_sample(grouping.among(own).count)
        influence[own] = (hits[own] - recall[label]) / own.sum() / len(seen) * factor
    return float(recall[seen].mean()), influence


def macro_f1(probabilities: np.ndarray, labels: np.ndarray, grouping: Grouping) -> tuple[float, np.ndarray]:
    """F1 of a class is 2 h / (s + p) with h hits, s images and p predictions, so an image changes it in up to two places."""
    counts = class_counts(probabilities, labels)
    predictions = probabilities.argmax(axis=1)
    seen = counts.support > 0
    f1 = np.where(seen, counts.f1, 0.0)
    size = np.maximum(counts.support + counts.predicted, 1)
    as_label = (2.0 * (predictions == labels) - f1[labels]) / size[labels]
    as_prediction = -f1[predictions] / size[predictions]
    return float(f1[seen].mean()), (as_label + as_prediction) / seen.sum() * small_sample(grouping.count)


def macro_precision(probabilities: np.ndarray, labels: np.ndarray, grouping: Grouping) -> tuple[float, np.ndarray]:
    counts = class_counts(probabilities, labels)
    predictions = probabilities.argmax(axis=1)
    seen = counts.support > 0
    precision = np.where(seen & (counts.predicted > 0), counts.precision, 0.0)
    influence = np.zeros(len(labels))
    for called in np.flatnonzero(seen & (counts.predicted > 0)):
        own = predictions == called
        factor = small_sample(grouping.among(own).count)
        influence[own] = ((labels[own] == called) - precision[called]) / own.sum() / seen.sum() * factor
    return float(precision[seen].mean()), influence


def mcc(probabilities: np.ndarray, labels: np.ndarray, grouping: Grouping) -> tuple[float, np.ndarray]:
    """Of (1 + MCC) / 2, which lies in [0, 1] like the shares. NaN where labels or predictions name one class only."""
    counts = class_counts(probabilities, labels)
    predictions = probabilities.argmax(axis=1)
    total, hits = float(len(labels)), float(counts.hits.sum())
    covariance = hits * total - float(counts.support @ counts.predicted)
    of_labels = total**2 - float(counts.support @ counts.support)
    of_predictions = total**2 - float(counts.predicted @ counts.predicted)
    if of_labels <= 0 or of_predictions <= 0:
        return math.nan, np.zeros(len(labels))
    value = covariance / math.sqrt(of_labels * of_predictions)
    # The derivative of numerator and denominator with respect to how often an image counts.
    numerator = (predictions == labels) * total + hits - counts.support[predictions] - counts.predicted[labels]
    shrink = (total - counts.support[labels]) / of_labels + (total - counts.predicted[predictions]) / of_predictions
    influence = numerator / math.sqrt(of_labels * of_predictions) - value * shrink
    return (1 + value) / 2, influence / 2 * small_sample(grouping.count)


def class_f1(own: np.ndarray, called: np.ndarray, grouping: Grouping) -> tuple[float, np.ndarray]:
    """Of one class. own, called: bool (n,), the images of the class and those taken for it."""
    size = own.sum() + called.sum()
    value = float(2 * (own & called).sum() / size)
    influence = (2.0 * (own & called) - value * (own.astype(np.float64) + called)) / size
    return value, influence * small_sample(grouping.count)


def class_auroc(scores: np.ndarray, own: np.ndarray, grouping: Grouping) -> tuple[float, np.ndarray]:
    """Of one class against the rest, see `auroc`. own: bool (n,), neither all nor none."""
    placed = placements(scores, own)
    area = float(placed[own].mean())
    influence = np.zeros(len(own))
    for kind in (own, ~own):
        influence[kind] = (placed[kind] - area) / kind.sum() * small_sample(grouping.among(kind).count)
    return area, influence


def class_average_precision(scores: np.ndarray, own: np.ndarray, grouping: Grouping) -> tuple[float, np.ndarray]:
    """Of one class against the rest, see `average_precision`. own: bool (n,), not none."""
    value, influence = precision_area(scores, own)
    return value, influence * small_sample(grouping.count)


def average_precision(probabilities: np.ndarray, labels: np.ndarray, grouping: Grouping) -> tuple[float, np.ndarray]:
    """NaN where no class that counts has an image."""
    columns = _columns(probabilities, labels)
    found = [class_average_precision(probabilities[:, k], labels == k, grouping) for k in columns]
    return _mean(found, len(labels))


def precision_area(scores: np.ndarray, positive: np.ndarray) -> tuple[float, np.ndarray]:
    """Average precision of one class and the influence (n,) of each image on it.

    An image counts in its own term, if it is of the class, and in the precision at every lower score.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], positive[order].astype(np.float64)
    last = np.searchsorted(-ranked, -ranked, side="right") - 1  # ties are passed together
    at_least = (last + 1).astype(np.float64)
    precision = np.cumsum(hits)[last] / at_least
    value = float(precision @ hits / hits.sum())
    # Sums over the images of the class that score no higher: of 1 / N, and of precision / N.
    first = np.searchsorted(-ranked, -ranked, side="left")
    lower = [np.cumsum((hits * each / at_least)[::-1])[::-1][first] for each in (np.ones_like(hits), precision)]
    influence = np.empty(len(scores))
    influence[order] = (hits * (precision - value) + hits * lower[0] - lower[1]) / hits.sum()
    return value, influence


def auroc(probabilities: np.ndarray, labels: np.ndarray, grouping: Grouping) -> tuple[float, np.ndarray]:
    """From DeLong's placement values (DeLong et al. 1988; by group, Obuchowski 1997, Biometrics 53:567). NaN where the
    labels name one class only."""
    columns = _columns(probabilities, labels)
    kinds = [labels == column for column in columns]
    found = [
        class_auroc(probabilities[:, k], own, grouping) for k, own in zip(columns, kinds, strict=True) if not own.all()
    ]
    return _mean(found, len(labels))


def _columns(probabilities: np.ndarray, labels: np.ndarray) -> list[int]:
    """The classes that count in a mean: those that the labels name; of two classes the last alone."""
    num_classes = probabilities.shape[1]
    return [k for k in range(num_classes)[-1 if num_classes == 2 else 0 :] if (labels == k).any()]


def _mean(found: list[tuple[float, np.ndarray]], num_images: int) -> tuple[float, np.ndarray]:
    """Of several classes' scores and influences; NaN where there is none."""
    if not found:
        return math.nan, np.zeros(num_images)
    return float(np.mean([value for value, _ in found])), np.mean([influence for _, influence in found], axis=0)


def small_sample(independent: int) -> float:
    return math.sqrt(independent / (independent - 1)) if independent > 1 else 1.0
