"""The transformer block: attention and an MLP, each on a residual branch of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vitreous.models.layers import fused_cpu
from vitreous.models.layers.attention import MultiHeadAttention
from vitreous.models.layers.differential import DifferentialAttention
from vitreous.models.layers.mlp import MLPS
from vitreous.models.layers.norm import DropPath, make_layer_scale, make_norm
from vitreous.models.layers.rope import Rotation

Part = Literal["attention", "mlp"]


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)) (arXiv:2010.11929, eq. 2 and 3)."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        *,
        layer: int = 0,
        norm: str = "layer",
        norm_eps: float = 1e-6,
        qkv_bias: bool | Literal["qv"] = True,
        bias: bool = True,
        qk_norm: bool = False,
        differential: bool = False,
        mlp: str = "mlp",
        activation: str | None = None,
        sub_norm: Sequence[Part] = (),
        layer_scale: float | None = None,
        layer_scale_on: Sequence[Part] = ("attention", "mlp"),
        attention_dropout: float = 0.0,
        projection_dropout: float = 0.0,
    ) -> None:
        """layer: index of the block in its model, 0 for the first. The others as in `VisionTransformer`."""
        super().__init__()
        if mlp not in MLPS:
            raise ValueError(f"mlp={mlp!r} is not one of {', '.join(MLPS)}")

        def normalise(width: int) -> nn.Module:
            return make_norm(norm, width, norm_eps)

        # Widths such as 1152 * 4304 / 1152 must not lose a unit to rounding.
        hidden_dim = int(embed_dim * mlp_ratio + 1e-6)
        of_attention = {
            "qkv_bias": qkv_bias,
            "bias": bias,
            "qk_norm": normalise if qk_norm else None,
            "sub_norm": normalise if "attention" in sub_norm else None,
            "dropout": attention_dropout,
            "projection_dropout": projection_dropout,
        }
        self.attention_norm = normalise(embed_dim)
        self.attention: MultiHeadAttention = (
            DifferentialAttention(embed_dim, num_heads, layer=layer, **of_attention)
            if differential
            else MultiHeadAttention(embed_dim, num_heads, **of_attention)
        )
        self.attention_scale = make_layer_scale(embed_dim, layer_scale if "attention" in layer_scale_on else None)
        self.mlp_norm = normalise(embed_dim)
        self.mlp = MLPS[mlp](
            embed_dim,
            hidden_dim,
            activation=activation or ("gelu" if mlp == "mlp" else "silu"),
            bias=bias,
            norm=normalise(hidden_dim) if "mlp" in sub_norm else None,
            dropout=projection_dropout,
        )
        self.mlp_scale = make_layer_scale(embed_dim, layer_scale if "mlp" in layer_scale_on else None)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        tokens: Tensor,
        rotation: Rotation | None = None,
        attention: list[Tensor] | None = None,
        kept: int | None = None,
    ) -> Tensor:
        """tokens (b, n, d) -> (b, n, d); `rotation` and `attention` as in `MultiHeadAttention.forward`.

        kept: where given, only so many tokens, from the first on, are read of what comes out; then no more may come out.
        """
        quick = type(self) is TransformerBlock and self.training and attention is None and fused_cpu.usable(tokens)
        if quick and rotation is None and fused_cpu.fits_attention(self):
            tokens = fused_cpu.attend(self, tokens, kept)
        else:
            tokens = tokens + self.attend(tokens, rotation, attention)
        if quick and fused_cpu.fits_mlp(self):
            return fused_cpu.transform(self, tokens)
        return tokens + self.transform(tokens)

    def attend(self, tokens: Tensor, rotation: Rotation | None = None, attention: list[Tensor] | None = None) -> Tensor:
        """The first residual branch: tokens (b, n, d) -> what is added to them."""
        mixed = self.attention(self.attention_norm(tokens), rotation, attention)
        return self.drop_path(self.attention_scale(mixed))

    def transform(self, tokens: Tensor) -> Tensor:
        """The second residual branch: tokens (b, n, d) -> what is added to them."""
        return self.drop_path(self.mlp_scale(self.mlp(self.mlp_norm(tokens))))


class PostNormBlock(TransformerBlock):
    """Normalises what a branch returns instead of what it reads (as Swin v2, arXiv:2111.09883, section 3.2)."""

    def attend(self, tokens: Tensor, rotation: Rotation | None = None, attention: list[Tensor] | None = None) -> Tensor:
        return self.drop_path(self.attention_scale(self.attention_norm(self.attention(tokens, rotation, attention))))

    def transform(self, tokens: Tensor) -> Tensor:
        return self.drop_path(self.mlp_scale(self.mlp_norm(self.mlp(tokens))))


class ParallelBlock(TransformerBlock):
    """Attention and MLP read the same normalised tokens and are added at once (ViT-22B, arXiv:2302.05442, section 2.1)."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.mlp_norm = self.mlp_scale = nn.Identity()

    def forward(
        self,
        tokens: Tensor,
        rotation: Rotation | None = None,
        attention: list[Tensor] | None = None,
        kept: int | None = None,
    ) -> Tensor:
        """As `TransformerBlock.forward`; all tokens come out."""
        normalised = self.attention_norm(tokens)
        branch = self.attention(normalised, rotation, attention) + self.mlp(normalised)
        return tokens + self.drop_path(self.attention_scale(branch))


class BranchedBlock(nn.Module):
    """Two attentions side by side, then two MLPs (Touvron et al. 2022, arXiv:2203.09795, section 3)."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__()
        self.branches = nn.ModuleList(TransformerBlock(*arguments, **options) for _ in range(2))  # type: ignore[arg-type]

    def forward(
        self, tokens: Tensor, rotation: Rotation | None = None, attention: list[Tensor] | None = None
    ) -> Tensor:
        """As `TransformerBlock.forward`; each of the two branches records its map."""
        branches: list[TransformerBlock] = list(self.branches)  # type: ignore[arg-type]
        tokens = tokens + torch.stack([branch.attend(tokens, rotation, attention) for branch in branches]).sum(dim=0)
        return tokens + torch.stack([branch.transform(tokens) for branch in branches]).sum(dim=0)


BLOCKS: dict[str, type[TransformerBlock] | type[BranchedBlock]] = {
    "pre_norm": TransformerBlock,
    "post_norm": PostNormBlock,
    "parallel": ParallelBlock,
    "branched": BranchedBlock,
}
