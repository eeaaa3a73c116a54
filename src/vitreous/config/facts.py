"""What is known of the data and the machine when a recipe is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Counts and statistics of the readable images; everything a recipe may depend on."""

    classes: tuple[str, ...]
    train_counts: tuple[int, ...]
    """Training images of each class."""
    num_val: int
    num_test: int
    sizes: tuple[tuple[int, int], ...]
    """(width, height) in pixels of the training images (of a sample of them in large sets)."""
    grey_share: float
    """Share of the training images stored without colour, in [0, 1]."""
    deep_share: float
    """Share of the training images stored with 16 bits, in [0, 1]."""
    brightness: float
    """Mean brightness of a sample of training images, in [0, 1]."""
    device: str
    """cpu, cuda or mps."""
    cores: int
    """CPU cores this process may use."""
    budget: float | None
    """Seconds the whole command may take, or None."""
    images: int | None = None
    """Training images where that is not the sum of `train_counts`, since an image may have several labels or none."""
    channels: int = 3
    """Bands of most training images, transparency not counted: 1 grey, 3 colour, more for other sensors."""
    formats: tuple[tuple[str, float], ...] = ()
    """(file format, share of the training images in it), such as ("JPEG", 0.9), ("DICOM", 0.1); empty where unknown."""
    exposure_spread: float = 0.0
    """Deviation of the images' mean brightness over the deviation within an image (median): 1 where images differ from each
    other as much as their own pixels do."""

    @property
    def num_train(self) -> int:
        return sum(self.train_counts) if self.images is None else self.images

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several labels or none."""
        return self.images is not None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def format_share(self, *names: str) -> float:
        """Share of the training images in one of these file formats, in [0, 1]; upper and lower case are one."""
        wanted = {name.casefold() for name in names}
        return sum(share for name, share in self.formats if name.casefold() in wanted)

    @property
    def short_side(self) -> float:
        """Median of the shorter image side, pixels."""
        return median(min(size) for size in self.sizes)

    @property
    def aspect(self) -> float:
        """Median of width over height."""
        return median(width / height for width, height in self.sizes)

    @property
    def imbalance(self) -> float:
        """Images in the largest class over images in the smallest."""
        return max(self.train_counts) / max(1, min(self.train_counts))
