"""Operating points: the threshold on one class's score that serves a required recall or rate of false alarms."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Aim = Literal["recall", "false_alarms"]


@dataclass(frozen=True)
class OperatingPoint:
    """Scores at or above `threshold` count as the class."""

    aim: Aim
    """recall: at least `target` of the class is found. false_alarms: at most `target` of the others is taken for it."""
    target: float
    threshold: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def fit_point(scores: np.ndarray, own: np.ndarray, aim: Aim, target: float) -> OperatingPoint:
    """The threshold that serves `aim` on these images and costs least otherwise.

    scores: (n,) of one class. own: bool (n,), the images of the class; some are, some are not. target: in (0, 1).
    """
    others = np.sort(scores[~own])
    if aim == "recall":
        # The highest threshold that finds enough; then as low as it goes without a further false alarm.
        ranked = np.sort(scores[own])
        missed = int(np.floor((1 - target) * len(ranked) + 1e-9))  # images of the class that may be missed
        below = others[others < ranked[missed]]
        found = ranked[missed] if not len(below) else ranked[ranked > below[-1]][0]
        return OperatingPoint(aim, target, _halfway(scores, float(found)))
    # The lowest threshold that calls few enough of the others; then as high as it goes without missing more of the class.
    allowed = int(np.floor(target * len(others) + 1e-9))
    own_scores = np.sort(scores[own])
    kept = own_scores if allowed >= len(others) else own_scores[own_scores > others[len(others) - 1 - allowed]]
    if not len(kept):
        return OperatingPoint(aim, target, float(np.nextafter(scores.max(), np.inf)))
    return OperatingPoint(aim, target, _halfway(scores, float(kept[0])))


def _halfway(scores: np.ndarray, chosen: float) -> float:
    """Between a score and the next lower one, so that rounding in another engine turns no answer over."""
    lower = scores[scores < chosen]
    return chosen if not len(lower) else float((lower.max() + chosen) / 2)
