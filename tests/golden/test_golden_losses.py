"""The losses of a short seeded run, stored as text: a change of numbers anywhere in training is seen here.

Where a change is meant, write the file anew and let the review judge the difference:

    python tests/golden/test_golden_losses.py
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vitreous.config.input import InputSpec
from vitreous.config.train import LossConfig, OptimConfig
from vitreous.data import PixelStore
from vitreous.data.augmentation.augment import Augment
from vitreous.data.batches import TrainBatches, eval_batches
from vitreous.data.sources.digits import read_digits
from vitreous.models import architecture, build
from vitreous.recipes import AUGMENTATION
from vitreous.training.checkpoint import TrainState
from vitreous.training.ema import Ema
from vitreous.training.loop import FitSettings, fit
from vitreous.training.losses import cross_entropy, make_loss
from vitreous.training.objective import classify
from vitreous.training.optim import make_optimizer
from vitreous.training.precision import gradient_scaler
from vitreous.training.signals import StopFlag

GOLDEN = Path(__file__).with_name("tiny_run.txt")
TOLERANCE = 1e-4
"""Relative; processors and libraries round differently."""
STEPS, IMAGES, BATCH = 16, 120, 24
SPEC = InputSpec(height=8, width=8, channels=1, mean=(0.3,), std=(0.4,), classes=tuple("0123456789"))
OPTIM = OptimConfig(
    lr=1e-3,
    weight_decay=0.05,
    beta1=0.9,
    beta2=0.98,
    warmup=0.2,
    final_lr=0.01,
    clip_norm=1.0,
    accumulation=1,
    ema_decay=0.9,
    label_smoothing=0.1,
)


def losses() -> list[tuple[str, float]]:
    """The training loss of every step and, at the end, that of the averaged weights on unchanged images."""
    torch.set_num_threads(1)
    source = read_digits().select(range(IMAGES))
    store = PixelStore(source, range(IMAGES), SPEC, threads=1, max_bytes=10**8)
    labels = np.array([int(sample.label) for sample in source.samples])
    augment = replace(AUGMENTATION["document"], mixup=0.4, cutmix=1.0, mix_probability=0.5, erase=0.1)
    torch.manual_seed(0)
    model = build(architecture("vit_micro", num_classes=10, image_size=8, in_chans=1, depth=2, drop_path=0.1))
    state = TrainState(
        model=model,
        ema=Ema(model, 0.9),
        optimizer=make_optimizer(model, OPTIM),
        scaler=gradient_scaler("fp32", "cpu"),
    )
    rows: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(
            state,
            TrainBatches(
                store,
                labels,
                batch_size=BATCH,
                seed=0,
                augment=Augment(augment, SPEC, 10, 0.1),
                mix_until_step=12,
            ),
            FitSettings(
                steps=STEPS,
                optim=OPTIM,
                precision="fp32",
                device="cpu",
                seed=0,
                steps_per_epoch=5,
                validate_every=STEPS,
                log_every=1,
            ),
            objective=classify(
                make_loss(LossConfig(name="cross-entropy"), "logit-adjust", torch.from_numpy(np.bincount(labels)))
            ),
            evaluate=lambda _: {"val_score": 0.0},
            record=lambda row: rows.append((f"step {row['step']}", row["loss"])),
            stop=StopFlag(),
            checkpoints=Path(folder),
        )
    images = torch.from_numpy(np.concatenate(list(eval_batches(store, IMAGES))))
    with torch.no_grad():
        last = cross_entropy(state.ema.model(images), torch.eye(10)[torch.from_numpy(labels)])
    return [*rows, ("average", float(last))]


def test_a_seeded_run_gives_the_stored_losses() -> None:
    stored = [line.rsplit(" ", 1) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    found = losses()
    assert [name for name, _ in found] == [name for name, _ in stored]
    differing = [
        f"{name}: {value:.8f}, stored {golden}"
        for (name, value), (_, golden) in zip(found, stored, strict=True)
        if not math.isclose(value, float(golden), rel_tol=TOLERANCE)
    ]
    assert not differing, f"{differing}; if this is meant: python tests/golden/{Path(__file__).name}"
    assert found[-1][1] < found[0][1], "sixteen steps already help"


if __name__ == "__main__":
    GOLDEN.write_text("".join(f"{name} {value:.8f}\n" for name, value in losses()), encoding="utf-8")
    print(f"wrote {GOLDEN.name}")
