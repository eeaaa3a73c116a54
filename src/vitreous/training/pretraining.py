"""Masked autoencoding as a training method: what is minimised, and how well a model does it.

He et al. 2022, arXiv:2111.06377. The model is a `models.masked.MaskedAutoencoder`; labels are never looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vitreous.models.masked import MaskedAutoencoder, normalised, patches_of
from vitreous.training.objective import Objective


def reconstruct(patch_size: tuple[int, int], normalise_pixels: bool) -> Objective:
    """Mean squared error over the hidden patches alone, each image weighed by the sum of its row of targets.

    patch_size: (height, width) in pixels. normalise_pixels: see `reconstruction_errors`.
    """

    def objective(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        drawn, hidden = model(images)
        errors = reconstruction_errors(images, drawn, hidden, patch_size, normalise_pixels)
        return (errors * targets.sum(dim=1)).mean()

    return objective


def reconstruction_errors(
    images: Tensor, drawn: Tensor, hidden: Tensor, patch_size: tuple[int, int], normalise_pixels: bool
) -> Tensor:
    """Mean squared error of each image over its hidden patches, float32 (b,).

    images: (b, c, h, w). drawn: (b, n, p). hidden: bool (b, n), as many in each image. normalise_pixels: what is to be
    drawn is each patch brought to mean 0 and deviation 1, so that texture counts and brightness does not (section 3).
    """
    wanted = patches_of(images, patch_size)
    wanted = normalised(wanted) if normalise_pixels else wanted.float()
    errors = ((drawn.float() - wanted) ** 2).mean(dim=2)
    return (errors * hidden).sum(dim=1) / hidden.sum(dim=1)


@torch.no_grad()
def errors_on(
    model: MaskedAutoencoder, batches: Iterable[Tensor], normalise_pixels: bool, seed: int, device: str
) -> Tensor:
    """`reconstruction_errors` of images in order, float32 (n,) on the CPU, in evaluation mode.

    What is hidden of the first image, the second and so on follows from `seed` alone: each call asks the same of the
    model, so that losses of different steps can be compared.
    """
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    count, found = model.encoder.grid_size[0] * model.encoder.grid_size[1], []
    for images in batches:
        images = images.to(device)
        order = hiding_order(len(images), count, generator).to(device)
        drawn, hidden = model(images, order)
        found.append(reconstruction_errors(images, drawn, hidden, model.encoder.patch_size, normalise_pixels).cpu())
    return torch.cat(found)


def hiding_order(images: int, count: int, generator: torch.Generator) -> Tensor:
    """A permutation of `count` patches for each image, int64 (images, count), drawn on the CPU."""
    return torch.rand(images, count, generator=generator).argsort(dim=1)
