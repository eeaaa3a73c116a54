"""Sets of classes hold the truth as often as promised."""

from __future__ import annotations

import numpy as np
import pytest

from vitreous.evaluation.conformal import Conformal, fit_conformal, judge_conformal
from vitreous.evaluation.groups import Grouping


def drawn(number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are too sure of themselves."""
    labels = rng.integers(5, size=number)
    scores = np.exp(3 * (np.eye(5)[labels] + 0.8 * rng.normal(size=(number, 5))))
    return scores / scores.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_the_promise_holds_on_average_over_validation_parts(coverage: float):
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        found = fit_conformal(*drawn(100, rng), coverage=coverage)
        scores, labels = drawn(100, rng)
        held.append((scores[np.arange(100), labels] >= found.threshold).mean())
    # Exactly between the promise and 1 / (n + 1) more; 400 repeats leave a standard error of about 0.002.
    assert coverage - 0.006 <= np.mean(held) <= coverage + 1 / 101 + 0.006


def test_few_validation_images_leave_nothing_out():
    scores, labels = drawn(5, np.random.default_rng(1))
    assert fit_conformal(scores, labels, coverage=0.9).threshold == 0
    assert fit_conformal(scores, labels, coverage=0.9).sets(scores).all()


def test_no_set_is_empty():
    found = Conformal(0.5, 0.9, 10)
    np.testing.assert_array_equal(
        found.sets(np.array([[0.5, 0.3, 0.2], [0.95, 0.03, 0.02]])), [[True, False, False]] * 2
    )


def test_the_judgement_counts_sizes_and_gives_an_interval():
    rng = np.random.default_rng(2)
    found = fit_conformal(*drawn(500, rng), coverage=0.9)
    scores, labels = drawn(400, rng)
    judged = judge_conformal(found, scores, labels, Grouping.of(None, 400))
    assert judged["promised"] == 0.9
    assert judged["coverage"]["low"] < judged["coverage"]["value"] < judged["coverage"]["high"]
    assert sum(judged["sizes"].values()) == 400
    assert judged["mean_size"] == pytest.approx(sum(int(size) * n for size, n in judged["sizes"].items()) / 400)
    assert 1 <= judged["mean_size"] < 5
