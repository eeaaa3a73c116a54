"""Low-rank adaptation."""

from __future__ import annotations

from dataclasses import dataclass

from vitreous.config.ranges import check_ranges


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Small matrices that learn beside frozen ones (Hu et al. 2022, arXiv:2106.09685), for `--method lora`."""

    rank: int | None = None
    """Inner width of the added matrices."""
    alpha: float | None = None
    """The added product is scaled by alpha / rank."""
    dropout: float | None = None
    """Chance that an input of the added matrices is zeroed in training, in [0, 1)."""

    def __post_init__(self) -> None:
        check_ranges(self, "lora", {"rank": "[1, inf)", "alpha": "(0, inf)", "dropout": "[0, 1)"})
