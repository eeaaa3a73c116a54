"""Learning from a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vitreous.config.ranges import check_ranges


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """A teacher and how much is learned from it; without a teacher nothing here is used."""

    teacher: str | None = None
    """A run folder, or timm:NAME of a convolutional model or Vision Transformer with the classes of the data."""
    kind: Literal["soft", "hard", "patient"] | None = None
    """soft: the teacher's probabilities (arXiv:1503.02531); hard: its choice, learned by DeiT's token where the model has
    one (arXiv:2012.12877); patient: its probabilities alone, on the very image the student sees (arXiv:2106.05237)."""
    weight: float | None = None
    """Share of the loss that comes from the teacher, in [0, 1]; all of it where it is patient."""
    temperature: float | None = None
    """Divides the logits of both before they are compared; not where the teacher is hard."""

    def __post_init__(self) -> None:
        check_ranges(self, "distill", {"weight": "[0, 1]", "temperature": "(0, inf)"})
