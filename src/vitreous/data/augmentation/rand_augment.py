"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719), every image with its own draw.

Operations and ranges are those of `torchvision.transforms.v2.RandAugment`. torchvision gives all images of a batch the
same operations; here each has its own, and those of a batch that drew the same one are changed together. Values are
floats that are not rounded between operations, so that results lie within one grey level of torchvision's. The operations
that move pixels (shear, translate, rotate) are one: sampled once, with grey where nothing is.

Those take grey and red-green-blue images. Images of other numbers of channels (the bands of a satellite, the stains of
a microscope) get those operations that mean something for each channel by itself and keep the order of its values.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.data.augmentation.geometry import sample
from vitreous.data.augmentation.three import LUMA

FULL_MAGNITUDE = 30

WHITE = 255.0
"""Images are given on the scale of bytes, whatever their depth."""

GREY = 128.0
"""What fills the places that a moved image leaves."""

COLOUR_ONLY = ("color", "posterize", "solarize", "autocontrast", "equalize")
"""Left out where the channels are neither grey nor red, green, blue: they invert or level what tells bands apart."""

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
"""Operations that move pixels: by up to 0.3 of a pixel a pixel, 150 of 331 of the side, 30 degrees."""

SHIFT = 2 * 150 / 331
"""In coordinates from -1 to 1."""

Operation = Callable[[Tensor, Tensor], Tensor]
"""(float images (b, c, h, w) from 0 to 255, strengths (b,) in [-1, 1]) -> images."""


def rand_augment(images: Tensor, num_ops: int, magnitude: int, generator: torch.Generator) -> Tensor:
    """Apply `num_ops` random operations, one after the other, to each image.

    images: float (b, c, h, w), 0 to 255; magnitude: strength, 0 to 30.
    returns: a new tensor of the same shape and range.
    """
    names = operation_names(images.shape[1])
    order = torch.arange(len(images))  # where each image of `out` stood
    out = images.clone(memory_format=torch.contiguous_format) if num_ops == 0 else images
    for _ in range(num_ops):
        drawn = torch.randint(len(names), (len(images),), generator=generator)
        negative = torch.rand(len(images), generator=generator) < 0.5
        strengths = torch.where(negative, -1.0, 1.0) * (magnitude / FULL_MAGNITUDE)
        # Sorted by operation, so that each finds its images side by side and changes them where they are.
        drawn, places = drawn[order].sort(stable=True)
        order = order[places]
        out = out[places.to(images.device)]
        strengths = strengths[order].to(images.device)
        ends = torch.bincount(drawn, minlength=len(names)).cumsum(0).tolist()
        moving = slice(ends[0], ends[len(MOVES)])  # those that move pixels are one operation
        if moving.stop > moving.start:
            theta = matrices(drawn[moving].to(images.device), strengths[moving], images.shape[2] / images.shape[3])
            out[moving] = _sampled(out[moving], theta)
        for name, start, stop in zip(names, [0, *ends], ends, strict=False):
            if name in VALUES and stop > start:
                out[start:stop] = apply(name, out[start:stop], strengths[start:stop])
    return out if num_ops == 0 else out[order.argsort().to(images.device)]


def operation_names(channels: int) -> tuple[str, ...]:
    """The operations that images of this number of channels can bear, in the order in which they are drawn."""
    return tuple(name for name in NAMES if channels in (1, 3) or name not in COLOUR_ONLY)


def apply(name: str, images: Tensor, strengths: Tensor) -> Tensor:
    """One operation on float images (b, c, h, w) from 0 to 255. strengths: (b,), in [-1, 1]; only the size counts for
    operations that are not in `SIGNED`."""
    if name == "identity":
        return images
    if name in MOVES:
        numbers = torch.full((len(images),), NAMES.index(name), device=images.device)
        return _sampled(images, matrices(numbers, strengths, images.shape[2] / images.shape[3]))
    strengths = (strengths if name in SIGNED else strengths.abs()).view(-1, 1, 1, 1)
    return VALUES[name](images, strengths)


def matrices(numbers: Tensor, strengths: Tensor, aspect: float) -> Tensor:
    """(b, 2, 3): from output to input coordinates in [-1, 1], for moves by their places in `NAMES` (b,) with strengths (b,).

    aspect: height over width. Turned and slanted in pixels, not in [-1, 1].
    """
    shear_x, shear_y, translate_x, translate_y, rotate = (strengths * (numbers == NAMES.index(name)) for name in MOVES)
    angle = rotate * math.radians(30)
    cos, sin = angle.cos(), angle.sin()
    entries = (
        *(cos, (sin + 0.3 * shear_x) * aspect, translate_x * -SHIFT),
        *((0.3 * shear_y - sin) / aspect, cos, translate_y * -SHIFT),
    )
    return torch.stack(entries, 1).view(-1, 2, 3)


def _sampled(images: Tensor, theta: Tensor) -> Tensor:
    # Zeros come in from outside, so grey is made zero.
    return sample(images - GREY, theta, (images.shape[2], images.shape[3]), "zeros").add_(GREY)


def _blend(images: Tensor, other: Tensor, strength: Tensor) -> Tensor:
    """Away from `other` by a strength above 0, towards it by one below."""
    return torch.lerp(other, images, 1 + 0.9 * strength).clamp_(0, WHITE)


def _brightness(images: Tensor, strength: Tensor) -> Tensor:
    return (images * (1 + 0.9 * strength)).clamp_(0, WHITE)


def _luma(images: Tensor) -> Tensor:
    """(b, 1, h, w) of red-green-blue images, whole numbers as torchvision's."""
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).floor()[:, None]


def _color(images: Tensor, strength: Tensor) -> Tensor:
    return images if images.shape[1] != 3 else _blend(images, _luma(images).expand_as(images), strength)


def _contrast(images: Tensor, strength: Tensor) -> Tensor:
    if images.shape[1] == 3:
        middle = _luma(images).mean((1, 2, 3), keepdim=True)
    else:  # a grey image, or bands, of which each keeps its own middle
        middle = images.mean((2, 3), keepdim=True)
    return _blend(images, middle.expand_as(images), strength)


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    if min(images.shape[-2:]) <= 2:
        return images
    height, width = images.shape[-2:]
    # The 3 x 3 mean that counts the middle five times; the outermost pixels stay.
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = images[..., 1 : height - 1, 1 : width - 1]
    out = images.clone()
    out[..., 1 : height - 1, 1 : width - 1] = _blend(inner, ((box + 4 * inner) / 13).round_(), strength)
    return out


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    step = 2.0 ** torch.round(4 * strength)  # as many grey levels become one
    return torch.floor(images / step) * step


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    return torch.where(images >= WHITE * (1 - strength), WHITE - images, images)


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    even = high - low < 1e-3  # nothing to stretch
    scale = torch.where(even, 1.0, WHITE / (high - low).clamp(min=1e-3))
    return ((images - torch.where(even, 0.0, low)) * scale).clamp_(0, WHITE)


def _equalize(images: Tensor, strength: Tensor) -> Tensor:
    """Histogram equalisation of each channel by the rule of Pillow's `ImageOps.equalize`."""
    planes = images.flatten(2).flatten(0, 1).round().long()
    first = torch.arange(len(planes), device=images.device)[:, None] * 256
    histogram = torch.bincount((planes + first).flatten(), minlength=256 * len(planes)).view(-1, 256)
    cumulative = histogram.cumsum(1)
    # The largest value's share counts in no step, so that white is where the last level begins.
    last = histogram.gather(1, planes.amax(1, keepdim=True))
    step = (planes.shape[1] - last) // 255
    before = F.pad(cumulative, (1, 0))[:, :-1]
    table = ((before + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    return table.gather(1, planes).view(images.shape).to(images.dtype)


# images, strengths (b, 1, 1, 1) -> images
VALUES: dict[str, Operation] = {
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
NAMES = ("identity", *MOVES, *VALUES)
SIGNED = (*MOVES, "brightness", "color", "contrast", "sharpness")
"""Operations whose strength may be negative."""
