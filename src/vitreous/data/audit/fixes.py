"""Corrections to a data set as a table that people edit: `audit` proposes, `train --fixes` and `audit --apply` carry out.

The images themselves are never touched. Columns: path, action, label, reason. Actions:

    remove    leave the image out
    relabel   use the name in `label` (several separated by "|")
    review    a question to a person; changes nothing until it is edited into one of the others
    keep      looked at and right as it is
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitreous.data.sources.source import BadFile, Listing, Sample, natural_order
from vitreous.errors import DataError, UsageError, nearest, unknown_name
from vitreous.runs.atomic import write_text

ACTIONS = ("remove", "relabel", "review", "keep")
_COLUMNS = ("path", "action", "label", "reason")


@dataclass(frozen=True)
class Fix:
    """One row of the table."""

    path: str
    """As in the source: relative to the root of the data."""
    action: str
    label: str
    """The label to use, or the one suggested for review; empty where there is none."""
    reason: str


def write_fixes(path: Path, fixes: Sequence[Fix]) -> None:
    """The table as CSV, written atomically."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((fix.path, fix.action, fix.label, fix.reason) for fix in fixes)
    write_text(path, text.getvalue())


def read_fixes(path: Path) -> list[Fix]:
    """The table as edited. Raises UsageError for one that cannot be read or says something impossible."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"The corrections {str(path)!r} cannot be read ({reason}).", "Check the path.") from error
    absent = [name for name in ("path", "action") if name not in columns]
    if absent:
        raise UsageError(
            f"{str(path)!r} has the columns {', '.join(columns) or '(none)'}; it lacks {' and '.join(absent)}.",
            f"It needs {', '.join(_COLUMNS)}, as `vitreous audit` writes them.",
        )
    return [_fix(row, number, path) for number, row in enumerate(rows, 2)]


def _fix(row: dict[str, str | None], line: int, file: Path) -> Fix:
    values = {name: (row.get(name) or "").strip() for name in _COLUMNS}
    fix = Fix(values["path"], values["action"].lower(), values["label"], values["reason"])
    place = f"line {line} of {file.name!r}"
    if not fix.path:
        raise UsageError(f"In {place} the path is empty.")
    if fix.action not in ACTIONS:
        error = unknown_name("action", fix.action, ACTIONS)
        raise UsageError(f"{error.message[:-1]} in {place}.", error.hint)
    if fix.action == "relabel" and not fix.label:
        raise UsageError(f"In {place} the action is relabel, but no label is given.", "Write it into the column label.")
    return fix


def apply_fixes(source: Listing, fixes: Sequence[Fix]) -> Listing:
    """The source without removed images and with new labels; the order stays.

    Raises UsageError for paths the source does not have, contradicting rows, and labels that are no class; DataError
    where nothing would be left.
    """
    wanted = _decided(fixes)
    known = {sample.path for sample in source.samples}
    gone = {bad.path for bad in source.unusable}
    strangers = [path for path in wanted if path not in known and path not in gone]
    if strangers:
        close = nearest(strangers[0], [*known][:5000], 1)
        hint = f"Did you mean {close[0]!r}?" if close else "Paths are relative to the data, as `audit` writes them."
        raise UsageError(
            f"The corrections name {len(strangers):,} images that the data do not hold; the first: {strangers[0]!r}.",
            hint,
        )
    samples: list[Sample] = []
    kept: list[int] = []
    counts: Counter[str] = Counter()
    for index, sample in enumerate(source.samples):
        fix = wanted.get(sample.path)
        if fix is not None and fix.action == "remove":
            counts["removed"] += 1
            continue
        if fix is not None and fix.action == "relabel":
            sample = _relabelled(sample, fix, source.classes)
            counts["relabelled"] += 1
        kept.append(index)
        samples.append(sample)
    if not samples:
        raise DataError("The corrections remove every image.", "Keep some.")
    open_questions = sum(fix.action == "review" for fix in fixes)
    note = f"Corrections: {counts['removed']:,} images left out, {counts['relabelled']:,} labelled anew"
    note += f"; {open_questions:,} rows still say review and change nothing." if open_questions else "."
    used = {name for sample in samples for name in (sample.labels if sample.labels is not None else (sample.label,))}
    return replace(
        source.select(kept),
        samples=samples,
        classes=[name for name in source.classes if name in used],
        notes=[*source.notes, note],
        unusable=[bad for bad in source.unusable if wanted.get(bad.path, _KEEP).action != "remove"],
    )


_KEEP = Fix("", "keep", "", "")


def _decided(fixes: Sequence[Fix]) -> dict[str, Fix]:
    """{path: the row that counts}. A path may have several reasons, but only one thing can be done to it."""
    decided: dict[str, Fix] = {}
    for fix in fixes:
        if fix.action == "review":
            continue
        other = decided.setdefault(fix.path, fix)
        if (other.action, other.label) != (fix.action, fix.label):
            raise UsageError(
                f"The corrections say both {_said(other)} and {_said(fix)} of {fix.path!r}.", "Keep one of the rows."
            )
    return decided


def _said(fix: Fix) -> str:
    return f"relabel as {fix.label!r}" if fix.action == "relabel" else fix.action


def _relabelled(sample: Sample, fix: Fix, classes: Sequence[str]) -> Sample:
    names = fix.label.split("|") if sample.labels is not None else [fix.label]
    for name in names:
        if name not in classes:
            raise unknown_name("class", name, classes)
    ordered = tuple(name for name in classes if name in names)
    return replace(sample, label="|".join(ordered), labels=ordered if sample.labels is not None else None)


def write_manifest(source: Listing, path: Path) -> None:
    """The source as a CSV manifest that every verb takes: path, label, group, part, weight and the other columns.

    Paths are written relative to the manifest, so that both may move together. Raises UsageError for data whose images
    are not files of their own.
    """
    inside = ("#" in sample.path and not (Path(source.root) / sample.path).is_file() for sample in source.samples)
    if source.kind not in ("folder", "manifest") or any(inside):
        raise UsageError(
            f"The images of {source.name!r} lie inside other files, which a list of paths cannot name.",
            "Use the corrections when training: vitreous train DATA --fixes fixes.csv",
        )
    folder = path.resolve().parent
    extra = natural_order({name for sample in source.samples for name in sample.metadata})
    label = "label" if source.samples[0].labels is None else "labels"
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", label, "group", "part", "weight", *extra))
    for sample in source.samples:
        place = _relative(Path(source.root) / sample.path, folder)
        row = (place, sample.label, sample.group or "", sample.part or "", f"{sample.weight:g}")
        writer.writerow((*row, *(sample.metadata.get(name, "") for name in extra)))
    write_text(path, text.getvalue())


def _relative(file: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(file.resolve(), folder)).as_posix()
    except ValueError:  # another drive
        return file.resolve().as_posix()


def removals(bad: Sequence[BadFile]) -> list[Fix]:
    """Files that cannot be used: to be left out, so that they are not met again."""
    return [Fix(entry.path, "remove", "", entry.reason) for entry in bad]
