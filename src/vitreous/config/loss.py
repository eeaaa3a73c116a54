"""What training makes small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vitreous.config.ranges import check_ranges


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss of one image; `--balance` says how unequal classes weigh in it."""

    name: Literal["cross-entropy", "bce", "focal", "asymmetric"] | None = None
    """cross-entropy over all classes; bce, each class by itself (arXiv:2110.00476); focal, which turns to the hard images
    (arXiv:1708.02002); asymmetric, which forgives easy negatives of several-label data (arXiv:2009.14119)."""
    focal_gamma: float | None = None
    """focal: exponent on the probability that is missing; 0 is plain cross-entropy."""
    gamma_positive: float | None = None
    """asymmetric: exponent for labels that are there."""
    gamma_negative: float | None = None
    """asymmetric: exponent for labels that are not there."""
    margin: float | None = None
    """asymmetric: probability below which an absent label costs nothing, in [0, 1)."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            "loss",
            {
                "focal_gamma": "[0, inf)",
                "gamma_positive": "[0, inf)",
                "gamma_negative": "[0, inf)",
                "margin": "[0, 1)",
            },
        )
