"""The properties of image files that say how they were made, as levels and as features of a quick probe.

metadata_columns    only the file: size in pixels, format, camera, hour; never a pixel
file_size_columns   how many bytes the file takes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vitreous.data.examination.finding import Finding

MOST_LEVELS = 32
"""Levels of one column; rarer values share levels."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One property of the files, as levels."""

    name: str
    """Reads well before "alone": "image width"."""
    codes: np.ndarray
    """int (n,): the level of each image, from 0."""
    levels: tuple[str, ...]
    """Name of each level: "PNG", "1024", "510 to 642"."""
    values: np.ndarray | None = None
    """float (n,): the numbers themselves where the property is one; None for names."""


def metadata_columns(findings: Sequence[Finding]) -> list[Column]:
    """Properties of the files that say how they were made and nothing of what they show. Constant ones are left out."""
    numbers = {
        "image width": [finding.width for finding in findings],
        "image height": [finding.height for finding in findings],
        "aspect ratio": [round(finding.width / max(1, finding.height), 4) for finding in findings],
    }
    names = {
        "file format": [finding.format for finding in findings],
        "pixel format": [finding.mode for finding in findings],
        "bits a sample": [str(finding.bits) for finding in findings],
        "pictures in the file": [str(min(finding.frames, 100)) for finding in findings],
        "camera": [finding.camera or "none named" for finding in findings],
        "hour of the picture": [_hour(finding.taken) for finding in findings],
    }
    columns = [number_column(name, np.asarray(values, np.float64)) for name, values in numbers.items()]
    columns += [_name_column(name, values) for name, values in names.items()]
    return [column for column in columns if len(column.levels) > 1]


def file_size_columns(findings: Sequence[Finding]) -> list[Column]:
    """How large the files are, which depends on both how they were saved and what they show."""
    size = np.asarray([finding.bytes for finding in findings], np.float64)
    pixels = np.asarray([finding.width * finding.height for finding in findings], np.float64)
    columns = [number_column("file size", size), number_column("bytes a pixel", size / np.maximum(1, pixels))]
    return [column for column in columns if len(column.levels) > 1]


def column_features(columns: Sequence[Column], count: int) -> np.ndarray:
    """The levels of all columns as zeros and ones, and the logarithms of the numbers: float32 (count, d).

    Without any column the one feature is constant, so that a probe of it finds chance.
    """
    blocks = [np.zeros((count, 1), np.float32)]
    for column in columns:
        blocks.append(np.eye(len(column.levels), dtype=np.float32)[column.codes])
        if column.values is not None:
            blocks.append(np.log(np.maximum(column.values, 1e-6)).astype(np.float32)[:, None])
    return np.hstack(blocks)


def metadata_features(findings: Sequence[Finding]) -> np.ndarray:
    """Everything known of the files without their pixels, size in bytes included: float32 (n, d), d below 300."""
    return column_features([*metadata_columns(findings), *file_size_columns(findings)], len(findings))


def number_column(name: str, values: np.ndarray) -> Column:
    """Values that many images share are levels of their own; the others are cut into levels of equal counts."""
    distinct, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    common = np.argsort(-counts, kind="stable")[: MOST_LEVELS // 2]
    common = np.sort(common[counts[common] >= max(2, 0.02 * len(values))])
    levels = [f"{distinct[index]:.4g}" if distinct[index] % 1 else f"{distinct[index]:.0f}" for index in common]
    codes = np.full(len(values), -1)
    for code, index in enumerate(common):
        codes[inverse == index] = code
    rest = codes < 0
    if rest.any():
        edges = np.unique(np.quantile(values[rest], np.linspace(0, 1, MOST_LEVELS // 2 + 1)))
        piece = np.searchsorted(edges, values[rest], "right") - 1
        codes[rest] = len(common) + np.clip(piece, 0, max(0, len(edges) - 2))
        levels += [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)] or [f"{edges[0]:.4g}"]
    return Column(name=name, codes=codes, levels=tuple(levels), values=values)


def _name_column(name: str, values: Sequence[str]) -> Column:
    """The most frequent names are levels of their own; the others share one."""
    counts = sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))
    levels = [value for value, _ in counts[: MOST_LEVELS if len(counts) <= MOST_LEVELS else MOST_LEVELS - 1]]
    code = {value: index for index, value in enumerate(levels)}
    if len(counts) > len(levels):
        levels.append("another")
    codes = np.asarray([code.get(value, len(levels) - 1) for value in values], np.int64)
    return Column(name=name, codes=codes, levels=tuple(levels))


def _hour(taken: str) -> str:
    hour = taken[11:13]
    return hour if hour.isdigit() else "not known"
