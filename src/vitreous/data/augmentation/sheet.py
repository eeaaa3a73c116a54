"""A sheet of training images beside what augmentation makes of them, for people to judge whether the labels still hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitreous.config.input import InputSpec
from vitreous.config.train import AugmentConfig
from vitreous.data.augmentation.augment import Augment
from vitreous.data.augmentation.description import describe_augmentation
from vitreous.data.store import PixelStore

DISPLAY_RANGE = (1.0, 99.0)
"""Percentiles of an image shown as black and white where more than 8 bits or three bands are stored: such images seldom
fill their range, and would look black."""

MIX_DRAWS = 8
"""Mixtures drawn to choose one to show from."""


@dataclass(frozen=True)
class AugmentedSheet:
    """Pictures in rows, one row for each image."""

    rows: list[list[Image.Image]]
    """The unchanged image first, then its variants, then, where the settings mix, a mixture with the row above (with the last
    row for the first)."""
    captions: list[str]
    """One for each column."""
    description: str
    """What was on, and which bands are shown where there are more than three."""


def augmented_sheet(
    store: PixelStore,
    rows: Sequence[int] | np.ndarray,
    config: AugmentConfig,
    spec: InputSpec,
    *,
    variants: int = 6,
    seed: int,
) -> AugmentedSheet:
    """The images at `rows` of the store, unchanged and as training may see them.

    spec: what the model takes; the store may keep larger images. config: complete, as `resolve` gives it.
    seed: the same one gives the same sheet. Raises UsageError for an incomplete config.
    """
    pixels = torch.from_numpy(store.get(np.asarray(rows, np.int64))).permute(0, 3, 1, 2).contiguous()
    generator = torch.Generator().manual_seed(seed)
    augment = Augment(config, spec, 1, 0.0)
    plain = Augment(_nothing_of(config), spec, 1, 0.0)
    columns = [plain.images(pixels, generator)]
    columns += [augment.images(pixels, generator) for _ in range(variants)]
    captions = ["original", *(f"variant {number}" for number in range(1, variants + 1))]
    if mixed := _mixed(augment, pixels, generator):
        columns.append(mixed[0])
        captions.append(mixed[1])
    stored = torch.stack([_stored(column, spec) for column in columns], 1)
    return AugmentedSheet([_pictures(row, spec) for row in stored], captions, _describe(config, spec))


def _nothing_of(config: AugmentConfig) -> AugmentConfig:
    off = {name: type(value)(0) for name, value in vars(config).items() if value is not None}
    return replace(config, **{**off, "crop_area": 1.0, "repeats": 1, "start_size": 1.0})


def _mixed(augment: Augment, pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, str] | None:
    """One more variant, mixed whatever the probability says, and its caption; None where mixing is off.

    Of several draws the one nearest to half and half: most of mixup's show hardly anything of the other image.
    """
    config = augment.config
    if len(pixels) < 2 or not config.mix_probability or not (config.mixup or config.cutmix):
        return None
    always = Augment(replace(config, mix_probability=1.0), augment.spec, 1, 0.0)
    images = always.images(pixels, generator)
    first = torch.zeros(len(pixels), 1)
    first[0] = 1  # the mixed target of the first image is then its own share
    tries = [always.mixed(images.clone(), first, generator) for _ in range(MIX_DRAWS)]
    best, targets = min(tries, key=lambda found: abs(float(found[1][0]) - 0.5))
    return (
        best,
        f"mixed: {float(targets[0]):.0%} its own, the rest from the row above (from the last row, in the first)",
    )


def _stored(images: Tensor, spec: InputSpec) -> Tensor:
    """Undo normalisation: (b, c, H, W) in [0, 1]."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    return (images * std + mean).clamp(0, 1)


def _pictures(images: Tensor, spec: InputSpec) -> list[Image.Image]:
    """One row (columns, c, H, W) in [0, 1] as pictures, all shown by the range of the first, the unchanged one."""
    shown = images[:, :3] if spec.channels >= 3 else images[:, :1]
    values = shown.permute(0, 2, 3, 1).numpy()
    if spec.bit_depth > 8 or spec.channels not in (1, 3):
        low, high = np.percentile(values[0], DISPLAY_RANGE, axis=(0, 1))
        values = (values - low) / np.maximum(high - low, 1e-6)
    grey_levels = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return [Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels) for levels in grey_levels]


def _describe(config: AugmentConfig, spec: InputSpec) -> str:
    words = describe_augmentation(config, spec.channels)
    if spec.channels == 2:
        return f"{words}; the first of 2 bands is shown"
    if spec.channels > 3:
        return f"{words}; the first three of {spec.channels} bands are shown as red, green and blue"
    return words
