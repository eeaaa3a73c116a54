from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from vitreous.evaluation import metrics

NONE: Any = 0
"""What scikit-learn's precision is without a prediction; its stubs know words only."""
Case = tuple[np.ndarray, np.ndarray, np.ndarray]


def case(num_classes: int, num_images: int = 300, seed: int = 0) -> Case:
    """Probabilities rounded to two digits, so that there are ties, with labels and integer weights."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=num_images)
    scores = np.round(rng.dirichlet(np.ones(num_classes), num_images) + 0.4 * np.eye(num_classes)[labels], 2) + 1e-3
    return scores / scores.sum(axis=1, keepdims=True), labels, rng.integers(0, 4, size=num_images)


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_shares_equal_scikit_learn_with_and_without_weights(num_classes: int):
    scores, labels, weights = case(num_classes)
    called = scores.argmax(axis=1)
    pairs: list[tuple[metrics.Metric, Callable[..., float]]] = [
        (metrics.accuracy, reference.accuracy_score),
        (metrics.balanced_accuracy, reference.balanced_accuracy_score),
        (metrics.macro_f1, lambda *given, **more: reference.f1_score(*given, average="macro", **more)),
        (
            metrics.macro_precision,
            lambda *given, **more: reference.precision_score(*given, average="macro", zero_division=NONE, **more),
        ),
        (metrics.mcc, reference.matthews_corrcoef),
    ]
    for ours, theirs in pairs:
        assert ours(scores, labels) == pytest.approx(theirs(labels, called), abs=1e-12)
        assert ours(scores, labels, weights) == pytest.approx(theirs(labels, called, sample_weight=weights), abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_auroc_counts_ties_half_as_scikit_learn_does(num_classes: int):
    scores, labels, weights = case(num_classes)
    shown = scores[:, 1] if num_classes == 2 else scores
    for given in (None, weights):
        expected = reference.roc_auc_score(labels, shown, multi_class="ovr", sample_weight=given)
        assert metrics.auroc(scores, labels, given) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_average_precision_passes_ties_together_as_scikit_learn_does(num_classes: int):
    scores, labels, weights = case(num_classes)
    for given in (None, weights):
        expected = [
            reference.average_precision_score(labels == column, scores[:, column], sample_weight=given)
            for column in range(num_classes)
        ]
        np.testing.assert_allclose(metrics.class_average_precision(scores, labels, given), expected, atol=1e-12)
        whole = expected[1] if num_classes == 2 else np.mean(expected)
        assert metrics.average_precision(scores, labels, given) == pytest.approx(whole, abs=1e-12)


def test_a_class_never_predicted_counts_as_no_precision_as_in_scikit_learn():
    scores, labels = np.eye(3)[[0, 0, 1, 1, 0]] * 0.8 + 0.1, np.array([0, 0, 1, 2, 2])
    expected = reference.precision_score(labels, scores.argmax(axis=1), average="macro", zero_division=NONE)
    assert metrics.macro_precision(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_a_correlation_with_a_constant_is_undefined():
    labels = np.array([0, 1, 1])
    assert np.isnan(metrics.mcc(np.tile([0.9, 0.1], (3, 1)), labels))
    assert np.isnan(metrics.mcc(np.eye(2)[labels], np.zeros(3, dtype=np.int64)))


def test_placement_values_of_each_kind_average_to_the_auroc():
    scores, labels, _ = case(3)
    positive = labels == 1
    values = metrics.placements(scores[:, 1], positive)
    area = reference.roc_auc_score(positive, scores[:, 1])
    assert values[positive].mean() == pytest.approx(area, abs=1e-12)
    assert values[~positive].mean() == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_brier_and_likelihood_equal_scikit_learn(num_classes: int):
    scores, labels, weights = case(num_classes)
    shown = scores[:, 1] if num_classes == 2 else scores
    every = list(range(num_classes))
    for given in (None, weights):
        brier = reference.brier_score_loss(labels, shown, sample_weight=given, labels=every)
        assert metrics.brier(scores, labels, given) == pytest.approx(brier, abs=1e-12)
        nll = reference.log_loss(labels, scores, sample_weight=given, labels=every)
        assert metrics.nll(scores, labels, given) == pytest.approx(nll, abs=1e-12)


def test_a_probability_of_zero_gives_a_finite_likelihood_as_in_scikit_learn():
    scores, labels = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([1, 0])
    expected = reference.log_loss(labels, scores, labels=[0, 1])
    assert metrics.nll(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_precision_recall_f1_and_support_equal_scikit_learn():
    scores, labels, weights = case(5)
    counts = metrics.class_counts(scores, labels, weights)
    expected = reference.precision_recall_fscore_support(labels, scores.argmax(axis=1), sample_weight=weights)
    for ours, theirs in zip((counts.precision, counts.recall, counts.f1, counts.support), expected, strict=True):
        np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-12)


def test_confusion_has_labels_in_rows():
    scores, labels, weights = case(4)
    expected = reference.confusion_matrix(labels, scores.argmax(axis=1), sample_weight=weights)
    np.testing.assert_array_equal(metrics.confusion_matrix(scores, labels, weights), expected)
    one = metrics.confusion_matrix(np.array([[0.1, 0.9]]), np.array([0]))
    np.testing.assert_array_equal(one, [[0, 1], [0, 0]])


def test_top5_equals_scikit_learn():
    rng = np.random.default_rng(3)
    scores, labels = rng.dirichlet(np.ones(12), 200), rng.integers(12, size=200)
    expected = reference.top_k_accuracy_score(labels, scores, k=5, labels=range(12))
    assert metrics.top5_accuracy(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_of_equal_scores_only_five_make_the_top_five():
    scores = np.full((8, 8), 1 / 8)
    np.testing.assert_array_equal(metrics.top_hits(scores, np.arange(8), 5), [True] * 5 + [False] * 3)


def test_calibration_error_equals_the_definition_bin_by_bin():
    scores, labels, weights = case(4)
    confidence, correct = scores.max(axis=1), scores.argmax(axis=1) == labels
    expected = 0.0
    for position in range(15):
        inside = (confidence > position / 15) & (confidence <= (position + 1) / 15) & (weights > 0)
        if inside.any():
            mass = weights[inside]
            gap = np.average(correct[inside], weights=mass) - np.average(confidence[inside], weights=mass)
            expected += mass.sum() / weights.sum() * abs(gap)
    assert metrics.ece(scores, labels, weights) == pytest.approx(expected, abs=1e-12)


def test_a_score_on_a_bin_edge_belongs_to_the_lower_bin():
    np.testing.assert_array_equal(metrics.confidence_bins(np.array([0.0, 0.5, 0.51, 1.0]), 2), [0, 0, 1, 1])


def test_many_rows_of_weights_equal_one_row_at_a_time():
    scores, labels, _ = case(7)
    weights = np.random.default_rng(5).integers(0, 3, size=(6, len(labels)))
    functions: list[metrics.Metric] = [
        metrics.accuracy,
        metrics.balanced_accuracy,
        metrics.macro_f1,
        metrics.macro_precision,
        metrics.mcc,
        metrics.auroc,
        metrics.average_precision,
        metrics.ece,
        metrics.brier,
        metrics.nll,
        metrics.top5_accuracy,
    ]
    for metric in functions:
        together = metric(scores, labels, weights)
        assert together.shape == (6,)
        np.testing.assert_allclose(together, [metric(scores, labels, row) for row in weights], atol=1e-12)


def test_weights_mean_the_same_as_repeating_images():
    scores, labels, weights = case(3)
    again = np.repeat(np.arange(len(labels)), weights)
    for metric in (metrics.macro_f1, metrics.auroc, metrics.ece):
        assert metric(scores, labels, weights) == pytest.approx(float(metric(scores[again], labels[again])), abs=1e-12)


def test_a_class_without_images_is_left_out_of_means():
    scores, labels, _ = case(3)
    scores, labels = scores[labels != 2], labels[labels != 2]
    counts = metrics.class_counts(scores, labels)
    assert np.isnan(counts.recall[2])
    assert np.isnan(counts.f1[2])
    assert np.isnan(metrics.class_auroc(scores, labels)[2])
    called = scores.argmax(axis=1)
    expected = reference.f1_score(labels, called, labels=[0, 1], average="macro")
    assert metrics.macro_f1(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert metrics.balanced_accuracy(scores, labels) == pytest.approx(counts.recall[:2].mean(), abs=1e-12)
    assert metrics.auroc(scores, labels) == pytest.approx(metrics.class_auroc(scores, labels)[:2].mean(), abs=1e-12)


def test_auroc_is_undefined_where_labels_name_one_class():
    assert np.isnan(metrics.auroc(np.array([[0.3, 0.7], [0.6, 0.4]]), np.array([1, 1])))
