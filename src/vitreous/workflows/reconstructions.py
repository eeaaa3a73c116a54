"""The picture of a pretraining run: images, what was left of them, what the model drew."""

from __future__ import annotations

import io

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from vitreous.config.input import InputSpec
from vitreous.data import PixelStore
from vitreous.inputs import normalise
from vitreous.models.masked import MaskedAutoencoder, images_of, patches_of
from vitreous.training.pretraining import hiding_order

TILE = 128
"""Pixels of a shown image's side, about: small ones are enlarged by a whole number without smoothing."""
GAP = 4
GREY = 0.5
"""Brightness of hidden patches."""


@torch.no_grad()
def draw_reconstructions(
    model: MaskedAutoencoder, store: PixelStore, count: int, normalise_pixels: bool, seed: int, device: str
) -> bytes:
    """PNG of up to `count` images spread over the store, a column each: the image, the patches seen, all with the
    hidden ones drawn. Where the model draws normalised patches, they get mean and deviation of the true ones, as in the
    paper's figures.
    """
    rows = np.unique(np.linspace(0, len(store) - 1, min(count, len(store))).astype(np.int64))
    images = torch.from_numpy(normalise(store.get(rows), store.spec)).to(device)
    patch, grid = model.encoder.patch_size, model.encoder.grid_size
    order = hiding_order(len(rows), grid[0] * grid[1], torch.Generator().manual_seed(seed)).to(device)
    drawn, hidden = model.eval()(images, order)
    true = patches_of(images, patch)
    drawn = drawn.float()
    if normalise_pixels:
        deviation = (true.var(dim=2, keepdim=True, unbiased=False) + 1e-6).sqrt()
        drawn = drawn * deviation + true.mean(dim=2, keepdim=True)
    seen = images_of(true, patch, grid)
    filled = images_of(torch.where(hidden[:, :, None], drawn, true), patch, grid)
    mask = images_of(hidden[:, :, None].expand_as(true).float(), patch, grid)
    shown = [_brightness(seen, store.spec), _brightness(seen, store.spec), _brightness(filled, store.spec)]
    shown[1] = torch.where(mask.bool().cpu()[:, : shown[1].shape[1]], torch.tensor(GREY), shown[1])
    return _sheet(shown)


def _brightness(images: Tensor, spec: InputSpec) -> Tensor:
    """Normalised images (b, c, h, w) -> values in [0, 1] on the CPU, of three bands or one: those a screen can show."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    values = (images.cpu() * std + mean).clamp(0, 1)
    return values[:, :3] if spec.channels >= 3 else values[:, :1]


def _sheet(shown: list[Tensor]) -> bytes:
    height, width = shown[0].shape[2:]
    factor = max(1, TILE // max(height, width))
    rows, columns = len(shown), len(shown[0])
    sheet = Image.new(
        "RGB", (columns * (width * factor + GAP) - GAP, rows * (height * factor + GAP) - GAP), (255, 255, 255)
    )
    for row, images in enumerate(shown):
        for column, image in enumerate(images):
            pixels = rearrange((image * 255).round().to(torch.uint8), "c h w -> h w c").expand(-1, -1, 3).numpy()
            tile = Image.fromarray(np.ascontiguousarray(pixels)).resize(
                (width * factor, height * factor), Image.Resampling.NEAREST
            )
            sheet.paste(tile, (column * (width * factor + GAP), row * (height * factor + GAP)))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
