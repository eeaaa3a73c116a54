"""The numbers of a Vision Transformer that decide what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import nn

from vitreous.models.layers.block import BLOCKS, BranchedBlock, TransformerBlock
from vitreous.models.layers.differential import DifferentialAttention
from vitreous.models.layers.mlp import MLP, SwiGLU
from vitreous.models.layers.norm import LayerScale
from vitreous.models.layers.patch import ConvStem, PatchEmbedding, PooledStem, ShiftedPatchEmbedding
from vitreous.models.layers.pool import AttentionPool, ClassAndMeanPool, HiddenHead, MeanPool, SequencePool, TokenPool
from vitreous.models.vit import VisionTransformer

POOLERS: dict[type[nn.Module], str] = {
    TokenPool: "cls",
    MeanPool: "mean",
    ClassAndMeanPool: "cls_mean",
    AttentionPool: "attention",
    SequencePool: "sequence",
}


@dataclass(frozen=True)
class Convolution:
    """One layer of a convolutional stem."""

    before: int
    """Channels that go in."""
    after: int
    """Channels that come out."""
    kernel: int
    stride: int
    pool: int = 1
    """How many times less rows and columns the max pooling behind it leaves; 1 for none."""


@dataclass(frozen=True, kw_only=True)
class ViTNumbers:
    """What `models.cost` and `models.memory` need to know of a model. `of` reads them from one."""

    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    in_chans: int
    stem: str
    """"linear", "conv", "pooled" or "shifted"."""
    convolutions: tuple[Convolution, ...]
    """Of a convolutional stem, first to last."""
    patch_norm: bool
    num_prefix_tokens: int
    learned_positions: bool
    positions: bool
    rope: str
    """"none", "axial" or "mixed"."""
    input_norm: bool
    embed_dim: int
    depth: int
    num_heads: int
    block: str
    """A key of `models.layers.block.BLOCKS`."""
    norm: str
    """"layer" or "rms"."""
    qk_norm: bool
    differential: bool
    attention_sub_norm: bool
    attention_scale: bool
    """LayerScale on the branch of attention."""
    hidden_dim: int
    """What the contracting layer of an MLP reads."""
    gated: bool
    """SwiGLU: the expanding layer is twice as wide."""
    activation: str
    mlp_sub_norm: bool
    mlp_scale: bool
    output_norm: bool
    """Of the tokens, before they are pooled."""
    feature_norm: bool
    """Of what was pooled."""
    pooling: str
    """"cls", "mean", "cls_mean", "attention" or "sequence"."""
    pool_first: int
    """The first token that is pooled."""
    pool_hidden_dim: int
    """Of the MLP of attention pooling, else 0."""
    num_features: int
    num_classes: int
    head_hidden: int
    """Width of the head's hidden layer, 0 where there is none."""
    drop_path: bool
    dropout: tuple[str, ...]
    """Names of the dropouts that are on in training."""

    @classmethod
    def of(cls, model: VisionTransformer) -> ViTNumbers:
        """The numbers of a model, read from its parts; its weights are not looked at."""
        stem, pooler = model.patch_embedding, model.pooler
        outer = model.blocks[0]
        inner = outer.branches[0] if isinstance(outer, BranchedBlock) else outer
        assert isinstance(inner, TransformerBlock) and isinstance(inner.mlp, MLP)
        attention, mlp = inner.attention, inner.mlp
        paths = [module.drop_path.probability for module in model.modules() if isinstance(module, TransformerBlock)]
        off = {
            "attention_dropout": attention.dropout.p,
            "projection_dropout": attention.projection_dropout.p,
            "patch_dropout": model.patch_dropout,
        }
        return cls(
            image_size=model.image_size,
            patch_size=model.patch_size,
            in_chans=model.in_chans,
            stem={PatchEmbedding: "linear", ConvStem: "conv", PooledStem: "pooled", ShiftedPatchEmbedding: "shifted"}[
                type(stem)
            ],
            convolutions=_convolutions(stem),
            patch_norm=isinstance(stem, PatchEmbedding) and not isinstance(stem.norm, nn.Identity),
            num_prefix_tokens=model.num_prefix_tokens,
            learned_positions=isinstance(model.position_embedding, nn.Parameter),
            positions=model.position_embedding is not None,
            rope=model.rope.kind if model.rope is not None else "none",
            input_norm=not isinstance(model.input_norm, nn.Identity),
            embed_dim=model.embed_dim,
            depth=len(model.blocks),
            num_heads=attention.num_heads,
            block=next(name for name, kind in BLOCKS.items() if type(outer) is kind),
            norm="rms" if isinstance(inner.attention_norm, nn.RMSNorm) else "layer",
            qk_norm=not isinstance(attention.query_norm, nn.Identity),
            differential=isinstance(attention, DifferentialAttention),
            attention_sub_norm=not isinstance(attention.sub_norm, nn.Identity),
            attention_scale=isinstance(inner.attention_scale, LayerScale),
            hidden_dim=mlp.contract.in_features,
            gated=isinstance(mlp, SwiGLU),
            activation=type(mlp.activation).__name__,
            mlp_sub_norm=not isinstance(mlp.norm, nn.Identity),
            mlp_scale=isinstance(inner.mlp_scale, LayerScale),
            output_norm=not isinstance(model.norm, nn.Identity),
            feature_norm=not isinstance(model.feature_norm, nn.Identity),
            pooling=POOLERS[type(pooler)],
            pool_first=getattr(pooler, "first", 0),
            pool_hidden_dim=pooler.mlp.contract.in_features if isinstance(pooler, AttentionPool) else 0,
            num_features=model.num_features,
            num_classes=model.num_classes,
            head_hidden=model.head.hidden.out_features if isinstance(model.head, HiddenHead) else 0,
            drop_path=any(paths),
            dropout=tuple(name for name, probability in off.items() if probability),
        )

    def at(self, image_size: int) -> ViTNumbers:
        """The same model for square images of another size, in pixels."""
        return replace(self, image_size=(image_size, image_size))

    @property
    def grid(self) -> tuple[int, int]:
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def num_patches(self) -> int:
        return math.prod(self.grid)

    @property
    def num_tokens(self) -> int:
        return self.num_prefix_tokens + self.num_patches


def _convolutions(stem: nn.Module) -> tuple[Convolution, ...]:
    if not isinstance(stem, ConvStem):
        return ()
    found = [module for module in stem.modules() if isinstance(module, nn.Conv2d)]
    pools = isinstance(stem, PooledStem)
    return tuple(
        Convolution(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size[0],
            layer.stride[0],
            2 if pools and layer is not stem.projection else 1,
        )
        for layer in found
    )
