"""The numbers of torchmetrics and statsmodels, to 1e-9."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from statsmodels.stats import multitest
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.proportion import proportion_confint
from torchmetrics.functional import classification as theirs

from vitreous.evaluation import metrics
from vitreous.evaluation.intervals import wilson
from vitreous.evaluation.multilabel import evaluate_labels
from vitreous.evaluation.paired import holm, mcnemar
from vitreous.evaluation.spread import spread

CLASSES = 4


@pytest.fixture(params=range(3), ids=lambda seed: f"seed {seed}")
def part(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, 4) and labels (n,)."""
    rng = np.random.default_rng(request.param)
    labels = rng.integers(CLASSES, size=300)
    raw = rng.normal(size=(300, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    scores = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    return scores, labels


def test_metrics_of_single_labels(part: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = torch.tensor(part[0], dtype=torch.float64), torch.tensor(part[1])
    expected = {
        "accuracy": theirs.multiclass_accuracy(scores, labels, CLASSES, average="micro"),
        "balanced_accuracy": theirs.multiclass_accuracy(scores, labels, CLASSES, average="macro"),
        "macro_precision": theirs.multiclass_precision(scores, labels, CLASSES, average="macro"),
        "macro_f1": theirs.multiclass_f1_score(scores, labels, CLASSES, average="macro"),
    }
    for name, value in expected.items():  # which torchmetrics has in float32
        assert float(getattr(metrics, name)(*part)) == pytest.approx(float(value), abs=1e-7), name
    ours = float(metrics.ece(*part))
    bins = theirs.multiclass_calibration_error(scores, labels, CLASSES, n_bins=15, norm="l1")
    assert ours == pytest.approx(float(bins), abs=1e-6)
    matrix = theirs.multiclass_confusion_matrix(scores, labels, CLASSES).numpy()
    assert (metrics.confusion_matrix(*part) == matrix).all()


def test_metrics_of_several_labels() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, CLASSES)) < 0.4).astype(np.int64)
    logits = rng.normal(size=(200, CLASSES)) + 2 * (labels - 0.5)
    thresholds = np.full(CLASSES, 0.5)
    found = evaluate_labels(logits, labels, None, list("abcd"), 1.0, thresholds).metrics
    scores = torch.sigmoid(torch.tensor(logits))
    truth = torch.tensor(labels)
    expected = {
        "accuracy": theirs.multilabel_exact_match(scores, truth, CLASSES),
        "macro_f1": theirs.multilabel_f1_score(scores, truth, CLASSES, average="macro"),
        "micro_f1": theirs.multilabel_f1_score(scores, truth, CLASSES, average="micro"),
        "auroc": theirs.multilabel_auroc(scores, truth, CLASSES, average="macro"),
        "average_precision": theirs.multilabel_average_precision(scores, truth, CLASSES, average="macro"),
    }
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(float(value), abs=1e-6), name


@pytest.mark.parametrize(("successes", "trials"), [(0, 9), (7, 9), (97, 100), (1000, 1000), (3, 4001)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_wilson(successes: int, trials: int, confidence: float) -> None:
    expected = proportion_confint(successes, trials, alpha=1 - confidence, method="wilson")
    assert wilson(successes, trials, confidence) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (5, 9), (40, 12), (0, 30)])
def test_mcnemar(only_a: int, only_b: int) -> None:
    found: Any = their_mcnemar([[50, only_a], [only_b, 20]], exact=True)
    expected = 1.0 if only_a + only_b == 0 else min(float(found.pvalue), 1.0)
    assert mcnemar(only_a, only_b) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_holm(seed: int) -> None:
    values = np.random.default_rng(seed).random(7) ** 3
    expected = np.asarray(multitest.multipletests(values, method="holm")[1])
    assert holm(values.tolist()) == pytest.approx(expected.tolist(), abs=1e-9)


def test_the_interval_of_a_mean_of_seeds_is_that_of_student() -> None:
    from statsmodels.stats.weightstats import DescrStatsW

    values = [0.91, 0.93, 0.9, 0.95]
    found = spread(values)
    assert (found.low, found.high) == pytest.approx(DescrStatsW(values).tconfint_mean(), abs=1e-9)
