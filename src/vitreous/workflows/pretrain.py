"""`vitreous train DATA --method pretrain`: what masked autoencoding does otherwise than training a classifier.

Data, split, checkpoints, budget and loop are those of any run. What differs: no label is looked at, validation measures
how well hidden patches are drawn, no test part is scored, and the run folder holds an encoder without classes for
`--init RUN` to start from.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vitreous.config.convert import to_dict
from vitreous.config.train import TrainConfig
from vitreous.data import PixelStore
from vitreous.data.batches import eval_batches
from vitreous.engines.cpu import fast_matmul
from vitreous.errors import UsageError
from vitreous.evaluation.intervals import interval
from vitreous.models.build import is_vit
from vitreous.models.layers.patch import PatchEmbedding
from vitreous.models.masked import MaskedAutoencoder
from vitreous.models.vit import VisionTransformer
from vitreous.runs.atomic import sha256_file, write_bytes, write_json, write_text
from vitreous.runs.folder import CARD, CONFIG, METRICS, MODEL, PLOTS, RUN_JSON, SPLITS, RunFolder
from vitreous.training.checkpoint import TrainState, save_weights
from vitreous.training.precision import autocast
from vitreous.training.pretraining import errors_on
from vitreous.workflows.finish import facts_of_training, load_best, timing
from vitreous.workflows.reconstructions import draw_reconstructions
from vitreous.workflows.reporter import Reporter
from vitreous.workflows.score import EVAL_BATCH
from vitreous.workflows.setup import Setup

LOSS = "reconstruction_loss"
RECONSTRUCTIONS = "reconstructions.png"
SHOWN = 6
"""Validation images in the picture of reconstructions."""


def check_pretraining(config: TrainConfig) -> None:
    """Raise UsageError for a model that has no patches to hide, before any image is read."""
    if config.pretrains and config.model != "auto" and not is_vit(config.model):
        raise UsageError(
            f"--method pretrain hides patches of a Vision Transformer; {config.model!r} is convolutional and has none.",
            "Use a --model whose name begins with vit_, or --model auto.",
        )


def say_of_stem(encoder: nn.Module, reporter: Reporter) -> None:
    """What a stem that looks beyond its patch means for hiding patches."""
    if isinstance(encoder, VisionTransformer) and not isinstance(encoder.patch_embedding, PatchEmbedding):
        reporter.say(
            "hidden pixels are blanked before the stem, which looks beyond a patch (--net.stem linear as in the paper)"
        )


def reconstruction_validator(setup: Setup) -> Callable[[nn.Module], dict[str, float]]:
    """The `evaluate` of the training loop: the loss on hidden patches of the validation images, always the same ones."""

    def evaluate(model: nn.Module) -> dict[str, float]:
        loss = float(_errors(cast(MaskedAutoencoder, model), setup, setup.val).mean())
        return {"val_loss": loss, "val_score": -loss}

    return evaluate


def _errors(model: MaskedAutoencoder, setup: Setup, store: PixelStore) -> Tensor:
    """Reconstruction error of each image of a store, float32 (n,)."""
    config = setup.config
    assert config.precision != "auto" and config.pretrain.normalise_pixels is not None
    images = (torch.from_numpy(batch) for batch in eval_batches(store, EVAL_BATCH))
    with fast_matmul(setup.device == "cpu"), autocast(config.precision, setup.device):
        return errors_on(model, images, config.pretrain.normalise_pixels, config.seed, setup.device)


def finish_pretraining(
    path: Path, state: TrainState, setup: Setup, data: str, reporter: Reporter, began: float
) -> RunFolder:
    """Write everything the run folder of a pretrained encoder holds, `run.json` last. Returns the finished run."""
    model = cast(MaskedAutoencoder, state.ema.model)
    load_best(model, path, reporter)
    save_weights(model.encoder, path / MODEL)
    with reporter.task("scoring val", "images") as progress:
        errors = _errors(model, setup, setup.val).double().numpy()
        progress.update(len(errors), len(errors))
    groups = [setup.material.split.groups[row] for row in setup.val.indices]
    found = interval(_mean, errors[:, None], np.zeros(len(errors), np.int64), groups, seed=setup.config.seed)
    document = {"val": {LOSS: found.to_dict()}, "timing": timing(path, state, began), "notes": list(state.notes)}
    write_json(path / METRICS, document)
    assert setup.config.pretrain.normalise_pixels is not None
    picture = draw_reconstructions(
        model, setup.val, SHOWN, setup.config.pretrain.normalise_pixels, setup.config.seed, setup.device
    )
    write_bytes(path / PLOTS / RECONSTRUCTIONS, picture)
    facts = _facts(path, state, setup, data, document)
    write_text(path / CARD, _card(path, facts, document))
    facts["files"] = {name: sha256_file(path / name) for name in (MODEL, CONFIG, SPLITS, METRICS)}
    facts["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(path / RUN_JSON, facts)
    return RunFolder.open(path, pretrained=True)


def _mean(errors: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean of the errors (n, 1) under weights (.., n): the form that `interval` takes a metric in."""
    weights = np.ones(len(labels)) if weights is None else weights
    return (weights @ errors[:, 0]) / weights.sum(axis=-1)


def _facts(path: Path, state: TrainState, setup: Setup, data: str, document: dict[str, Any]) -> dict[str, Any]:
    facts = facts_of_training(path, state, setup, data)
    return {
        **facts,
        "classes": [],
        "task": "pretrain",
        "pretraining": {"objective": "masked autoencoding", **to_dict(setup.config.pretrain)},
        "data": {**facts["data"], "labelled": setup.material.labelled},
        "test_scored": 0,
        "test_log": [],
        "headline": {"part": "val", LOSS: document["val"][LOSS]},
    }


def next_command(path: Path) -> str:
    """What one does with a pretrained encoder."""
    return f"vitreous train DATA --init {shlex.quote(str(path))}"


def pretraining_summary(path: Path, document: dict[str, Any]) -> str:
    """What `train --method pretrain` prints at its end."""
    return "\n".join(
        [
            "",
            f"reconstruction loss on validation images: {loss_in_words(document)}",
            "",
            *(f"! {note}" for note in document.get("notes", ())),
            f"run      {path}",
            f"picture  {path / PLOTS / RECONSTRUCTIONS}",
            f"data     {path / METRICS}",
            "",
            "It knows no classes yet. Next:",
            f"  {next_command(path)}",
        ]
    )


def loss_in_words(document: dict[str, Any]) -> str:
    """ "0.412 (0.398 to 0.427)", or the value alone where there is no interval."""
    found = document["val"][LOSS]
    span = "" if found["low"] is None else f" ({found['low']:.3f} to {found['high']:.3f})"
    return f"{found['value']:.3f}{span}"


def _card(path: Path, facts: dict[str, Any], document: dict[str, Any]) -> str:
    """`README.md` of the run: what it is, how well it draws, what to do with it."""
    how, counts = facts["pretraining"], facts["data"]["counts"]
    scale = (
        "Each patch is drawn with mean 0 and deviation 1, so 1 is what drawing every patch grey would cost."
        if how["normalise_pixels"]
        else "In units of the normalised pixels, so 1 is about what drawing the mean everywhere would cost."
    )
    licence = facts["weights"]["licence"]
    start = facts["weights"]["source"] or "random"
    unseen = f" {counts['test']:,} test images were not looked at." if counts["test"] else ""
    return f"""# {path.resolve().name}: {facts["architecture"]["name"]}, pretrained without labels

An encoder that learned from {counts["train"]:,} images of {facts["data"]["source"]} to draw the {how["mask_ratio"]:.0%} of
the patches that were hidden from it (masked autoencoding, arXiv:2111.06377). It knows no classes: train a classifier from it.

```bash
{next_command(path)}
```

Reconstruction loss on {counts["val"]:,} validation images: **{loss_in_words(document)}**, 95 % interval in brackets. {scale}{unseen}

![Validation images, what the model saw of them, what it drew]({PLOTS}/{RECONSTRUCTIONS})

- Parameters: {facts["parameters"]:,}, input {facts["input"]["height"]} x {facts["input"]["width"]} pixels, {facts["input"]["channels"]} channels
- Initial weights: {start}{f" ({licence})" if licence else ""}
- Steps: {facts["training"]["steps"]:,}, seed {facts["seed"]}
"""
