"""Running a model over stored images: what validation, calibration and testing have in common."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from vitreous.config.train import Precision
from vitreous.data import PixelStore
from vitreous.data.batches import eval_batches
from vitreous.engines import Engine, Outputs
from vitreous.engines.cpu import fast_matmul
from vitreous.evaluation import metrics
from vitreous.runs.decision import probabilities
from vitreous.training.precision import autocast

EVAL_BATCH = 64


def outputs(engine: Engine, store: PixelStore, progress: Callable[[int, int], None] | None = None) -> Outputs:
    """Logits (n, k) and features (n, d) of every image of the store, in its order."""
    logits, features, done = [], [], 0
    for batch in eval_batches(store, EVAL_BATCH):
        found = engine.predict(batch)
        logits.append(found.logits)
        features.append(found.features)
        done += len(batch)
        if progress is not None:
            progress(done, len(store))
    return Outputs(np.concatenate(logits), np.concatenate(features))


def validator(
    store: PixelStore, labels: np.ndarray, precision: Precision, device: str
) -> Callable[[nn.Module], dict[str, float]]:
    """The `evaluate` of the training loop: loss and accuracies on the validation part, in the training precision."""

    def evaluate(model: nn.Module) -> dict[str, float]:
        model.eval()
        with torch.inference_mode(), fast_matmul(device == "cpu"), autocast(precision, device):
            batches = (torch.from_numpy(batch).to(device) for batch in eval_batches(store, EVAL_BATCH))
            found = [model(images).float().cpu().numpy() for images in batches]
        scores = probabilities(np.concatenate(found))
        balanced = metrics.balanced_accuracy(scores, labels)
        return {
            "val_loss": float(metrics.nll(scores, labels)),
            "val_accuracy": float(metrics.accuracy(scores, labels)),
            "val_balanced_accuracy": float(balanced),
            "val_score": float(balanced),
            "val_error": math.sqrt(max(float(balanced * (1 - balanced)), 0.0) / len(labels)),
        }

    return evaluate
