"""From what an audit found to the corrections it proposes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vitreous.data.audit.fixes import Fix, removals
from vitreous.workflows.audit_facts import LabelReport
from vitreous.workflows.inspection import Inspection

MOST_REASONS = 3
"""Reasons given in one row."""
EARLIER = {None: 0, "train": 0, "val": 1, "test": 2}
"""A copy is taken out of training rather than out of the part that measures."""


def propose_fixes(found: Inspection, labels: LabelReport | None) -> list[Fix]:
    """Certain ones say `remove`; whatever needs eyes says `review`."""
    fixes = removals(found.scan.bad)
    for rows in found.scan.duplicates:
        fixes += _identical(found, rows)
    settled = {fix.path for fix in fixes}
    fixes += [fix for fix in _near(found) if fix.path not in settled]
    for entry in labels.doubtful if labels is not None else ():
        if entry.path not in settled:
            reason = f"looks like {entry.suggested} ({entry.confidence:.0%}), labelled {entry.label}"
            fixes.append(Fix(entry.path, "review", entry.suggested, reason))
    return _one_row_each(fixes)


def _one_row_each(fixes: Sequence[Fix]) -> list[Fix]:
    """One row for each path, so that one decision settles it: the first action, and up to three reasons."""
    rows: dict[str, Fix] = {}
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for fix in fixes:
        rows.setdefault(fix.path, fix)
        reasons[fix.path].append(fix.reason)
    return [
        replace(
            fix, reason="; ".join(reasons[path][:MOST_REASONS]) + (" ..." if len(reasons[path]) > MOST_REASONS else "")
        )
        for path, fix in rows.items()
    ]


def _identical(found: Inspection, rows: Sequence[int]) -> Iterator[Fix]:
    """Of identical images one stays, in the latest part; those that disagree about the label are a question."""
    samples = found.source.samples
    if len({samples[row].label for row in rows}) > 1:
        for row in rows:
            other = next(samples[each] for each in rows if samples[each].label != samples[row].label)
            yield Fix(samples[row].path, "review", "", f"identical to {other.path}, which is labelled {other.label}")
        return
    kept = max(rows, key=lambda row: (EARLIER[samples[row].part], -row))
    for row in rows:
        if row != kept:
            where = f" in {samples[kept].part}" if samples[kept].part != samples[row].part else ""
            yield Fix(samples[row].path, "remove", "", f"identical to {samples[kept].path}{where}")


def _near(found: Inspection) -> Iterator[Fix]:
    """Near-duplicates matter where they cross parts or disagree about the label."""
    samples = found.source.samples
    for pair in found.similar.pairs:
        first, second = sorted((pair.first, pair.second), key=lambda row: EARLIER[samples[row].part])
        a, b = samples[first], samples[second]
        if a.label != b.label:
            yield Fix(a.path, "review", "", f"{pair.how}: the picture of {b.path}, which is labelled {b.label}")
        elif None not in (a.part, b.part) and a.part != b.part:
            yield Fix(a.path, "review", "", f"{pair.how}: the picture of {b.path} in {b.part}")
