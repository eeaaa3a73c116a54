"""Which images belong together: a `groups.csv` beside the images, or a pattern in their paths. The other columns of the
table are what else is known of the images.

Images of one patient, scene or production batch resemble each other. Where they are spread over training and test, the
test measures memory instead of skill; so groups are read without being asked for.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitreous.data.sources.labels import LABEL_COLUMNS
from vitreous.data.sources.metadata import WEIGHT_COLUMN, parse_weight, plain_text
from vitreous.data.sources.source import NO_METADATA, Listing, Sample
from vitreous.data.sources.table import NAME_COLUMN, PART_COLUMNS
from vitreous.errors import DataError, UsageError, nearest

GROUPS_FILE = "groups.csv"
FOUND_GROUPS = ("patient", "exif")
"""Values of `--group` that name what the images themselves say: the DICOM patient, the EXIF camera and time."""
_NO_METADATA = {*LABEL_COLUMNS, NAME_COLUMN, *PART_COLUMNS, WEIGHT_COLUMN}
"""Columns that repeat what the folders say, in lower case, and the weight, which has a field of its own."""


@dataclass(frozen=True)
class GroupTable:
    """A `groups.csv`, keyed by paths relative to the data's root."""

    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]

    def column(self, paths: Sequence[str], name: str) -> list[str | None]:
        """The value of one column for each path; None where the table is silent."""
        return [self.rows.get(path, {}).get(name) or None for path in paths]

    def described(self, samples: Sequence[Sample], group: str | None) -> list[Sample]:
        """The samples with what the table says of them: group, weight, and the other columns as metadata.

        group: the column that names the groups. Raises DataError naming the file whose weight is none.
        """
        weight = next((name for name in self.columns if name.lower() == WEIGHT_COLUMN), "")
        others = [name for name in self.columns if name != group and name.lower() not in _NO_METADATA]
        described = []
        for sample in samples:
            row = self.rows.get(sample.path, {})
            texts = {name: text for name in others if (text := plain_text(row.get(name))) is not None}
            described.append(
                replace(
                    sample,
                    group=row.get(group or "") or None,
                    weight=_weight(row.get(weight), sample.path),
                    metadata=texts or NO_METADATA,
                )
            )
        return described


def find_group_table(root: Path, paths: Sequence[str]) -> GroupTable | None:
    """The `groups.csv` in the data's root or, for one part of a divided set, in the folder above.

    Raises DataError for a table in the root that has no column `file` or that lists none of the images: to go on
    without the groups one believes in would be worse than to stop.
    """
    own = root / GROUPS_FILE
    if own.is_file():
        table = _read(own, prefix="")
        if not any(path in table.rows for path in paths):
            listed = next(iter(table.rows), "no file at all")
            raise DataError(
                f"{str(own)!r} lists none of the images: it names {listed!r}, an image is {paths[0]!r}.",
                f"Write paths relative to {str(root)!r} into its column 'file', or remove the table.",
            )
        return table
    above = root.resolve().parent / GROUPS_FILE
    if above.is_file():
        table = _read(above, prefix=f"{root.resolve().name}/")
        if any(path in table.rows for path in paths):
            return table
    return None


def group_by_pattern(source: Listing, pattern: str) -> Listing:
    """Group images by what a regular expression finds in their paths: its first group, or the whole match.

    Raises UsageError for a pattern that is not valid, that matches no path or that finds one and the same text in all.
    """
    example = source.samples[0].path
    columns = f" (columns: {', '.join(source.columns)})" if source.columns else ""
    close = nearest(pattern, source.columns)
    hint = f"Did you mean the column {close[0]!r}?" if close else f"A path here is {example!r}."
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--group {pattern!r} names no column{columns} and is not a valid regular expression ({error}); a path here is {example!r}.",
            hint,
        ) from error
    found = [compiled.search(sample.path) for sample in source.samples]
    groups = [(match[1] if compiled.groups else match[0]) or None if match else None for match in found]
    distinct = set(groups) - {None}
    if not distinct:
        raise UsageError(
            f"--group {pattern!r} names no column{columns} and, as a regular expression, matches none of the "
            f"{len(groups):,} paths.",
            hint,
        )
    if len(distinct) == 1 and None not in groups:
        raise UsageError(
            f"--group {pattern!r} finds {distinct.pop()!r} in every path, so all images would be one group; a path here is {example!r}.",
            hint if close else "Write a pattern whose first group differs between groups, such as '(patient\\d+)'.",
        )
    note = f"Groups come from the pattern {pattern!r}: {len(distinct):,} groups"
    alone = groups.count(None)
    note += f"; {alone:,} paths do not match and stand alone." if alone else "."
    return replace(source, samples=with_groups(source.samples, groups), notes=[*source.notes, note])


def with_groups(samples: Sequence[Sample], groups: Sequence[str | None]) -> list[Sample]:
    return [replace(sample, group=group) for sample, group in zip(samples, groups, strict=True)]


def _weight(value: str | None, path: str) -> float:
    weight = parse_weight(value)
    if weight is None:
        raise DataError(
            f"{GROUPS_FILE} gives {path!r} the weight {value!r}; a weight is a finite number of at least 0.",
            "Correct the cell, or rename the column so that it is not read.",
        )
    return weight


def _read(file: Path, prefix: str) -> GroupTable:
    """Rows whose path starts with the prefix, which is then cut off."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            columns = tuple(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{str(file)!r} cannot be read as CSV ({error}).", "Save it as comma-separated UTF-8."
        ) from error
    if "file" not in columns or len(columns) < 2:
        raise DataError(
            f"{str(file)!r} has the columns {', '.join(columns) or '(none)'}; it needs 'file' and 'group'.",
            "Rename the column with the paths to 'file', or remove the table.",
        )
    keyed = {}
    for row in rows:
        path = (row["file"] or "").replace("\\", "/").removeprefix("./")
        if path.startswith(prefix):
            keyed[path[len(prefix) :]] = row
    return GroupTable(tuple(name for name in columns if name != "file"), keyed)
