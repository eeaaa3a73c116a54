"""The shape of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vitreous.config.ranges import check_ranges


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The shape of the Vision Transformer; CNN baselines read only the dropout fields."""

    patch_size: int | None = None
    """Pixels of a square patch's side; must divide the image size."""
    embed_dim: int | None = None
    """Width of a token; must be divisible by `num_heads`."""
    depth: int | None = None
    """Number of transformer blocks."""
    num_heads: int | None = None
    """Attention heads in a block."""
    mlp_ratio: float | None = None
    """Hidden width of the MLP as a multiple of `embed_dim`."""
    pooling: Literal["cls", "mean", "cls_mean", "attention", "sequence"] | None = None
    """What the head reads: the [CLS] token (2020 paper), the mean of the patch tokens, both side by side (DINOv2), or what
    a learned query (SigLIP) or learned scores (CCT) take from the patches."""
    pool_prefix: bool | None = None
    """Pool the tokens before the patches too: [CLS] and registers."""
    class_token: bool | None = None
    """Whether there is a [CLS] token; without it the head must read something else."""
    distillation_token: bool | None = None
    """A second token beside [CLS], whose own head learns from `--distill.teacher`; their mean answers (arXiv:2012.12877)."""
    num_registers: int | None = None
    """Extra learnable tokens, 0 to 8 (Darcet et al. 2024, arXiv:2309.16588)."""
    stem: Literal["linear", "conv", "pooled", "shifted"] | None = None
    """How patches become tokens: one linear map (2020 paper), a few 3x3 convolutions (arXiv:2106.14881),
    convolutions with max pooling (compact transformers, arXiv:2104.05704), or a linear map of
    each patch and its four shifted copies (arXiv:2112.13492)."""
    positions: Literal["learned", "sincos", "none"] | None = None
    """Embedding added to each patch for where it stands."""
    rope: Literal["none", "axial", "mixed"] | None = None
    """Rotary positions inside attention: rows and columns apart (DINOv3, ViT-5) or mixed by learning
    (arXiv:2403.13298)."""
    rope_theta: float | None = None
    """Base of the rotary frequencies."""
    block: Literal["pre_norm", "post_norm", "parallel", "branched"] | None = None
    """Where the norms stand, and whether attention and MLP run one after the other (2020 paper), side by side
    (arXiv:2302.05442) or in two branches each (arXiv:2203.09795)."""
    norm: Literal["layer", "rms"] | None = None
    """LayerNorm or RMSNorm (arXiv:1910.07467)."""
    qkv_bias: bool | Literal["qv"] | None = None
    """Whether queries, keys and values have biases: all, none, or queries and values only (qv)."""
    qk_norm: bool | None = None
    """Normalise queries and keys: steadier training (arXiv:2302.05442)."""
    differential: bool | None = None
    """Differential attention (arXiv:2410.05258)."""
    mlp: Literal["mlp", "swiglu"] | None = None
    """Two layers with a GELU, or gated (SwiGLU, arXiv:2002.05202)."""
    layer_scale: float | None = None
    """Initial value of a learned factor on each residual branch (arXiv:2103.17239)."""
    drop_path: float | None = None
    """Stochastic depth: chance that the last block is skipped in training; in [0, 1)."""
    drop_path_shape: Literal["linear", "uniform"] | None = None
    """Stochastic depth rises linearly from 0 to `drop_path`, or is the same in all blocks (arXiv:2204.07118)."""
    head_hidden: int | None = None
    """Width of a hidden layer of the head, such as 512; one linear layer when absent."""
    dropout: float | None = None
    """Chance that an input of the head, or of its last layer, is zeroed in training, in [0, 1)."""
    attention_dropout: float | None = None
    """Chance that an attention weight is zeroed in training, in [0, 1)."""
    projection_dropout: float | None = None
    """Chance that an output of attention or MLP is zeroed in training, in [0, 1)."""
    patch_dropout: float | None = None
    """Share of the patches of each training image that are left out, in [0, 1) (arXiv:2212.00794)."""
    checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        check_ranges(
            self,
            "net",
            {
                "patch_size": "[1, inf)",
                "embed_dim": "[1, inf)",
                "depth": "[1, inf)",
                "num_heads": "[1, inf)",
                "mlp_ratio": "(0, inf)",
                "num_registers": "[0, 8]",
                "rope_theta": "(0, inf)",
                "layer_scale": "(0, inf)",
                "head_hidden": "[1, inf)",
                "drop_path": "[0, 1)",
                "dropout": "[0, 1)",
                "attention_dropout": "[0, 1)",
                "projection_dropout": "[0, 1)",
                "patch_dropout": "[0, 1)",
            },
        )
