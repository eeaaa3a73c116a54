"""From labels as they are stored (names, whole numbers, several in one cell) to class names in a stated order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from vitreous.data.sources.source import natural_order
from vitreous.errors import DataError

LABEL_COLUMNS = ("label", "class", "target", "labels")
SEVERAL_COLUMN = "labels"
"""A column of texts with this name may hold several labels in each cell, or none."""

StoredLabel: TypeAlias = str | int
"""A label as it is stored, before it gets its class name."""


def find_separator(columns: Iterable[tuple[str, Sequence[Any]]], forced: str | None) -> str | None:
    """What stands between the labels of one cell; None where each cell holds one label.

    columns: (name, values) of the label column of each table. A tuple among the values is a list that was stored as
    such. forced: the separator the user names; "" says that a cell is one label whatever it holds.

    "|" separates wherever it occurs. ";" may be part of a class name and separates only in a column called 'labels';
    a comma never does.
    """
    columns = list(columns)
    if any(isinstance(value, tuple) for _, values in columns for value in values):
        return forced or "|"
    if forced is not None:
        return forced or None
    texts = [(name, values) for name, values in columns if any(isinstance(value, str) for value in values)]
    if any("|" in value for _, values in texts for value in values if isinstance(value, str)):
        return "|"
    return ";" if any(name.lower() == SEVERAL_COLUMN for name, _ in texts) else None


def split_labels(column: str, values: Sequence[Any], separator: str) -> list[tuple[StoredLabel, ...] | None]:
    """The labels in each cell, without repetition; None for a cell that should hold one and is blank.

    Blank cells of a column called 'labels', and empty lists, say that no label applies.
    """
    blank = () if column.lower() == SEVERAL_COLUMN else None
    known: dict[Any, tuple[StoredLabel, ...] | None] = {None: blank, (): ()}

    def pieces(value: Any) -> tuple[StoredLabel, ...] | None:
        if isinstance(value, tuple):
            return tuple(dict.fromkeys(value))
        if not isinstance(value, str):
            return (value,)
        return tuple(dict.fromkeys(filter(None, (piece.strip() for piece in value.split(separator))))) or blank

    for value in values:
        if value not in known:
            known[value] = pieces(value)
    return [known[value] for value in values]


def name_classes(
    values: Iterable[StoredLabel], names: Mapping[StoredLabel, str], place: str = "in the column 'label_name'"
) -> tuple[dict[StoredLabel, str], list[str]]:
    """{label as stored: class name} and the class names in order. Integers keep numeric order, names natural order.

    names: class names of integers, where the data has them. place: where these stand, for messages.
    Raises DataError where whole numbers and names are mixed, or two labels have one name.
    """
    distinct = set(values)
    if len({type(value) for value in distinct}) > 1:
        raise DataError(
            "The tables do not agree: labels are whole numbers in one and names in another.",
            "Write the labels in the same form in each.",
        )
    numbers = {value: int(value) for value in distinct if re.fullmatch(r"-?[0-9]+", str(value))}
    if len(numbers) < len(distinct):  # labels are names themselves
        return {value: str(value) for value in distinct}, natural_order(str(value) for value in distinct)
    label_of = {value: names.get(value, str(value)) for value in distinct}
    ordered = [label_of[value] for value, _ in sorted(numbers.items(), key=lambda item: (item[1], str(item[0])))]
    if len(set(ordered)) < len(ordered):
        twice = next(name for name in ordered if ordered.count(name) > 1)
        raise DataError(f"Two labels are called {twice!r} {place}.", "Give each label its own name.")
    return label_of, ordered


def labels_note(counts: Iterable[int]) -> str:
    """What to say of a multi-label source. counts: labels of each image."""
    counts = list(counts)
    note = f"Several labels an image are possible: {sum(counts) / max(len(counts), 1):.2f} labels an image on average"
    none = counts.count(0)
    return f"{note}; {none:,} images have none." if none else f"{note}."
