"""Point metrics of a classifier: pure functions of probabilities and labels.

    probabilities   (n, k), rows sum to 1          labels   (n,), integers in [0, k)
    weights         (n,) or (r, n), how often each image counts; (r, n) asks for r values at once, one per row

Every function returns an array of the shape of `weights` without its last axis: a scalar without weights. Weights are
what lets the bootstrap of `vitreous.evaluation.intervals` evaluate a thousand resamples in one call. Undefined values
are NaN inside this file (the recall of a class that no label names) and `None` wherever a value leaves the room.
All agree with scikit-learn where it defines the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

NUM_BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""


class Metric(Protocol):
    """What every function here is: `metric(probabilities, labels, weights)`."""

    def __call__(
        self, probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, /
    ) -> np.ndarray: ...


def accuracy(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Share of images whose likeliest class is the label."""
    return weighted_mean(probabilities.argmax(axis=1) == labels, weights)


def top5_accuracy(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Share of images whose label is among the five likeliest classes."""
    return weighted_mean(top_hits(probabilities, labels, 5), weights)


def top_hits(probabilities: np.ndarray, labels: np.ndarray, top: int) -> np.ndarray:
    """bool (n,): is the label among the `top` likeliest classes? Of equal scores the lower index comes first."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    ahead = (probabilities > own) | ((probabilities == own) & earlier)
    return ahead.sum(axis=1) < top


def balanced_accuracy(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean recall of the classes that occur in the labels."""
    return _nanmean(class_counts(probabilities, labels, weights).recall)


def macro_f1(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean F1 of the classes that occur in the labels."""
    return _nanmean(class_counts(probabilities, labels, weights).f1)


def macro_precision(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean precision of the classes that occur in the labels; one that was never predicted counts as 0."""
    counts = class_counts(probabilities, labels, weights)
    found = np.where(counts.predicted > 0, counts.precision, 0.0)
    return _nanmean(np.where(counts.support > 0, found, np.nan))


def mcc(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Matthews' correlation of labels and predictions, in [-1, 1]; for several classes R_K (Gorodkin 2004, Computational
    Biology and Chemistry 28:367, eq. 8). NaN where either names one class only."""
    counts = class_counts(probabilities, labels, weights)
    total = counts.support.sum(axis=-1)
    covariance = counts.hits.sum(axis=-1) * total - (counts.support * counts.predicted).sum(axis=-1)
    spread = [total**2 - (each**2).sum(axis=-1) for each in (counts.support, counts.predicted)]
    return _ratio(covariance, np.sqrt(np.maximum(spread[0], 0) * np.maximum(spread[1], 0)))


@dataclass(frozen=True)
class ClassCounts:
    """What precision, recall and F1 are made of, each (..., k)."""

    hits: np.ndarray
    """Images of the class that were called so."""
    support: np.ndarray
    """Images of the class."""
    predicted: np.ndarray
    """Images that were called so."""

    @property
    def recall(self) -> np.ndarray:
        """NaN for a class without images."""
        return _ratio(self.hits, self.support)

    @property
    def precision(self) -> np.ndarray:
        """NaN for a class that was never predicted."""
        return _ratio(self.hits, self.predicted)

    @property
    def f1(self) -> np.ndarray:
        """NaN for a class without images, where recall has no meaning; 0 for one that was never predicted."""
        return np.where(self.support > 0, _ratio(2 * self.hits, self.support + self.predicted), np.nan)


def class_counts(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> ClassCounts:
    num_images, num_classes = probabilities.shape
    predictions = probabilities.argmax(axis=1)
    weights = _weights(num_images, weights)
    support = weights @ _indicator(labels, num_classes)
    predicted = weights @ _indicator(predictions, num_classes)
    hits = weights @ _indicator(labels, num_classes, predictions == labels)
    return ClassCounts(hits, support, predicted)


def confusion_matrix(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Counts (k, k): row = label, column = prediction. `weights` here is (n,) only."""
    num_images, num_classes = probabilities.shape
    cells = labels * num_classes + probabilities.argmax(axis=1)
    counts = np.bincount(cells, weights=_weights(num_images, weights), minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).round().astype(np.int64)


def auroc(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: of the last class for two classes, else the mean of one class against the rest over
    the classes that occur in the labels. NaN where only one class occurs."""
    areas = class_auroc(probabilities, labels, weights)
    return areas[..., -1] if probabilities.shape[1] == 2 else _nanmean(areas)


def class_auroc(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve of each class against the rest, (..., k): the chance that an image of the class scores
    higher than another image, ties counting half. NaN where the class has no image, or every image."""
    weights = _weights(len(labels), weights)
    areas = [_area(probabilities[:, column], labels == column, weights) for column in range(probabilities.shape[1])]
    return np.stack(areas, axis=-1)


def average_precision(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the precision-recall curve as a sum of steps: of the last class for two classes, else the mean of one class
    against the rest over the classes that occur in the labels."""
    areas = class_average_precision(probabilities, labels, weights)
    return areas[..., -1] if probabilities.shape[1] == 2 else _nanmean(areas)


def class_average_precision(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Average precision of each class against the rest, (..., k): the mean, over the images of the class, of the share that
    is of the class among all that score at least as high. NaN where the class has no image."""
    weights = _weights(len(labels), weights)
    found = [_precision_area(probabilities[:, k], labels == k, weights) for k in range(probabilities.shape[1])]
    return np.stack(found, axis=-1)


def placements(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Placement values (n,) of DeLong et al. 1988: for a positive image the share of negatives it beats, for a negative
    one the share of positives that beat it, ties counting half. Both kinds average to the AUROC. Needs both kinds."""
    ranks = rankdata(scores)
    values = np.empty(len(scores))
    num_positive = int(positive.sum())
    num_negative = len(scores) - num_positive
    values[positive] = (ranks[positive] - rankdata(scores[positive])) / num_negative
    values[~positive] = 1 - (ranks[~positive] - rankdata(scores[~positive])) / num_positive
    return values


def ece(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Expected calibration error over 15 equal-width bins of the top score (Guo et al. 2017, arXiv:1706.04599, eq. 3)."""
    return binned_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, weights)


def binned_error(confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean over the images of the gap, in each of 15 equal-width bins of a score, between it and the share that is right."""
    weights = _weights(len(correct), weights)
    # In a bin of weight W the term is W / total * |accuracy - confidence|, and W cancels.
    gaps = weights @ _indicator(confidence_bins(confidence), NUM_BINS, correct - confidence)
    return np.abs(gaps).sum(axis=-1) / weights.sum(axis=-1)


def confidence_bins(confidence: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """Index of the bin (m / num_bins, (m + 1) / num_bins] that holds each confidence."""
    return np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)


def brier(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Brier score: mean squared distance between the probabilities and the truth, in [0, 2]; for two classes the
    usual half of it, in [0, 1] (as scikit-learn's `brier_score_loss` does by default)."""
    return weighted_mean(squared_distances(probabilities, labels), weights)


def squared_distances(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each image (n,), what `brier` is the mean of."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    squared = (probabilities**2).sum(axis=1) - 2 * own + 1
    return squared / 2 if probabilities.shape[1] == 2 else squared


def nll(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean negative log-likelihood of the labels, nats. A probability of 0 counts as 2.2e-16, so that it stays finite."""
    return weighted_mean(log_losses(probabilities, labels), weights)


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each image (n,), what `nll` is the mean of."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float64)
    return -np.log(np.maximum(own, np.finfo(np.float64).eps))


def _area(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(scores, kind="stable")
    positives = weights[..., order] * positive[order]
    negatives = weights[..., order] * ~positive[order]
    new_score = np.concatenate([[True], np.diff(scores[order]) != 0])
    starts = np.flatnonzero(new_score)
    positives = np.add.reduceat(positives, starts, axis=-1)
    negatives = np.add.reduceat(negatives, starts, axis=-1)
    below = np.cumsum(negatives, axis=-1) - negatives
    won = (positives * (below + negatives / 2)).sum(axis=-1)
    return _ratio(won, positives.sum(axis=-1) * negatives.sum(axis=-1))


def _precision_area(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(-scores, kind="stable")
    new_score = np.concatenate([[True], np.diff(scores[order]) != 0])
    starts = np.flatnonzero(new_score)
    positives = np.add.reduceat(weights[..., order] * positive[order], starts, axis=-1)
    everything = np.add.reduceat(weights[..., order], starts, axis=-1)
    precision = _ratio(np.cumsum(positives, axis=-1), np.cumsum(everything, axis=-1))
    return _ratio((positives * np.nan_to_num(precision)).sum(axis=-1), positives.sum(axis=-1))


def _indicator(columns: np.ndarray, num_columns: int, values: np.ndarray | None = None) -> sparse.csr_array:
    """Sparse (n, num_columns) with one value a row (1 by default), so that `weights @ it` sums by column."""
    entries = np.ones(len(columns)) if values is None else values.astype(np.float64)
    return sparse.csr_array((entries, columns, np.arange(len(columns) + 1)), shape=(len(columns), num_columns))


def _weights(num_images: int, weights: np.ndarray | None) -> np.ndarray:
    return np.ones(num_images) if weights is None else np.asarray(weights, dtype=np.float64)


def weighted_mean(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Mean of one number an image (n,), with weights as every metric here takes them."""
    weights = _weights(len(values), weights)
    return (weights @ values.astype(np.float64)) / weights.sum(axis=-1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)


def _nanmean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))
