"""Progressive resolution: training begins with small images and ends with those that the model is used with.

A step on a quarter of the tokens costs about a quarter, so that a budget buys more of them; the last part of training
sees the full size, as evaluation does (EfficientNetV2, Tan and Le 2021, arXiv:2104.00298, section 4; for ViTs the lower
resolution of most of the training is DeiT III's, arXiv:2204.07118, section 3).

Sizes are (height, width) in pixels; steps are optimiser steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from vitreous.config.train import AugmentConfig
from vitreous.errors import UsageError

Size = tuple[int, int]

STAGES = 3
"""Sizes before the full one, each for an equal part of the steps; fewer where rounding makes two of them one."""


@dataclass(frozen=True)
class SizePlan:
    """Which size of image each step trains on. A pure function of the step, so that any step can be taken again."""

    sizes: tuple[Size, ...]
    """Smallest first, the full one last; at least two."""
    full_from: float
    """Share of all steps after which the size is full, in (0, 1]."""
    held: int
    """First steps, the warm-up, that keep the smallest size. A run whose length is measured during the warm-up and planned
    anew after it has then trained on the images that the final plan says."""
    costs: tuple[float, ...] | None = None
    """What a step on images of each size was measured to cost compared with one of full size; in proportion to the pixels where
    nothing was measured."""

    def stage(self, step: int, steps: int) -> int:
        """The place in `sizes` of a step, from 0, in a run of `steps`."""
        full = max(self.full_from * steps, self.held)
        if step < self.held:
            return 0
        if step >= full:
            return len(self.sizes) - 1
        return int((len(self.sizes) - 1) * (step - self.held) / (full - self.held))

    def at(self, step: int, steps: int) -> Size:
        """(height, width) of the images of a step."""
        return self.sizes[self.stage(step, steps)]

    def relative_cost(self, step: int, steps: int) -> float:
        """What a step costs compared with one of full size.

        vit_micro at 32 pixels: 0.24, 0.35, 0.53 and 0.72 at 16, 20, 24 and 28 pixels, for 0.25, 0.39, 0.56 and 0.77 of the
        pixels; on another day 0.58 at 24. Hence `costs`.
        """
        return (self.costs or self.pixels)[self.stage(step, steps)]

    @property
    def pixels(self) -> tuple[float, ...]:
        """Those of each size as a share of those of the full one."""
        full = self.sizes[-1]
        return tuple(height * width / (full[0] * full[1]) for height, width in self.sizes)

    def total_cost(self, begin: int, steps: int) -> float:
        """What steps `begin` to `steps` - 1 cost together, in steps of full size."""
        # One term a stage, not a step: a plan tries many lengths of many thousand steps.
        total, step = 0.0, begin
        while step < steps:
            stage = self.stage(step, steps)
            low, high = step, steps
            while high - low > 1:  # the stage never falls: bisect for the first step of the next
                middle = (low + high) // 2
                low, high = (middle, high) if self.stage(middle, steps) == stage else (low, middle)
            total += (high - step) * self.relative_cost(step, steps)
            step = high
        return total


def plan_sizes(config: AugmentConfig, full: Size, multiple: Size, held: int) -> SizePlan | None:
    """The sizes that `start_size` and `full_size_from` ask for; None where training sees the full size throughout.

    full: what the model is built for. multiple: what sides must be a multiple of, the patch of a ViT; no side is smaller
    than two of them. held: steps that keep the smallest size, as in `SizePlan`.
    Raises UsageError for a start size without steps that see it, or one that rounds to the full size.
    """
    start = 1.0 if config.start_size is None else config.start_size
    if start >= 1:
        return None
    if not config.full_size_from:
        raise UsageError(
            f"--augment.start-size {start:g} asks for small images at first, but --augment.full-size-from 0 for the full size "
            "from the first step on.",
            "Give the share of the steps that may see less, such as --augment.full-size-from 0.7.",
        )
    shares = [start + (1 - start) * stage / STAGES for stage in range(STAGES)]
    smaller = [_rounded(full, share, multiple) for share in shares]
    sizes = (*dict.fromkeys(size for size in smaller if size != full), full)
    if len(sizes) == 1:
        raise UsageError(
            f"--augment.start-size {start:g} leaves {full[0]} x {full[1]} pixels as they are: sides are multiples of "
            f"{multiple[0]} x {multiple[1]} pixels, at least two of them.",
            "Choose a smaller --augment.start-size, a smaller patch, or leave it out.",
        )
    return SizePlan(sizes, config.full_size_from, held)


def _rounded(full: Size, share: float, multiple: Size) -> Size:
    height, width = (
        min(side, max(2, round(side * share / unit)) * unit) for side, unit in zip(full, multiple, strict=True)
    )
    return height, width
