"""Which image is in which part, as it is kept in the run folder."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitreous.data.sources.source import PARTS
from vitreous.data.splitting.leaks import Leak
from vitreous.errors import RunError
from vitreous.runs.atomic import write_text

NO_PART = "none"
"""Stands for the part of an image that is set aside: in no part, because it resembles images of two."""

_COLUMNS = ("path", "label", "group", "part", "sha256", "cluster", "fold")
_OLD_COLUMNS = _COLUMNS[:5]


@dataclass(frozen=True)
class Split:
    """The part of each image. The lists from `paths` to `folds` are aligned with the samples it was made from."""

    paths: list[str]
    labels: list[str]
    groups: list[str]
    """Images of one group resemble each other: a name from the data, or the start of the pixels' sha256."""
    parts: list[str]
    """train, val, test, or none for images that are set aside."""
    hashes: list[str]
    """sha256 of the decoded pixels."""
    clusters: list[str] = field(default_factory=list)
    """Images of one cluster are near-duplicates: the start of the smallest sha256 in it, or empty for those alone."""
    folds: list[int] = field(default_factory=list)
    """For images of train and val the fold of cross-validation they are in, from 0; -1 for all others."""
    leaks: list[Leak] = field(default_factory=list)
    """Pairs in different parts that tell about each other: as the data, or an earlier split, put them there."""
    leak_count: int = 0
    """How many such pairs there are; `leaks` lists at most a thousand of each set of images that are alike."""
    conflicts: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of paths with identical pixels and different labels."""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.clusters:
            object.__setattr__(self, "clusters", [""] * len(self.paths))
        if not self.folds:
            object.__setattr__(self, "folds", [-1] * len(self.paths))

    @property
    def set_aside(self) -> list[int]:
        """Positions of the images that are in no part."""
        return [index for index, part in enumerate(self.parts) if part == NO_PART]

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
        """Columns path, label, group, part, sha256, cluster, fold (empty where there is none); written atomically."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        folds = ["" if fold < 0 else fold for fold in self.folds]
        columns = (self.paths, self.labels, self.groups, self.parts, self.hashes, self.clusters, folds)
        writer.writerows(zip(*columns, strict=True))
        write_text(path, text.getvalue())

    @classmethod
    def read_csv(cls, path: Path) -> Split:
        """What `write_csv` wrote, now or before there were clusters and folds; findings and notes are not stored.

        Raises RunError for a file that is not one.
        """
        try:
            with path.open(encoding="utf-8", newline="") as handle:
                rows = list(csv.reader(handle))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise RunError(f"{str(path)!r} cannot be read ({error}).", "Restore it from a copy.") from error
        header = tuple(rows[0]) if rows else ()
        if header not in (_COLUMNS, _OLD_COLUMNS) or not all(_valid(row, len(header)) for row in rows[1:]):
            raise RunError(
                f"{str(path)!r} is no stored split: it needs the columns {', '.join(_COLUMNS)} and the parts "
                f"{', '.join(PARTS)} or {NO_PART}.",
                "Restore it from a copy.",
            )
        paths, labels, groups, parts, hashes, *rest = [
            [row[column] for row in rows[1:]] for column in range(len(header))
        ]
        clusters, folds = rest or ([], [])
        return cls(paths, labels, groups, parts, hashes, clusters, [int(fold) if fold else -1 for fold in folds])


def _valid(row: list[str], width: int) -> bool:
    return (
        len(row) == width
        and row[3] in (*PARTS, NO_PART)
        and (width < len(_COLUMNS) or not row[6] or (row[6].isascii() and row[6].isdigit()))
    )
