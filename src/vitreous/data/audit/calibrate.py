"""Scores of the quick probe to probabilities, fitted on images the probe did not see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

NEWTON_STEPS = 25
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Calibration:
    """A map from scores to probabilities and how well it fitted."""

    apply: Callable[[np.ndarray], np.ndarray]
    """float (b, k) to float32 (b, k)."""
    loss: float
    """Mean logarithmic loss where it was fitted; lower is better."""


def fit_temperature(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Calibration:
    """Softmax of the scores times one factor (Guo et al. 2017, arXiv:1706.04599, section 4.2).

    scores:  float (b, k)
    targets: float (b, k), one 1 in each row
    weights: float (b,)
    """
    labels, share = targets.argmax(1), weights / weights.sum()
    rows = np.arange(len(labels))

    def loss(log_factor: float) -> float:
        logits = scores * np.float32(np.exp(log_factor))
        logits -= logits.max(1, keepdims=True)
        return float(share @ (np.log(np.exp(logits).sum(1)) - logits[rows, labels]))

    best = _golden_section(loss, np.log(0.05), np.log(200.0))
    return Calibration(lambda some: softmax(some * np.float32(np.exp(best))), loss(best))


def fit_logistic(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Calibration:
    """A slope and an intercept for each label by itself (Platt 1999), with his smoothed targets."""
    positive = targets.sum(0)
    smooth = np.where(targets > 0, (positive + 1) / (positive + 2), 1 / (len(targets) - positive + 2))
    slope, intercept = np.ones(scores.shape[1]), np.zeros(scores.shape[1])
    center, spread = scores.mean(0), np.maximum(scores.std(0), 1e-6)
    x = (scores - center) / spread
    for _ in range(NEWTON_STEPS):
        probability = _sigmoid(slope * x + intercept)
        error = (probability - smooth) * weights[:, None]
        curve = np.maximum(probability * (1 - probability), 1e-6) * weights[:, None]
        a, b, c = (curve * x * x).sum(0) + 1e-3, (curve * x).sum(0), curve.sum(0) + 1e-3
        first, second = (error * x).sum(0) + 1e-3 * slope, error.sum(0)
        determinant = a * c - b * b
        slope = slope - np.clip((c * first - b * second) / determinant, -2, 2)
        intercept = intercept - np.clip((a * second - b * first) / determinant, -2, 2)
    probability = np.clip(_sigmoid(slope * x + intercept), 1e-7, 1 - 1e-7)
    loss = -(targets * np.log(probability) + (1 - targets) * np.log(1 - probability)).sum(1)
    return Calibration(
        lambda some: _sigmoid(slope * (some - center) / spread + intercept).astype(np.float32),
        float(np.average(loss, weights=weights)),
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of float (b, k) to float32 probabilities."""
    powers = np.exp(logits - logits.max(1, keepdims=True), dtype=np.float32)
    return powers / powers.sum(1, keepdims=True)


def _golden_section(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is least, to a hundredth."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 0.01:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
