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
from vitreous.inputs.looks import looks
from vitreous.runs.decision import probabilities
from vitreous.training.precision import autocast
from vitreous.training.team import ALONE, Team, is_sharded
from vitreous.workflows.several_labels import validation_numbers

EVAL_BATCH = 64


def outputs(
    engine: Engine,
    store: PixelStore,
    progress: Callable[[int, int], None] | None = None,
    also: Callable[[np.ndarray], None] = lambda batch: None,
) -> Outputs:
    """Logits (n, k) and features (n, d) of every image of the store, in its order. also: is given each batch too."""
    logits, features, done = [], [], 0
    for batch in eval_batches(store, EVAL_BATCH):
        found = engine.predict(batch)
        also(batch)
        logits.append(found.logits)
        features.append(found.features)
        done += len(batch)
        if progress is not None:
            progress(done, len(store))
    return Outputs(np.concatenate(logits), np.concatenate(features))


def outputs_and_looks(
    engine: Engine, store: PixelStore, progress: Callable[[int, int], None] | None = None
) -> tuple[Outputs, np.ndarray]:
    """`outputs`, and `inputs.looks` of every image (n, s), read once."""
    seen: list[np.ndarray] = []
    found = outputs(engine, store, progress, lambda batch: seen.append(looks(batch, store.spec)))
    return found, np.concatenate(seen)


def validator(
    store: PixelStore, labels: np.ndarray, precision: Precision, device: str, team: Team = ALONE
) -> Callable[[nn.Module], dict[str, float]]:
    """The `evaluate` of the training loop: loss and accuracies on the validation part, in the training precision.

    In a team each process takes its share of the images, and each gets the numbers of all of them.
    """

    def evaluate(model: nn.Module) -> dict[str, float]:
        model.eval()
        with torch.inference_mode(), fast_matmul(device == "cpu"), autocast(precision, device):
            logits = _logits(model, store, device, team)
        if labels.ndim == 2:
            return validation_numbers(logits, labels)
        scores = probabilities(logits)
        balanced = metrics.balanced_accuracy(scores, labels)
        return {
            "val_loss": float(metrics.nll(scores, labels)),
            "val_accuracy": float(metrics.accuracy(scores, labels)),
            "val_balanced_accuracy": float(balanced),
            "val_score": float(balanced),
            "val_error": math.sqrt(max(float(balanced * (1 - balanced)), 0.0) / len(labels)),
        }

    return evaluate


def _logits(model: nn.Module, store: PixelStore, device: str, team: Team) -> np.ndarray:
    """Logits (n, k) of every image of the store, in its order, in every process of the team.

    The processes take whole batches in turn, the very batches that one process alone would make, so that the numbers are
    the same to the last bit however many there are; no image is counted twice to fill up.
    """
    count = -(-len(store) // EVAL_BATCH)
    batches = eval_batches(store, EVAL_BATCH, team.rank, team.size)
    none = torch.zeros(0, len(store.spec.classes))
    found = [none, *(model(torch.from_numpy(batch).to(device)).float().cpu() for batch in batches)]
    if is_sharded(model) and team.rank >= count % team.size > 0:
        # The others have one batch more, for which they need our slices of the weights.
        model(torch.from_numpy(next(eval_batches(store, EVAL_BATCH))).to(device))
    logits = np.empty((len(store), len(store.spec.classes)), np.float32)
    turns = np.arange(len(store)) // EVAL_BATCH % team.size
    for rank, theirs in enumerate(team.gathered(torch.cat(found))):
        logits[turns == rank] = theirs.numpy()
    return logits
