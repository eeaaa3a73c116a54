"""What an audit found, and the same as JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vitreous.data.audit.fixes import Fix
from vitreous.data.audit.labels import TRUSTED
from vitreous.data.audit.shortcuts import ShortcutProbe
from vitreous.data.examination.similar import Pair
from vitreous.data.sources.source import BadFile
from vitreous.data.splitting.leaks import Leak
from vitreous.evaluation.words import counted
from vitreous.workflows.summary import aligned


@dataclass(frozen=True, kw_only=True)
class DoubtfulLabel:
    """An image whose label the quick probe does not believe."""

    path: str
    label: str
    suggested: str
    confidence: float
    """Probability the probe gives the suggested label, from folds that did not hold the image; in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """What out-of-fold probabilities say of the labels."""

    probe: str
    """What the probe looked at, in words."""
    agreement: float
    """Share of the labels that the probe agrees with: where it is low, its doubts weigh little."""
    estimated: int
    """Wrong labels there are at most likely to be, by the calibrated confident joint."""
    verdict: str
    """The same in sentences."""
    doubtful: Sequence[DoubtfulLabel]
    """Those worth a look, most doubtful first."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Everything an audit found. Paths are relative to the root of the data."""

    name: str
    data: str
    images: int
    """Entries listed, readable or not."""
    classes: Mapping[str, int]
    """{class: entries listed}."""
    counts: Mapping[str, Mapping[str, int]]
    """{part as given, "no part", or "images" where no part is given: {class: readable images}}."""
    sizes: Mapping[str, int]
    """{the same: readable images}, each counted once however many labels it has."""
    bad_files: Sequence[BadFile]
    exact_sets: Sequence[Sequence[str]]
    """Images with identical pixels, two or more each."""
    exact_across_parts: int
    """Sets of identical images that lie in more than one given part."""
    conflicts: Sequence[Sequence[str]]
    """Sets of identical images that carry more than one label."""
    near: Sequence[tuple[str, str, Pair]]
    """(path, path, how they resemble each other) of near-duplicates, identical ones not among them."""
    near_across_parts: int
    near_across_labels: int
    leaks: Sequence[Leak]
    leak_count: int
    """All pairs; `leaks` may be cut where a single image has thousands of copies."""
    labels: LabelReport | None
    shortcuts: Sequence[ShortcutProbe]
    statistics: Mapping[str, Any]
    outliers: Mapping[str, Sequence[str]]
    """{what is unusual: paths, most unusual first}."""
    fixes: Sequence[Fix]
    notes: Sequence[str] = field(default=())
    """What was not looked at, and why."""
    seconds: float = 0.0

    @property
    def readable(self) -> int:
        return self.images - len(self.bad_files)

    def warnings(self) -> list[str]:
        """What a person should act on before believing any number made from these data, gravest first."""
        found = []
        if self.leak_count:
            kinds = sorted({leak.reason for leak in self.leaks})
            found.append(
                f"Parts leak: {counted(self.leak_count, 'pair')} of images in different parts are the same ({', '.join(kinds)}). "
                "Any number measured on the later part flatters."
            )
        if self.conflicts:
            verb = "carries" if len(self.conflicts) == 1 else "carry"
            found.append(f"{counted(len(self.conflicts), 'set')} of identical images {verb} more than one label.")
        found += [probe.verdict for probe in self.shortcuts if probe.suspicious]
        if self.bad_files:
            found.append(f"{len(self.bad_files):,} of {self.images:,} files cannot be used.")
        if self.labels is not None and self.labels.doubtful and self.labels.agreement >= TRUSTED:
            found.append(self.labels.verdict)
        return found

    def to_dict(self) -> dict[str, Any]:
        """The keys of `--json`, and everything else an audit knows."""
        labels = self.labels
        return {
            "name": self.name,
            "data": self.data,
            "images": self.images,
            "readable": self.readable,
            "classes": dict(self.classes),
            "parts": {part: dict(counts) for part, counts in self.counts.items()},
            "bad_files": [{"path": bad.path, "reason": bad.reason} for bad in self.bad_files],
            "duplicates": {
                "exact": {
                    "sets": len(self.exact_sets),
                    "across_parts": self.exact_across_parts,
                    "across_labels": len(self.conflicts),
                },
                "near": {
                    "sets": len(self.near),
                    "across_parts": self.near_across_parts,
                    "across_labels": self.near_across_labels,
                },
            },
            "exact_duplicates": [list(paths) for paths in self.exact_sets],
            "near_duplicates": [
                {"paths": [a, b], "how": pair.how, "similarity": round(pair.similarity, 4)} for a, b, pair in self.near
            ],
            "label_conflicts": [list(paths) for paths in self.conflicts],
            "leaks": [[leak.first, leak.second] for leak in self.leaks],
            "leak_reasons": [leak.reason for leak in self.leaks],
            "leak_count": self.leak_count,
            "likely_wrong_labels": None
            if labels is None
            else {
                "probe": labels.probe,
                "agreement": round(labels.agreement, 4),
                "verdict": labels.verdict,
                "estimated": labels.estimated,
                "listed": [vars(entry) for entry in labels.doubtful],
            },
            "shortcuts": [vars(probe) for probe in self.shortcuts],
            "statistics": dict(self.statistics),
            "outliers": {name: list(paths) for name, paths in self.outliers.items()},
            "warnings": self.warnings(),
            "notes": list(self.notes),
            "fixes": len(self.fixes),
            "seconds": round(self.seconds, 1),
        }


def audit_text(audit: Audit) -> str:
    """What the terminal shows."""
    parts = list(audit.counts)
    rows = [["class", *parts]]
    classes = list(audit.classes)
    shown = classes if len(classes) <= 20 else classes[:20]
    rows += [[name, *(f"{audit.counts[part].get(name, 0):,}" for part in parts)] for name in shown]
    rows.append(["all", *(f"{audit.sizes[part]:,}" for part in parts)])
    lines = ["", aligned(rows)]
    if len(shown) < len(classes):
        lines.append(f"({len(classes) - len(shown):,} more classes in audit.json)")
    found = [
        ["files that cannot be used", f"{len(audit.bad_files):,}"],
        ["sets of identical images", f"{len(audit.exact_sets):,}"],
        ["  of these in several parts", f"{audit.exact_across_parts:,}"],
        ["  of these under several labels", f"{len(audit.conflicts):,}"],
        ["pairs of near-duplicates", f"{len(audit.near):,}"],
        ["  of these in several parts", f"{audit.near_across_parts:,}"],
        ["  of these under several labels", f"{audit.near_across_labels:,}"],
        ["pairs that leak across parts", f"{audit.leak_count:,}"],
    ]
    if audit.labels is not None:
        found.append(["labels worth a look", f"{len(audit.labels.doubtful):,}"])
    found += [[f"unusual: {name}", f"{len(paths):,}"] for name, paths in audit.outliers.items() if paths]
    lines += ["", aligned(found)]
    lines += [f"  {probe.verdict}" for probe in audit.shortcuts if not probe.suspicious]
    warnings = audit.warnings()
    lines += ["", *(f"! {sentence}" for sentence in warnings)] if warnings else ["", "Nothing to act on was found."]
    lines += [f"  {note}" for note in audit.notes]
    return "\n".join(lines)
