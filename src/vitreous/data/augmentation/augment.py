"""Random changes of training images, a whole batch at a time, and the soft targets that go with them.

Shapes: b images, c channels, (h, w) stored size, (H, W) size the model sees, k classes. Every number is drawn from the
generator passed in, so that one seed gives one batch, bit for bit on a CPU, in whatever thread it is made.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.config.input import InputSpec
from vitreous.config.train import AugmentConfig
from vitreous.data.augmentation.geometry import change_places, resized
from vitreous.data.augmentation.light import change_light
from vitreous.data.augmentation.mixing import draw_erased, mix
from vitreous.data.augmentation.rand_augment import FULL_MAGNITUDE, WHITE, rand_augment
from vitreous.data.augmentation.three import three_augment
from vitreous.errors import UsageError
from vitreous.inputs.pixels import normalisation


class Augment:
    """From stored pixels and labels to what the loss takes."""

    def __init__(self, config: AugmentConfig, spec: InputSpec, num_classes: int, label_smoothing: float) -> None:
        """config: complete, no field None. Raises UsageError for one that is not, or whose values make no sense."""
        unset = [name for name, value in vars(config).items() if value is None]
        if unset:
            raise UsageError(
                f"Augmentation settings without a value: {', '.join(unset)}.", "Resolve the recipe before training."
            )
        _check(config, min(spec.height, spec.width))
        self.config = config
        self.spec = spec
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        scale, offset = normalisation(spec)
        self._scale = torch.from_numpy(scale).view(-1, 1, 1)
        self._offset = torch.from_numpy(offset).view(-1, 1, 1)

    def __call__(
        self,
        pixels: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        mix: bool,
        weights: Tensor | None = None,
        size: tuple[int, int] | None = None,
        strong: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """One batch.

        pixels: uint8 or uint16 (b, c, h, w); h and w may be larger than the spec's. labels: int64 (b,), or float32 (b, k),
        1 where a label is there, for images that may have several.
        generator: on the CPU, whatever device the pixels are on. mix: whether mixup and CutMix may act.
        weights: float32 (b,), what each image counts in the loss; 1 for each where None.
        size: (H, W) of the images returned, at most the spec's; the spec's where None.
        strong: whether RandAugment, 3-Augment and erasing may act.
        returns: float32 images (b, c, H, W), normalised by the spec; float32 targets (b, k), each row a distribution
        times the image's weight.
        """
        images = self.images(pixels, generator, size, strong)
        targets = self.targets(labels.to(images.device))
        if weights is not None:
            targets = targets * weights.to(images.device)[:, None]
        return self.mixed(images, targets, generator) if mix else (images, targets)

    def images(
        self,
        pixels: Tensor,
        generator: torch.Generator,
        size: tuple[int, int] | None = None,
        strong: bool = True,
    ) -> Tensor:
        """All but mixing: float32 (b, c, H, W) from pixels (b, c, h, w), as in `__call__`."""
        config, spec, device = self.config, self.spec, pixels.device
        full, top = (spec.height, spec.width), float(spec.max_value)
        seen = size or full
        # Bytes stay bytes as long as no value is computed.
        images = pixels if spec.bit_depth == 8 else _floats(pixels)
        if seen != full:
            # As much smaller as the model sees them, and only then changed: the same changes at a fraction of the cost.
            height, width = (round(a * b / c) for a, b, c in zip(images.shape[2:], seen, full, strict=True))
            images = resized(images, (height, width))
        if strong and config.rand_augment_ops:
            levels = _floats(images).mul_(WHITE / top)
            levels = rand_augment(levels, config.rand_augment_ops, config.rand_augment_magnitude or 0, generator)
            images = levels.mul_(top / WHITE)
        pad_crop = round((config.pad_crop or 0) * seen[0] / full[0])
        images = _floats(change_places(images, config, seen, pad_crop, generator))
        if strong and config.three_augment:
            images = three_augment(images, top, generator)
        images = change_light(images, config, top, generator)
        # The arithmetic of `vitreous.inputs.normalise`, so that an unchanged image is the same in training and use.
        # In place: since the pixels became floats the images are ours.
        images = images.mul_(self._scale.to(device)).add_(self._offset.to(device))
        if strong and config.erase:
            rows, boxes = draw_erased(config.erase, seen, len(images), generator)
            rows = rows.to(device)
            images[rows] = images[rows].masked_fill(boxes.to(device), 0.0)
        return images

    def targets(self, labels: Tensor) -> Tensor:
        """Class numbers (b,) to smoothed distributions (b, k); labels that are there or not, (b, k), to the same drawn towards
        one half."""
        smoothing = self.label_smoothing
        if labels.ndim == 2:
            return labels.float() * (1 - smoothing) + smoothing / 2
        return F.one_hot(labels, self.num_classes).float() * (1 - smoothing) + smoothing / self.num_classes

    def mixed(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images (b, c, H, W) and targets (b, k) joined with their neighbours', in the share of batches that is set;
        the images are changed in place."""
        return mix(images, targets, self.config, generator)


def _floats(images: Tensor) -> Tensor:
    """float32, one channel after the other in memory, whatever the order in which the store keeps them."""
    return images.to(torch.float32, memory_format=torch.contiguous_format)


def _check(config: AugmentConfig, side: int) -> None:
    ranges = {
        "rotate": (0, 180),
        "translate": (0, 1),
        "scale": (0, 0.99),
        "shear": (0, 80),
        "crop_area": (0.001, 1),
        "pad_crop": (0, side // 2),
        "rand_augment_ops": (0, 14),
        "rand_augment_magnitude": (0, FULL_MAGNITUDE),
        "brightness": (0, 0.99),
        "contrast": (0, 0.99),
        "gamma": (0, 4),
        "blur": (0, 0.1),
        "noise": (0, 1),
        "erase": (0, 1),
        "mixup": (0, 1000),
        "cutmix": (0, 1000),
        "mix_probability": (0, 1),
        "mix_until": (0, 1),
        "strong_until": (0, 1),
        "repeats": (1, 64),
        "start_size": (0.01, 1),
        "full_size_from": (0, 1),
    }
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise UsageError(f"--augment.{name.replace('_', '-')} must lie in [{low:g}, {high:g}], got {value}.")
