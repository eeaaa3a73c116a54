"""Self-supervised pretraining on images without labels."""

from __future__ import annotations

from dataclasses import dataclass

from vitreous.config.ranges import check_ranges


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Masked autoencoding (He et al. 2022, arXiv:2111.06377), for `--method pretrain`."""

    mask_ratio: float | None = None
    """Share of the patches that is hidden and must be drawn, in (0, 1)."""
    decoder_dim: int | None = None
    """Width of the decoder, which is thrown away afterwards; divisible by its heads."""
    decoder_depth: int | None = None
    """Blocks of the decoder."""
    normalise_pixels: bool | None = None
    """Whether each patch to be drawn is brought to mean 0 and deviation 1."""

    def __post_init__(self) -> None:
        check_ranges(self, "pretrain", {"mask_ratio": "(0, 1)", "decoder_dim": "[4, inf)", "decoder_depth": "[1, inf)"})
