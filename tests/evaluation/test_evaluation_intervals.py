from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from vitreous.evaluation import influence, metrics
from vitreous.evaluation.groups import Grouping, class_trials
from vitreous.evaluation.intervals import (
    CLASS_SCORES,
    bounded_mean,
    class_mean,
    effective_wilson,
    interval,
    percentiles,
    proportion,
    skewed_mean,
    wilson,
)


def clustered(
    rng: np.random.Generator, num_groups: int, share: float, likeness: float
) -> tuple[np.ndarray, np.ndarray]:
    """Hits and group of images: the share differs from group to group (beta), with this intra-group correlation."""
    spread = (1 - likeness) / likeness
    own = rng.beta(share * spread, (1 - share) * spread, size=num_groups)
    group = np.repeat(np.arange(num_groups), rng.integers(1, 8, size=num_groups))
    return rng.random(len(group)) < own[group], group


def as_scores(hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two-class probabilities and labels of which exactly the hits are right."""
    return np.where(hits[:, None], [1.0, 0.0], [0.0, 1.0]), np.zeros(len(hits), dtype=np.int64)


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (1, 1), (3, 10), (352, 360), (360, 360), (9999, 10000)])
def test_wilson_equals_scipy(successes: int, trials: int):
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.6, 0.98, size=3000)
    successes = rng.binomial(200, shares)
    bounds = np.array([wilson(count, 200) for count in range(201)])[successes]
    assert 0.93 <= np.mean((bounds[:, 0] <= shares) & (shares <= bounds[:, 1])) <= 0.97


@pytest.mark.parametrize(("num_groups", "likeness"), [(12, 0.2), (40, 0.3), (40, 0.1), (100, 0.05)])
def test_accuracy_by_group_covers_the_truth_as_often_as_it_says(num_groups: int, likeness: float):
    rng = np.random.default_rng(1)
    inside = []
    for share in rng.uniform(0.7, 0.97, size=1500):
        hits, group = clustered(rng, num_groups, share, likeness)
        found = proportion(hits, Grouping.of(group, len(hits)))
        assert found.low is not None and found.high is not None
        inside.append(found.low <= share <= found.high)
    assert 0.93 <= np.mean(inside) <= 0.97


def test_the_bootstrap_by_group_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    inside = []
    for seed in range(1000):
        hits, group = clustered(rng, 50, 0.7, 0.3)
        found = interval(metrics.accuracy, *as_scores(hits), group, seed=seed)
        assert found.low is not None and found.high is not None
        inside.append(found.low <= 0.7 <= found.high)
    assert 0.93 <= np.mean(inside) <= 0.97


def test_ignoring_groups_would_be_too_narrow():
    hits, group = clustered(np.random.default_rng(3), 60, 0.8, 0.5)
    by_group = proportion(hits, Grouping.of(group, len(hits)))
    alone = proportion(hits, Grouping.of(None, len(hits)))
    assert by_group.value == alone.value
    assert _width(by_group) > 1.3 * _width(alone)
    assert alone.method == "wilson"
    assert by_group.method == "wilson by group (60 groups)"


def test_groups_of_one_image_are_the_plain_wilson_interval():
    hits = np.arange(50) % 7 > 0
    names = np.array([f"patient {number}" for number in range(50)])
    assert proportion(hits, Grouping.of(names, 50)) == proportion(hits, Grouping.of(None, 50))


def test_at_a_hundred_percent_the_interval_keeps_a_width_that_knows_of_groups():
    group = np.repeat(np.arange(34), 10)
    found = proportion(np.ones(340, dtype=bool), Grouping.of(group, 340))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(binomtest(34, 34).proportion_ci(method="wilson").low)
    assert found.method == "wilson on 34 effective groups"


def test_one_group_says_almost_nothing():
    found = proportion(np.arange(100) % 10 > 0, Grouping.of(["the only patient"] * 100, 100))
    assert found.low is not None and found.high is not None
    assert found.low < 0.25
    assert found.high > 0.99


def test_effective_groups_are_few_where_one_group_holds_most_images():
    assert Grouping.of([0] * 5 + [1] * 5, 10).effective == pytest.approx(2)
    assert Grouping.of([0] * 98 + [1, 2], 100).effective < 1.1


@pytest.mark.parametrize("score", CLASS_SCORES)
@pytest.mark.parametrize("num_classes", [2, 4])
def test_an_influence_is_the_derivative_with_respect_to_how_often_an_image_counts(score: str, num_classes: int):
    rng = np.random.default_rng(8)
    labels = rng.integers(num_classes, size=60)
    scores = np.round(rng.dirichlet(np.ones(num_classes), 60) + 0.3 * np.eye(num_classes)[labels], 1) + 1e-3
    scores /= scores.sum(axis=1, keepdims=True)
    metric: metrics.Metric = getattr(metrics, score)
    value, influences = CLASS_SCORES[score](scores, labels, Grouping.of(None, 60))
    half = 0.5 if score == "mcc" else 1.0  # that one is of (1 + MCC) / 2
    assert value == pytest.approx(half * float(metric(scores, labels)) + (1 - half), abs=1e-12)
    assert influences.sum() == pytest.approx(0, abs=1e-9)
    step = 1e-5
    more, less = (np.ones((60, 60)) + sign * step * np.eye(60) for sign in (1, -1))
    slopes = half * (metric(scores, labels, more) - metric(scores, labels, less)) / (2 * step)
    # Up to the small-sample factor, which is that of all images or of a class.
    np.testing.assert_allclose(influences, slopes, rtol=0.1, atol=1e-4)
    assert np.corrcoef(influences, slopes)[0, 1] > 0.999


@pytest.mark.parametrize("score", CLASS_SCORES)
def test_means_over_classes_cover_the_truth_as_often_as_they_say(score: str):
    rng = np.random.default_rng(4)
    metric: metrics.Metric = getattr(metrics, score)
    labels = np.repeat(np.arange(3), [80, 60, 40])

    def draw(labels: np.ndarray) -> np.ndarray:
        scores = np.exp(1.6 * (1.6 * np.eye(3)[labels] + rng.normal(size=(len(labels), 3))))
        return scores / scores.sum(axis=1, keepdims=True)

    many = np.repeat(labels, 2000)
    truth = float(metric(draw(many), many))
    inside = []
    for _ in range(1000):
        found = class_mean(score, draw(labels), labels, Grouping.of(None, len(labels)))
        assert found.low is not None and found.high is not None
        inside.append(found.low <= truth <= found.high)
    assert 0.93 <= np.mean(inside) <= 0.97


def test_the_auroc_variance_is_delong_s():
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1], [30, 20])
    positive = np.round(np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1), 1)
    scores = np.stack([1 - positive, positive], axis=1)
    wins = (positive[30:, None] > positive[:30]) + 0.5 * (positive[30:, None] == positive[:30])
    expected = wins.mean(axis=1).var(ddof=1) / 20 + wins.mean(axis=0).var(ddof=1) / 30
    area, influences = influence.auroc(scores, labels, Grouping.of(None, 50))
    assert area == pytest.approx(wins.mean(), abs=1e-12)
    assert (influences**2).sum() == pytest.approx(expected, abs=1e-12)


def test_perfect_means_over_classes_keep_a_width_set_by_the_small_classes():
    labels = np.repeat([0, 1], [200, 5])
    found = class_mean("balanced_accuracy", np.eye(2)[labels], labels, Grouping.of(None, 205))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low is not None
    assert found.low < 0.9
    assert class_trials(labels, Grouping.of(None, 205)) == pytest.approx(4 / (1 / 200 + 1 / 5))


def test_an_undefined_metric_has_no_value_and_says_why():
    found = class_mean("auroc", np.array([[0.2, 0.8]] * 9), np.ones(9, dtype=np.int64), Grouping.of(None, 9))
    assert (found.value, found.low, found.high) == (None, None, None)
    assert "one class" in found.method


def test_the_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(7)
    scores, labels = rng.dirichlet(np.ones(4), 100), rng.integers(4, size=100)
    groups = rng.integers(20, size=100)
    first = interval(metrics.brier, scores, labels, groups, seed=3)
    assert first == interval(metrics.brier, scores, labels, groups, seed=3)
    assert first != interval(metrics.brier, scores, labels, groups, seed=4)
    assert first.method == "bootstrap by group (20 groups, 1000 resamples)"


def test_a_handful_of_groups_gets_no_bootstrap():
    found = percentiles(0.3, np.linspace(0.2, 0.4, 100), Grouping.of([0, 0, 1, 1, 2], 5))
    assert (found.value, found.low, found.high) == (0.3, None, None)
    assert found.method == "no interval: only 3 groups"


def _width(found) -> float:
    return found.high - found.low


@pytest.mark.parametrize("large", [0, 1, 2, 40])
def test_losses_of_which_few_are_large_have_an_interval_of_a_sensible_width(large: int) -> None:
    losses = np.full(300, 0.01)
    losses[:large] = 4.0
    grouping = Grouping.of(None, 300)
    found = skewed_mean(losses, grouping)
    assert found.low is not None and found.high is not None and found.value is not None
    assert 0 <= found.low <= found.value <= found.high < 12 * max(found.value, 0.02)
    squared = bounded_mean(np.where(np.arange(300) < large, 1.9, 1e-4), 2, grouping)
    assert squared.low is not None and squared.high is not None and squared.value is not None
    assert 0 <= squared.low <= squared.value < squared.high <= 2
    assert squared.high - squared.value > 0.01, "300 images do not know it better"


def test_an_auroc_of_few_groups_is_no_surer_than_any_score_of_as_many() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(120) % 2
    own = np.clip(0.3 + 0.4 * labels + rng.normal(0, 0.3, 120), 0, 1)
    scores, grouping = np.stack([1 - own, own], axis=1), Grouping.of(np.arange(120) // 2 % 4, 120)
    value, influences = influence.auroc(scores, labels, grouping)
    plain = effective_wilson(value, influences, grouping, most=math.inf, least=class_trials(labels, grouping))
    found = class_mean("auroc", scores, labels, grouping)
    assert (found.low, found.high) == (plain.low, plain.high)
