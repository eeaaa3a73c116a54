"""Where each pixel of an augmented image is taken from: mirroring, turning, moving and cropping as one map."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.config.train import AugmentConfig

CROP_RATIO = 4 / 3
"""Most by which a random crop is wider or higher than the image's own shape."""


def draw_geometry(
    config: AugmentConfig, stored: tuple[int, int], seen: tuple[int, int], count: int, generator: torch.Generator
) -> Tensor | None:
    """One matrix (b, 2, 3) an image, from output to input coordinates in [-1, 1]; None when nothing is on.

    stored, seen: (height, width) of the images kept and of the images the model takes.
    Read from the output backwards: mirror and turn, then the affine map about the centre, then the crop.
    """
    height, width = stored
    turns = bool(config.quarter_turns) and height == width and seen[0] == seen[1]
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


def move(images: Tensor, theta: Tensor | None, seen: tuple[int, int]) -> Tensor:
    """float images (b, c, h, w) sampled where the matrices (b, 2, 3) say, or only resized without them: (b, c, *seen).

    What lies outside the image is filled with its nearest edge pixel, so that nothing foreign enters.
    """
    if theta is not None:
        grid = F.affine_grid(theta.to(images.device), [*images.shape[:2], *seen], align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if images.shape[-2:] != seen:
        return F.interpolate(images, seen, mode="bilinear", antialias=True, align_corners=False)
    return images


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Four (b,) entries to (b, 2, 2)."""
    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)
