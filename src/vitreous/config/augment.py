"""Random changes of training images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training images. What may not change a label depends on the domain: see `--preset`."""

    horizontal_flip: bool | None = None
    """Mirror left and right with probability one half."""
    vertical_flip: bool | None = None
    """Mirror top and bottom with probability one half."""
    quarter_turns: bool | None = None
    """Turn by a random multiple of 90 degrees (square images only)."""
    rotate: float | None = None
    """Largest rotation either way, degrees."""
    translate: float | None = None
    """Largest shift either way, as a share of the image side."""
    scale: float | None = None
    """Largest relative change of size either way: 0.2 means 0.8 to 1.2."""
    shear: float | None = None
    """Largest shear either way, degrees."""
    crop_area: float | None = None
    """Smallest share of the image's area that a random resized crop keeps, in (0, 1]; 1 switches it off."""
    pad_crop: int | None = None
    """Largest shift either way, whole pixels, where the mirrored image fills the gap (as usual for CIFAR: 4); 0 for none."""
    rand_augment_ops: int | None = None
    """RandAugment: operations applied to an image (Cubuk et al. 2020, arXiv:1909.13719). 0 switches it off."""
    rand_augment_magnitude: int | None = None
    """RandAugment: strength of an operation, 0 to 30."""
    three_augment: bool | None = None
    """3-Augment: one of grey, solarise and blur for each image (DeiT III, arXiv:2204.07118); grey images get one of the last
    two, images of other numbers of bands the blur."""
    brightness: float | None = None
    """Largest relative change of brightness either way, in [0, 1)."""
    contrast: float | None = None
    """Largest relative change of contrast either way, in [0, 1)."""
    gamma: float | None = None
    """Largest relative change of the exponent that values in [0, 1] are raised to: 0.25 means 0.8 to 1.25."""
    blur: float | None = None
    """Largest standard deviation of a Gaussian blur, as a share of the shorter image side: 0.004 is 0.9 px of 224."""
    noise: float | None = None
    """Largest standard deviation of added Gaussian noise, in units of full brightness."""
    erase: float | None = None
    """Probability of blanking one random rectangle (arXiv:1708.04896)."""
    mixup: float | None = None
    """Beta parameter of mixup (arXiv:1710.09412). 0 switches it off."""
    cutmix: float | None = None
    """Beta parameter of CutMix (arXiv:1905.04899). 0 switches it off."""
    mix_probability: float | None = None
    """Share of batches that are mixed, in [0, 1]."""
    mix_until: float | None = None
    """Share of all steps after which mixing stops, so that training ends on clean images; in [0, 1]."""
    strong_until: float | None = None
    """Share of all steps after which RandAugment, 3-Augment, erasing and repeats stop, for the same reason; in [0, 1]."""
    repeats: int | None = None
    """Differently changed copies of an image in one batch (repeated augmentation, arXiv:1901.09335); 1 switches it off. An
    epoch has as many batches as without, of 1/repeats of the images."""
    start_size: float | None = None
    """Share of the image side that training begins with, in (0, 1]; it grows in three steps to the full size (progressive
    resolution)."""
    full_size_from: float | None = None
    """Share of all steps after which training sees the full size, in [0, 1]."""
