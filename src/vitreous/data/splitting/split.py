"""Which image is in which part.

Decided by what the images show and by the seed, never by file order or names: renaming or moving files changes nothing.
Groups stay whole, and identical pixels make a group, so that no made part holds what another has seen.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitreous.data.sources.source import PARTS, Sample, natural_order
from vitreous.data.splitting.assign import Cluster, assign
from vitreous.errors import DataError, RunError
from vitreous.runs.atomic import write_text

_COLUMNS = ("path", "label", "group", "part", "sha256")


@dataclass(frozen=True)
class Split:
    """The part of each image. All lists but the last three are aligned with the samples it was made from."""

    paths: list[str]
    labels: list[str]
    groups: list[str]
    """Images of one group resemble each other: a name from the data, or the start of the pixels' sha256."""
    parts: list[str]
    """train, val or test."""
    hashes: list[str]
    """sha256 of the decoded pixels."""
    leaks: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of paths in different parts, as the data gave them, with identical pixels or one group."""
    conflicts: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of paths with identical pixels and different labels."""
    notes: list[str] = field(default_factory=list)

    def indices(self, part: str) -> np.ndarray:
        """int64 positions of the images of one part, ascending."""
        return np.flatnonzero(np.asarray(self.parts) == part)

    def digest(self) -> str:
        """sha256 over the sorted (pixels, label, part): equal for equal splits, wherever the files lie."""
        lines = sorted(
            f"{h}\t{label}\t{part}\n" for h, label, part in zip(self.hashes, self.labels, self.parts, strict=True)
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def write_csv(self, path: Path) -> None:
        """Columns path, label, group, part, sha256; written atomically."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(zip(self.paths, self.labels, self.groups, self.parts, self.hashes, strict=True))
        write_text(path, text.getvalue())

    @classmethod
    def read_csv(cls, path: Path) -> Split:
        """What `write_csv` wrote; findings and notes are not stored. Raises RunError for a file that is not one."""
        try:
            with path.open(encoding="utf-8", newline="") as handle:
                rows = list(csv.reader(handle))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise RunError(f"{str(path)!r} cannot be read ({error}).", "Restore it from a copy.") from error
        if (
            not rows
            or tuple(rows[0]) != _COLUMNS
            or any(len(row) != len(_COLUMNS) or row[3] not in PARTS for row in rows[1:])
        ):
            raise RunError(
                f"{str(path)!r} is no stored split: it needs the columns {', '.join(_COLUMNS)} and the parts {', '.join(PARTS)}.",
                "Restore it from a copy.",
            )
        columns = [list(column) for column in zip(*rows[1:], strict=True)] or [[] for _ in _COLUMNS]
        return cls(*columns)


def make_split(
    samples: Sequence[Sample], hashes: Sequence[str], *, seed: int, val_fraction: float, test_fraction: float
) -> Split:
    """Give every image a part. Parts that the data names are kept; those it lacks are made from training images.

    hashes: sha256 of the decoded pixels of each sample.
    val_fraction: share of the images that are not test; test_fraction: share of all images.
    Raises DataError where a missing part cannot be made: no training images, or too few independent groups.
    """
    assert len(samples) == len(hashes)
    given = [sample.part for sample in samples]
    made = [part for part in ("test", "val") if part not in given]
    if not any(part in (None, "train") for part in given):
        raise DataError("The data holds no training images to split or to train on.")
    members = _cluster(samples, hashes)
    groups = [""] * len(samples)
    parts = ["train" if part is None else part for part in given]
    free: list[Cluster] = []
    held_train: defaultdict[str, int] = defaultdict(int)
    followed = 0
    for indices in members:
        name = _group_name(indices, samples, hashes)
        for index in indices:
            groups[index] = name
        held = [part for part in ("test", "val") if any(given[index] == part for index in indices)]
        if held:  # some of it is in a part already: the undecided rest must not end up elsewhere
            for index in indices:
                if given[index] is None:
                    parts[index] = held[0]
                    followed += 1
                elif given[index] == "train":
                    held_train[samples[index].label] += 1
        else:
            key = hashlib.sha256(f"{seed}:{min(hashes[index] for index in indices)}".encode()).hexdigest()
            free.append(Cluster(key, _counts(samples[index].label for index in indices), indices))
    notes = _given_notes(given, followed)
    if made:
        wanted = _wanted(samples, parts, made, val_fraction, test_fraction)
        chosen, missing = assign(free, wanted, made, held_train)
        for cluster, part in zip(free, chosen, strict=True):
            for index in cluster.members:
                parts[index] = part
        for part in made:
            if part not in parts:
                raise DataError(
                    f"No {part} part can be made: the {len(samples):,} images form only {len(members):,} independent groups.",
                    f"Give one with --{part} PATH, or group the images more finely with --group.",
                )
        notes += missing
        notes.append(f"Made by content, seed {seed}, whole groups, stratified by class: {' and '.join(sorted(made))}.")
    return Split(
        paths=[sample.path for sample in samples],
        labels=[sample.label for sample in samples],
        groups=groups,
        parts=parts,
        hashes=list(hashes),
        leaks=_leaks(samples, hashes),
        conflicts=_conflicts(samples, hashes),
        notes=notes,
    )


def _cluster(samples: Sequence[Sample], hashes: Sequence[str]) -> list[list[int]]:
    """Indices joined by a common group or identical pixels, directly or through others (union-find)."""
    parent = list(range(len(samples)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first_of: dict[tuple[str, str], int] = {}
    for index, (sample, digest) in enumerate(zip(samples, hashes, strict=True)):
        keys = [("pixels", digest)] if sample.group is None else [("pixels", digest), ("group", sample.group)]
        for key in keys:
            other = first_of.setdefault(key, index)
            if other != index:
                parent[root(index)] = root(other)
    clusters: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(samples)):
        clusters[root(index)].append(index)
    return list(clusters.values())


def _group_name(indices: Sequence[int], samples: Sequence[Sample], hashes: Sequence[str]) -> str:
    names = [group for index in indices if (group := samples[index].group) is not None]
    return min(names) if names else min(hashes[index] for index in indices)[:16]


def _wanted(
    samples: Sequence[Sample], parts: Sequence[str], made: Sequence[str], val_fraction: float, test_fraction: float
) -> dict[str, dict[str, float]]:
    """{part: {label: images}} to aim at; train gets what the made parts leave."""
    counts = {part: _counts(s.label for s, p in zip(samples, parts, strict=True) if p == part) for part in PARTS}
    wanted: dict[str, dict[str, float]] = {part: {} for part in ("train", *made)}
    for label, pool in counts["train"].items():
        everything = sum(counts[part].get(label, 0) for part in PARTS)
        if "test" in made:
            wanted["test"][label] = test = min(test_fraction * everything, pool / 2)
        else:
            test = counts["test"].get(label, 0)
        if "val" in made:
            wanted["val"][label] = val_fraction * (everything - test)
        wanted["train"][label] = pool - sum(wanted[part][label] for part in made)
    return wanted


def _counts(labels: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    return dict(sorted(counts.items()))


def _leaks(samples: Sequence[Sample], hashes: Sequence[str]) -> list[tuple[str, str]]:
    """For each image of a given part: the first image of each earlier part that it repeats or is grouped with."""
    shared: defaultdict[tuple[str, str], dict[str, list[int]]] = defaultdict(dict)
    for index, (sample, digest) in enumerate(zip(samples, hashes, strict=True)):
        if sample.part is None:
            continue
        shared["pixels", digest].setdefault(sample.part, []).append(index)
        if sample.group is not None:
            shared["group", sample.group].setdefault(sample.part, []).append(index)
    pairs: dict[tuple[str, str], None] = {}
    for by_part in shared.values():
        present = [part for part in PARTS if part in by_part]
        for position, part in enumerate(present):
            for earlier in present[:position]:
                for index in by_part[part]:
                    pairs[samples[by_part[earlier][0]].path, samples[index].path] = None
    return list(pairs)


def _conflicts(samples: Sequence[Sample], hashes: Sequence[str]) -> list[tuple[str, str]]:
    """For each set of identical pixels: the first image of the first label with the first of each other label."""
    labels: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for sample, digest in zip(samples, hashes, strict=True):
        labels[digest].setdefault(sample.label, sample.path)
    pairs = []
    for by_label in labels.values():
        ordered = [by_label[label] for label in natural_order(by_label)]
        pairs += [(ordered[0], path) for path in ordered[1:]]
    return pairs


def _given_notes(given: Sequence[str | None], followed: int) -> list[str]:
    present = [part for part in PARTS if part in given]
    notes = [f"Kept as the data gives them: {' and '.join(present)}."] if present else []
    if followed:
        notes.append(f"{followed:,} images without a part follow their group into the part it is in.")
    return notes
