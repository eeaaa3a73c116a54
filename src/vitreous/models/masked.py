"""Masked autoencoding: a Vision Transformer sees a few patches of an image and a light decoder draws the rest.

He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners", arXiv:2111.06377. What it has to do with classes is
nothing; what the encoder learns on the way is worth starting a classifier from.

Shapes: b images, c channels, n patches, m of them visible, d width of the encoder, e width of the decoder,
p = c * ph * pw numbers in a patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitreous.models.layers.block import TransformerBlock
from vitreous.models.layers.patch import PatchEmbedding
from vitreous.models.layers.position import sincos_positions
from vitreous.models.vit import VisionTransformer

HEAD_DIM = 32
"""Width of a head of the decoder, at least."""


class MaskedAutoencoder(nn.Module):
    """Encoder and decoder. `encoder` is the model that is kept; everything else is thrown away after pretraining.

    Only the visible patches go through the encoder, so that at a mask ratio of 0.75 a step costs it about a quarter.
    The encoder's read-out (pooling, head) plays no part and is frozen.

    Convolutional and shifted stems look beyond a patch: behind them a visible token would know pixels of its hidden
    neighbours. There hidden pixels are set to 0, the mean of normalised images, before the stem. The price is that the
    stem learns on images with holes that it will not meet later; a linear stem, as in the paper, has no such holes.
    """

    def __init__(self, encoder: VisionTransformer, *, mask_ratio: float, decoder_dim: int, decoder_depth: int) -> None:
        """mask_ratio: share of the patches that is hidden, in (0, 1); at least one patch is hidden and one visible.

        Raises ValueError for a decoder width that is not a multiple of 4, and for an image of a single patch.
        """
        super().__init__()
        if decoder_dim % 4:
            raise ValueError(f"decoder_dim must be a multiple of 4, got {decoder_dim}")
        if encoder.grid_size == (1, 1):
            raise ValueError(
                f"an image of {encoder.image_size[0]} x {encoder.image_size[1]} pixels is a single patch: nothing can be hidden"
            )
        self.encoder, self.mask_ratio = encoder, mask_ratio
        for part in (encoder.pooler, encoder.feature_norm, encoder.head):
            part.requires_grad_(False)
        numbers = encoder.in_chans * encoder.patch_size[0] * encoder.patch_size[1]
        heads = next(count for count in range(max(1, decoder_dim // HEAD_DIM), 0, -1) if decoder_dim % count == 0)
        self.enter = nn.Linear(encoder.embed_dim, decoder_dim)
        self.hidden_token = nn.Parameter(torch.zeros(decoder_dim))
        self.blocks = nn.ModuleList(TransformerBlock(decoder_dim, heads) for _ in range(decoder_depth))
        self.norm = nn.LayerNorm(decoder_dim)
        self.leave = nn.Linear(decoder_dim, numbers)
        for module in (*self.blocks.modules(), self.enter, self.leave):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.hidden_token, std=0.02)

    def forward(self, images: Tensor, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """images (b, c, h, w) -> every patch as it was drawn (b, n, p), and which were hidden, bool (b, n).

        order: (b, n), a permutation of the patches of each image, of which the first are visible; drawn from torch's
        global generator when None.
        """
        grid = tuple(side // patch for side, patch in zip(images.shape[2:], self.encoder.patch_size, strict=True))
        count = grid[0] * grid[1]
        if order is None:
            order = torch.rand(len(images), count, device=images.device).argsort(dim=1)
        visible = order[:, : self.num_visible(count)].sort(dim=1).values
        hidden = torch.ones(len(images), count, dtype=torch.bool, device=images.device).scatter(1, visible, False)
        if not isinstance(self.encoder.patch_embedding, PatchEmbedding):
            images = self._blanked(images, hidden, grid)
        tokens = self.enter(self.encoder.forward_visible(images, visible))
        return self._draw(tokens, visible, grid), hidden

    def num_visible(self, count: int) -> int:
        """How many of `count` patches the encoder sees: at least one, and not all."""
        return min(count - 1, max(1, count - round(count * self.mask_ratio)))

    def _blanked(self, images: Tensor, hidden: Tensor, grid: tuple[int, ...]) -> Tensor:
        small = rearrange(hidden, "b (gh gw) -> b 1 gh gw", gh=grid[0])
        ph, pw = self.encoder.patch_size
        return images.masked_fill(small.repeat_interleave(ph, dim=2).repeat_interleave(pw, dim=3), 0.0)

    def _draw(self, tokens: Tensor, visible: Tensor, grid: tuple[int, ...]) -> Tensor:
        """tokens (b, prefix + m, e) of the visible patches (b, m) -> every patch (b, n, p)."""
        first, dim = self.encoder.num_prefix_tokens, tokens.shape[-1]
        everything = self.hidden_token.to(tokens.dtype).expand(len(tokens), grid[0] * grid[1], -1)
        patches = everything.scatter(1, visible[:, :, None].expand(-1, -1, dim), tokens[:, first:])
        places = sincos_positions((grid[0], grid[1]), dim).to(tokens.device, tokens.dtype)
        sequence = torch.cat([tokens[:, :first], patches + places], dim=1)
        for block in self.blocks:
            sequence = block(sequence)
        return self.leave(self.norm(sequence[:, first:]))


def patches_of(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """images (b, c, h, w) -> their patches (b, n, p), row by row from the top left, each channel by channel."""
    return rearrange(images, "b c (gh ph) (gw pw) -> b (gh gw) (c ph pw)", ph=patch_size[0], pw=patch_size[1])


def images_of(patches: Tensor, patch_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The way back: patches (b, n, p) -> images (b, c, h, w)."""
    return rearrange(
        patches, "b (gh gw) (c ph pw) -> b c (gh ph) (gw pw)", ph=patch_size[0], pw=patch_size[1], gh=grid[0]
    )


def normalised(patches: Tensor) -> Tensor:
    """Each patch (.., p) with mean 0 and deviation 1, in fp32; a patch of one value becomes 0 (section 3, "Simple
    implementation", and table 1d)."""
    return F.layer_norm(patches.float(), patches.shape[-1:], eps=1e-6)
