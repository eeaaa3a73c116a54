"""Influence of each image on a score: what the score would gain, to first order, if that image counted a little more.

Each function returns the score and the influences (n,), which sum to 0. Summed within groups and squared they give the
score's variance with groups taken into account (the linearised, or cluster-robust, variance of survey statistics). A
factor sqrt(m / (m - 1)) for m independent groups makes the variance of a mean unbiased.
"""

from __future__ import annotations

import math

import numpy as np

from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.metrics import class_auroc, class_counts, placements


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


def auroc(probabilities: np.ndarray, labels: np.ndarray, grouping: Grouping) -> tuple[float, np.ndarray]:
    """From DeLong's placement values (DeLong et al. 1988; by group, Obuchowski 1997, Biometrics 53:567). NaN where the
    labels name one class only."""
    num_classes = probabilities.shape[1]
    areas = class_auroc(probabilities, labels)
    columns = np.flatnonzero(~np.isnan(areas))[-1 if num_classes == 2 else 0 :]
    influence = np.zeros(len(labels))
    for column in columns:
        positive = labels == column
        centred = placements(probabilities[:, column], positive) - areas[column]
        for kind in (positive, ~positive):
            factor = small_sample(grouping.among(kind).count)
            influence[kind] += centred[kind] / kind.sum() / len(columns) * factor
    return (float(areas[columns].mean()) if len(columns) else math.nan), influence


def small_sample(independent: int) -> float:
    return math.sqrt(independent / (independent - 1)) if independent > 1 else 1.0
