"""What mistakes cost: expected cost of the likeliest class, and of the answer that costs least (Elkan 2001, IJCAI, section 2)."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.errors import UsageError
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import mean

EXAMPLE = "A CSV such as: label,good,bad / good,0,1 / bad,20,0"


def read_costs(path: Path, classes: Sequence[str]) -> np.ndarray:
    """Costs (k, k) from a CSV: a row for each true class, a column for each answer, both in any order, names in the first
    row and column. Raises UsageError for names that are missing or unknown and for cells that are no numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"The costs in {str(path)!r} cannot be read ({error}).", EXAMPLE) from error
    if len(rows) < 2:
        raise UsageError(f"{str(path)!r} holds no costs.", EXAMPLE)
    answers, table = [cell.strip() for cell in rows[0][1:]], {row[0].strip(): row[1:] for row in rows[1:]}
    for what, names in (("row", list(table)), ("column", answers)):
        missing = [name for name in classes if name not in names]
        unknown = [name for name in names if name not in classes]
        if missing or unknown:
            problem = f"no {what} for {missing[0]!r}" if missing else f"a {what} for {unknown[0]!r}, which is no class"
            raise UsageError(f"{str(path)!r} has {problem}.", EXAMPLE)
    costs = np.empty((len(classes), len(classes)))
    for row, label in enumerate(classes):
        for column, answer in enumerate(classes):
            place = answers.index(answer)
            cell = table[label][place].strip() if place < len(table[label]) else ""
            try:
                costs[row, column] = float(cell)
            except ValueError:
                costs[row, column] = math.nan
            if not math.isfinite(costs[row, column]):
                raise UsageError(
                    f"{str(path)!r} has {cell!r} where {label!r} is taken for {answer!r}; a cost is a number.", EXAMPLE
                )
    return costs


def expected_costs(
    costs: np.ndarray, scores: np.ndarray, labels: np.ndarray, grouping: Grouping, seed: int = 0
) -> dict[str, Any]:
    """{"likeliest", "cheapest"} with intervals (bootstrap by group): mean cost of an image when the likeliest class is the
    answer, and when it is the one whose expected cost is least; {"changed"}: share of images where the two differ.

    costs: (k, k), row = true class, column = answer. scores: (n, k) calibrated.
    """
    likeliest, cheapest = scores.argmax(axis=1), (scores @ costs).argmin(axis=1)
    found: dict[str, Any] = {
        name: mean(costs[labels, answers], grouping, seed).to_dict()
        for name, answers in (("likeliest", likeliest), ("cheapest", cheapest))
    }
    found["changed"] = float((likeliest != cheapest).mean())
    return found
