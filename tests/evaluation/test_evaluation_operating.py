"""Thresholds for a required recall or false-alarm rate, and escapes at fixed overkill."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_curve

from vitreous.config.decide import DecideConfig
from vitreous.errors import UsageError
from vitreous.evaluation.fitted import Fitted, fit
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.operating import (
    at_threshold,
    fit_inspection,
    good_class,
    judge_inspection,
    judge_points,
)
from vitreous.runs.points import fit_point


def drawn(number: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a class with ties, and which images are of it."""
    rng = np.random.default_rng(seed)
    own = rng.random(number) < 0.3
    return np.round(np.clip(rng.normal(0.35 + 0.3 * own, 0.15), 0.01, 0.99), 2), own


def three(number: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=number)
    scores = rng.dirichlet(np.ones(3), number) + 0.5 * np.eye(3)[labels]
    return scores / scores.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95, 0.999])
def test_the_recall_asked_for_is_reached_with_the_fewest_false_alarms(target: float):
    scores, own = drawn()
    threshold = fit_point(scores, own, "recall", target).threshold
    alarms, recall, _ = roc_curve(own, scores, drop_intermediate=False)
    called = scores >= threshold
    assert called[own].mean() >= target
    assert called[~own].mean() == pytest.approx(alarms[recall >= target].min())


@pytest.mark.parametrize("target", [0.001, 0.05, 0.3])
def test_the_false_alarms_allowed_buy_the_highest_recall(target: float):
    scores, own = drawn()
    threshold = fit_point(scores, own, "false_alarms", target).threshold
    alarms, recall, _ = roc_curve(own, scores, drop_intermediate=False)
    called = scores >= threshold
    assert called[~own].mean() <= target
    assert called[own].mean() == pytest.approx(recall[alarms <= target].max())


def test_a_free_gain_is_taken():
    scores, own = np.array([0.1, 0.2, 0.7, 0.8, 0.9]), np.array([False, False, True, True, True])
    for aim in ("recall", "false_alarms"):
        assert fit_point(scores, own, aim, 0.5).threshold == pytest.approx(0.45), "the middle of the gap"


def test_a_threshold_lies_between_scores_so_that_rounding_turns_nothing_over():
    scores, own = np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, False, True, True])
    assert fit_point(scores, own, "recall", 0.95).threshold == pytest.approx(0.5)
    assert fit_point(scores, own, "false_alarms", 0.05).threshold == pytest.approx(0.5)
    best_is_other = fit_point(scores, ~own, "false_alarms", 0.05).threshold
    assert not (scores >= best_is_other).any()


def test_sensitivity_specificity_and_precision_equal_the_confusion_matrix():
    scores, own = drawn()
    found = at_threshold(scores, own, 0.5, Grouping.of(None, len(own)))
    (tn, fp), (fn, tp) = confusion_matrix(own, scores >= 0.5)
    assert found["sensitivity"]["value"] == pytest.approx(tp / (tp + fn))
    assert found["specificity"]["value"] == pytest.approx(tn / (tn + fp))
    assert found["precision"]["value"] == pytest.approx(tp / (tp + fp))
    assert all(entry["low"] < entry["value"] < entry["high"] for entry in found.values())
    assert at_threshold(scores, own, 2.0, Grouping.of(None, len(own)))["precision"] is None


def test_points_of_every_class_are_judged_on_other_images():
    classes = ("a", "b", "c")
    fitted = fit(*three(3000, seed=0), classes)
    scores, labels = three(3000, seed=1)
    found = judge_points(dict(fitted.points), scores, labels, classes, Grouping.of(None, len(labels)))
    assert list(found) == list(classes)
    for points in found.values():
        recall, alarms = points
        assert (recall["aim"], alarms["aim"]) == ("recall", "false_alarms")
        assert recall["sensitivity"]["value"] > 0.9
        assert alarms["specificity"]["value"] > 0.9


def test_escapes_fall_as_more_good_parts_may_be_rejected():
    scores, labels = three(2000)
    points = fit_inspection(scores, labels, good=1)
    rows = judge_inspection(points, scores, labels, 1, Grouping.of(None, len(labels)))
    escapes = [row["escapes"]["value"] for row in rows]
    assert escapes == sorted(escapes, reverse=True) and escapes[0] > escapes[-1]
    for row in rows:
        assert row["overkill"]["value"] <= row["target"]
    assert fit_inspection(scores[labels == 1], labels[labels == 1], good=1) == []


@pytest.mark.parametrize(
    ("classes", "good"),
    [(("crack", "free", "fray"), 1), (("No Finding", "pneumonia"), 0), (("cat", "dog"), None), (("ok", "good"), None)],
)
def test_the_class_without_a_fault_is_known_by_name(classes: tuple[str, ...], good: int | None):
    assert good_class(classes) == good


def test_what_was_fitted_comes_back_from_json_and_judges_the_same():
    classes = ("good", "bent", "torn")
    fitted = fit(*three(), classes)
    again = Fitted.from_dict(fitted.to_dict())
    scores, labels = three(seed=2)
    grouping = Grouping.of(None, len(labels))
    first = fitted.judge(scores, labels, classes, grouping)
    assert set(first) == {"operating", "conformal", "inspection"}
    assert again.judge(scores, labels, classes, grouping) == first
    assert Fitted.from_dict({}).judge(scores, labels, classes, grouping) == {}


def test_aims_that_are_asked_for_are_what_is_fitted() -> None:
    scores, labels = three()
    aims = DecideConfig(recall=0.8, false_alarms=0.2, coverage=0.75, good="b")
    found = fit(scores, labels, ["a", "b", "c"], aims)
    assert found.good == "b" and found.conformal is not None and found.conformal.coverage == 0.75
    judged = Fitted.from_dict(found.to_dict()).judge(scores, labels, ["a", "b", "c"], Grouping.of(None, len(labels)))
    recall, alarms = judged["operating"]["c"]
    assert (recall["target"], alarms["target"]) == (0.8, 0.2)
    assert recall["sensitivity"]["value"] >= 0.8 and alarms["specificity"]["value"] >= 0.8
    assert 0.75 <= judged["conformal"]["coverage"]["value"] < 0.9
    assert judged["inspection"]["good"] == "b"
    outside: list[dict[str, Any]] = [{"recall": 1.0}, {"false_alarms": 0.0}, {"coverage": 90.0}, {"accuracy": -0.1}]
    for wrong in outside:
        with pytest.raises(UsageError, match=r"--decide\."):
            DecideConfig(**wrong)


def test_abstention_is_judged_where_it_was_not_chosen() -> None:
    scores, labels = three()
    grouping = Grouping.of(None, len(labels))
    found = Fitted(abstain_below=0.6).judge(scores, labels, ["a", "b", "c"], grouping)["abstention"]
    answered = scores.max(axis=1) >= 0.6
    assert found["coverage"]["value"] == pytest.approx(answered.mean())
    assert found["accuracy"]["value"] == pytest.approx((scores.argmax(axis=1) == labels)[answered].mean())
    assert found["accuracy"]["n"] == answered.sum()
    nothing = Fitted(abstain_below=1.1).judge(scores, labels, ["a", "b", "c"], grouping)["abstention"]
    assert nothing["accuracy"] is None and nothing["coverage"]["value"] == 0
