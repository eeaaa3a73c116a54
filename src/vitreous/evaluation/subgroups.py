"""How a model does on each part of the data that a column tells apart: cameras, sites, ages, exposures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import CONFIDENCE, Interval, proportion
from vitreous.evaluation.words import percent

Measure = Callable[[np.ndarray, Grouping], Interval]
"""Of some of the images, chosen by a bool (n,), with their grouping."""

MISSING = "(not given)"
MOST_VALUES = 30
"""More distinct values than this are no table; numbers are then cut into quarters."""
FEW_IMAGES = 10
"""Subgroups smaller than this are listed, but not called the worst."""


@dataclass(frozen=True)
class Subgroups:
    """One column's table."""

    column: str
    rows: list[dict[str, Any]]
    """{"value", "n", "accuracy", and whatever else was measured}, all with intervals, in the order of the values."""
    worst: str | None
    """The value with the lowest accuracy; None where no two have enough images."""
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        return {"column": self.column, "rows": self.rows, "worst": self.worst, "verdict": self.verdict}


def by_column(
    column: str,
    values: Sequence[str | None],
    right: np.ndarray,
    grouping: Grouping,
    also: Mapping[str, Measure] | None = None,
) -> Subgroups:
    """values: the column's text for each image, None where it has none. right: whether the model is, bool (n,). also: what is
    measured besides accuracy, by the name of the metric."""
    names = np.array(_binned(values))
    rows = []
    for value in _ordered(set(names.tolist())):
        own = names == value
        among = grouping.among(own)
        rows.append(
            {
                "value": value,
                "n": int(own.sum()),
                "accuracy": proportion(right[own], among).to_dict(),
                **{name: measure(own, among).to_dict() for name, measure in (also or {}).items()},
            }
        )
    enough = [row for row in rows if row["n"] >= FEW_IMAGES and row["value"] != MISSING]
    worst = min(enough, key=lambda row: row["accuracy"]["value"]) if len(enough) > 1 else None
    lower = False
    if worst is not None:
        own = names == worst["value"]
        # The lowest of many is low by chance alone: its bound is that of an interval for all of them at once (Bonferroni).
        bound = proportion(right[own], grouping.among(own), 1 - (1 - CONFIDENCE) / len(enough)).high
        lower = bound is not None and bound < float(right.mean())
    return Subgroups(
        column, rows, None if worst is None else worst["value"], _verdict(column, worst, float(right.mean()), lower)
    )


def _verdict(column: str, worst: dict[str, Any] | None, overall: float, lower: bool) -> str:
    """lower: whether the worst lies below the whole with as many values looked at."""
    if worst is None:
        return f"{column}: too few images to tell its values apart."
    found = worst["accuracy"]
    told = (
        "which is below the whole beyond what chance explains"
        if lower
        else "which its interval does not tell from the whole"
    )
    return (
        f"{column}: lowest where it is {worst['value']!r}, {percent(found['value'])} of {worst['n']:,} images against "
        f"{percent(overall)} of all, {told}."
    )


def _binned(values: Sequence[str | None]) -> list[str]:
    """Text as it is; more than `MOST_VALUES` numbers as quarters of their range by rank. Other text of so many values is
    left to itself: each is a subgroup of its own."""
    names = [MISSING if value is None else value for value in values]
    given = [value for value in values if value is not None]
    if len(set(given)) <= MOST_VALUES:
        return names
    try:
        numbers = [float(value) for value in given]
    except ValueError:
        return names
    edges = np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1])

    def quarter(name: str) -> str:
        if name == MISSING:
            return name
        place = int(np.clip(np.searchsorted(edges, float(name), side="left") - 1, 0, 3))
        return f"{edges[place]:g} to {edges[place + 1]:g}"

    return [quarter(name) for name in names]


def _ordered(names: set[str]) -> list[str]:
    """Numbers by size, text by name, what is missing last."""

    def key(name: str) -> tuple[bool, int, float, str]:
        try:
            return (name == MISSING, 0, float(name.split(" to ")[0]), name)
        except ValueError:
            return (name == MISSING, 1, 0.0, name)

    return sorted(names, key=key)
