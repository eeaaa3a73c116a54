"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719) on torchvision's operations, every image with its own draw.

torchvision's own class gives all images of a batch the same operations and draws from the global random state; here
each image has its own, and every number comes from an explicit generator, so that a batch made in the background
disturbs nobody. Operations and ranges are those of `torchvision.transforms.v2.RandAugment`.

Those take grey and red-green-blue images. Images of other numbers of channels (the bands of a satellite, the stains of
a microscope) get those operations that mean something for each channel by itself and keep the order of its values.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

FULL_MAGNITUDE = 30

COLOUR_ONLY = ("color", "posterize", "solarize", "autocontrast", "equalize")
"""Left out where the channels are neither grey nor red, green, blue: they invert or level what tells bands apart."""

Operation = Callable[[Tensor, float], Tensor]
"""(images (b, c, h, w) uint8 or float in [0, 1], strength in [-1, 1]) -> images."""


def operations() -> dict[str, tuple[bool, Operation]]:
    """{name: (its strength may be negative, what it does)}. Imports torchvision, which takes seconds, on first use."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    def affine(
        images: Tensor, *, angle: float = 0.0, shift: tuple[float, float] = (0, 0), shear: tuple[float, float] = (0, 0)
    ) -> Tensor:
        grey = 128.0 if images.dtype == torch.uint8 else 0.5
        height, width = images.shape[-2:]
        return F.affine(
            images,
            angle=angle,
            translate=[shift[0] * width, shift[1] * height],
            scale=1.0,
            shear=[math.degrees(math.atan(value)) for value in shear],
            interpolation=InterpolationMode.BILINEAR,
            fill=[grey] * images.shape[-3],
        )

    def solarize(images: Tensor, strength: float) -> Tensor:
        return F.solarize(images, threshold=(255 if images.dtype == torch.uint8 else 1.0) * (1 - strength))

    return {
        "identity": (False, lambda images, s: images),
        "shear_x": (True, lambda images, s: affine(images, shear=(0.3 * s, 0))),
        "shear_y": (True, lambda images, s: affine(images, shear=(0, 0.3 * s))),
        "translate_x": (True, lambda images, s: affine(images, shift=(150 / 331 * s, 0))),
        "translate_y": (True, lambda images, s: affine(images, shift=(0, 150 / 331 * s))),
        "rotate": (True, lambda images, s: affine(images, angle=30 * s)),
        "brightness": (True, lambda images, s: F.adjust_brightness(images, 1 + 0.9 * s)),
        "color": (True, lambda images, s: F.adjust_saturation(images, 1 + 0.9 * s)),
        "contrast": (True, lambda images, s: F.adjust_contrast(images, 1 + 0.9 * s)),
        "sharpness": (True, lambda images, s: F.adjust_sharpness(images, 1 + 0.9 * s)),
        "posterize": (False, lambda images, s: F.posterize(images, bits=8 - round(4 * s))),
        "solarize": (False, solarize),
        "autocontrast": (False, lambda images, s: F.autocontrast(images)),
        "equalize": (False, lambda images, s: F.equalize(images)),
    }


def operations_for(channels: int) -> dict[str, tuple[bool, Operation]]:
    """`operations`, or those of them that images of this number of channels can bear."""
    table = operations()
    if channels in (1, 3):
        return table
    kept = {name: entry for name, entry in table.items() if name not in COLOUR_ONLY}
    return {
        name: (signed, _by_channel(operation))
        if name in ("brightness", "contrast", "sharpness")
        else (signed, operation)
        for name, (signed, operation) in kept.items()
    }


def _by_channel(operation: Operation) -> Operation:
    """Each channel as a grey image of its own."""

    def apply(images: Tensor, strength: float) -> Tensor:
        return operation(images.flatten(0, 1)[:, None], strength).view(images.shape)

    return apply


def rand_augment(images: Tensor, num_ops: int, magnitude: int, generator: torch.Generator) -> Tensor:
    """Apply `num_ops` random operations, one after the other, to each image.

    images: (b, c, h, w), uint8 or float in [0, 1]; magnitude: strength, 0 to 30.
    returns: the same shape and type.
    """
    table = list(operations_for(images.shape[1]).values())
    out = images.clone()
    for _ in range(num_ops):
        drawn = torch.randint(len(table), (len(images),), generator=generator)
        negative = torch.rand(len(images), generator=generator) < 0.5
        for number, (signed, operation) in enumerate(table):
            # One call for all images with the same operation and sign: they share every parameter.
            for sign in (1, -1) if signed else (1,):
                chosen = (drawn == number) & (negative == (sign < 0)) if signed else drawn == number
                rows = chosen.nonzero()[:, 0].to(images.device)
                if len(rows):
                    out[rows] = operation(out[rows], sign * magnitude / FULL_MAGNITUDE)
    return out
