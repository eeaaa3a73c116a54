"""The Vision Transformer (Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", arXiv:2010.11929).

Shapes: b batch, c channels, h w image in pixels, n patch tokens, d width, k classes.
A sequence is [CLS] (where there is one), then registers, then the n patches row by row.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitreous.models.block import TransformerBlock
from vitreous.models.patch import ConvStem, PatchEmbedding, Size, pair


class VisionTransformer(nn.Module):
    """Image in, class logits out; every intermediate result can be asked for.

    Attributes: `grid_size` (rows, columns) of the patch grid; `num_prefix_tokens`, the tokens before the first patch;
    `patch_size` (height, width) in pixels.
    """

    def __init__(
        self,
        *,
        image_size: Size = 224,
        patch_size: Size = 16,
        num_classes: int = 1000,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        in_chans: int = 3,
        pooling: Literal["cls", "mean"] = "cls",
        class_token: bool = True,
        num_registers: int = 0,
        stem: Literal["linear", "conv"] = "linear",
        drop_path: float = 0.0,
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        """image_size, patch_size: pixels, one number for a square or (height, width).

        Raises ValueError when the image size is not divisible by the patch size, the width not by the heads, or
        `pooling="cls"` is asked of a model without a class token.
        """
        super().__init__()
        height, width = pair(image_size)
        self.image_size = (height, width)
        self.patch_size = ph, pw = pair(patch_size)
        if height % ph or width % pw:
            raise ValueError(f"image size {height} x {width} is not divisible by the patch size {ph} x {pw}")
        if pooling == "cls" and not class_token:
            raise ValueError("pooling='cls' reads the class token, but class_token=False leaves it out")
        self.grid_size = (height // ph, width // pw)
        self.num_classes, self.embed_dim, self.in_chans = num_classes, embed_dim, in_chans
        self.pooling, self.checkpointing = pooling, checkpointing
        self.num_prefix_tokens = int(class_token) + num_registers

        self.patch_embedding = (ConvStem if stem == "conv" else PatchEmbedding)(self.patch_size, in_chans, embed_dim)
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        self.registers = nn.Parameter(torch.zeros(1, num_registers, embed_dim)) if num_registers else None
        # As in the 2020 paper the class token has a position of its own; registers have none.
        num_positions = int(class_token) + math.prod(self.grid_size)
        self.position_embedding = nn.Parameter(torch.zeros(1, num_positions, embed_dim))
        self.blocks = nn.ModuleList(
            TransformerBlock(embed_dim, num_heads, mlp_ratio, drop_path * layer / max(1, depth - 1))
            for layer in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head_dropout = nn.Dropout(dropout)
        self.head = nn.Linear(embed_dim, num_classes)
        self.initialize()

    def forward(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> logits (b, k)."""
        return self.head(self.head_dropout(self.pool(self.forward_features(images))))

    def forward_features(self, images: Tensor, attention: list[Tensor] | None = None) -> Tensor:
        """images (b, c, h, w) -> normalised tokens (b, num_prefix_tokens + n, d).

        attention: a list that receives each block's attention probabilities (b, heads, tokens, tokens), first block
        first, as part of the autograd graph; without it nothing is kept and fused kernels stay in use.
        """
        tokens = self.embed(images)
        for block in self.blocks:
            if self.checkpointing and self.training and attention is None:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens, attention)
        return self.norm(tokens)

    def embed(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> the sequence (b, num_prefix_tokens + n, d) that enters the first block.

        Raises ValueError for images of another size or number of channels than the model was built for.
        """
        # Not left to the addition below: 32 x 64 pixels for a model of 64 x 32 have the right number of patches.
        if images.ndim != 4 or tuple(images.shape[1:]) != (self.in_chans, *self.image_size):
            wanted = ", ".join(str(size) for size in (self.in_chans, *self.image_size))
            raise ValueError(f"the model takes images (b, {wanted}), got {tuple(images.shape)}")
        tokens = self.patch_embedding(images)
        b = tokens.shape[0]
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(b, -1, -1), tokens], dim=1)
        tokens = tokens + self.position_embedding
        if self.registers is not None:
            first = int(self.class_token is not None)
            tokens = torch.cat([tokens[:, :first], self.registers.expand(b, -1, -1), tokens[:, first:]], dim=1)
        return tokens

    def pool(self, tokens: Tensor) -> Tensor:
        """tokens (b, num_prefix_tokens + n, d) -> features (b, d): the [CLS] token or the mean of the patch tokens."""
        if self.pooling == "cls":
            return tokens[:, 0]
        return tokens[:, self.num_prefix_tokens :].mean(dim=1)

    def initialize(self) -> None:
        """The initialisation of the paper's own code: Xavier for attention and MLP (query, key and value each for
        itself), LeCun for the patch projection, 0.02 for positions and registers, zero for [CLS], biases and head.
        """
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            for part in block.attention.qkv.weight.chunk(3):  # type: ignore[union-attr, operator]
                nn.init.xavier_uniform_(part)
        for module in self.patch_embedding.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                fan_in = module.weight[0].numel()
                nn.init.trunc_normal_(module.weight, std=fan_in**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.position_embedding, std=0.02)
        if self.registers is not None:
            nn.init.trunc_normal_(self.registers, std=0.02)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
