"""Changes of values, not of places: brightness, contrast, gamma, blur and noise, for any number of channels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.config.train import AugmentConfig

LEAST_BLUR = 0.2
"""Pixels. A narrower Gaussian gives its neighbours less than 4 millionths of the weight: it changes no grey level."""


def change_light(images: Tensor, config: AugmentConfig, top: float, generator: torch.Generator) -> Tensor:
    """Each image with its own brightness, contrast, gamma, blur and noise, in the order in which a camera adds them.

    images: float (b, c, h, w) in stored units, 0 to `top`; clamped to these again wherever anything is on. Every channel
    of an image is changed alike.
    """
    widest = (config.blur or 0) * min(images.shape[-2:])
    blurs = widest >= LEAST_BLUR
    if not (config.brightness or config.contrast or config.gamma or blurs or config.noise):
        return images
    count, channels = images.shape[:2]

    def draw(low: float) -> Tensor:
        """(b, 1, 1, 1), uniform in [low, 1)."""
        return (torch.rand(count, generator=generator) * (1 - low) + low).view(-1, 1, 1, 1).to(images.device)

    if config.brightness:
        images = images * (1 + draw(-1) * config.brightness)
    if config.contrast:
        # Red, green and blue share one middle. The bands of other sensors differ in level, and their differences are
        # what tells materials apart, so each keeps its own.
        middle = images.mean((1, 2, 3) if channels in (1, 3) else (2, 3), keepdim=True)
        images = torch.lerp(middle, images, 1 + draw(-1) * config.contrast)
    if config.gamma:
        exponent = torch.exp(draw(-1) * math.log1p(config.gamma))
        images = (images.clamp(0, top) / top) ** exponent * top
    if blurs:
        images = gaussian_blur(images, draw(0).flatten() * widest, widest)
    if config.noise:
        strength = draw(0) * config.noise * top
        images = images + strength * torch.randn(images.shape, generator=generator).to(images.device)
    return images.clamp(0, top)


def gaussian_blur(images: Tensor, sigma: Tensor, widest: float) -> Tensor:
    """Each image blurred by a Gaussian of its own width; the edge is continued outwards.

    images: float (b, c, h, w). sigma: (b,) standard deviations in pixels, 0 for no blur. widest: no sigma is larger;
    the filter reaches three times as far.
    """
    count, channels = images.shape[:2]
    reach = math.ceil(3 * widest)
    steps = torch.arange(-reach, reach + 1, device=images.device)
    # 1e-3 in place of 0: the neighbours' weights underflow to exactly 0.
    taps = torch.exp(-0.5 * (steps / sigma.clamp(min=1e-3)[:, None]) ** 2)
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = images.reshape(1, count * channels, *images.shape[2:])
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), "replicate"), taps[:, None, None, :], groups=count * channels)
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), "replicate"), taps[:, None, :, None], groups=count * channels)
    return flat.reshape(images.shape)
