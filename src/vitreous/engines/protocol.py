"""The one thing every engine does: a batch of prepared images in, logits and features out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Outputs:
    """What one forward pass gives, in plain arrays."""

    logits: np.ndarray
    """float32 (b, k), before temperature and softmax."""
    features: np.ndarray
    """float32 (b, d), the pooled representation that the classification head reads."""


class Engine(Protocol):
    """Executes a finished model. Safe to call from one thread at a time."""

    name: str

    def predict(self, batch: np.ndarray) -> Outputs:
        """batch: float32 (b, channels, height, width), prepared by the run's `InputSpec`."""
        ...
