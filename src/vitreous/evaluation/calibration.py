"""Calibration: scores that mean what they say. Temperature scaling and the bins of a reliability diagram."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import proportion
from vitreous.evaluation.metrics import NUM_BINS, confidence_bins

MIN_IMAGES = 20
"""A temperature fitted on fewer images would be noise."""
LARGEST = 20.0
"""Bounds of the temperature: [1 / LARGEST, LARGEST]."""


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by before the softmax, and a remark where it could not be fitted."""

    value: float
    note: str = ""


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    """Temperature scaling (Guo et al. 2017, arXiv:1706.04599, section 4.2): the positive number that minimises the
    negative log-likelihood of validation labels. It never changes which class is likeliest.

    logits: (n, k). labels: int (n,).
    Where every validation image is right the likelihood alone would sharpen the scores without end. So the targets are
    Platt's (1999): the label gets (n + 1) / (n + 2) and the other classes share the rest, as if about one image had been wrong.
    """
    num_images, num_classes = logits.shape
    if num_images < MIN_IMAGES:
        return Temperature(
            1.0, f"Scores are not calibrated: {num_images} validation images are too few (at least {MIN_IMAGES})."
        )
    logits = logits.astype(np.float64)
    own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    doubt = 1 / (num_images + 2)
    others = (logits.sum(axis=1) - own) / max(num_classes - 1, 1)
    target = (1 - doubt) * own + doubt * others

    def loss(log_temperature: float, reward: np.ndarray) -> float:
        scale = np.exp(-log_temperature)
        return float((logsumexp(logits * scale, axis=1) - reward * scale).mean())

    bound = np.log(LARGEST)
    found = minimize_scalar(loss, args=(target,), bounds=(-bound, bound), method="bounded", options={"xatol": 1e-6})
    best = float(found.x)
    # Platt's doubt may outweigh what calibration gains; then scores are left as they are.
    return Temperature(float(np.exp(best)) if loss(best, own) <= loss(0.0, own) else 1.0)


def fit_label_temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    """The same for labels that do not exclude each other: minimises the log loss of their sigmoids. It never moves a score
    across one half.

    logits: (n, k). labels: (n, k), 1 where a label is there. Targets are Platt's here too, over all labels together.
    """
    num_images = len(logits)
    if num_images < MIN_IMAGES:
        return Temperature(
            1.0, f"Scores are not calibrated: {num_images} validation images are too few (at least {MIN_IMAGES})."
        )
    signed = np.where(labels > 0, 1.0, -1.0) * logits.astype(np.float64)  # large where the logit is right
    doubt = 1 / (num_images + 2)

    def loss(log_temperature: float, doubt: float) -> float:
        scaled = signed * np.exp(-log_temperature)
        return float(np.mean((1 - doubt) * np.logaddexp(0, -scaled) + doubt * np.logaddexp(0, scaled)))

    bound = np.log(LARGEST)
    found: Any = minimize_scalar(loss, args=(doubt,), bounds=(-bound, bound), method="bounded", options={"xatol": 1e-6})
    best = float(found.x)
    return Temperature(float(np.exp(best)) if loss(best, 0.0) <= loss(0.0, 0.0) else 1.0)


@dataclass(frozen=True)
class Bin:
    """The images whose top score lies in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float | None
    """Mean top score; None in an empty bin."""
    accuracy: float | None
    """Share that is right; None in an empty bin."""
    accuracy_low: float | None
    accuracy_high: float | None
    """Its 95 % interval."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def score_bins(confidence: np.ndarray, correct: np.ndarray, grouping: Grouping, num_bins: int = NUM_BINS) -> list[Bin]:
    """The points of a reliability diagram (Guo et al. 2017, figure 1): equal-width bins of the scores.

    confidence: scores (n,) in [0, 1]. correct: whether what they stand for is so, bool (n,). grouping: of the same n.
    """
    index = confidence_bins(confidence, num_bins)
    counts = np.bincount(index, minlength=num_bins)
    means = np.bincount(index, confidence, num_bins) / np.maximum(counts, 1)
    shares = np.bincount(index, correct, num_bins) / np.maximum(counts, 1)
    found = [
        proportion(correct[own], grouping.among(own)) if own.any() else None
        for own in np.eye(num_bins, dtype=bool)[:, index]
    ]
    return [
        Bin(
            low=position / num_bins,
            high=(position + 1) / num_bins,
            count=int(counts[position]),
            confidence=float(means[position]) if counts[position] else None,
            accuracy=float(shares[position]) if counts[position] else None,
            accuracy_low=None if share is None else share.low,
            accuracy_high=None if share is None else share.high,
        )
        for position, share in enumerate(found)
    ]
