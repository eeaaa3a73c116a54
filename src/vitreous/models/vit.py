"""The Vision Transformer (Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", arXiv:2010.11929).

One class for every plain ViT: what papers changed since is an option, and each option is a part that is put in when the
model is built, so that the forward pass stays the one of the first paper: embed, add positions, blocks, norm, pool, head.

Shapes: b batch, c channels, h w image in pixels, n patch tokens, d width, f width of the pooled vector, k classes.
A sequence is [CLS], the distillation token, registers (each where there is one), then the n patches row by row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitreous.models.layers.block import BLOCKS, Part, TransformerBlock
from vitreous.models.layers.norm import make_norm
from vitreous.models.layers.patch import ConvStem, PatchEmbedding, PooledStem, ShiftedPatchEmbedding, Size, pair
from vitreous.models.layers.pool import (
    AttentionPool,
    ClassAndMeanPool,
    HiddenHead,
    MeanPool,
    PairedHead,
    SequencePool,
    TokenPool,
)
from vitreous.models.layers.position import sincos_positions
from vitreous.models.layers.rope import Axes, Coordinates, Layout, RotaryEmbedding, take
from vitreous.models.resample import resample_positions

POOLINGS = ("cls", "mean", "cls_mean", "attention", "sequence")
STEMS = ("linear", "conv", "pooled", "shifted")
PARTS = ("attention", "mlp")


@dataclass
class Intermediates:
    """What a forward pass went through."""

    tokens: Tensor
    """(b, num_prefix_tokens + n, d), after the last norm: what `forward_features` returns."""
    layers: list[Tensor] = field(default_factory=list)
    """The tokens after each block, first block first, before the last norm; each of the same shape."""
    attention: list[Tensor] = field(default_factory=list)
    """Each block's probabilities (b, heads, tokens, tokens), first block first, as part of the autograd graph; two for each
    block of two branches. Those of differential attention are differences: they can be negative and add up to less."""


class VisionTransformer(nn.Module):
    """Image in, class logits out; every intermediate result can be asked for.

    Attributes: `grid_size` (rows, columns) of the patch grid; `num_prefix_tokens`, the tokens before the first patch;
    `patch_size` (height, width) in pixels; `num_features`, the width of what the head reads. `any_size`, False at first:
    whether training takes images of other sizes too, whose sides are multiples of the patch; then added positions are
    interpolated from the model's own grid, rotary ones computed for the new one. Evaluation takes `image_size` alone.
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
        # From pixels to a sequence
        stem: Literal["linear", "conv", "pooled", "shifted"] = "linear",
        patch_bias: bool = True,
        patch_norm: bool = False,
        class_token: bool = True,
        distillation_token: bool = False,
        num_registers: int = 0,
        # Where a token stands
        positions: Literal["learned", "sincos", "none"] = "learned",
        class_position: bool = True,
        rope: Literal["none", "axial", "mixed"] = "none",
        rope_theta: float = 100.0,
        rope_coordinates: Coordinates = "unit",
        rope_layout: Layout = "half",
        rope_axes: Axes = "yx",
        rope_offset: float = 0.0,
        rope_reference: Size | None = None,
        rope_register_theta: float | None = None,
        # The block
        block: Literal["pre_norm", "post_norm", "parallel", "branched"] = "pre_norm",
        norm: Literal["layer", "rms"] = "layer",
        norm_eps: float = 1e-6,
        qkv_bias: bool | Literal["qv"] = True,
        bias: bool = True,
        qk_norm: bool = False,
        differential: bool = False,
        mlp: Literal["mlp", "swiglu"] = "mlp",
        activation: str | None = None,
        sub_norm: Sequence[Part] = (),
        layer_scale: float | None = None,
        layer_scale_on: Sequence[Part] = ("attention", "mlp"),
        # The read-out
        input_norm: bool = False,
        output_norm: Literal["tokens", "pooled", "none"] = "tokens",
        pooling: Literal["cls", "mean", "cls_mean", "attention", "sequence"] = "cls",
        pool_prefix: bool = False,
        pool_heads: int | None = None,
        pool_mlp_ratio: float | None = None,
        head_hidden: int | None = None,
        # Training only
        drop_path: float = 0.0,
        drop_path_shape: Literal["linear", "uniform"] = "linear",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        projection_dropout: float = 0.0,
        patch_dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        """image_size, patch_size: pixels, one number for a square or (height, width).

        stem: a linear map of each patch, 3x3 convolutions ("conv"), such with max pooling ("pooled"), or shifted patches. patch_bias, patch_norm: of the
        linear map. num_registers: extra learned tokens (Darcet et al. 2024, arXiv:2309.16588).
        positions: added to patches, and with `class_position` to [CLS] and the distillation token, never to registers.
        rope and `rope_*`: as in `models.layers.rope.RotaryEmbedding`; it goes with any of the above.
        block: a key of `models.layers.block.BLOCKS`. qkv_bias: "qv" leaves the keys' out. bias: of projections and MLP.
        qk_norm, differential, sub_norm: see `models.layers.attention`, `models.layers.differential`. activation: None is GELU, and SiLU
        for SwiGLU. layer_scale: initial value, None for none; layer_scale_on: the branches that have it.
        input_norm: before the first block (CLIP). output_norm: of the tokens, or of what is pooled from them.
        pooling: [CLS] (with the distillation token beside it where there is one), the mean of the patches, both side by
        side, a learned query ("attention", SigLIP) or learned scores ("sequence", CCT); pool_prefix: the tokens before
        the patches are pooled too. pool_heads, pool_mlp_ratio: of attention pooling, the model's own when None.
        head_hidden: width of a hidden layer of the head; None for one linear layer.
        drop_path: stochastic depth, rising from 0 to this ("linear") or the same for all blocks (DeiT III).
        dropout: of what the head reads, and of its hidden layer. attention_dropout: of probabilities. projection_dropout: in and after the MLP and
        after attention. patch_dropout: share of patches left out of each training image (arXiv:2212.00794).
        checkpointing: recompute each block in the backward pass instead of keeping its activations.

        Raises ValueError when numbers or options do not fit each other, naming both.
        """
        super().__init__()
        height, width = pair(image_size)
        self.image_size = (height, width)
        self.patch_size = ph, pw = pair(patch_size)
        if height % ph or width % pw:
            raise ValueError(f"image size {height} x {width} is not divisible by the patch size {ph} x {pw}")
        _check_words(
            pooling=(pooling, POOLINGS),
            stem=(stem, STEMS),
            block=(block, tuple(BLOCKS)),
            positions=(positions, ("learned", "sincos", "none")),
            rope=(rope, ("none", "axial", "mixed")),
            rope_coordinates=(rope_coordinates, ("index", "unit")),
            rope_layout=(rope_layout, ("half", "interleaved")),
            rope_axes=(rope_axes, ("yx", "xy")),
            output_norm=(output_norm, ("tokens", "pooled", "none")),
            drop_path_shape=(drop_path_shape, ("linear", "uniform")),
            qkv_bias=(qkv_bias, (True, False, "qv")),
        )
        _check_words(**{f"sub_norm {part}": (part, PARTS) for part in sub_norm})
        _check_words(**{f"layer_scale_on {part}": (part, PARTS) for part in layer_scale_on})
        _check_numbers(
            1,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            in_chans=in_chans,
            pool_heads=pool_heads or 1,
            head_hidden=1 if head_hidden is None else head_hidden,
        )
        _check_numbers(0, num_classes=num_classes, num_registers=num_registers)
        _check_shares(drop_path, dropout, attention_dropout, projection_dropout, patch_dropout)
        if embed_dim % num_heads or embed_dim % (pool_heads or num_heads):
            heads = num_heads if embed_dim % num_heads else pool_heads
            raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {heads}")
        if rope_register_theta is not None and math.isqrt(num_registers) ** 2 != num_registers:
            raise ValueError(
                f"rope_register_theta puts registers on a square grid; num_registers={num_registers} is none"
            )
        if pooling in ("cls", "cls_mean") and not class_token:
            raise ValueError(f"pooling={pooling!r} reads the class token, but class_token=False leaves it out")
        if distillation_token and not class_token:
            raise ValueError(
                "distillation_token=True stands beside the class token, but class_token=False leaves it out"
            )
        if stem != "linear" and (patch_norm or not patch_bias):
            raise ValueError(f"patch_bias and patch_norm belong to stem='linear', not to stem={stem!r}")
        self.grid_size = (height // ph, width // pw)
        self.num_classes, self.embed_dim, self.in_chans = num_classes, embed_dim, in_chans
        self.pooling, self.patch_dropout, self.checkpointing = pooling, patch_dropout, checkpointing
        self.num_registers = num_registers
        self.any_size = False
        self.num_prefix_tokens = int(class_token) + int(distillation_token) + num_registers

        def normalise(dim: int) -> nn.Module:
            return make_norm(norm, dim, norm_eps)

        if stem == "linear":
            self.patch_embedding: Any = PatchEmbedding(
                self.patch_size, in_chans, embed_dim, bias=patch_bias, norm=normalise(embed_dim) if patch_norm else None
            )
        else:
            stems: dict[str, type[nn.Module]] = {
                "conv": ConvStem,
                "pooled": PooledStem,
                "shifted": ShiftedPatchEmbedding,
            }
            self.patch_embedding = stems[stem](self.patch_size, in_chans, embed_dim)
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if class_token else None
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if distillation_token else None
        self.registers = nn.Parameter(torch.zeros(1, num_registers, embed_dim)) if num_registers else None
        # As in the 2020 paper the class token has a position of its own; registers have none.
        self.num_placed_tokens = self.num_prefix_tokens - num_registers if class_position else 0
        num_patches = math.prod(self.grid_size)
        if positions == "learned":
            table: Tensor | None = nn.Parameter(torch.zeros(1, self.num_placed_tokens + num_patches, embed_dim))
        else:
            self.num_placed_tokens = 0
            table = sincos_positions(self.grid_size, embed_dim) if positions == "sincos" else None
        if isinstance(table, nn.Parameter):
            self.position_embedding: Tensor | None = table
        else:
            self.register_buffer("position_embedding", table)
        self.rope = None
        if rope != "none":
            if differential:
                raise ValueError(
                    f"rope={rope!r} and differential=True do not go together: no published model joins them"
                )
            self.rope = RotaryEmbedding(
                rope,
                depth=depth,
                num_heads=num_heads,
                head_dim=embed_dim // num_heads,
                theta=rope_theta,
                coordinates=rope_coordinates,
                layout=rope_layout,
                axes=rope_axes,
                offset=rope_offset,
                reference=None if rope_reference is None else pair(rope_reference),
                register_theta=rope_register_theta,
            )
        self.input_norm = normalise(embed_dim) if input_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            BLOCKS[block](
                embed_dim,
                num_heads,
                mlp_ratio,
                drop_path if drop_path_shape == "uniform" else drop_path * layer / max(1, depth - 1),
                layer=layer,
                norm=norm,
                norm_eps=norm_eps,
                qkv_bias=qkv_bias,
                bias=bias,
                qk_norm=qk_norm,
                differential=differential,
                mlp=mlp,
                activation=activation,
                sub_norm=sub_norm,
                layer_scale=layer_scale,
                layer_scale_on=layer_scale_on,
                attention_dropout=attention_dropout,
                projection_dropout=projection_dropout,
            )
            for layer in range(depth)
        )
        self.norm: Any = normalise(embed_dim) if output_norm == "tokens" else nn.Identity()
        first = 0 if pool_prefix else self.num_prefix_tokens
        if pooling == "cls":
            self.pooler: Any = TokenPool(embed_dim, 2 if distillation_token else 1)
        elif pooling == "attention":
            hidden_dim = int(embed_dim * (pool_mlp_ratio or mlp_ratio) + 1e-6)
            self.pooler = AttentionPool(
                embed_dim,
                pool_heads or num_heads,
                hidden_dim,
                first=first,
                norm=normalise,
                activation=(activation if mlp == "mlp" else None) or "gelu",
            )
        else:
            self.pooler = {"mean": MeanPool, "cls_mean": ClassAndMeanPool, "sequence": SequencePool}[pooling](
                embed_dim, first
            )
        self.num_features: int = self.pooler.num_features
        self.feature_norm = normalise(self.num_features) if output_norm == "pooled" else nn.Identity()
        self.head_dropout = nn.Dropout(dropout)
        if num_classes == 0:
            self.head: Any = nn.Identity()
        elif distillation_token and pooling == "cls":
            if head_hidden is not None:
                raise ValueError(
                    f"head_hidden={head_hidden} and distillation_token=True do not go together: that token has a classifier "
                    "of its own"
                )
            self.head = PairedHead(embed_dim, num_classes)
        elif head_hidden is not None:
            self.head = HiddenHead(self.num_features, head_hidden, num_classes, dropout)
        else:
            self.head = nn.Linear(self.num_features, num_classes)
        self.initialize()

    @overload
    def forward(self, images: Tensor) -> Tensor: ...
    @overload
    def forward(self, images: Tensor, apart: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, images: Tensor, apart: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """images (b, c, h, w) -> logits (b, k).

        apart: of a distilled model, whose head is a `PairedHead`, its logits for the label and for the teacher's answer
        instead of their mean, each (b, k).
        """
        # Of the last block's tokens [CLS] pooling reads the first alone, so in training the others may be left out there.
        read = self.pooler.count if self.training and type(self.pooler) is TokenPool else None
        features = self.head_dropout(self.pool(self.norm(self._through_blocks(images, kept=read))))
        return self.head.pair(features) if apart else self.head(features)

    @overload
    def forward_features(self, images: Tensor) -> Tensor: ...
    @overload
    def forward_features(self, images: Tensor, attention: Literal[True]) -> tuple[Tensor, list[Tensor]]: ...

    def forward_features(self, images: Tensor, attention: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """images (b, c, h, w) -> normalised tokens (b, num_prefix_tokens + n, d).

        attention: also return each block's attention probabilities (b, heads, tokens, tokens), first block first, as part
        of the autograd graph; without it nothing is kept and fused kernels stay in use.
        """
        if not attention:
            return self.norm(self._through_blocks(images))
        found = self.forward_intermediates(images, attention=True)
        return found.tokens, found.attention

    def forward_visible(self, images: Tensor, visible: Tensor) -> Tensor:
        """images (b, c, h, w), visible (b, m): the patches of each image that are kept, by number, ascending ->
        normalised tokens (b, num_prefix_tokens + m, d). The others go through no block, and nothing attends to them
        (masked autoencoding, arXiv:2111.06377, section 3); patch dropout does not act.
        """
        return self.norm(self._through_blocks(images, visible=visible))

    def forward_intermediates(self, images: Tensor, attention: bool = False) -> Intermediates:
        """images (b, c, h, w) -> the tokens after every block and, on request, every block's attention."""
        layers: list[Tensor] = []
        maps: list[Tensor] | None = [] if attention else None
        tokens = self.norm(self._through_blocks(images, layers, maps))
        return Intermediates(tokens, layers, maps or [])

    def _through_blocks(
        self,
        images: Tensor,
        layers: list[Tensor] | None = None,
        attention: list[Tensor] | None = None,
        visible: Tensor | None = None,
        kept: int | None = None,
    ) -> Tensor:
        """kept: where given, so many tokens are read of what comes out; then the last block may give these alone."""
        tokens = self.embed(images)
        rotations = [None] * len(self.blocks)
        if self.rope is not None:
            num_plain = self.num_prefix_tokens - self.num_registers
            rotations = self.rope(self._grid_of(images), num_plain, self.num_registers, tokens.device)
        if visible is None and self.training and self.patch_dropout:
            visible = self._draw_patches(tokens)
        if visible is not None:
            tokens, places = self._keep_patches(tokens, visible)
            rotations = [rotation and take(rotation, places) for rotation in rotations]
        tokens = self.input_norm(tokens)
        for block, rotation in zip(self.blocks, rotations, strict=True):
            if self.checkpointing and self.training and attention is None:
                tokens = checkpoint(block, tokens, rotation, use_reentrant=False)
            elif kept is not None and block is self.blocks[-1] and type(block) is TransformerBlock:
                tokens = block(tokens, rotation, attention, kept)
            else:
                tokens = block(tokens, rotation, attention)
            if layers is not None:
                layers.append(tokens)
        return tokens

    def embed(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> the sequence (b, num_prefix_tokens + n, d) of tokens with their positions.

        Raises ValueError for images of another size or number of channels than the model was built for; with `any_size`,
        in training, for sides that are no multiple of the patch.
        """
        # Not left to the addition below: 32 x 64 pixels for a model of 64 x 32 have the right number of patches.
        if images.ndim != 4 or tuple(images.shape[1:]) != (self.in_chans, *self.image_size):
            self._check_other_size(images)
        patches = self.patch_embedding(images)
        named: list[Tensor] = [token for token in (self.class_token, self.distillation_token) if token is not None]
        registers: list[Tensor] = [self.registers] if self.registers is not None else []
        if self.position_embedding is not None:
            placed = self.num_placed_tokens
            grid = self._grid_of(images)
            positions = self.position_embedding[:, placed:]
            if grid != self.grid_size:
                positions = resample_positions(positions, self.grid_size, grid)
            patches = patches + positions
            if placed:
                named = [torch.cat(named, dim=1) + self.position_embedding[:, :placed]]
        prefix = [token.expand(patches.shape[0], -1, -1).to(patches.dtype) for token in named + registers]
        return torch.cat([*prefix, patches], dim=1) if prefix else patches

    def _grid_of(self, images: Tensor) -> tuple[int, int]:
        """(rows, columns) of the patches of images (b, c, h, w)."""
        if not self.any_size:
            return (
                self.grid_size
            )  # known beforehand, so that an exported or compiled model divides no sizes of its input
        return images.shape[2] // self.patch_size[0], images.shape[3] // self.patch_size[1]

    def _check_other_size(self, images: Tensor) -> None:
        """Raise ValueError for images that are not of the model's own size, unless they may be."""
        if not (self.any_size and self.training):
            wanted = ", ".join(str(size) for size in (self.in_chans, *self.image_size))
            raise ValueError(f"the model takes images (b, {wanted}), got {tuple(images.shape)}")
        sides = zip(images.shape[2:], self.patch_size, strict=False)
        if images.ndim != 4 or images.shape[1] != self.in_chans or any(side % p or side < p for side, p in sides):
            raise ValueError(
                f"in training the model takes images (b, {self.in_chans}, h, w) with sides that are multiples of the patch, "
                f"{self.patch_size[0]} x {self.patch_size[1]}, got {tuple(images.shape)}"
            )

    def pool(self, tokens: Tensor) -> Tensor:
        """tokens (b, num_prefix_tokens + n, d) -> features (b, f), what the head reads."""
        return self.feature_norm(self.pooler(tokens))

    def pool_weights(self, tokens: Tensor) -> Tensor:
        """tokens (b, num_prefix_tokens + n, d) -> (b, num_prefix_tokens + n): each token's share in what `pool` gives."""
        return self.pooler.weights(tokens)

    def _draw_patches(self, tokens: Tensor) -> Tensor:
        """Another random choice of patches for each image: those (b, m) that patch dropout leaves."""
        b, count = tokens.shape[0], tokens.shape[1] - self.num_prefix_tokens
        left = max(1, round(count * (1 - self.patch_dropout)))
        return torch.rand(b, count, device=tokens.device).argsort(dim=1)[:, :left].sort(dim=1).values

    def _keep_patches(self, tokens: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """The sequence with the patches (b, m) alone, and the places (b, num_prefix_tokens + m) kept."""
        prefix = torch.arange(self.num_prefix_tokens, device=tokens.device).expand(len(tokens), -1)
        kept = torch.cat([prefix, visible + self.num_prefix_tokens], dim=1)
        return tokens.gather(1, kept[:, :, None].expand(-1, -1, tokens.shape[-1])), kept

    def initialize(self) -> None:
        """The initialisation of the paper's own code: Xavier for attention and MLP (query, key and value each for
        itself), LeCun for the patch projection, 0.02 for positions, registers and the pooling query, zero for [CLS],
        biases and what gives the logits.
        """
        for module in (*self.blocks.modules(), *self.pooler.modules()):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear) and name.endswith("qkv"):
                for part in module.weight.chunk(3):
                    nn.init.xavier_uniform_(part)
        for module in self.patch_embedding.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                fan_in = module.weight[0].numel()
                nn.init.trunc_normal_(module.weight, std=fan_in**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name in ("position_embedding", "registers", "pooler.probe"):
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name == "head.hidden.weight":
                nn.init.xavier_uniform_(parameter)
            elif name.startswith("head."):
                nn.init.zeros_(parameter)


def side_unit(model: nn.Module) -> tuple[int, int]:
    """(height, width) in pixels that sides of training images are multiples of: a ViT's patch, 8 for other networks."""
    for module in model.modules():
        if isinstance(module, VisionTransformer):
            return module.patch_size
    return (8, 8)


def train_at_any_size(model: nn.Module) -> None:
    """Let every `VisionTransformer` in `model` train on other sizes too; convolutional networks do so anyway."""
    for module in model.modules():
        if isinstance(module, VisionTransformer):
            module.any_size = True


def _check_words(**given: tuple[object, tuple[object, ...]]) -> None:
    """Raise ValueError for the first value that is none of those known."""
    for name, (value, known) in given.items():
        if value not in known:
            raise ValueError(f"{name.split()[0]}={value!r} is not one of {', '.join(map(str, known))}")


def _check_numbers(least: int, **given: int) -> None:
    for name, value in given.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_shares(*chances: float) -> None:
    for chance in chances:
        if not 0 <= chance < 1:
            raise ValueError(f"drop_path and the dropouts must lie in [0, 1), got {chance}")
