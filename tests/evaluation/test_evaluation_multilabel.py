from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from vitreous.evaluation.calibration import fit_label_temperature
from vitreous.evaluation.metrics import binned_error
from vitreous.evaluation.multilabel import evaluate_labels, fit_label_thresholds
from vitreous.runs.decision import decide, sigmoids

CLASSES = ("cat", "dog", "bird", "fish")
THRESHOLDS = np.array([0.5, 0.4, 0.6, 0.5])


def sample(rng: np.random.Generator, images: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 4) that mean what they say where sharpness is 1, and labels (n, 4) drawn by them."""
    truth = rng.normal(-0.5, 1.5, (images, 4))
    return truth * sharpness, (rng.random((images, 4)) < sigmoids(truth)).astype(np.uint8)


@pytest.fixture
def part() -> tuple[np.ndarray, np.ndarray]:
    return sample(np.random.default_rng(0), 300)


def test_every_metric_equals_scikit_learns(part: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = part
    scores = sigmoids(logits)
    given = scores >= THRESHOLDS
    found = {
        name: row["value"]
        for name, row in evaluate_labels(logits, labels, None, CLASSES, 1.0, THRESHOLDS).metrics.items()
    }
    expected = {
        "accuracy": sk.accuracy_score(labels, given),
        "label_accuracy": 1 - sk.hamming_loss(labels, given),
        "macro_precision": sk.precision_score(labels, given, average="macro"),
        "macro_recall": sk.recall_score(labels, given, average="macro"),
        "macro_f1": sk.f1_score(labels, given, average="macro"),
        "micro_f1": sk.f1_score(labels, given, average="micro"),
        "auroc": sk.roc_auc_score(labels, scores, average="macro"),
        "average_precision": sk.average_precision_score(labels, scores, average="macro"),
        "brier": np.mean([sk.brier_score_loss(labels[:, k], scores[:, k]) for k in range(4)]),
        "nll": np.mean([sk.log_loss(labels[:, k], scores[:, k]) for k in range(4)]),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_each_label_is_judged_at_its_own_threshold(part: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = part
    table = evaluate_labels(logits, labels, None, CLASSES, 1.0, THRESHOLDS).per_class
    for column, name in enumerate(CLASSES):
        called = sigmoids(logits)[:, column] >= THRESHOLDS[column]
        assert table[name]["threshold"] == THRESHOLDS[column]
        assert table[name]["support"] == labels[:, column].sum()
        assert table[name]["recall"] == pytest.approx(sk.recall_score(labels[:, column], called))
        assert table[name]["precision"] == pytest.approx(sk.precision_score(labels[:, column], called))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    names = ("accuracy", "label_accuracy", "macro_f1", "micro_f1", "auroc", "average_precision", "brier", "nll")
    rng = np.random.default_rng(1)
    logits, labels = sample(rng, 40_000)
    truth = evaluate_labels(logits, labels, None, CLASSES, 1.0, THRESHOLDS).metrics
    covered = dict.fromkeys(names, 0)
    for _ in range(150):
        own = rng.integers(len(logits), size=200)
        found = evaluate_labels(logits[own], labels[own], None, CLASSES, 1.0, THRESHOLDS).metrics
        for name in names:
            covered[name] += found[name]["low"] <= truth[name]["value"] <= found[name]["high"]
    assert all(0.89 <= count / 150 <= 0.99 for count in covered.values()), covered


def test_images_of_one_group_widen_the_interval(part: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = (np.repeat(each[:60], 5, axis=0) for each in part)
    widths = []
    for groups in (None, np.repeat(np.arange(60), 5)):
        found = evaluate_labels(logits, labels, groups, CLASSES, 1.0, THRESHOLDS).metrics["macro_f1"]
        widths.append(found["high"] - found["low"])
    assert widths[1] > 1.7 * widths[0]


def test_the_temperature_undoes_what_made_the_logits_too_sure() -> None:
    logits, labels = sample(np.random.default_rng(2), 4000, sharpness=3.0)
    found = fit_label_temperature(logits, labels)
    assert found.value == pytest.approx(3.0, rel=0.08)
    before, after = (binned_error(sigmoids(logits, value).ravel(), labels.ravel()) for value in (1.0, found.value))
    assert after < 0.3 * before
    assert ((sigmoids(logits) >= 0.5) == (sigmoids(logits, found.value) >= 0.5)).all()


def test_too_few_images_leave_the_scores_as_they_are() -> None:
    found = fit_label_temperature(*sample(np.random.default_rng(3), 10))
    assert found.value == 1.0 and "too few" in found.note


def test_a_threshold_is_that_of_the_best_f1_and_one_half_where_images_are_few() -> None:
    scores = np.array([[0.9, 0.2]] * 8 + [[0.3, 0.1]] * 4 + [[0.1, 0.1]] * 8)
    labels = np.array([[1, 0]] * 8 + [[1, 0]] * 4 + [[0, 1]] * 2 + [[0, 0]] * 6)
    found = fit_label_thresholds(scores, labels, ("found", "rare"))
    assert found["found"] == pytest.approx(0.2)  # midway between 0.3 and 0.1
    assert found["rare"] == 0.5


def test_a_label_that_no_image_has_is_left_out_and_said(part: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = part
    labels = labels.copy()
    labels[:, 3] = 0
    found = evaluate_labels(logits, labels, None, CLASSES, 1.0, np.full(4, 0.5))
    assert "'fish'" in found.notes[0]
    three = evaluate_labels(logits[:, :3], labels[:, :3], None, CLASSES[:3], 1.0, np.full(3, 0.5))
    assert found.metrics["macro_f1"]["value"] == pytest.approx(three.metrics["macro_f1"]["value"])


def test_an_answer_lists_the_labels_that_reach_their_thresholds_best_first() -> None:
    scores = np.array([[0.7, 0.45, 0.55, 0.9], [0.1, 0.2, 0.3, 0.4]])
    several, none = decide(scores, np.zeros(2), CLASSES, 0.0, thresholds=THRESHOLDS)
    assert several.labels == [("fish", 0.9), ("cat", 0.7), ("dog", 0.45)]
    assert none.labels == [] and none.label == "fish"
    assert several.to_dict()["labels"][0] == {"label": "fish", "score": 0.9}
    assert "labels" not in decide(scores, np.zeros(2), CLASSES, 0.0)[0].to_dict()


def test_sigmoids_of_large_logits_are_finite() -> None:
    assert sigmoids(np.array([[800.0, -800.0, 0.0]])).tolist() == [[1.0, 0.0, 0.5]]
