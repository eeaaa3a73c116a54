"""`--method probe`, and the closed-form head that fine-tuning begins from: a classifier on features of the model as it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitreous.config.train import TrainConfig
from vitreous.data import PixelStore
from vitreous.engines.cpu import fast_matmul
from vitreous.engines.select import engine_for
from vitreous.errors import UsageError
from vitreous.evaluation import metrics
from vitreous.models.head import check_linear, head_of, put_linear
from vitreous.models.layers.pool import PairedHead
from vitreous.runs.atomic import storage_error
from vitreous.runs.decision import probabilities
from vitreous.runs.folder import CHECKPOINTS, HISTORY
from vitreous.training.checkpoint import BEST, TrainState, save_weights
from vitreous.training.learning import settle_learning
from vitreous.training.probe.closed_form import closed_form
from vitreous.training.probe.components import components
from vitreous.training.probe.features import features_of
from vitreous.training.probe.fit import STRENGTHS, Step, fit_probe
from vitreous.training.probe.neighbours import neighbours_say
from vitreous.workflows.initial import Start
from vitreous.workflows.reporter import Reporter
from vitreous.workflows.setup import Setup

HEAD_IMAGES = 4000
"""Training images that a closed-form head is fitted to; more change it little, and each costs a forward pass."""
LEAST_NOISE = 0.01
"""Variance, as a share of a feature's mean square, that augmentation and stochastic depth are taken to add."""
NEIGHBOURS = 20


def check_probe(asked: TrainConfig) -> None:
    """Raise UsageError where a probe is asked for with settings of training steps, which it has none of. asked: before anything
    was filled in."""
    if "probe" not in (asked.method, asked.recipe) or asked.optim.beta2 is not None:
        return  # chosen for those settings or in spite of them; or the settings of a stored run, which name everything
    given = [f"--{name} {value}" for name in ("epochs", "steps") if (value := getattr(asked, name)) is not None]
    given += [
        f"--{stage}.{each.name.replace('_', '-')}"
        for stage in ("optim", "augment", "loss")
        for each in fields(getattr(asked, stage))
        if getattr(getattr(asked, stage), each.name) is not None
    ]
    if given:
        raise UsageError(
            f"A probe is solved for, not trained in steps, so {' and '.join(given[:3])} would change nothing.",
            "Leave it out, or choose --method head, which learns the same classifier in steps.",
        )


def begin(setup: Setup, reporter: Reporter) -> Setup:
    """The setup with a model ready for its method: a first head in closed form, what stays frozen, adapters in place.

    Raises UsageError for a method or a first head that does not go with the model.
    """
    if setup.config.pretrains:
        if setup.config.head_init == "closed-form":
            raise UsageError("--head-init closed-form fits a head, and pretraining has none.", "Leave it out.")
        return replace(setup, config=replace(setup.config, head_init="zero"))
    if setup.facts.several_labels and setup.config.head_init == "auto":
        setup = replace(setup, config=replace(setup.config, head_init="zero"))
    setup = replace(setup, config=settle_head(setup.config, setup.start))
    config = setup.config
    if config.head_init == "closed-form" and not setup.start.restored:
        fit_head(setup, reporter)
    assert config.method != "auto"
    learning = settle_learning(setup.start.model, config.method, config.lora, config.seed)
    if config.method != "full":
        reporter.say(f"method {config.method}: {learning}")
    return setup


def settle_head(config: TrainConfig, start: Start) -> TrainConfig:
    """Decide `head_init="auto"`: in closed form where the body has learned something and the head has not.

    Raises UsageError for a closed form where the head is none that it could fill.
    """
    head = head_of(start.model)
    if config.method == "probe" or config.head_init == "closed-form":
        what = "--method probe" if config.method == "probe" else "--head-init closed-form"
        check_linear(start.model, start.architecture.name, what)
    if config.head_init != "auto":
        return config
    fresh = isinstance(head, nn.Linear | PairedHead) and not any(bool(each.any()) for each in head.parameters())
    fitted = config.method in ("full", "lora", "head") and config.init != "scratch" and fresh
    return replace(config, head_init="closed-form" if fitted else "zero")


def fit_head(setup: Setup, reporter: Reporter) -> None:
    """Put a closed-form head, fitted to a sample of the training images, into the model that training starts from.

    Then the first steps need not undo in the body what a head of zeros or noise would do to it (Kumar et al. 2022,
    arXiv:2202.10054, section 3).
    """
    threads = setup.config.threads or setup.facts.cores
    sample = setup.material.store("train", setup.spec, threads, reporter, most=HEAD_IMAGES)
    features, labels = _features(setup, sample, "features for the first head", reporter)
    weights, prior = balancing(setup, sample)
    dropout = setup.config.net.dropout or 0.0
    with fast_matmul():
        found = components(features, weights, centred_scale=False)
        noise = LEAST_NOISE + dropout / (1 - dropout)
        head = closed_form(found, labels, len(setup.spec.classes), prior, noise=noise)
    put_linear(setup.start.model, *found.unfold(head.weight, head.bias))
    reporter.say(
        f"the head starts in closed form, from the features of {len(sample):,} images; of those left out "
        f"{head.accuracy:.1%} are right before the first step"
    )


def fit_run(
    state: TrainState, setup: Setup, path: Path, reporter: Reporter, track: Callable[[Mapping[str, Any]], None]
) -> None:
    """Fit the probe and put it into `state`, with a row of the history for each strength that was tried; `track` has it too.

    An interruption costs little: features are kept in the cache folder, and what follows them takes seconds.
    """
    began = time.monotonic()
    seen = setup.train
    if seen.spec.shape != setup.spec.shape:  # kept larger, for crops that a probe does not take
        seen = setup.material.store("train", setup.spec, setup.config.threads or setup.facts.cores, reporter)
    features, labels = _features(setup, seen, "features of training images", reporter)
    asked, val_labels = _features(setup, setup.val, "features of validation images", reporter)
    weights, prior = balancing(setup, setup.train)
    num_classes, count = len(setup.spec.classes), len(labels)
    balanced = _class_means(val_labels, num_classes) if setup.config.balance != "none" else None
    nearest = neighbours_say(features, labels, asked, num_classes, NEIGHBOURS)
    neighbours = float((nearest == val_labels).double().mean())
    state.notes.append(
        f"{NEIGHBOURS} nearest neighbours on the same features: {neighbours:.1%} of the validation images."
    )

    def val_losses(logits: Tensor) -> float:
        each = torch.nn.functional.cross_entropy(logits.double(), val_labels, reduction="none")
        return float(each.mean() if balanced is None else (each * balanced).sum())

    with reporter.task("fitting the classifier", "strengths") as progress, fast_matmul():

        def record(step: Step) -> None:
            scores = probabilities(step.logits.numpy())
            spent, index = time.monotonic() - began, state.step + 1
            row: dict[str, Any] = {
                "step": index,
                "epoch": 1.0,
                "loss": step.fitted.loss,
                "strength": step.strength,
                "iterations": step.fitted.iterations,
                "images_per_s": count / max(spent, 1e-9),
                "seconds": spent,
                "val_loss": step.val_loss,
                "val_accuracy": float(metrics.accuracy(scores, val_labels.numpy())),
                "val_balanced_accuracy": float(metrics.balanced_accuracy(scores, val_labels.numpy())),
                "val_neighbours_accuracy": neighbours,
            }
            row["val_score"] = -step.val_loss
            if row["val_score"] > state.best_score:
                state.best_score, state.best_step = row["val_score"], index
            state.step, state.seconds = index, spent
            _append(path / HISTORY, row)
            track(row)
            progress.update(index, len(STRENGTHS), loss=row["loss"], val_accuracy=row["val_accuracy"])

        state.step, state.best_step, state.best_score = 0, 0, float("-inf")
        probe = fit_probe(features, labels, num_classes, asked, val_losses, weights=weights, prior=prior, record=record)
    for model in (state.model, state.ema.model):
        put_linear(model, probe.weight, probe.bias)
    state.seconds = time.monotonic() - began
    save_weights(state.ema.model, path / CHECKPOINTS / BEST)
    reporter.say(
        f"strength {probe.strength:.2g} validates best; ridge regression in closed form gets {probe.ridge.accuracy:.1%} of the "
        f"training images right when left out, {NEIGHBOURS} nearest neighbours {neighbours:.1%} of the validation images"
    )


def balancing(setup: Setup, store: PixelStore) -> tuple[Tensor | None, Tensor | None]:
    """What each image of the store counts (n,), and the logit adjustment (k,): how `--balance` acts on a fit to all images.

    Showing rare classes more often is, for a fit to all images at once, the same as weighing them.
    """
    labels = torch.from_numpy(setup.labels(store))
    counts = torch.tensor(setup.facts.train_counts)
    given = setup.material.weights()
    weights = None if given is None else torch.from_numpy(given[store.indices])
    if setup.config.balance in ("weights", "sampler"):
        by_class = (1 / counts.double().clamp(min=1))[labels]
        weights = by_class if weights is None else weights * by_class
    shares = counts.double().clamp(min=1)
    prior = torch.log(shares / shares.sum()).float() if setup.config.balance == "logit-adjust" else None
    return weights, prior


def _class_means(labels: Tensor, num_classes: int) -> Tensor:
    """Weights (m,), adding up to 1, under which every class that is there counts the same."""
    counts = torch.bincount(labels, minlength=num_classes).double()
    return 1 / (counts[labels] * (counts > 0).sum())


def _features(setup: Setup, store: PixelStore, what: str, reporter: Reporter) -> tuple[Tensor, Tensor]:
    """Features (n, d) and class numbers (n,) of the images of a store."""
    model = setup.start.model.to(setup.device)
    training = model.training
    engine = engine_for(model, setup.spec.shape, setup.device)
    try:
        with reporter.task(what, "images") as progress:
            found = features_of(
                model,
                setup.start.architecture.arguments,
                engine,
                store,
                setup.material.scan.hashes,
                progress=progress.update,
            )
    finally:
        model.train(training)
    return torch.from_numpy(found), torch.from_numpy(np.asarray(setup.labels(store), np.int64))


def _append(file: Path, row: dict[str, Any]) -> None:
    try:
        with file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(row) + "\n")
    except OSError as error:
        raise storage_error(file, error) from error
