"""Settings of a comparison beyond those of its trainings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vitreous.errors import UsageError

Equal = Literal["images", "time", "macs", "steps"]


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What all models of a comparison share, and what is measured of them."""

    equal: Literal["auto"] | Equal = "auto"
    """What every model gets as much of: images seen, wall time, multiply-accumulates of training, optimiser steps. auto: what
    --time, --steps or --epochs bound, images seen without any."""
    margin: float = 0.01
    """Difference of accuracy that counts as none, a share in (0, 1): models that differ by less are called as good as each
    other."""
    shares: tuple[float, ...] = ()
    """Shares of the training part, in (0, 1), that every model is also trained on."""
    engines: tuple[str, ...] = ("auto",)
    """What times the finished models: names of `vitreous profile --engines`."""
    batches: tuple[int, ...] = (1, 32)
    """Images at once, for latency."""
    seconds: float = 0.5
    """For each model, engine and batch size."""
    curve: bool = True
    """Also what each model costs at other sizes of image."""
    price_per_hour: float | None = None
    """What an hour of this machine costs, in any currency; gives the cost of a million images."""

    def __post_init__(self) -> None:
        if not 0 < self.margin < 1:
            raise UsageError(
                f"--margin is a share of the images in (0, 1), got {self.margin:g}.", "Such as: --margin 0.01"
            )
        for share in self.shares:
            if not 0 < share < 1:
                raise UsageError(
                    f"--shares are shares of the training part in (0, 1), got {share:g}.",
                    "Such as: --shares 0.1,0.3 (all of it is used in any case)",
                )
        if not self.batches or min(self.batches) < 1:
            raise UsageError("--batch sizes must be 1 or more.", "Such as: --batch 1,32")
        if not self.seconds > 0:
            raise UsageError(f"--seconds must be more than 0, got {self.seconds:g}.", "Such as: --seconds 0.5")
        if self.price_per_hour is not None and not self.price_per_hour > 0:
            raise UsageError(f"--price-per-hour must be more than 0, got {self.price_per_hour:g}.")
