"""Tables that list images: CSV or Parquet, one file, or one for each part (`train.parquet`, `test.parquet`).

The image column holds paths relative to the table, encoded bytes, or the struct {bytes, path} that Hugging Face writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.data.sources.labels import (
    SEVERAL_COLUMN,
    StoredLabel,
    find_separator,
    labels_note,
    name_classes,
    split_labels,
)
from vitreous.data.sources.metadata import RowMetadata
from vitreous.data.sources.source import LABEL_JOINT, NO_METADATA, BadFile, Listing, Sample, folder_name
from vitreous.data.sources.table import Table, read_table
from vitreous.errors import DataError
from vitreous.inputs import ImageSource


def read_manifest(
    files: Sequence[tuple[Path, str | None]],
    root: Path,
    *,
    group: str | None = None,
    label_separator: str | None = None,
) -> Listing:
    """Images listed by tables, each with the part its name stands for (or None, when a column may say it).

    group: column that names the groups; the column `group`, where there is one, when None.
    label_separator: what stands between several labels in one cell; found out when None, see `find_separator`.
    Raises DataError for tables that cannot be read, lack columns, or contradict themselves.
    """
    tables = [read_table(file, part, group) for file, part in files]
    places = [_below(file, root) if file.is_relative_to(root) else file.name for file, _ in files]
    name = folder_name(files[0][0] if len(files) == 1 else root)
    source = list_tables(tables, places, root=root, name=name, label_separator=label_separator)
    groups = {sample.group for sample in source.samples} - {None}
    if not groups:
        return source
    note = f"Groups come from the column {group or 'group'!r}: {len(groups):,} groups."
    return replace(source, notes=[*source.notes, note])


def list_tables(
    tables: Sequence[Table],
    places: Sequence[str],
    *,
    root: Path,
    name: str,
    kind: str = "manifest",
    label_separator: str | None = None,
) -> Listing:
    """One listing of all rows. places: what stands before "#row" in the paths of images that are no files."""
    separator = find_separator(((table.label_column, table.labels) for table in tables), label_separator)
    if separator is not None:
        tables = [replace(table, labels=split_labels(table.label_column, table.labels, separator)) for table in tables]
    label_of, classes = name_classes(_distinct(tables), _names(tables, several=separator is not None))
    samples: list[Sample] = []
    unusable: list[BadFile] = []
    rows: list[np.ndarray] = []
    for table, place in zip(tables, places, strict=True):
        good, known = [], _known(table, label_of, classes)
        for row, value in enumerate(table.labels):
            path = _path(table, row, root) if table.holds_paths else f"{place}#{row}"
            if path is None:
                unusable.append(BadFile(f"{table.name}#{row}", "has neither a path nor bytes"))
            elif value is None or (label := known.get(value)) is None:
                unusable.append(BadFile(path, "has no label"))
            else:
                samples.append(_sample(table, row, path, *label))
                good.append(row)
        rows.append(np.array(good, np.int64))
    starts = np.cumsum([0, *map(len, rows)])

    def read(index: int) -> ImageSource:
        number = int(np.searchsorted(starts, index, side="right")) - 1
        return _open(tables[number], int(rows[number][index - starts[number]]))

    return Listing(
        name=name,
        kind=kind,
        root=str(root),
        samples=samples,
        classes=classes,
        notes=_notes(tables, samples, unusable),
        reader=read,
        unusable=unusable,
        columns=tables[0].columns,
        task="single_label" if separator is None else "multi_label",
    )


def _sample(table: Table, row: int, path: str, label: str, labels: tuple[str, ...] | None) -> Sample:
    return Sample(
        path,
        label,
        table.groups[row] if table.groups else None,
        table.parts[row] if table.parts else None,
        labels,
        table.weights[row] if table.weights else 1.0,
        RowMetadata(table.metadata, row) if table.metadata else NO_METADATA,
    )


def _distinct(tables: Sequence[Table]) -> set[StoredLabel]:
    """Every label that occurs."""
    found: set[StoredLabel] = set()
    for table in tables:
        values: set[Any] = set(table.labels) - {None, table.unlabelled}
        for value in values:
            if not isinstance(value, tuple):
                found.add(value)
            elif table.unlabelled not in value:
                found.update(value)
    return found


def _names(tables: Sequence[Table], several: bool) -> Mapping[StoredLabel, str]:
    """Class names of labels, from the column `label_name` or the metadata. Raises DataError for two names of one."""
    names: dict[StoredLabel, str] = {}
    for table in tables:
        pairs: set[tuple[Any, str | None]] = set()
        if table.names is not None and not several:
            pairs = set(zip(table.labels, table.names, strict=True))
        elif table.class_names is not None:
            pairs = set(enumerate(table.class_names))
        for value, name in sorted(pairs, key=str):
            if name is not None and value is not None and names.setdefault(value, name) != name:
                raise DataError(
                    f"The label {value!r} is called {names[value]!r} and {name!r} in the column 'label_name' of {table.name!r}.",
                    "Give each label one name.",
                )
    return names


def _known(
    table: Table, label_of: Mapping[StoredLabel, str], classes: Sequence[str]
) -> dict[Any, tuple[str, tuple[str, ...] | None]]:
    """{cell: (label, labels)} for every cell that can be used; equal cells share their texts."""
    rank = {name: number for number, name in enumerate(classes)}
    known: dict[Any, tuple[str, tuple[str, ...] | None]] = {}
    for value in set(table.labels) - {None, table.unlabelled}:
        if not isinstance(value, tuple):
            known[value] = (label_of[value], None)
        elif table.unlabelled not in value:
            labels = tuple(sorted((label_of[one] for one in value), key=rank.__getitem__))
            known[value] = (LABEL_JOINT.join(labels), labels)
    return known


def _path(table: Table, row: int, root: Path) -> str | None:
    path = table.images(row)
    if path is None or not path.strip():
        return None
    path = path.strip().replace("\\", "/")
    return path.removeprefix("./") if table.folder == root else _below(table.folder / path, root)


def _below(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _open(table: Table, row: int) -> ImageSource:
    cell = table.images(row)
    if isinstance(cell, dict):
        cell = cell["bytes"] if cell.get("bytes") else cell.get("path")
    if isinstance(cell, str):
        return str(table.folder / cell.strip().replace("\\", "/"))
    return cell or b""


def _notes(tables: Sequence[Table], samples: Sequence[Sample], unusable: Sequence[BadFile]) -> list[str]:
    files = ", ".join(table.name for table in tables)
    stored = "paths" if tables[0].holds_paths else "encoded images"
    notes = [f"{'Tables' if len(tables) > 1 else 'A table'} of {stored}: {files}, {len(samples):,} labelled rows."]
    if unusable:
        notes.append(f"{len(unusable):,} rows cannot be used; the first {unusable[0].reason}.")
    if samples and samples[0].labels is not None:
        notes.append(labels_note(len(sample.label_names) for sample in samples))
    elif any(table.label_column.lower() == SEVERAL_COLUMN for table in tables):
        notes.append("The column 'labels' holds one label in each row.")
    if samples and any(table.weights for table in tables):
        weights = [sample.weight for sample in samples]
        notes.append(f"Images have weights from {min(weights):g} to {max(weights):g}.")
    return notes
