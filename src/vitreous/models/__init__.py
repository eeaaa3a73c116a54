"""The Vision Transformer, its parts, CNN baselines, and the mapping of published weights."""

from vitreous.models.build import Architecture, architecture, build
from vitreous.models.layers.attention import MultiHeadAttention
from vitreous.models.layers.block import TransformerBlock
from vitreous.models.layers.patch import PatchEmbedding
from vitreous.models.vit import VisionTransformer

__all__ = [
    "Architecture",
    "MultiHeadAttention",
    "PatchEmbedding",
    "TransformerBlock",
    "VisionTransformer",
    "architecture",
    "build",
]
