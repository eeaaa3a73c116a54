"""The fast path on a CPU in plain torch: no compiler, no export, no further package, ready at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from vitreous.engines.cpu import EXACT, cpu_path, fast_matmul
from vitreous.engines.eager import EagerEngine
from vitreous.engines.protocol import Engine, Outputs

if TYPE_CHECKING:
    import torch
    from torch import nn

Precision = Literal["fp32", "bf16"]

AGREES: dict[Precision, float] = {"fp32": EXACT, "bf16": 5e-2}
"""Largest difference from eager in logits and in features, as a share of the largest of them. bf16 keeps 8 bits of every
number: 1 to 2 % is usual for a ViT of 12 blocks (benchmarks/RESULTS.md)."""

Pack = Callable[["nn.Module", "torch.dtype"], "nn.Module"]
"""`vitreous.models.packed.pack`, handed in, because engines do not know models."""

logger = logging.getLogger("vitreous.engines")


class PackedEngine:
    """Forward passes of a model that `pack` has rewritten. Build it with `packed_or_eager`, which tries it first."""

    def __init__(self, model: nn.Module, precision: Precision = "fp32") -> None:
        """model: the packed one. Images are worked on in groups of its `images_at_once`, where it has one."""
        self.model = model
        self.precision: Precision = precision
        self.name = "packed" if precision == "fp32" else "packed-bf16"
        # Packed products are oneDNN's in any case; this is for those of two activations, that is attention.
        self.fast_attention = cpu_path().default_is_slow

    def predict(self, batch: np.ndarray) -> Outputs:
        import torch

        size = getattr(self.model, "images_at_once", 0) or max(1, len(batch))
        logits, features = [], []
        with torch.inference_mode(), fast_matmul(self.fast_attention):
            images = torch.from_numpy(np.ascontiguousarray(batch, np.float32))
            for group in images.split(size):
                features.append(self.model.pool(self.model.forward_features(group)))  # type: ignore[operator]
                logits.append(self.model.head(features[-1]))  # type: ignore[operator]
        return Outputs(torch.cat(logits).float().numpy(), torch.cat(features).float().numpy())


def packed_or_eager(model: nn.Module, pack: Pack, shape: tuple[int, int, int], precision: Precision = "fp32") -> Engine:
    """The packed engine if two synthetic images come out as from eager, and the fastest that does otherwise.

    Packing rests on operators of torch that are not public, so every process tries them on the model itself. What is
    returned says by its `name` what it is; falling back is logged as a warning.
    shape: (channels, height, width) of the images.
    """
    import torch

    images = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
    expected = EagerEngine(model).predict(images)

    def packed(wanted: Precision) -> Engine:
        return PackedEngine(pack(model, torch.float32 if wanted == "fp32" else torch.bfloat16), wanted)

    attempts: list[tuple[str, Precision, Callable[[], Engine]]] = [
        ("packed in fp32", "fp32", lambda: packed("fp32")),
        ("eager with oneDNN's products", "fp32", lambda: EagerEngine(model, fast=True)),
    ]
    if precision == "bf16":
        attempts.insert(0, ("packed in bf16", "bf16", lambda: packed("bf16")))
    for what, wanted, build in attempts:
        try:
            engine = build()
            difference = distance(engine.predict(images), expected)
        # Operators that are gone or changed raise one of these; a mistake in our own code would too, and the log says so.
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            logger.warning("the model cannot be run %s (%s: %s)", what, type(error).__name__, error)
            continue
        if difference <= AGREES[wanted]:
            logger.info("the model runs %s; it differs from eager by %.1e. %s", what, difference, cpu_path().reason)
            return engine
        logger.warning("the model is not run %s: it differs from eager by %.1e", what, difference)
    return EagerEngine(model)


def distance(found: Outputs, expected: Outputs) -> float:
    """The larger of the differences in logits and in features, each as a share of the largest expected one."""
    shares = []
    for ours, theirs in ((found.logits, expected.logits), (found.features, expected.features)):
        difference = np.abs(ours - theirs).max()
        shares.append(
            0.0 if difference == 0 else float(difference / max(np.abs(theirs).max(), np.finfo(np.float32).tiny))
        )
    return float(np.max(shares))  # not `max`, which may pass over a NaN
