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
from vitreous.data.augmentation.geometry import draw_geometry, move
from vitreous.data.augmentation.light import change_light
from vitreous.data.augmentation.mixing import draw_erased, mix
from vitreous.data.augmentation.rand_augment import FULL_MAGNITUDE, rand_augment
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
        _check(config)
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
    ) -> tuple[Tensor, Tensor]:
        """One batch.

        pixels: uint8 or uint16 (b, c, h, w); h and w may be larger than the spec's. labels: int64 (b,).
        generator: on the CPU, whatever device the pixels are on. mix: whether mixup and CutMix may act.
        weights: float32 (b,), what each image counts in the loss; 1 for each where None.
        returns: float32 images (b, c, H, W), normalised by the spec; float32 targets (b, k), each row a distribution
        times the image's weight.
        """
        images = self.images(pixels, generator)
        targets = self.targets(labels.to(images.device))
        if weights is not None:
            targets = targets * weights.to(images.device)[:, None]
        return self.mixed(images, targets, generator) if mix else (images, targets)

    def images(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """All but mixing: float32 (b, c, H, W) from pixels (b, c, h, w), as in `__call__`."""
        config, device, seen = self.config, pixels.device, (self.spec.height, self.spec.width)
        images = self._rand_augment(pixels, generator) if config.rand_augment_ops else pixels.float()
        theta = draw_geometry(config, (images.shape[2], images.shape[3]), seen, len(images), generator)
        images = change_light(move(images, theta, seen), config, float(self.spec.max_value), generator)
        # The arithmetic of `vitreous.inputs.normalise`, so that an unchanged image is the same in training and use.
        images = images * self._scale.to(device) + self._offset.to(device)
        if config.erase:
            images = images.masked_fill(draw_erased(config.erase, seen, len(images), generator).to(device), 0.0)
        return images

    def targets(self, labels: Tensor) -> Tensor:
        """Class numbers (b,) to smoothed distributions (b, k)."""
        smoothing = self.label_smoothing
        return F.one_hot(labels, self.num_classes).float() * (1 - smoothing) + smoothing / self.num_classes

    def mixed(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images (b, c, H, W) and targets (b, k) joined with their neighbours', in the share of batches that is set."""
        return mix(images, targets, self.config, generator)

    def _rand_augment(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        ops, magnitude = self.config.rand_augment_ops or 0, self.config.rand_augment_magnitude or 0
        if self.spec.bit_depth == 8:
            return rand_augment(pixels, ops, magnitude, generator).float()
        top = float(self.spec.max_value)
        return rand_augment(pixels.float() / top, ops, magnitude, generator) * top


def _check(config: AugmentConfig) -> None:
    ranges = {
        "rotate": (0, 180),
        "translate": (0, 1),
        "scale": (0, 0.99),
        "shear": (0, 80),
        "crop_area": (0.001, 1),
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
    }
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise UsageError(f"--augment.{name.replace('_', '-')} must lie in [{low:g}, {high:g}], got {value}.")
