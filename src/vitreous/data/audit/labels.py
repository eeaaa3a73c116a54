"""Which labels are likely wrong: confident learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068, section 3).

Two numbers come out and mean different things. The estimated share says how many labels are wrong by the counts; where
the probe is weak it counts its own errors, so it is an upper guess. The list holds only images on which the probe is
sure: worth looking at one by one, from the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 5
"""Images a class needs before its labels are judged."""

LOW = 0.05
"""A label is listed only where its probability is below this share of what its class has on average."""

TRUSTED = 0.6
"""Agreement of the probe with the labels from which its list is worth reading without a warning."""


@dataclass(frozen=True, kw_only=True)
class LabelIssues:
    """Labels that are likely wrong, surest first."""

    indices: np.ndarray
    """int (m,): which images."""
    suggested: np.ndarray
    """int (m,): the class that the probe sees in each."""
    margin: np.ndarray
    """float (m,): probability of the suggested class less that of the given one, in (0, 1]."""
    doubt: np.ndarray
    """float (m,): how far the given label's probability falls short of its class's average, in (0, 1]; the order."""
    confident_joint: np.ndarray
    """int (k, k): images with the label of the row that are confidently of the column's class."""
    joint: np.ndarray
    """float (k, k): the same calibrated to the number of labels of each class; sums to 1."""
    estimated_share: float
    """Share of labels that are wrong, by the calibrated counts: one less the diagonal of `joint`."""
    estimated: int
    """The same as a number of images."""
    agreement: float
    """Share of the labels that are what the probe finds most probable: how much the probe can be trusted."""
    unjudged: tuple[int, ...]
    """Classes with too few images to judge."""


def find_label_issues(probabilities: np.ndarray, labels: np.ndarray) -> LabelIssues:
    """The images whose label a probe confidently contradicts.

    probabilities: float (n, k), from a probe that did not see the image
    labels:        int (n,)

    Section 3.1: an image counts as confidently of class j where its probability of j reaches the average that images
    labelled j have; of several such classes the most probable counts. Listed are those outside the diagonal where that
    class is also the most probable of all and the given label's probability is low. Ranked by self-confidence (section
    3.2) in units of its class's average, which finds planted errors better than the margin where the probe is weak.
    """
    labels = np.asarray(labels, np.int64)
    count, classes = probabilities.shape
    if len(labels) != count:
        raise ValueError(f"{count} rows of probabilities, {len(labels)} labels")
    sizes = np.bincount(labels, minlength=classes)
    given = probabilities[np.arange(count), labels].astype(np.float64)
    average = np.bincount(labels, weights=given, minlength=classes) / np.maximum(1, sizes)
    judged = sizes >= FEWEST
    sure = _confident_class(probabilities, np.where(judged, average, np.inf))
    counts = np.zeros((classes, classes), np.int64)
    counted = (sure >= 0) & judged[labels]
    np.add.at(counts, (labels[counted], sure[counted]), 1)
    joint = _calibrate(counts, sizes)
    doubt = 1 - given / np.maximum(average[labels], 1e-12)
    best = probabilities.argmax(1)
    rows = np.flatnonzero(counted & (sure != labels) & (sure == best) & (doubt > 1 - LOW))
    rows = rows[np.argsort(-doubt[rows], kind="stable")]
    share = max(0.0, float(1 - np.trace(joint)))
    return LabelIssues(
        indices=rows,
        suggested=sure[rows],
        margin=probabilities.max(1)[rows] - given[rows],
        doubt=doubt[rows],
        confident_joint=counts,
        joint=joint,
        estimated_share=share,
        estimated=round(share * count),
        agreement=float((best == labels).mean()) if count else 0.0,
        unjudged=tuple(int(index) for index in np.flatnonzero((sizes > 0) & ~judged)),
    )


def find_label_issues_several(probabilities: np.ndarray, targets: np.ndarray) -> list[LabelIssues]:
    """The same for images with any number of labels: each label by itself, present or absent.

    probabilities: float (n, k), of each label
    targets:       bool (n, k)
    returns:       one finding a label; suggested is 1 where the label is missing, 0 where it is there and should not be
    """
    if probabilities.shape != targets.shape:
        raise ValueError(f"probabilities {probabilities.shape} and targets {targets.shape} differ in shape")
    return [
        find_label_issues(np.stack([1 - column, column], axis=1), target.astype(np.int64))
        for column, target in zip(probabilities.T, targets.T, strict=True)
    ]


def describe(issues: LabelIssues, classes: Sequence[str]) -> str:
    """Two or three sentences: how many are listed, how many are wrong by the counts, what is confused most."""
    probe = f"The quick probe agrees with {issues.agreement:.0%} of the labels"
    probe += (
        "." if issues.agreement >= TRUSTED else ", so most of its doubts are its own: judge with embeddings of a model."
    )
    if not len(issues.indices):
        return f"No label is confidently contradicted by what images of the other classes look like. {probe}"
    outside = issues.confident_joint - np.diag(np.diagonal(issues.confident_joint))
    row, column = divmod(int(outside.argmax()), len(outside))
    listed = len(issues.indices)
    counted = (
        f"; by the counts of confident learning at most about {issues.estimated:,} ({issues.estimated_share:.1%}) are"
        if issues.agreement >= TRUSTED  # a weak probe counts its own mistakes
        else ""
    )
    return (
        f"{listed:,} label{'' if listed == 1 else 's'} may be wrong, surest first{counted}. {probe} "
        f"Most often {classes[row]!r} is taken for {classes[column]!r} ({outside[row, column]:,} times)."
    )


def _confident_class(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """int (n,): the most probable of the classes whose threshold is reached, -1 where none is."""
    result = np.empty(len(probabilities), np.int64)
    for start in range(0, len(probabilities), 4096):
        some = probabilities[start : start + 4096]
        reached = np.where(some >= thresholds, some, -1.0)
        result[start : start + 4096] = np.where(reached.max(1) >= 0, reached.argmax(1), -1)
    return result


def _calibrate(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Equation 3: rows scaled to the number of labels of their class, all scaled to sum to 1. A class without any sure
    image is taken to be right.
    """
    sums = counts.sum(1)
    rows = counts + np.diag(sums == 0).astype(np.int64)
    scaled = rows / np.maximum(1, rows.sum(1, keepdims=True)) * sizes[:, None]
    return scaled / max(1, sizes.sum())
