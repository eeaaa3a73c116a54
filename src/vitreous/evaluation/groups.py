"""Which images belong together: a patient's, a sheet's, a scene's. Statistics treat groups, not images, as independent."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grouping:
    """The group of each image."""

    index: np.ndarray
    """int (n,), in [0, count)."""
    count: int
    """Number of groups."""
    named: bool
    """False where every image is its own group."""

    @classmethod
    def of(cls, groups: Sequence[Hashable] | np.ndarray | None, num_images: int) -> Grouping:
        """groups: (n,) names, or None for every image on its own."""
        if groups is None:
            return cls(np.arange(num_images), num_images, False)
        names, index = np.unique(np.asarray(groups), return_inverse=True)
        assert len(index) == num_images, f"{len(index)} groups for {num_images} images"
        return cls(index, len(names), len(names) < num_images)

    def among(self, chosen: np.ndarray) -> Grouping:
        """The grouping of some of the images, chosen by a bool (n,)."""
        return Grouping.of(self.index[chosen], int(chosen.sum()))

    def totals(self, values: np.ndarray) -> np.ndarray:
        """Sum of values (n,) within each group: (count,)."""
        return np.bincount(self.index, weights=values, minlength=self.count)

    @property
    def effective(self) -> float:
        """Kish's effective number of groups: fewer than there are where a few groups hold most images."""
        sizes = np.bincount(self.index, minlength=self.count)
        return float(sizes.sum() ** 2 / (sizes**2).sum())

    def __str__(self) -> str:
        return f"{self.count} {'groups' if self.named else 'images'}"


def class_trials(labels: np.ndarray, grouping: Grouping) -> float:
    """Independent trials behind a mean over classes: m^2 / sum(1 / g_c) for m classes seen in g_c effective groups each.
    It equals the number of images where classes are even and every image is its own group."""
    seen = np.unique(labels)
    inverse = sum(1 / grouping.among(labels == label).effective for label in seen)
    return min(len(seen) ** 2 / inverse, grouping.effective)


def smallest_class(labels: np.ndarray, grouping: Grouping) -> float:
    """Effective groups of the class that has fewest, among those that the labels name."""
    return float(min(grouping.among(labels == label).effective for label in np.unique(labels)))
