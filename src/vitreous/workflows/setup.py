"""The parts of a training run put together, and its length in steps."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from vitreous.config.facts import DataFacts
from vitreous.config.input import InputSpec
from vitreous.config.train import TrainConfig, parse_duration
from vitreous.data import PixelStore
from vitreous.data.augmentation.augment import Augment
from vitreous.data.batches import TrainBatches
from vitreous.data.sources.shard_order import BUFFER, shard_order
from vitreous.errors import UsageError
from vitreous.recipes.auto import ema_decay
from vitreous.training.budget import seconds_per_step
from vitreous.training.checkpoint import TrainState
from vitreous.training.ema import Ema
from vitreous.training.loop import FitSettings
from vitreous.training.losses import make_loss
from vitreous.training.objective import Objective, classify
from vitreous.training.optim import make_optimizer
from vitreous.training.precision import gradient_scaler
from vitreous.workflows.initial import Start
from vitreous.workflows.prepare import Material
from vitreous.workflows.reporter import Reporter

FEATURES_FROM = 3000
"""Training images whose features describe what is usual (see `evaluation.strangeness`)."""
RESERVE = 8.0
"""Seconds of a time budget kept for writing the report and everything else that comes after the last step."""
MOST_VALIDATIONS = 20


@dataclass(frozen=True)
class Setup:
    """Everything a run is made of; `config` is complete once `plan_steps` has been over it."""

    config: TrainConfig
    material: Material
    facts: DataFacts
    start: Start
    spec: InputSpec
    train: PixelStore
    val: PixelStore
    device: str
    macs: int
    parameters: int

    @property
    def batch_size(self) -> int:
        assert isinstance(self.config.batch_size, int)
        # A batch larger than the data would show an image several times in one step.
        return min(self.config.batch_size, len(self.train))

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in which every training image is seen once."""
        return len(self.train) / (self.batch_size * (self.config.optim.accumulation or 1))

    @property
    def objective(self) -> Objective:
        assert self.config.balance != "auto"
        return classify(make_loss(self.config.loss, self.config.balance, torch.tensor(self.facts.train_counts)))

    def labels(self, store: PixelStore) -> np.ndarray:
        return self.material.labels[store.indices]

    def state(self) -> TrainState:
        assert self.config.precision != "auto"
        model = self.start.model.to(self.device)
        return TrainState(
            model=model,
            ema=Ema(model, self.config.optim.ema_decay or 0.0),
            optimizer=make_optimizer(model, self.config.optim),
            scaler=gradient_scaler(self.config.precision, self.device),
        )

    def batches(self) -> TrainBatches:
        config = self.config
        augment = Augment(config.augment, self.spec, len(self.spec.classes), config.optim.label_smoothing or 0.0)
        assert config.augment.mix_until is not None
        weights = self.material.weights()
        micro_steps = (config.steps or 0) * (config.optim.accumulation or 1)
        return TrainBatches(
            self.train,
            self.labels(self.train),
            batch_size=self.batch_size,
            seed=config.seed,
            augment=augment,
            mix_until_step=round(config.augment.mix_until * micro_steps),
            weights=None if weights is None else weights[self.train.indices],
            order=self._shard_order if self.material.shards and self.train.where == "decoded each time" else None,
        )

    def _shard_order(self, epoch: int) -> np.ndarray:
        """An order in which shards are read nearly front to back, for those that memory and disk cannot hold."""
        return shard_order(self.material.shards, seed=self.config.seed, epoch=epoch, buffer=BUFFER)

    def settings(self, deadline: float = math.inf) -> FitSettings:
        config = self.config
        assert config.precision != "auto"
        steps = config.steps or 1
        each = max(1, math.ceil(max(steps / MOST_VALIDATIONS, self.steps_per_epoch)))
        return FitSettings(
            steps=steps,
            optim=config.optim,
            precision=config.precision,
            device=self.device,
            seed=config.seed,
            steps_per_epoch=math.ceil(self.steps_per_epoch),
            validate_every=each,
            log_every=max(1, min(each // 2, 25)),
            deadline=deadline,
        )


@dataclass(frozen=True)
class Budget:
    """A promise of time: when training must end so that all that follows fits too."""

    text: str
    """As the caller gave it, such as "5m"."""
    deadline: float
    """`time.monotonic()` at which the last step must be done."""


def plan_steps(setup: Setup, reporter: Reporter, began: float) -> tuple[TrainConfig, Budget | None]:
    """The configuration with its number of steps, warm-up and averaging decay, and the budget where there is one.

    began: `time.monotonic()` at the start of the command; a time budget counts from there. What follows training
    (validation, testing, features, report) is estimated from a measured step and set aside. The number of steps under a
    budget is a first guess, made good by `plan_again` after the warm-up.
    Raises UsageError when the budget is over before training could begin.
    """
    config, budget = setup.config, None
    steps = config.steps
    if steps is None and config.time is not None:
        steps, budget = _first_guess(setup, began)
        epochs = steps / setup.steps_per_epoch
        reporter.say(
            f"about {steps:,} steps ({epochs:.1f} epochs) fit into {config.time}; measured again after the warm-up"
        )
    elif steps is None:
        assert config.epochs is not None
        steps = max(1, round(config.epochs * setup.steps_per_epoch))
    optim = config.optim
    assert optim.warmup is not None
    decay = optim.ema_decay if optim.ema_decay is not None else ema_decay(steps)
    warmup = optim.warmup_steps if optim.warmup_steps is not None else round(optim.warmup * steps)
    optim = replace(optim, ema_decay=decay, warmup_steps=warmup)
    return replace(config, epochs=None, time=None, steps=steps, optim=optim), budget


def plan_again(setup: Setup, state: TrainState, budget: Budget, reporter: Reporter) -> TrainConfig:
    """The number of steps that fit at the pace of the warm-up.

    The warm-up is the same whatever follows, and the stored configuration tells it and the final number of steps, so
    that repeating it gives the same weights.
    """
    pace = state.seconds / max(1, state.step)
    steps = state.step + max(state.step, int((budget.deadline - time.monotonic()) / (1.03 * pace)))
    epochs = steps / setup.steps_per_epoch
    reporter.say(f"{steps:,} steps ({epochs:.1f} epochs) of {1000 * pace:.0f} ms fit into {budget.text}")
    if epochs < 1:
        reporter.warn(f"The budget lets training see only {epochs:.0%} of the images once; more time would help.")
    return replace(setup.config, steps=steps)


def _first_guess(setup: Setup, began: float) -> tuple[int, Budget]:
    config = setup.config
    assert config.time is not None
    seconds = parse_duration(config.time)
    trial = replace(
        setup, config=replace(config, time=None, steps=1, optim=replace(config.optim, ema_decay=0.9, warmup_steps=0))
    )
    limit = min(3.0, 0.02 * seconds)
    step = seconds_per_step(trial.state(), trial.batches(), trial.settings(), setup.objective, limit=limit)
    # A forward pass in fp32 costs about as much as a third to a half of a training step.
    image = 0.5 * step / (setup.batch_size * (config.optim.accumulation or 1))
    after = len(setup.val) + setup.facts.num_test + min(len(setup.train), FEATURES_FROM)
    reserve = RESERVE + 0.04 * seconds + 1.5 * image * after
    left = began + seconds - time.monotonic() - reserve
    validations = min(MOST_VALIDATIONS, max(1.0, left / step / setup.steps_per_epoch)) * len(setup.val) * image
    steps = int((left - validations) / (1.05 * step))
    if steps < 1:
        raise UsageError(
            f"--time {config.time} is over before training could begin: reading and checking the data took "
            f"{time.monotonic() - began:.0f} s, and {reserve:.0f} s are needed after training.",
            f"Give at least --time {math.ceil(seconds - left + 20 * step + 10)}s.",
        )
    return steps, Budget(config.time, began + seconds - reserve)
