"""What differs in a run whose images may have several labels or none."""

from __future__ import annotations

import math

import numpy as np

from vitreous.config.train import DecideConfig, TrainConfig
from vitreous.errors import UsageError
from vitreous.evaluation import multilabel
from vitreous.runs.decision import sigmoids
from vitreous.workflows.prepare import Material


def check_several(config: TrainConfig, material: Material) -> None:
    """Raise UsageError for settings that have a meaning for one label each only."""
    for given, flag in (
        ("probe" in (config.method, config.recipe), "--method probe"),
        (config.head_init == "closed-form", "--head-init closed-form"),
        (config.distill.teacher is not None, "--distill.teacher"),
        (config.balance == "sampler", "--balance sampler"),
        (config.decide != DecideConfig(), "A setting of --decide"),
        (material.weights() is not None, "The column of weights"),
    ):
        if given:
            raise UsageError(
                f"{flag} is for images with one label each; in {material.source.name!r} they may have several or none.",
                "Leave it out.",
            )


def validation_numbers(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What the training loop wants of the validation part; it chooses by mean average precision."""
    scores = sigmoids(logits)
    score = multilabel.mean_average_precision(scores, labels)
    return {
        "val_loss": float(multilabel.log_losses(scores, labels).mean()) * labels.shape[1],
        "val_accuracy": float(((scores >= multilabel.HALF) == (labels > 0)).all(axis=1).mean()),
        "val_average_precision": score,
        "val_score": score,
        "val_error": math.sqrt(max(score * (1 - score), 0.0) / len(labels)),
    }
