"""The parts of a training run put together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vitreous.config.facts import DataFacts
from vitreous.config.input import InputSpec
from vitreous.config.train import TrainConfig
from vitreous.data import PixelStore
from vitreous.data.augmentation.augment import Augment
from vitreous.data.augmentation.size import SizePlan, plan_sizes
from vitreous.data.batches import TrainBatches
from vitreous.data.sampling import balanced_order
from vitreous.data.sources.shard_order import BUFFER, shard_order
from vitreous.errors import UsageError
from vitreous.models.layers.pool import PairedHead
from vitreous.models.masked import MaskedAutoencoder
from vitreous.models.vit import VisionTransformer, side_unit, train_at_any_size
from vitreous.training.checkpoint import TrainState
from vitreous.training.distillation import distil
from vitreous.training.ema import Ema
from vitreous.training.learning import head_only
from vitreous.training.loop import FitSettings
from vitreous.training.losses import make_loss
from vitreous.training.objective import Objective, classify
from vitreous.training.optim import make_optimizer
from vitreous.training.precision import gradient_scaler
from vitreous.training.pretraining import reconstruct
from vitreous.training.team import ALONE, Team
from vitreous.workflows.initial import Start
from vitreous.workflows.prepare import Material
from vitreous.workflows.teacher import TeacherModel

FEATURES_FROM = 3000
"""Training images whose features describe what is usual (see `evaluation.strangeness`)."""
MOST_VALIDATIONS = 20
FEW_EPOCHS = 6
"""Epochs below which each one ends with a validation; longer runs have one every other epoch, since it costs a third of
training for as many images."""


@dataclass(frozen=True)
class Setup:
    """Everything a run is made of; `config` is complete once `workflows.plan` has been over it."""

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
    teacher: TeacherModel | None = None
    """What is learned from besides, or instead of, the labels."""
    team: Team = ALONE
    """The processes that train together, each with batches of its own."""

    @property
    def batch_size(self) -> int:
        assert isinstance(self.config.batch_size, int)
        # A batch larger than the data would show an image several times in one step.
        return min(self.config.batch_size, len(self.train))

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in which every training image is seen once."""
        return len(self.train) / (self.batch_size * self.batches_per_step)

    @property
    def batches_per_step(self) -> int:
        """Batches whose gradients make one optimiser step, over all processes."""
        return (self.config.optim.accumulation or 1) * self.team.size

    @property
    def objective(self) -> Objective:
        assert self.config.balance != "auto"
        if self.config.pretrains:
            assert isinstance(self.start.model, VisionTransformer)
            return reconstruct(self.start.model.patch_size, bool(self.config.pretrain.normalise_pixels))
        loss = make_loss(
            self.config.loss,
            self.config.balance,
            torch.tensor(self.facts.train_counts),
            several_labels=self.facts.several_labels,
            num_images=self.facts.num_train,
        )
        if self.teacher is None:
            objective = classify(loss)
        else:
            apart = isinstance(getattr(self.start.model, "head", None), PairedHead)
            objective = distil(self.config.distill, self.teacher.teach, loss, apart=apart)
        return head_only(objective) if self.config.method == "head" else objective

    def labels(self, store: PixelStore) -> np.ndarray:
        return self.material.labels[store.indices]

    def state(self) -> TrainState:
        assert self.config.precision != "auto"
        model = self._trained().to(self.device)
        if self.sizes is not None:
            train_at_any_size(model)
        return TrainState(
            model=model,
            ema=Ema(model, self.config.optim.ema_decay or 0.0),
            optimizer=make_optimizer(model, self.config.optim),
            scaler=gradient_scaler(self.config.precision, self.device),
            micro_batch=self.config.micro_batch or 0,
        )

    def _trained(self) -> nn.Module:
        """The module whose weights change: the model, for pretraining with the decoder that is thrown away afterwards."""
        encoder, how = self.start.model, self.config.pretrain
        if not self.config.pretrains:
            return encoder
        assert isinstance(encoder, VisionTransformer)
        assert how.mask_ratio is not None and how.decoder_dim is not None and how.decoder_depth is not None
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            try:
                return MaskedAutoencoder(
                    encoder, mask_ratio=how.mask_ratio, decoder_dim=how.decoder_dim, decoder_depth=how.decoder_depth
                )
            except ValueError as error:
                raise UsageError(f"Masked autoencoding is not possible with these settings: {error}.") from error

    @property
    def sizes(self) -> SizePlan | None:
        """Which size of image each optimiser step trains on; None where all see the full one."""
        held = self.config.optim.warmup_steps or 0
        full = (self.spec.height, self.spec.width)
        return plan_sizes(self.config.augment, full, side_unit(self.start.model), held)

    def _size_of(self, micro_step: int) -> tuple[int, int]:
        assert self.sizes is not None
        return self.sizes.at(micro_step // self.batches_per_step, self.config.steps or 1)

    def batches(self) -> TrainBatches:
        config = self.config
        augment = Augment(config.augment, self.spec, len(self.spec.classes) or 1, config.optim.label_smoothing or 0.0)
        assert config.augment.mix_until is not None and config.augment.strong_until is not None
        weights = self.material.weights()
        micro_steps = (config.steps or 0) * self.batches_per_step
        return TrainBatches(
            self.train,
            self.labels(self.train),
            batch_size=self.batch_size,
            seed=config.seed,
            augment=augment,
            mix_until_step=round(config.augment.mix_until * micro_steps),
            strong_until_step=round(config.augment.strong_until * micro_steps),
            weights=None if weights is None else weights[self.train.indices],
            size=None if self.sizes is None else self._size_of,
            order=self._order(),
        )

    def _order(self) -> Callable[[int], np.ndarray] | None:
        """Which rows an epoch shows where a plain shuffle will not do."""
        if self.config.balance == "sampler":  # also over shards: what is shown comes before how fast it is read
            return balanced_order(self.labels(self.train), self.config.seed)
        return self._shard_order if self.material.shards and self.train.where == "decoded each time" else None

    def _shard_order(self, epoch: int) -> np.ndarray:
        """An order in which shards are read nearly front to back, for those that memory and disk cannot hold."""
        return shard_order(self.material.shards, seed=self.config.seed, epoch=epoch, buffer=BUFFER)

    def settings(self, deadline: float = math.inf) -> FitSettings:
        config = self.config
        assert config.precision != "auto"
        steps = config.steps or 1
        each = validation_interval(steps, self.steps_per_epoch)
        return FitSettings(
            steps=steps,
            optim=config.optim,
            precision=config.precision,
            device=self.device,
            seed=config.seed,
            steps_per_epoch=math.ceil(self.steps_per_epoch),
            validate_every=each,
            # A few rows an epoch, for those who watch.
            log_every=max(1, min(math.ceil(self.steps_per_epoch) // 2, 25)),
            deadline=deadline,
            stop_after=config.stop_after,
            team=self.team,
        )


def validation_interval(steps: int, steps_per_epoch: float) -> int:
    """Steps from one validation to the next: two epochs, one in runs of fewer than `FEW_EPOCHS`, more where a run would
    have more than `MOST_VALIDATIONS`. The last step always has one."""
    epochs = 2 if steps >= FEW_EPOCHS * steps_per_epoch else 1
    return max(1, math.ceil(max(steps / MOST_VALIDATIONS, epochs * steps_per_epoch)))
