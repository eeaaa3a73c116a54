"""What is fitted to the validation part beside the temperature, stored in `run.json`, and judged on every other part:
operating points of each class, conformal sets, and thresholds for inspection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vitreous.config.decide import DecideConfig
from vitreous.evaluation.abstention import judge_threshold
from vitreous.evaluation.conformal import Conformal, fit_conformal, judge_conformal
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.operating import fit_inspection, fit_points, good_class, judge_inspection, judge_points


@dataclass(frozen=True)
class Fitted:
    """Thresholds on calibrated scores."""

    points: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    """{class: its `OperatingPoint`s}."""
    conformal: Conformal | None = None
    good: str | None = None
    """The class that stands for "nothing wrong", where there is one."""
    inspection: Sequence[dict[str, Any]] = ()
    """Thresholds on one minus the score of `good`, by the share of good parts that may be rejected."""
    abstain_below: float | None = None
    """The top score under which no answer is given; `run.json` keeps it in a place of its own."""

    def to_dict(self) -> dict[str, Any]:
        """The form of `run.json`."""
        return {
            "points": dict(self.points),
            "conformal": None if self.conformal is None else self.conformal.to_dict(),
            "good": self.good,
            "inspection": list(self.inspection),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Fitted:
        conformal = stored.get("conformal")
        return cls(
            stored.get("points", {}),
            None if conformal is None else Conformal(**conformal),
            stored.get("good"),
            stored.get("inspection", ()),
        )

    def judge(
        self, scores: np.ndarray, labels: np.ndarray, classes: Sequence[str], grouping: Grouping
    ) -> dict[str, Any]:
        """{"abstention", "operating", "conformal", "inspection"} on these images; without what was not fitted."""
        found: dict[str, Any] = {}
        if self.abstain_below is not None:
            found["abstention"] = judge_threshold(
                self.abstain_below, scores.max(axis=1), scores.argmax(axis=1) == labels, grouping
            )
        if self.points:
            found["operating"] = judge_points(dict(self.points), scores, labels, classes, grouping)
        if self.conformal is not None:
            found["conformal"] = judge_conformal(self.conformal, scores, labels, grouping)
        if self.good is not None and self.inspection:
            good = list(classes).index(self.good)
            rows = judge_inspection(self.inspection, scores, labels, good, grouping)
            found["inspection"] = {"good": self.good, "points": rows}
        return found


def fit(scores: np.ndarray, labels: np.ndarray, classes: Sequence[str], aims: DecideConfig | None = None) -> Fitted:
    """scores: (n, k) calibrated scores of the validation images, n >= 1. labels: int (n,)."""
    aims = aims or DecideConfig()
    good = good_class(classes) if aims.good is None else list(classes).index(aims.good)
    return Fitted(
        points=fit_points(scores, labels, classes, aims.recall, aims.false_alarms),
        conformal=fit_conformal(scores, labels, aims.coverage),
        good=None if good is None else classes[good],
        inspection=() if good is None else fit_inspection(scores, labels, good),
    )
