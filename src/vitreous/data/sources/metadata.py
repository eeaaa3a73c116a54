"""What the data tells of an image beside its label: other columns as text, and a weight."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vitreous.errors import DataError

WEIGHT_COLUMN = "weight"


class RowMetadata(Mapping[str, str]):
    """One row of a table as text, blank cells left out; read when asked for, so that a million rows cost little."""

    __slots__ = ("_columns", "_row")

    def __init__(self, columns: Mapping[str, Any], row: int) -> None:
        """columns: Arrow columns by name."""
        self._columns = columns
        self._row = row

    def __getitem__(self, name: str) -> str:
        value = self._columns[name][self._row].as_py()
        text = plain_text(value)
        if text is None:
            raise KeyError(name)
        return text

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._columns if name in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"RowMetadata({dict(self)!r})"


def plain_text(value: Any) -> str | None:
    """A cell as text; None where it is missing, blank or no number."""
    if value is None or value != value:
        return None
    return str(value).strip() or None


def read_weights(values: Sequence[Any], place: str) -> list[float]:
    """Weights of rows; a blank one counts 1. Raises DataError naming the first row whose weight is none."""
    weights = []
    for row, value in enumerate(values):
        weight = parse_weight(value)
        if weight is None:
            raise DataError(
                f"Row {row + 1} of {place!r} has the weight {value!r}; a weight is a finite number of at least 0.",
                "Correct the cell, or rename the column so that it is not read.",
            )
        weights.append(weight)
    return weights


def parse_weight(value: Any) -> float | None:
    """A weight, 1 where none is given; None for what cannot be one."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return 1.0
    try:
        weight = float(value)
    except (TypeError, ValueError):
        return None
    return weight if math.isfinite(weight) and weight >= 0 else None
