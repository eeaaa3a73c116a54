"""Operating points: a threshold on one class's score for a required recall or false-alarm rate, chosen on validation.

The default answer stays the likeliest class. An operating point is for a question about one class, such as "is there
anything wrong": its score, or one minus the score of the class that stands for "nothing", against a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import Interval, proportion
from vitreous.runs.points import Aim, fit_point

OVERKILL = (0.01, 0.02, 0.05, 0.1)
"""Shares of good parts that may be rejected, at which escapes are counted."""


def fit_points(
    scores: np.ndarray, labels: np.ndarray, classes: Sequence[str], recall: float, false_alarms: float
) -> dict[str, list[dict[str, Any]]]:
    """{class: its operating points}, fitted on validation: the fewest false alarms at that recall, and the highest recall at
    those false alarms. scores: (n, k) calibrated. Classes without images, or without others, have none."""
    found = {}
    aims: tuple[tuple[Aim, float], ...] = (("recall", recall), ("false_alarms", false_alarms))
    for index, name in enumerate(classes):
        own = labels == index
        if own.any() and not own.all():
            found[name] = [fit_point(scores[:, index], own, aim, target).to_dict() for aim, target in aims]
    return found


def at_threshold(scores: np.ndarray, own: np.ndarray, threshold: float, grouping: Grouping) -> dict[str, Any]:
    """Sensitivity (recall), specificity and precision of "score >= threshold" with intervals; None where undefined.

    scores: (n,). own: bool (n,).
    """
    called = scores >= threshold

    def share(hits: np.ndarray, among: np.ndarray) -> dict[str, Any] | None:
        found: Interval | None = proportion(hits[among], grouping.among(among)) if among.any() else None
        return None if found is None else found.to_dict()

    return {
        "sensitivity": share(called, own),
        "specificity": share(~called, ~own),
        "precision": share(own, called),
    }


def judge_points(
    fitted: dict[str, list[dict[str, Any]]],
    scores: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    grouping: Grouping,
) -> dict[str, list[dict[str, Any]]]:
    """What points that were fitted elsewhere do on these images: each with `at_threshold` beside it."""
    index = {name: number for number, name in enumerate(classes)}
    return {
        name: [
            {**point, **at_threshold(scores[:, index[name]], labels == index[name], point["threshold"], grouping)}
            for point in points
        ]
        for name, points in fitted.items()
        if name in index
    }


def fit_inspection(scores: np.ndarray, labels: np.ndarray, good: int) -> list[dict[str, Any]]:
    """For each of `OVERKILL` the threshold on "not good" that rejects at most that share of the good parts of validation."""
    bad = labels != good
    if not bad.any() or bad.all():
        return []
    defect = 1 - scores[:, good]
    return [fit_point(defect, bad, "false_alarms", target).to_dict() for target in OVERKILL]


def judge_inspection(
    points: Sequence[dict[str, Any]], scores: np.ndarray, labels: np.ndarray, good: int, grouping: Grouping
) -> list[dict[str, Any]]:
    """{"target", "threshold", "escapes", "overkill"} of each point: bad parts that pass, and good ones that are rejected,
    as shares with intervals."""
    bad, defect = labels != good, 1 - scores[:, good]
    rows = []
    for point in points:
        passed = defect < point["threshold"]
        rows.append(
            {
                "target": point["target"],
                "threshold": point["threshold"],
                "escapes": proportion(passed[bad], grouping.among(bad)).to_dict() if bad.any() else None,
                "overkill": proportion(~passed[~bad], grouping.among(~bad)).to_dict() if not bad.all() else None,
            }
        )
    return rows


GOOD_NAMES = (
    "good",
    "ok",
    "okay",
    "pass",
    "passed",
    "normal",
    "free",
    "no_defect",
    "defect_free",
    "no_finding",
    "healthy",
    "negative",
)
"""Class names that stand for "nothing wrong"."""


def good_class(classes: Sequence[str]) -> int | None:
    """The class that means "nothing wrong", where exactly one name says so."""
    named = [
        index for index, name in enumerate(classes) if name.lower().replace(" ", "_").replace("-", "_") in GOOD_NAMES
    ]
    return named[0] if len(named) == 1 else None
