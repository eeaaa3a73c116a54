"""3-Augment: one of grey, solarised and blurred for each image (DeiT III, Touvron et al. 2022, arXiv:2204.07118, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from vitreous.data.augmentation.light import gaussian_blur

LUMA = (0.2989, 0.587, 0.114)
"""Share of red, green and blue in how bright a colour is (ITU-R BT.601)."""

BLUR = (0.1, 2.0)
"""Least and largest standard deviation of the blur, in pixels of an image of `BLUR_SIDE` pixels, as in DeiT's code."""
BLUR_SIDE = 224
LEAST_REACH = 1.0
"""Pixels that the largest deviation never falls below: two hundredths of a small image would blur nothing."""


def choices(channels: int) -> tuple[str, ...]:
    """What one is drawn of: grey needs colours, and solarising would turn round what tells a sensor's bands apart."""
    return {1: ("solarise", "blur"), 3: ("grey", "solarise", "blur")}.get(channels, ("blur",))


def three_augment(images: Tensor, top: float, generator: torch.Generator) -> Tensor:
    """Each image made grey, solarised or blurred, as drawn.

    images: float (b, c, h, w), 0 to `top`; returns a new tensor of the same shape and range.
    """
    count, channels = images.shape[:2]
    drawn = torch.randint(len(choices(channels)), (count,), generator=generator)
    scale = min(images.shape[-2:]) / BLUR_SIDE
    widest = max(BLUR[1] * scale, LEAST_REACH)
    sigma = torch.rand(count, generator=generator) * (widest - BLUR[0] * scale) + BLUR[0] * scale
    out = images.clone()
    for number, choice in enumerate(choices(channels)):
        chosen = (drawn == number).nonzero()[:, 0]
        rows = chosen.to(images.device)
        if not len(rows):
            continue
        if choice == "grey":
            share = images.new_tensor(LUMA).view(-1, 1, 1) / sum(LUMA)
            out[rows] = (images[rows] * share).sum(1, keepdim=True).expand(-1, channels, -1, -1)
        elif choice == "solarise":
            some = images[rows]
            out[rows] = torch.where(some >= top / 2, top - some, some)
        else:
            out[rows] = gaussian_blur(images[rows], sigma[chosen].to(images.device), widest)
    return out
