"""vitreous: from a folder of images to a Vision Transformer you can trust and ship.

Names are resolved when first used, so that importing the package loads none of the heavy libraries.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitreous.config.input import InputSpec
    from vitreous.config.train import TrainConfig
    from vitreous.explanation import Explanation
    from vitreous.models import MultiHeadAttention, PatchEmbedding, TransformerBlock, VisionTransformer
    from vitreous.runs import Prediction
    from vitreous.workflows.classifier import Classifier, audit, create_model, load, train

__version__ = "0.1.0"

_PLACES = {
    "Classifier": "vitreous.workflows.classifier",
    "Explanation": "vitreous.explanation",
    "InputSpec": "vitreous.config.input",
    "MultiHeadAttention": "vitreous.models",
    "PatchEmbedding": "vitreous.models",
    "Prediction": "vitreous.runs",
    "TrainConfig": "vitreous.config.train",
    "TransformerBlock": "vitreous.models",
    "VisionTransformer": "vitreous.models",
    "audit": "vitreous.workflows.classifier",
    "create_model": "vitreous.workflows.classifier",
    "load": "vitreous.workflows.classifier",
    "train": "vitreous.workflows.classifier",
}

__all__ = [
    "Classifier",
    "Explanation",
    "InputSpec",
    "MultiHeadAttention",
    "PatchEmbedding",
    "Prediction",
    "TrainConfig",
    "TransformerBlock",
    "VisionTransformer",
    "__version__",
    "audit",
    "create_model",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'vitreous' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
