"""From images to patch tokens.

Shapes: b batch, c channels, h w image in pixels, gh gw patch grid, ph pw patch, n = gh * gw tokens, d width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Size = int | tuple[int, int]
"""One number for a square, or (height, width)."""


def pair(size: Size) -> tuple[int, int]:
    """(height, width) of a size given either way. Raises ValueError for anything but one or two numbers from 1 up."""
    numbers = (size, size) if isinstance(size, int | float) else tuple(size)
    height, width = numbers if len(numbers) == 2 else (0, 0)
    if height < 1 or width < 1 or height != int(height) or width != int(width):
        raise ValueError(f"a size is one number of pixels or (height, width), got {size}")
    return int(height), int(width)


class PatchEmbedding(nn.Module):
    """Cut an image into patches and map each linearly to a token (Dosovitskiy et al. 2021, arXiv:2010.11929, eq. 1).

    Written as a reshape and one matrix product, which is the strided convolution of other implementations computed
    in the form that processors run fastest; a pixel is addressed (c, row, column) inside its patch, as there.
    """

    def __init__(
        self, patch_size: Size, in_chans: int, embed_dim: int, *, bias: bool = True, norm: nn.Module | None = None
    ) -> None:
        """norm: normalises the tokens (AIMv2, arXiv:2411.14402)."""
        super().__init__()
        self.patch_size = ph, pw = pair(patch_size)
        self.projection = nn.Linear(in_chans * ph * pw, embed_dim, bias=bias)
        self.norm = norm or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> tokens (b, n, d), row by row from the top left."""
        ph, pw = self.patch_size
        patches = rearrange(images, "b c (gh ph) (gw pw) -> b (gh gw) (c ph pw)", ph=ph, pw=pw)
        return self.norm(self.projection(patches))


class ShiftedPatchEmbedding(nn.Module):
    """Patches of the image and of its four copies moved by half a patch along the diagonals, normalised and mapped
    together, so that a token knows its surroundings (Lee et al. 2021, arXiv:2112.13492, section 3.1)."""

    def __init__(self, patch_size: Size, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = ph, pw = pair(patch_size)
        self.norm = nn.LayerNorm(5 * in_chans * ph * pw)
        self.projection = nn.Linear(5 * in_chans * ph * pw, embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> tokens (b, n, d), row by row from the top left."""
        ph, pw = self.patch_size
        down, right = ph // 2, pw // 2
        # Padding a side and cropping the other moves the image; zeros come in, as in the paper.
        moved = [
            F.pad(images, (x, -x, y, -y)) for y, x in ((down, right), (down, -right), (-down, right), (-down, -right))
        ]
        stacked = torch.cat([images, *moved], dim=1)
        patches = rearrange(stacked, "b c (gh ph) (gw pw) -> b (gh gw) (c ph pw)", ph=ph, pw=pw)
        return self.projection(self.norm(patches))


class ConvStem(nn.Module):
    """Strided 3x3 convolutions in place of one large patch projection (Xiao et al. 2021, arXiv:2106.14881).

    Each halves the grid until a token stands for `patch_size` pixels; the last layer is a 1x1 convolution. For patches
    of at most 4 pixels, that is for small images, each is preceded by one that keeps the grid, as in the tokenizers of
    compact transformers (arXiv:2104.05704). Group normalisation with one group replaces the paper's batch
    normalisation, so that the images of a batch do not see each other.
    """

    def __init__(self, patch_size: Size, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = size, width = pair(patch_size)
        if size != width or size < 2 or size & (size - 1):
            raise ValueError(f"a convolutional stem needs a square patch of 2, 4, 8, 16 ... pixels, got {patch_size}")
        layers: list[nn.Module] = []
        before = in_chans
        for after, stride in _convolutions(size, embed_dim):
            layers += [
                nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False),
                nn.GroupNorm(1, after),
                nn.GELU(),
            ]
            before = after
        self.layers = nn.Sequential(*layers)
        self.projection = nn.Conv2d(before, embed_dim, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> tokens (b, n, d), row by row from the top left."""
        return rearrange(self.projection(self.layers(images)), "b d gh gw -> b (gh gw) d")


class PooledStem(ConvStem):
    """3x3 convolutions, each followed by max pooling, as in the tokenizer of compact transformers (Hassani et al. 2021,
    arXiv:2104.05704, section 3.3): nearly three times as fast as `ConvStem` for patches of 4 pixels, and better on small
    images within minutes; for larger patches slower and worse than it (benchmarks/TRAINING_LOG.md).

    Pooling comes before the ReLU, which gives the same and costs a quarter. The last convolution keeps the grid.
    """

    def __init__(self, patch_size: Size, in_chans: int, embed_dim: int) -> None:
        nn.Module.__init__(self)
        self.patch_size = size, width = pair(patch_size)
        if size != width or size < 2 or size & (size - 1):
            raise ValueError(f"a pooled stem needs a square patch of 2, 4, 8, 16 ... pixels, got {patch_size}")
        halvings = int(math.log2(size))
        layers: list[nn.Module] = []
        before = in_chans
        for index in range(halvings):
            after = max(32, embed_dim >> (halvings - index))
            layers += [
                nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),
                nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
                nn.ReLU(),
            ]
            before = after
        self.layers = nn.Sequential(*layers)
        self.projection = nn.Conv2d(before, embed_dim, kernel_size=3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> tokens (b, n, d), row by row from the top left."""
        # The layout in which convolutions and pooling of few channels are fastest on a CPU.
        return super().forward(images.contiguous(memory_format=torch.channels_last))


def _convolutions(patch_size: int, embed_dim: int) -> list[tuple[int, int]]:
    """(width, stride) of the stem's 3x3 convolutions, first to last."""
    halvings = int(math.log2(patch_size))
    if patch_size > 4:
        return [(max(16, embed_dim >> (halvings - 1 - index)), 2) for index in range(halvings)]
    inner = max(48, embed_dim // 2)
    if halvings == 1:
        return [(inner, 1), (embed_dim, 2)]
    return [(inner // 2, 1), (inner, 2), (inner, 1), (embed_dim, 2)]
