"""Random changes of training images, a whole batch at a time, and the soft targets that go with them.

Shapes: b images, c channels, (h, w) stored size, (H, W) size the model sees, k classes. Every number is drawn from the
generator passed in, so that one seed gives one batch, bit for bit on a CPU, in whatever thread it is made.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.config.input import InputSpec
from vitreous.config.train import AugmentConfig
from vitreous.data.augmentation.rand_augment import FULL_MAGNITUDE, rand_augment
from vitreous.errors import UsageError
from vitreous.inputs.pixels import normalisation

CROP_RATIO = 4 / 3
"""Most by which a random crop is wider or higher than the image's own shape."""
ERASE_AREA = (0.02, 1 / 3)
"""Share of the image that erasing blanks; with ERASE_RATIO the values of arXiv:1708.04896."""
ERASE_RATIO = 3.3


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

    def __call__(self, pixels: Tensor, labels: Tensor, generator: torch.Generator, mix: bool) -> tuple[Tensor, Tensor]:
        """One batch.

        pixels: uint8 or uint16 (b, c, h, w); h and w may be larger than the spec's. labels: int64 (b,).
        generator: on the CPU, whatever device the pixels are on. mix: whether mixup and CutMix may act.
        returns: float32 images (b, c, H, W), normalised by the spec; float32 targets (b, k), each row sums to 1.
        """
        device, top = pixels.device, float(self.spec.max_value)
        if self.config.rand_augment_ops:
            images = self._rand_augment(pixels, generator)
        else:
            images = pixels.float()
        count, channels, height, width = images.shape
        theta = self._geometry(height, width, count, generator)
        size = (self.spec.height, self.spec.width)
        if theta is not None:
            grid = F.affine_grid(theta.to(device), [count, channels, *size], align_corners=False)
            images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        elif (height, width) != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        images = self._light(images, top, generator)
        # The arithmetic of `vitreous.inputs.normalise`, so that an unchanged image is the same in training and use.
        images = images * self._scale.to(device) + self._offset.to(device)
        if self.config.erase:
            images = images.masked_fill(self._erased(count, generator).to(device), 0.0)
        smoothing = self.label_smoothing
        targets = (
            F.one_hot(labels.to(device), self.num_classes).float() * (1 - smoothing) + smoothing / self.num_classes
        )
        return self._mixed(images, targets, generator) if mix else (images, targets)

    def _rand_augment(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        ops, magnitude = self.config.rand_augment_ops or 0, self.config.rand_augment_magnitude or 0
        if self.spec.bit_depth == 8:
            return rand_augment(pixels, ops, magnitude, generator).float()
        top = float(self.spec.max_value)
        return rand_augment(pixels.float() / top, ops, magnitude, generator) * top

    def _geometry(self, height: int, width: int, count: int, generator: torch.Generator) -> Tensor | None:
        """One matrix (b, 2, 3) an image, from output to input coordinates in [-1, 1]; None when nothing is on.

        Read from the output backwards: mirror and turn, then the affine map about the centre, then the crop.
        """
        config = self.config
        turns = bool(config.quarter_turns) and height == width and self.spec.height == self.spec.width
        affine = any((config.rotate, config.translate, config.scale, config.shear))
        crops = config.crop_area is not None and config.crop_area < 1
        if not (turns or affine or crops or config.horizontal_flip or config.vertical_flip):
            return None

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(count, generator=generator) * (high - low) + low

        linear = torch.eye(2).repeat(count, 1, 1)
        offset = torch.zeros(count, 2)
        if config.horizontal_flip:
            linear[:, 0] *= torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)[:, None]
        if config.vertical_flip:
            linear[:, 1] *= torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)[:, None]
        if turns:
            quarter = torch.randint(4, (count,), generator=generator)
            cos, sin = torch.tensor([1.0, 0, -1, 0])[quarter], torch.tensor([0, 1.0, 0, -1])[quarter]
            linear = _matrix(cos, -sin, sin, cos) @ linear
        if affine:
            angle = uniform(-1, 1) * math.radians(config.rotate or 0)
            slant = torch.tan(uniform(-1, 1) * math.radians(config.shear or 0))
            zoom = 1 + uniform(-1, 1) * (config.scale or 0)
            cos, sin = angle.cos() / zoom, angle.sin() / zoom
            # Turned in pixels, not in [-1, 1]: an oblong image must not be slanted by a rotation.
            aspect = width / height
            turn = _matrix(cos, -sin / aspect, sin * aspect, cos)
            linear = turn @ _matrix(torch.ones(count), slant / aspect, torch.zeros(count), torch.ones(count)) @ linear
            offset = 2 * (config.translate or 0) * torch.stack([uniform(-1, 1), uniform(-1, 1)], 1)
        if crops:
            area = uniform(config.crop_area or 1, 1)
            ratio = torch.exp(uniform(-math.log(CROP_RATIO), math.log(CROP_RATIO)))
            sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1)
            corner = torch.stack([uniform(-1, 1), uniform(-1, 1)], 1) * (1 - sides)
            linear, offset = sides[:, :, None] * linear, sides * offset + corner
        return torch.cat([linear, offset[:, :, None]], 2)

    def _light(self, images: Tensor, top: float, generator: torch.Generator) -> Tensor:
        """Brightness, contrast and noise, clamped to what can be stored; images in stored units."""
        config = self.config
        if not (config.brightness or config.contrast or config.noise):
            return images
        count, device = len(images), images.device

        def factor(reach: float | None) -> Tensor:
            return (1 + (torch.rand(count, generator=generator) * 2 - 1) * (reach or 0)).view(-1, 1, 1, 1).to(device)

        if config.brightness:
            images = images * factor(config.brightness)
        if config.contrast:
            middle = images.mean((1, 2, 3), keepdim=True)
            images = torch.lerp(middle, images, factor(config.contrast))
        if config.noise:
            strength = (torch.rand(count, generator=generator) * config.noise * top).view(-1, 1, 1, 1).to(device)
            images = images + strength * torch.randn(images.shape, generator=generator).to(device)
        return images.clamp(0, top)

    def _erased(self, count: int, generator: torch.Generator) -> Tensor:
        """bool (b, 1, H, W): the rectangle, in some images, that is set to the mean."""
        draws = torch.rand(5, count, generator=generator)
        area = draws[0] * (ERASE_AREA[1] - ERASE_AREA[0]) + ERASE_AREA[0]
        ratio = torch.exp((draws[1] * 2 - 1) * math.log(ERASE_RATIO))
        height = ((area * ratio).sqrt().clamp(max=1) * self.spec.height).round().clamp(min=1)
        width = ((area / ratio).sqrt().clamp(max=1) * self.spec.width).round().clamp(min=1)
        top = (draws[2] * (self.spec.height - height + 1)).floor()
        left = (draws[3] * (self.spec.width - width + 1)).floor()
        box = _box(top, left, height, width, self.spec.height, self.spec.width)
        return box & (draws[4] < (self.config.erase or 0)).view(-1, 1, 1, 1)

    def _mixed(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mixup or CutMix of each image with its neighbour in the batch, one ratio a batch."""
        config = self.config
        kinds = [kind for kind in ("mixup", "cutmix") if getattr(config, kind)]
        # torch's Beta takes no generator; NumPy's does, and is seeded from ours.
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        if not kinds or rng.random() >= (config.mix_probability or 0):
            return images, targets
        kind = kinds[int(rng.integers(len(kinds)))]
        share = float(rng.beta(getattr(config, kind), getattr(config, kind)))
        other = images.roll(1, 0)
        if kind == "mixup":
            images = images * share + other * (1 - share)
        else:
            height, width = images.shape[-2:]
            side = math.sqrt(1 - share)
            middle = rng.random(2) * (height, width)
            low = np.clip(np.rint(middle - np.array([height, width]) * side / 2), 0, (height, width)).astype(int)
            high = np.clip(np.rint(middle + np.array([height, width]) * side / 2), 0, (height, width)).astype(int)
            images = images.clone()
            images[:, :, low[0] : high[0], low[1] : high[1]] = other[:, :, low[0] : high[0], low[1] : high[1]]
            share = 1 - float((high - low).prod()) / (height * width)
        return images, targets * share + targets.roll(1, 0) * (1 - share)


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Four (b,) entries to (b, 2, 2)."""
    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)


def _box(top: Tensor, left: Tensor, height: Tensor, width: Tensor, rows: int, columns: int) -> Tensor:
    """bool (b, 1, rows, columns), true inside each image's box."""
    y, x = torch.arange(rows), torch.arange(columns)
    inside_y = (y >= top[:, None]) & (y < (top + height)[:, None])
    inside_x = (x >= left[:, None]) & (x < (left + width)[:, None])
    return (inside_y[:, :, None] & inside_x[:, None, :])[:, None]


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
