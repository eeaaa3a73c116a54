"""A real but small training problem: some of the embedded digits, with everything random that training knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vitreous.config.input import InputSpec
from vitreous.config.train import OptimConfig
from vitreous.data import PixelStore
from vitreous.data.augmentation.augment import Augment
from vitreous.data.batches import TrainBatches, eval_batches
from vitreous.data.sources.digits import read_digits
from vitreous.models import VisionTransformer
from vitreous.recipes import AUGMENTATION
from vitreous.training.checkpoint import TrainState
from vitreous.training.ema import Ema
from vitreous.training.loop import FitSettings
from vitreous.training.losses import cross_entropy
from vitreous.training.optim import make_optimizer
from vitreous.training.precision import gradient_scaler

torch.set_num_threads(1)
IMAGES = 60
SPEC = InputSpec(height=8, width=8, channels=1, mean=(0.3,), std=(0.4,), classes=tuple("0123456789"))
AUGMENT = replace(
    AUGMENTATION["document"], rotate=10.0, erase=0.2, mixup=0.4, cutmix=1.0, mix_probability=0.7, noise=0.02
)
OPTIM = OptimConfig(
    lr=2e-3,
    weight_decay=0.05,
    beta1=0.9,
    beta2=0.98,
    warmup=0.2,
    final_lr=0.1,
    clip_norm=1.0,
    accumulation=1,
    ema_decay=0.9,
    label_smoothing=0.1,
)


class Problem:
    """Makes each part anew, so that two runs share nothing but the pixels."""

    def __init__(self) -> None:
        source = read_digits().select(range(IMAGES))
        self.store = PixelStore(source, range(IMAGES), SPEC, threads=1, max_bytes=10**8)
        self.labels = np.array([int(sample.label) for sample in source.samples])

    def state(self, seed: int = 0, optim: OptimConfig = OPTIM, precision: Any = "fp32") -> TrainState:
        torch.manual_seed(seed)
        model = VisionTransformer(
            image_size=8,
            patch_size=2,
            in_chans=1,
            num_classes=10,
            embed_dim=24,
            depth=2,
            num_heads=2,
            num_registers=1,
            drop_path=0.3,
            dropout=0.2,
        )
        return TrainState(
            model=model,
            ema=Ema(model, optim.ema_decay or 0.0),
            optimizer=make_optimizer(model, optim),
            scaler=gradient_scaler(precision, "cpu"),
        )

    def batches(self, steps: int, *, accumulation: int = 1, seed: int = 0) -> TrainBatches:
        return TrainBatches(
            self.store,
            self.labels,
            batch_size=16,
            seed=seed,
            augment=Augment(AUGMENT, SPEC, 10, 0.1),
            mix_until_step=round(0.7 * steps * accumulation),
        )

    def settings(self, steps: int, **changes: Any) -> FitSettings:
        settings = FitSettings(
            steps=steps,
            optim=OPTIM,
            precision="fp32",
            device="cpu",
            seed=0,
            steps_per_epoch=4,
            validate_every=4,
            log_every=1,
        )
        return replace(settings, **changes)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Minus the loss on unchanged images."""
        images = torch.from_numpy(np.concatenate(list(eval_batches(self.store, IMAGES))))
        with torch.no_grad():
            loss = cross_entropy(model(images), torch.eye(10)[torch.from_numpy(self.labels)])
        return {"val_score": -float(loss), "val_loss": float(loss)}


@pytest.fixture(scope="session")
def problem() -> Problem:
    return Problem()


@pytest.fixture
def everything() -> Callable[[TrainState], dict[str, torch.Tensor]]:
    """What two states must share to be the same: weights, average, moments."""

    def collect(state: TrainState) -> dict[str, torch.Tensor]:
        names = {id(parameter): name for name, parameter in state.model.named_parameters()}
        found = {f"model.{name}": value for name, value in state.model.state_dict().items()}
        found |= {f"ema.{name}": value for name, value in state.ema.model.state_dict().items()}
        for parameter, moments in state.optimizer.state.items():
            found |= {f"{kind}.{names[id(parameter)]}": value for kind, value in moments.items()}
        return {name: value.detach().clone() for name, value in found.items()}

    return collect
