"""Wrong labels: the counts of the paper by hand, and planted errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vitreous.data.audit.labels import describe, find_label_issues, find_label_issues_several
from vitreous.data.audit.probe import out_of_fold


def _digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    bunch: Any = load_digits()
    return np.asarray(bunch.data[:count], np.float32), np.asarray(bunch.target[:count], np.int64)


def test_the_confident_joint_is_that_of_the_paper() -> None:
    """Thresholds by hand: class 0 (5 x 0.8 + 0.02) / 6 = 0.67, class 1 (5 x 0.9 + 0.4) / 6 = 0.817."""
    zero = [0.8] * 5 + [0.02]
    one = [0.1] * 5 + [0.6]
    probabilities = np.asarray([[p, 1 - p] for p in zero + one])
    issues = find_label_issues(probabilities, np.repeat([0, 1], 6))
    np.testing.assert_array_equal(
        issues.confident_joint, [[5, 1], [0, 5]]
    )  # 0.6 < 0.817 and 0.4 < 0.67: sure of neither
    np.testing.assert_allclose(issues.joint, [[5 / 12, 1 / 12], [0, 6 / 12]])
    assert issues.estimated_share == pytest.approx(1 / 12)
    assert issues.estimated == 1
    assert issues.indices.tolist() == [5]
    assert issues.suggested.tolist() == [1]
    assert issues.margin == pytest.approx([0.96])
    assert issues.agreement == pytest.approx(10 / 12)


def test_of_several_classes_that_are_reached_the_most_probable_counts() -> None:
    base = np.asarray([[0.5, 0.3, 0.2], [0.2, 0.4, 0.4], [0.2, 0.3, 0.5]])
    probabilities = np.concatenate([np.repeat(base, 6, axis=0), [[0.02, 0.47, 0.51]]])
    issues = find_label_issues(probabilities, np.asarray([0] * 6 + [1] * 6 + [2] * 6 + [0]))
    assert issues.confident_joint[0].tolist() == [6, 0, 1]
    assert issues.suggested.tolist() == [2]


def test_a_class_with_too_few_images_is_not_judged_and_named() -> None:
    probabilities = np.repeat([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]], 10, axis=0)
    labels = np.repeat([0, 1], 10)
    labels[3] = 2
    issues = find_label_issues(probabilities, labels)
    assert issues.unjudged == (2,)
    assert not len(issues.indices)
    assert issues.estimated_share == 0
    assert "No label" in describe(issues, ["a", "b", "c"])


def test_planted_errors_are_found_and_little_else() -> None:
    features, truth = _digits(1200)
    generator = np.random.default_rng(0)
    wrong = np.zeros(1200, bool)
    wrong[generator.permutation(1200)[:60]] = True
    labels = np.where(wrong, (truth + generator.integers(1, 10, 1200)) % 10, truth)
    probabilities = out_of_fold(features, labels, np.arange(1200), 10, seed=0, components=384)
    issues = find_label_issues(probabilities, labels)
    assert wrong[issues.indices].mean() > 0.9
    assert wrong[issues.indices].sum() > 0.7 * 60
    hit = issues.indices[wrong[issues.indices]]
    assert (dict(zip(issues.indices, issues.suggested, strict=True))[hit[0]]) == truth[hit[0]]
    assert issues.estimated_share == pytest.approx(0.05, abs=0.02)
    assert (np.diff(issues.doubt) <= 0).all()
    sentence = describe(issues, [str(digit) for digit in range(10)])
    assert f"{len(issues.indices)} labels may be wrong" in sentence


def test_right_labels_are_left_alone() -> None:
    features, labels = _digits(1000)
    issues = find_label_issues(out_of_fold(features, labels, np.arange(1000), 10, seed=0, components=384), labels)
    assert len(issues.indices) <= 5
    assert issues.estimated_share < 0.015


def test_missing_and_surplus_labels_are_told_apart() -> None:
    probabilities = np.asarray([[0.95, 0.05]] * 10 + [[0.05, 0.95]] * 10 + [[0.96, 0.05], [0.05, 0.02]])
    targets = np.asarray([[True, False]] * 10 + [[False, True]] * 10 + [[False, False], [False, True]])
    first, second = find_label_issues_several(probabilities, targets)
    assert first.indices.tolist() == [20]
    assert first.suggested.tolist() == [1]
    assert second.indices.tolist() == [21]
    assert second.suggested.tolist() == [0]


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="labels"):
        find_label_issues(np.ones((3, 2)) / 2, np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="differ in shape"):
        find_label_issues_several(np.ones((3, 2)), np.zeros((3, 3), bool))
