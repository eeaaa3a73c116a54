"""Images that may have several labels or none: each label is a question of its own, answered by a score and a threshold.

    scores   (n, k), each in [0, 1]         labels   (n, k), 1 where a label is there        thresholds   (k,)

All point metrics agree with scikit-learn's on indicator matrices. Means over labels leave out those that a metric is not
defined for on these images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from vitreous.evaluation import influence
from vitreous.evaluation.calibration_error import calibration_facts
from vitreous.evaluation.evaluate import PartResult, check_outputs
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import Interval, bounded_mean, effective_wilson, proportion, skewed_mean
from vitreous.evaluation.per_class import class_row
from vitreous.runs.decision import sigmoids

FEWEST = 5
"""Validation images with a label, and without it, below which its threshold would be noise and is one half."""
HALF = 0.5

Influence = tuple[float, np.ndarray]


def fit_label_thresholds(scores: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """{label: the score from which it is given}: that of the best F1 on validation images, midway between two scores."""
    found = {}
    for column, name in enumerate(classes):
        own = labels[:, column] > 0
        few = min(own.sum(), (~own).sum()) < FEWEST
        found[name] = HALF if few else _best_f1(scores[:, column], own)
    return found


def _best_f1(scores: np.ndarray, own: np.ndarray) -> float:
    """Of equal F1 the threshold nearest one half."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(own[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + own.sum())
    last = np.append(ranked[:-1] != ranked[1:], True)  # equal scores are given the label together
    below = np.append(ranked[1:], 0.0)
    middle = (ranked + below) / 2
    best = f1[last].max()
    candidates = middle[last & (f1 >= best - 1e-12)]
    return float(candidates[np.argmin(np.abs(candidates - HALF))])


def evaluate_labels(
    logits: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[Hashable] | np.ndarray | None,
    classes: Sequence[str],
    temperature: float,
    thresholds: np.ndarray,
    seed: int = 0,
) -> PartResult:
    """Score a part, as `evaluate.evaluate_part` does for one label each.

    "accuracy" is the share of images all of whose labels are right (subset accuracy), "label_accuracy" that of single answers.
    There is no confusion matrix and no abstention. Raises DataError for an empty part, VitreousError for logits that are not
    finite.
    """
    check_outputs(logits, len(labels), len(classes))
    grouping, there = Grouping.of(groups, len(labels)), labels > 0
    scores, before = sigmoids(logits, temperature), sigmoids(logits)
    given = scores >= thresholds
    each_label = Grouping.of(np.repeat(grouping.index, len(classes)), scores.size)
    error, calibration = calibration_facts(temperature, before.ravel(), scores.ravel(), there.ravel(), each_label, seed)
    return PartResult(
        n=len(labels),
        metrics={
            name: found.to_dict() for name, found in _metrics(scores, there, given, error, grouping, seed).items()
        },
        per_class={
            name: {
                **class_row(scores[:, column], there[:, column], given[:, column], grouping),
                "threshold": float(thresholds[column]),
            }
            for column, name in enumerate(classes)
        },
        confusion=[],
        calibration=calibration,
        risk_coverage={},
        decisions={},
        notes=_notes(there, classes),
    )


def _metrics(
    scores: np.ndarray, labels: np.ndarray, given: np.ndarray, error: Interval, grouping: Grouping, seed: int
) -> dict[str, Interval]:
    right = given == labels
    found = {"accuracy": proportion(right.all(axis=1), grouping)}
    each = right.mean(axis=1)
    value = float(each.mean())
    found["label_accuracy"] = _shared((value, (each - value) / len(each)), grouping)
    found["macro_precision"] = _mean(labels, given, lambda own, called, _: _precision(own, called), scores, grouping)
    found["macro_recall"] = _mean(labels, given, lambda own, called, _: _precision(called, own), scores, grouping)
    found["macro_f1"] = _mean(
        labels, given, lambda own, called, _: influence.class_f1(own, called, grouping), scores, grouping
    )
    found["micro_f1"] = label_f1(labels, given, grouping)
    found["auroc"] = _mean(labels, given, lambda own, _, score: _auroc(score, own, grouping), scores, grouping)
    found["average_precision"] = _mean(
        labels, given, lambda own, _, score: influence.class_average_precision(score, own, grouping), scores, grouping
    )
    found["ece"] = error
    found["brier"] = bounded_mean(((scores - labels) ** 2).mean(axis=1), 1, grouping)
    found["nll"] = skewed_mean(log_losses(scores, labels), grouping, seed)
    return found


def _shared(found: Influence, grouping: Grouping) -> Interval:
    return effective_wilson(*found, grouping, most=math.inf, least=grouping.effective)


def _mean(
    labels: np.ndarray,
    given: np.ndarray,
    score: Callable[[np.ndarray, np.ndarray, np.ndarray], Influence | None],
    scores: np.ndarray,
    grouping: Grouping,
) -> Interval:
    """Mean over the labels that some image has and for which `score` of (labels there, labels given, scores) is defined."""
    columns = (score(labels[:, k], given[:, k], scores[:, k]) for k in range(labels.shape[1]) if labels[:, k].any())
    found = [each for each in columns if each is not None]
    if not found:
        return Interval(None, None, None, len(labels), "undefined: for no label")
    value = float(np.mean([each[0] for each in found]))
    return _shared((value, np.mean([each[1] for each in found], axis=0)), grouping)


def _precision(own: np.ndarray, called: np.ndarray) -> Influence:
    """Share of the called that are right; 0 where none is called."""
    if not called.any():
        return 0.0, np.zeros(len(own))
    value = float(own[called].mean())
    return value, np.where(called, own - value, 0.0) / called.sum()


def _auroc(scores: np.ndarray, own: np.ndarray, grouping: Grouping) -> Influence | None:
    return influence.class_auroc(scores, own, grouping) if 0 < own.sum() < len(own) else None


def _micro_f1(labels: np.ndarray, given: np.ndarray) -> Influence:
    """Over all answers together; 1 where no label is there and none given."""
    hits, size = (labels & given).sum(axis=1), labels.sum(axis=1) + given.sum(axis=1)
    if not size.sum():
        return 1.0, np.zeros(len(labels))
    value = float(2 * hits.sum() / size.sum())
    return value, (2 * hits - value * size) / size.sum()


def log_losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean log loss of the answers for each image (n,), nats; a probability of 0 counts as 2.2e-16."""
    own = np.where(labels > 0, scores, 1 - scores)
    return -np.log(np.maximum(own, np.finfo(np.float64).eps)).mean(axis=1)


def label_f1(labels: np.ndarray, given: np.ndarray, grouping: Grouping) -> Interval:
    """F1 of all answers together. labels, given: bool (n, k), which labels are there and which the model says are."""
    return _shared(_micro_f1(labels, given), grouping)


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the labels that some image has; 0 where none is there. What training chooses by."""
    there = [k for k in range(labels.shape[1]) if labels[:, k].any()]
    return (
        float(np.mean([influence.precision_area(scores[:, k], labels[:, k] > 0)[0] for k in there])) if there else 0.0
    )


def _notes(labels: np.ndarray, classes: Sequence[str]) -> tuple[str, ...]:
    absent = [repr(name) for name, own in zip(classes, labels.T, strict=True) if not own.any()]
    if not absent:
        return ()
    shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
    return (f"no image has the label {shown}; means over labels leave {'it' if len(absent) == 1 else 'them'} out.",)
