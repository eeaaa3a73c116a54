from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from vitreous.evaluation import metrics
from vitreous.evaluation.abstention import choose_threshold, risk_coverage
from vitreous.evaluation.calibration import fit_temperature, score_bins
from vitreous.evaluation.calibration_error import CalibrationError, calibration_error
from vitreous.evaluation.groups import Grouping
from vitreous.runs.decision import probabilities


def overconfident(temperature: float, num_images: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels are drawn from their softmax at this temperature."""
    rng = np.random.default_rng(0)
    logits = 4 * rng.normal(size=(num_images, 5))
    labels = np.array([rng.choice(5, p=row) for row in probabilities(logits, temperature)])
    return logits, labels


@pytest.mark.parametrize("true_temperature", [0.6, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(true_temperature: float):
    logits, labels = overconfident(true_temperature)
    assert fit_temperature(logits, labels).value == pytest.approx(true_temperature, rel=0.08)


def test_calibration_lowers_the_likelihood_loss_and_the_calibration_error_and_keeps_every_answer():
    logits, labels = overconfident(2.5)
    before, after = probabilities(logits), probabilities(logits, fit_temperature(logits, labels).value)
    assert metrics.nll(after, labels) < metrics.nll(before, labels)
    assert metrics.ece(after, labels) < 0.02 < metrics.ece(before, labels)
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))


def test_validation_images_that_are_all_right_do_not_make_scores_absolute():
    labels = np.arange(200) % 4
    logits = 3.0 * np.eye(4)[labels] + np.random.default_rng(1).normal(size=(200, 4)) * 0.1
    found = fit_temperature(logits, labels)
    assert 0.3 < found.value < 1
    assert probabilities(logits, found.value).max() < 0.9999


@pytest.mark.parametrize("scale", [1.0, 1e-9, 30.0])
def test_a_fitted_temperature_never_raises_the_likelihood_loss(scale: float):
    rng = np.random.default_rng(2)
    logits, labels = scale * rng.normal(size=(25, 3)), rng.integers(3, size=25)
    found = fit_temperature(logits, labels).value
    assert found > 0
    assert metrics.nll(probabilities(logits, found), labels) <= metrics.nll(probabilities(logits), labels) + 1e-12


def test_too_few_images_leave_scores_alone_and_say_so():
    found = fit_temperature(np.zeros((19, 3)), np.zeros(19, dtype=np.int64))
    assert found.value == 1.0
    assert "19 validation images" in found.note


def test_reliability_bins_add_up_to_the_calibration_error():
    logits, labels = overconfident(2.0, 300)
    scores = probabilities(logits)
    bins = score_bins(scores.max(axis=1), scores.argmax(axis=1) == labels, Grouping.of(None, 300))
    assert sum(found.count for found in bins) == 300
    gaps = [
        found.count * abs(found.accuracy - found.confidence)
        for found in bins
        if found.accuracy is not None and found.confidence is not None
    ]
    assert sum(gaps) / 300 == pytest.approx(float(metrics.ece(scores, labels)), abs=1e-12)
    assert bins[0].accuracy is None and bins[0].accuracy_low is None
    assert bins[0].count == 0
    full = next(found for found in bins if found.count > 5)
    assert full.accuracy is not None and full.accuracy_low is not None and full.accuracy_high is not None
    assert full.accuracy_low < full.accuracy < full.accuracy_high


def errors_of(sharpness: float, times: int = 1, seed: int = 0, grouped: bool = False) -> CalibrationError:
    """Of scores that are right as often as they say where `sharpness` is 1; grouped: each image three times."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.35, 0.99, 200 * times)
    correct = rng.random(len(share)) < share
    confidence = expit(sharpness * logit(share))
    if grouped:
        confidence, correct = np.repeat(confidence, 3), np.repeat(correct, 3)
    groups = np.repeat(np.arange(len(share)), 3) if grouped else None
    return calibration_error(confidence, correct, Grouping.of(groups, len(correct)), seed)


def test_what_chance_adds_to_a_calibration_error_is_outside_its_interval() -> None:
    for seed in range(5):
        found = errors_of(1.0, seed=seed)
        value, low, corrected = found.interval.value, found.interval.low, found.corrected
        assert value is not None and low is not None and corrected is not None
        assert value > 0.025 and corrected < 0.8 * value
        assert low < 0.02, "a calibrated model is not called uncalibrated"


@pytest.mark.parametrize("sharpness", [1.5, 2.5, 0.4])
def test_the_interval_of_a_calibration_error_narrows_around_the_truth(sharpness: float) -> None:
    truth = errors_of(sharpness, times=500, seed=9).interval.value
    few, many = errors_of(sharpness, times=2), errors_of(sharpness, times=20)
    for found in (few, many):
        assert found.interval.low is not None and found.interval.high is not None and truth is not None
        assert found.interval.low <= truth <= found.interval.high
    assert many.interval.high - many.interval.low < 0.6 * (few.interval.high - few.interval.low)  # type: ignore[operator]


def test_copies_of_an_image_are_no_evidence_of_calibration() -> None:
    alone, copies = errors_of(1.6, seed=3), errors_of(1.6, seed=3, grouped=True)
    assert copies.interval.value == pytest.approx(alone.interval.value)
    widths = [each.interval.high - each.interval.low for each in (alone, copies)]  # type: ignore[operator]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)
    assert "by group (200 groups)" in copies.interval.method


def test_few_groups_and_answers_that_are_all_right_are_no_error() -> None:
    few = calibration_error(np.full(60, 0.8), np.ones(60, bool), Grouping.of(np.repeat(np.arange(6), 10), 60))
    assert few.corrected is None and few.interval.low is None and "only 6 groups" in few.interval.method
    for confidence in (0.97, 1.0):
        found = calibration_error(np.full(60, confidence), np.ones(60, bool), Grouping.of(None, 60)).interval
        assert found.low == 0.0 and found.high is not None and 0.01 < found.high < 0.15


def test_the_threshold_is_the_smallest_that_reaches_the_target():
    rng = np.random.default_rng(3)
    confidence = np.round(rng.uniform(0.2, 1, size=400), 2)
    correct = rng.random(400) < confidence
    found = choose_threshold(confidence, correct, target=0.9)
    answered = confidence >= found.threshold
    assert correct[answered].mean() >= 0.9
    assert found.accuracy == correct[answered].mean()
    assert found.coverage == answered.mean()
    assert found.n == answered.sum()
    assert found.low < found.accuracy < found.high
    for lower in np.unique(confidence[confidence < found.threshold]):
        assert correct[confidence >= lower].mean() < 0.9


def test_nothing_abstains_where_the_target_is_already_met():
    found = choose_threshold(np.array([0.5, 0.9, 0.7]), np.array([True, True, True]))
    assert (found.threshold, found.coverage, found.note) == (0.0, 1.0, "")


def test_an_unreachable_target_is_said_and_five_percent_are_still_answered():
    confidence = np.linspace(0.3, 1, 200)
    correct = np.arange(200) % 2 == 0
    correct[-4:] = True  # the surest 2 % alone would reach it
    found = choose_threshold(confidence, correct)
    assert found.coverage >= 0.05
    assert found.accuracy < 0.95
    assert "No threshold reaches 95.0%" in found.note


def test_the_threshold_lies_between_scores_so_that_rounding_turns_no_answer_over():
    confidence = np.array([0.4, 0.5, 0.6, 0.9, 0.9, 0.95] * 5)
    correct = confidence > 0.55
    assert choose_threshold(confidence, correct).threshold == pytest.approx(0.55)


def test_equal_scores_are_answered_or_set_aside_together():
    found = choose_threshold(np.full(40, 0.8), np.arange(40) < 20)
    assert (found.threshold, found.coverage, found.accuracy) == (0.0, 1.0, 0.5)


def test_the_risk_curve_starts_at_the_error_rate_of_all_images():
    rng = np.random.default_rng(4)
    confidence = rng.uniform(size=1000)
    correct = rng.random(1000) < confidence
    curve = risk_coverage(confidence, correct)
    assert curve["coverage"][0] == 1
    assert curve["risk"][0] == pytest.approx(1 - correct.mean())
    assert len(curve["risk"]) <= 200
    assert curve["coverage"] == sorted(curve["coverage"], reverse=True)
    for threshold, coverage, risk in zip(curve["threshold"], curve["coverage"], curve["risk"], strict=True):
        answered = confidence >= threshold
        assert (coverage, risk) == pytest.approx((answered.mean(), 1 - correct[answered].mean()))


def test_one_group_that_holds_most_images_gives_no_interval() -> None:
    rng = np.random.default_rng(0)
    groups = np.where(np.arange(1000) < 930, 0, np.arange(1000) % 30)
    found = calibration_error(rng.uniform(0.5, 1, 1000), rng.random(1000) < 0.7, Grouping.of(groups, 1000))
    assert found.corrected is None and found.interval.low is None and "effective groups" in found.interval.method
