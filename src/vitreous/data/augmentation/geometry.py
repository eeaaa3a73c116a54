"""Where each pixel of an augmented image is taken from: mirroring, turning, moving and cropping as one map.

Changes that take pixels as they are (mirroring, quarter turns, shifts by whole pixels) are an index; any other is an
affine map, sampled bilinearly. Shapes: b images, c channels, (h, w) the images given, (H, W) those that the model sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.config.train import AugmentConfig

CROP_RATIO = 4 / 3
"""Most by which a random crop is wider or higher than the image's own shape."""

Size = tuple[int, int]


@dataclass(frozen=True)
class WholePixels:
    """What happens to each of b images without computing a value; entries are None where they are off for all."""

    mirror_x: Tensor | None
    """bool (b,): left and right change places."""
    mirror_y: Tensor | None
    """bool (b,): top and bottom change places."""
    quarters: Tensor | None
    """int64 (b,), 0 to 3: turns by 90 degrees."""
    shift: Tensor | None
    """int64 (b, 2): how far right and down the pixels are taken from, in pixels."""


def change_places(
    images: Tensor, config: AugmentConfig, seen: Size, pad_crop: int, generator: torch.Generator
) -> Tensor:
    """Each image (b, c, h, w) mirrored, turned, moved and cropped in its own way: (b, c, *seen).

    images: uint8 or float; they stay what they are unless values are computed. pad_crop: `AugmentConfig.pad_crop` in
    pixels of the image seen. What a shift, turn or slant brings in from outside is the nearest edge pixel, so that nothing
    foreign enters; the mirrored image where `pad_crop` is on.
    """
    affine = any((config.rotate, config.translate, config.scale, config.shear))
    crops = config.crop_area is not None and config.crop_area < 1
    if not (affine or crops):
        images = resized(images, seen)
        moves = draw_whole_pixels(config, seen, pad_crop, len(images), generator)
        return take_whole_pixels(images, moves)
    stored = (images.shape[2], images.shape[3])
    theta = draw_affine(config, stored, seen, pad_crop, len(images), generator)
    outside = "reflection" if pad_crop else "border"
    images = images.to(torch.float32, memory_format=torch.contiguous_format)
    return sample(images, theta.to(images.device), seen, outside)


def sample(images: Tensor, theta: Tensor, size: Size, outside: str) -> Tensor:
    """float images (b, c, h, w) where matrices (b, 2, 3) from output to input coordinates in [-1, 1] say: (b, c, *size).

    outside: "zeros", "border" or "reflection", as in `grid_sample`.
    """
    # torch's affine_grid, as one broadcast sum in place of a product of matrices with three columns: ten times as fast. A
    # place is one complex number, because a sum over a last axis of two is as slow.
    height, width = size
    x = (torch.arange(width, device=theta.device) * 2 + 1) / width - 1
    y = (torch.arange(height, device=theta.device) * 2 + 1) / height - 1
    across = torch.view_as_complex((theta[:, None, :, 0] * x[:, None]).contiguous())  # (b, W)
    down = torch.view_as_complex(theta[:, None, :, 1] * y[:, None] + theta[:, None, :, 2])  # (b, H)
    grid = torch.view_as_real(across[:, None] + down[:, :, None])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def resized(images: Tensor, size: Size) -> Tensor:
    """Images (b, c, h, w) at another size, float32; as they are where they have it."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images.float(), size, mode="bilinear", antialias=True, align_corners=False)


def draw_whole_pixels(
    config: AugmentConfig, seen: Size, pad_crop: int, count: int, generator: torch.Generator
) -> WholePixels:
    """Mirroring, quarter turns of square images, and shifts by up to `pad_crop` pixels."""

    def coin() -> Tensor:
        return torch.rand(count, generator=generator) < 0.5

    return WholePixels(
        mirror_x=coin() if config.horizontal_flip else None,
        mirror_y=coin() if config.vertical_flip else None,
        quarters=torch.randint(4, (count,), generator=generator)
        if config.quarter_turns and seen[0] == seen[1]
        else None,
        shift=torch.randint(-pad_crop, pad_crop + 1, (count, 2), generator=generator) if pad_crop else None,
    )


def take_whole_pixels(images: Tensor, moves: WholePixels) -> Tensor:
    """Images (b, c, h, w) of any type with their pixels in other places; what lies outside is the mirrored image."""
    if moves.mirror_y is None and moves.quarters is None and moves.shift is None:
        if moves.mirror_x is None:
            return images
        return torch.where(moves.mirror_x.to(images.device)[:, None, None, None], images.flip(-1), images)
    count, channels, height, width = images.shape
    # Where a row and a column of the result come from, counted from the middle in half pixels, so that a turn is exact.
    right = torch.arange(width).mul(2).sub(width - 1).expand(count, -1)
    down = torch.arange(height).mul(2).sub(height - 1).expand(count, -1)
    if moves.mirror_x is not None:
        right = torch.where(moves.mirror_x[:, None], -right, right)
    if moves.mirror_y is not None:
        down = torch.where(moves.mirror_y[:, None], -down, down)
    if moves.quarters is None:
        column_of_x, row_of_y = (right + width - 1) // 2, (down + height - 1) // 2
        by_x, by_y = _within(column_of_x, moves.shift, 0, width), _within(row_of_y, moves.shift, 1, height) * width
    else:
        # (x, y) is taken from (cos x - sin y, sin x + cos y): of the two terms of either coordinate one is zero.
        cos = torch.tensor([1, 0, -1, 0])[moves.quarters][:, None]
        sin = torch.tensor([0, 1, 0, -1])[moves.quarters][:, None]
        turned = cos == 0
        own_x, own_y = (cos * right + width - 1) // 2, (cos * down + height - 1) // 2
        swapped_x, swapped_y = (sin * right + height - 1) // 2, (-sin * down + width - 1) // 2
        by_x = torch.where(
            turned,
            _within(swapped_x, moves.shift, 1, height) * width,
            _within(own_x, moves.shift, 0, width),
        )
        by_y = torch.where(
            turned,
            _within(swapped_y, moves.shift, 0, width),
            _within(own_y, moves.shift, 1, height) * width,
        )
    places = (by_y[:, :, None] + by_x[:, None, :]).view(count, 1, height * width).to(images.device)
    return images.flatten(2).gather(2, places.expand(-1, channels, -1)).view(images.shape)


def draw_affine(
    config: AugmentConfig, stored: Size, seen: Size, pad_crop: int, count: int, generator: torch.Generator
) -> Tensor:
    """One matrix (b, 2, 3) an image, from output to input coordinates in [-1, 1].

    stored, seen: (height, width) of the images kept and of the images the model takes.
    Read from the output backwards: mirror and turn, then the affine map about the centre, then the crop, then the shift.
    """
    height, width = stored
    affine = any((config.rotate, config.translate, config.scale, config.shear))
    crops = config.crop_area is not None and config.crop_area < 1

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    turnable = seen if height == width else (0, 1)  # quarter turns are for squares that become squares
    moves = draw_whole_pixels(config, turnable, 0, count, generator)
    linear = torch.eye(2).repeat(count, 1, 1)
    offset = torch.zeros(count, 2)
    if moves.mirror_x is not None:
        linear[:, 0] *= torch.where(moves.mirror_x, -1.0, 1.0)[:, None]
    if moves.mirror_y is not None:
        linear[:, 1] *= torch.where(moves.mirror_y, -1.0, 1.0)[:, None]
    if moves.quarters is not None:
        cos, sin = torch.tensor([1.0, 0, -1, 0])[moves.quarters], torch.tensor([0, 1.0, 0, -1])[moves.quarters]
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
    if pad_crop:
        shift = torch.randint(-pad_crop, pad_crop + 1, (count, 2), generator=generator)
        offset = offset + 2 * shift / torch.tensor([seen[1], seen[0]])
    return torch.cat([linear, offset[:, :, None]], 2)


def _within(places: Tensor, shift: Tensor | None, axis: int, side: int) -> Tensor:
    """Places (b, n) along an axis of `side` pixels moved by the images' shifts; those outside are mirrored at the edge."""
    if shift is None:
        return places
    moved = (places + shift[:, axis : axis + 1]).abs()
    return side - 1 - (side - 1 - moved).abs()


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Four (b,) entries to (b, 2, 2)."""
    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)
