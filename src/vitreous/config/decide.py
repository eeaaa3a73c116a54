"""What decisions are asked of a model's scores."""

from __future__ import annotations

from dataclasses import dataclass

from vitreous.config.ranges import check_ranges


@dataclass(frozen=True, kw_only=True)
class DecideConfig:
    """Thresholds are fitted to the validation part after training, for these aims."""

    recall: float = 0.95
    """Share of the images of a class that its operating point `recall` must find, in (0, 1)."""
    false_alarms: float = 0.05
    """Share of the other images that its operating point `false_alarms` may take for the class, in (0, 1)."""
    coverage: float = 0.9
    """How often a set of classes must hold the true one (conformal prediction), in (0, 1)."""
    accuracy: float = 0.95
    """Accuracy that answers must have; below the score that gives it the model abstains, in (0, 1)."""
    good: str | None = None
    """The class that means "nothing wrong", for escapes at fixed overkill; known by names such as good, ok, normal when absent."""

    def __post_init__(self) -> None:
        check_ranges(self, "decide", dict.fromkeys(("recall", "false_alarms", "coverage", "accuracy"), "(0, 1)"))
