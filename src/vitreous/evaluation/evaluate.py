"""Everything one says about a model on one part: metrics with intervals, per class, confusion, calibration."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitreous.errors import DataError, VitreousError
from vitreous.evaluation import metrics
from vitreous.evaluation.abstention import risk_coverage
from vitreous.evaluation.calibration_error import calibration_facts
from vitreous.evaluation.fitted import Fitted
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import (
    CLASS_SCORES,
    Interval,
    bounded_mean,
    class_mean,
    proportion,
    skewed_mean,
    with_bootstrap,
)
from vitreous.evaluation.per_class import per_class
from vitreous.runs.decision import probabilities as softmax


@dataclass(frozen=True)
class PartResult:
    """What `metrics.json` says about one part; all of it is ready for JSON."""

    n: int
    """Images in the part."""
    metrics: dict[str, dict[str, Any]]
    """{metric: {"value", "low", "high", "n", "method"}}."""
    per_class: dict[str, dict[str, Any]]
    """As `evaluation.per_class` gives it; None where undefined."""
    confusion: list[list[int]]
    """Rows are labels, columns predictions, both in the order of the classes."""
    calibration: dict[str, Any]
    """As `calibration_error.calibration_facts` gives it."""
    risk_coverage: dict[str, list[float]]
    """{"threshold", "coverage", "risk"}: error rate among the answered as the threshold of abstention rises."""
    decisions: dict[str, Any]
    """What thresholds fitted on validation do here; see `Fitted.judge`."""
    notes: tuple[str, ...] = ()
    """Sentences on what is undefined, and why."""


def evaluate_part(
    logits: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[Hashable] | np.ndarray | None,
    classes: Sequence[str],
    temperature: float,
    seed: int = 0,
    fitted: Fitted | None = None,
) -> PartResult:
    """Score a part.

    logits: (n, k), n >= 1. labels: int (n,). groups: (n,) names, or None for every image on its own. classes: k names.
    temperature: what the run divides its logits by. fitted: thresholds to be judged. Raises DataError for an empty part,
    VitreousError for logits that are not finite.
    """
    labels = np.asarray(labels, dtype=np.int64)
    check_outputs(logits, len(labels), len(classes))
    assert labels.min() >= 0 and labels.max() < len(classes), "labels outside the classes"
    grouping = Grouping.of(groups, len(labels))
    scores, before = softmax(logits, temperature), softmax(logits)
    correct = scores.argmax(axis=1) == labels
    error, calibration = calibration_facts(temperature, before.max(axis=1), scores.max(axis=1), correct, grouping, seed)
    return PartResult(
        n=len(labels),
        metrics={name: found.to_dict() for name, found in _metrics(scores, labels, error, grouping, seed).items()},
        per_class=per_class(scores, labels, grouping, classes),
        confusion=metrics.confusion_matrix(scores, labels).tolist(),
        calibration=calibration,
        risk_coverage=risk_coverage(scores.max(axis=1), correct),
        decisions={} if fitted is None else fitted.judge(scores, labels, classes, grouping),
        notes=_notes(labels, classes),
    )


def metrics_document(
    parts: Mapping[str, PartResult], timing: Mapping[str, Any], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The content of `metrics.json`: each part's metrics under its name, the rest under "per_class" and so on."""
    own = [f"{name}: {note}" for name, part in parts.items() for note in part.notes]
    return {
        **{name: part.metrics for name, part in parts.items()},
        "per_class": {name: part.per_class for name, part in parts.items()},
        "confusion": {name: part.confusion for name, part in parts.items()},
        "calibration": {name: part.calibration for name, part in parts.items()},
        "risk_coverage": {name: part.risk_coverage for name, part in parts.items()},
        "decisions": {name: part.decisions for name, part in parts.items()},
        "timing": dict(timing),
        "notes": [*notes, *own],
    }


def _metrics(
    scores: np.ndarray, labels: np.ndarray, error: Interval, grouping: Grouping, seed: int
) -> dict[str, Interval]:
    """error: of the calibration."""
    found = {"accuracy": proportion(scores.argmax(axis=1) == labels, grouping)}
    if scores.shape[1] > 5:
        found["top5_accuracy"] = proportion(metrics.top_hits(scores, labels, 5), grouping)
    for name in CLASS_SCORES:
        found[name] = class_mean(name, scores, labels, grouping)
    areas = {"auroc": metrics.auroc, "average_precision": metrics.average_precision}
    found = with_bootstrap(found, areas, scores, labels, grouping, seed)
    found["ece"] = error
    found["brier"] = bounded_mean(metrics.squared_distances(scores, labels), 1 if scores.shape[1] == 2 else 2, grouping)
    found["nll"] = skewed_mean(metrics.log_losses(scores, labels), grouping, seed)
    return found


def _notes(labels: np.ndarray, classes: Sequence[str]) -> tuple[str, ...]:
    absent = [name for index, name in enumerate(classes) if not (labels == index).any()]
    if not absent:
        return ()
    shown = ", ".join(repr(name) for name in absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
    return (f"no image is labelled {shown}; means over classes leave {'it' if len(absent) == 1 else 'them'} out.",)


def check_outputs(logits: np.ndarray, num_images: int, num_classes: int) -> None:
    """Raise DataError where there is no image, VitreousError for logits that are not finite."""
    if num_images == 0:
        raise DataError("There is no image to evaluate.", "Name a part or folder that holds labelled images.")
    assert logits.shape == (num_images, num_classes), f"{logits.shape} logits, {num_images} x {num_classes} due"
    if not np.isfinite(logits).all():
        raise VitreousError("The model's outputs are not finite.", "Train again with a lower --optim.lr.")
