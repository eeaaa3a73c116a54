"""Images unlike the rest of their set in size, light, sharpness or compression, and a summary of the whole set.

Deviation is measured by the median and the median absolute deviation, which a few odd images cannot move. The limits
are wide on purpose: a list of hundreds is read by nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitreous.data.examination.finding import Finding

LIMIT = 6.0
"""Robust standard deviations from the median; of a million normal values, none is expected beyond."""

FEWEST = 20
"""Images needed before one can be unlike the others."""

DARK, BRIGHT = 0.01, 0.99
"""Mean grey value below or above which hardly anything can be seen."""

UNIFORM = 0.01
"""Contrast below which an image shows nothing: less than three grey levels of 255."""

MOST = 0.05
"""Share of the set above which images of one deviation are a kind of their own, not outliers."""

FLOORS = {"size": 0.05, "aspect ratio": 0.05, "light": 0.02, "contrast": 0.1, "sharpness": 0.35, "bytes a pixel": 0.1}
"""Least robust standard deviation of each: a set of almost equal images has no outliers for a breath of difference."""


def find_outliers(findings: Sequence[Finding]) -> dict[str, list[int]]:
    """Positions of unlike images by kind of deviation, the most unlike first; kinds without any are left out.

    too dark, too bright, nearly uniform: by fixed limits, where most of the set is otherwise
    unusually small, large, wide, tall, dark, bright, flat, blurred; unusually small or large file for its pixels: more
    than LIMIT robust standard deviations from the median of the set, and at most a twentieth of it (where one image in
    seven is wide, wide images are part of what the set is; `statistics` tells)
    """
    if not findings:
        return {}
    light, contrast = _values(findings, "brightness"), _values(findings, "contrast")
    found = {
        "too dark": _beyond(DARK - light),
        "too bright": _beyond(light - BRIGHT),
        "nearly uniform": _beyond(UNIFORM - contrast),
    }
    found = {kind: rows for kind, rows in found.items() if len(rows) < len(findings) / 2}
    told = {row for rows in found.values() for row in rows}
    for values, floor, low, high in _measures(findings):
        deviation = robust_deviation(values, FLOORS[floor])
        for kind, side in ((low, -deviation), (high, deviation)):
            rows = [row for row in _beyond(side - LIMIT) if row not in told]
            if kind and len(rows) <= MOST * len(findings):
                found[kind] = rows
    return {kind: rows for kind, rows in found.items() if rows}


def robust_deviation(values: np.ndarray, floor: float) -> np.ndarray:
    """Signed distance from the median in robust standard deviations, at least `floor` each: float (n,) to float (n,).

    Where more than half of the values are equal their median deviation is 0; the mean deviation stands in for it.
    All zeros for fewer than FEWEST values.
    """
    if len(values) < FEWEST:
        return np.zeros(len(values))
    away = values - np.median(values)
    spread = 1.4826 * float(np.median(np.abs(away)))
    if spread == 0:
        spread = 1.2533 * float(np.abs(away).mean())
    return away / max(spread, floor)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What the images of a set are like."""

    width: tuple[float, float, float]
    """Least, median and greatest, in pixels."""
    height: tuple[float, float, float]
    bytes: tuple[float, float, float]
    brightness: tuple[float, float, float]
    modes: dict[str, int]
    """Images of each pixel format, most frequent first."""
    formats: dict[str, int]
    bits: dict[str, int]
    several_frames: int
    """Files that hold more than one picture."""
    wrong_suffix: list[int]
    """Positions of files whose name promises another format than they have."""
    class_brightness: dict[str, float]
    """Mean brightness of each class, in [0, 1]."""
    brightness_effect: float
    """Share of the variance of brightness that lies between classes, in [0, 1] (eta squared)."""


def statistics(findings: Sequence[Finding], labels: np.ndarray, classes: Sequence[str]) -> Statistics:
    """Summarise the set.

    labels: int (n,); -1 for an image without one class, which then counts for no class
    """
    light = _values(findings, "brightness")
    known = labels >= 0
    counts = np.bincount(labels[known], minlength=len(classes))
    means = np.bincount(labels[known], weights=light[known], minlength=len(classes)) / np.maximum(1, counts)
    within = float(((light[known] - means[labels[known]]) ** 2).sum())
    total = float(((light[known] - light[known].mean()) ** 2).sum()) if known.any() else 0.0
    return Statistics(
        width=_range(_values(findings, "width")),
        height=_range(_values(findings, "height")),
        bytes=_range(_values(findings, "bytes")),
        brightness=_range(light),
        modes=_counts([finding.mode for finding in findings]),
        formats=_counts([finding.format for finding in findings]),
        bits=_counts([str(finding.bits) for finding in findings]),
        several_frames=sum(finding.frames > 1 for finding in findings),
        wrong_suffix=[index for index, finding in enumerate(findings) if finding.suffix_format],
        class_brightness={name: float(means[index]) for index, name in enumerate(classes) if counts[index]},
        brightness_effect=1 - within / total if total > 0 else 0.0,
    )


def _measures(findings: Sequence[Finding]) -> list[tuple[np.ndarray, str, str, str]]:
    """Values on a scale where equal steps mean equal change, key of the floor, name of the low and the high side."""
    width, height = _values(findings, "width"), _values(findings, "height")
    pixels = np.maximum(1, width * height)
    sharpness = np.log(_values(findings, "sharpness") + 1e-6)
    contrast = np.log(_values(findings, "contrast") + 1e-3)
    # A flat image has little to be sharp about: blur is judged after what contrast explains.
    blur = sharpness - 2 * contrast
    file = np.log(np.maximum(1, _values(findings, "bytes")) / pixels)
    return [
        (np.log(pixels) / 2, "size", "unusually small", "unusually large"),
        (np.log(width / np.maximum(1, height)), "aspect ratio", "unusually tall", "unusually wide"),
        (_values(findings, "brightness"), "light", "unusually dark", "unusually bright"),
        (contrast, "contrast", "unusually flat", ""),
        (blur, "sharpness", "unusually blurred", ""),
        (file, "bytes a pixel", "unusually small file for its pixels", "unusually large file for its pixels"),
    ]


def _beyond(excess: np.ndarray) -> list[int]:
    """Positions of positive values, greatest first."""
    rows = np.flatnonzero(excess > 0)
    return [int(row) for row in rows[np.argsort(-excess[rows], kind="stable")]]


def _values(findings: Sequence[Finding], name: str) -> np.ndarray:
    return np.asarray([getattr(finding, name) for finding in findings], np.float64)


def _range(values: np.ndarray) -> tuple[float, float, float]:
    if not len(values):
        return 0.0, 0.0, 0.0
    return float(values.min()), float(np.median(values)), float(values.max())


def _counts(names: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items(), key=lambda pair: (-pair[1], pair[0])))
