"""What is said of each class on its own: recall, precision, F1, AUROC and average precision, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitreous.evaluation import influence
from vitreous.evaluation.groups import Grouping, class_trials
from vitreous.evaluation.intervals import Interval, effective_wilson, proportion


def per_class(
    scores: np.ndarray, labels: np.ndarray, grouping: Grouping, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """{class: {"support", "recall", "precision", "f1", "auroc", "average_precision", and each with "_interval"}}.

    scores: (n, k). labels: int (n,). None where a number is undefined: all but the support of a class without images,
    precision of one that was never predicted, AUROC where every image is of the class.
    """
    called = scores.argmax(axis=1)
    return {
        name: class_row(scores[:, index], labels == index, called == index, grouping)
        for index, name in enumerate(classes)
    }


def class_row(scores: np.ndarray, own: np.ndarray, called: np.ndarray, grouping: Grouping) -> dict[str, Any]:
    """The numbers of one class. scores: (n,), its own. own, called: bool (n,), the images of the class and those taken for it."""
    row: dict[str, Any] = {"support": int(own.sum())}
    found = _intervals(scores, own, called, grouping) if own.any() else {}
    for score in ("recall", "precision", "f1", "auroc", "average_precision"):
        interval = found.get(score)
        row[score] = None if interval is None else interval.value
        row[f"{score}_interval"] = None if interval is None else interval.to_dict()
    return row


def _intervals(
    scores: np.ndarray, own: np.ndarray, called: np.ndarray, grouping: Grouping
) -> dict[str, Interval | None]:
    """Of one class. own, called: bool (n,), the images of the class and those taken for it; `own` has one at least."""
    trials = class_trials(own.astype(np.int64), grouping)

    def shared(found: tuple[float, np.ndarray]) -> Interval:
        return effective_wilson(*found, grouping, most=math.inf, least=trials)

    return {
        "recall": proportion(called[own], grouping.among(own)),
        "precision": proportion(own[called], grouping.among(called)) if called.any() else None,
        "f1": shared(influence.class_f1(own, called, grouping)),
        "auroc": None if own.all() else shared(influence.class_auroc(scores, own, grouping)),
        "average_precision": shared(influence.class_average_precision(scores, own, grouping)),
    }
