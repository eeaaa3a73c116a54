"""Before any training: one split for all models, one size of image, one budget, and whether each model fits into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vitreous.config.study import Equal, StudyConfig
from vitreous.config.train import NetConfig, TrainConfig, parse_duration
from vitreous.data import Split
from vitreous.errors import DataError, UsageError
from vitreous.evaluation.words import amount
from vitreous.models.build import architecture, build, fitting_image_size, is_vit
from vitreous.models.cost import count_macs, count_parameters
from vitreous.runs.folder import SPLITS
from vitreous.training.forecast import forecast
from vitreous.training.precision import choose_precision
from vitreous.training.utilisation import FLOPS_PER_MAC, product_rate
from vitreous.workflows.environment import default_device, free_memory
from vitreous.workflows.prepare import Material, gather, shared
from vitreous.workflows.previous import earlier_split
from vitreous.workflows.reporter import Reporter, Silent
from vitreous.workflows.settle import Settled, settle

FEWEST_STEPS = 20
"""Optimiser steps without which a training is none."""
BYTES_A_PARAMETER = 16
"""Weight, gradient and two moments in fp32."""


@dataclass(frozen=True)
class Ahead:
    """What all trainings of a study share."""

    split: Split
    equal: Equal
    budget: str
    """In words, for all models alike: "20 epochs, about 24,000 images seen"."""
    settings: Mapping[tuple[str, float], TrainConfig]
    """{(model, share of the training part): settings}, without seed and place."""
    images: Mapping[float, int]
    """{share: training images}."""


def look_ahead(
    data: object, names: Sequence[str], config: TrainConfig, study: StudyConfig, place: Path, reporter: Reporter
) -> Ahead:
    """Read and split the data, and settle what each model will be trained with.

    place: the folder of the study; a split stored there is kept. Raises what reading data raises; DataError where the stored
    split is of other data; UsageError for a model that does not fit into memory or the time.
    """
    stored = place / SPLITS
    kept = config.resume and stored.is_file()
    previous, origin = (Split.read_csv(stored), "") if kept else earlier_split(data, config, place / "first")
    seconds = parse_duration(config.time) if config.time else None
    material = replace(gather(data, config, reporter, previous, origin, seconds), budget=seconds)
    if kept and previous is not None and previous.digest() != material.split.digest():
        raise DataError(
            f"The study in {str(place)!r} is of other data: its images or labels are not those of {data!s}.",
            "Name the data it was begun with, or choose another --out.",
        )
    config = _one_size(config, names, material, reporter)
    equal = _equal(config, study)
    found = {name: _settled(for_model(config, name), material) for name in names}
    for name, each in found.items():
        _check_fits(name, each, config, material)
    budgets, budget = _budgets(config, equal, found, material)
    settings, images = {(name, 1.0): each for name, each in budgets.items()}, {1.0: len(material.trained)}
    for share in study.shares:
        part = shared(material, replace(config, train_share=share), Silent())
        images[share] = len(part.trained)
        # What the images are and how they are seen is what the whole part says, so that their number alone differs.
        alike = {name: _settled(_as_settled(for_model(config, name), each), part) for name, each in found.items()}
        for name, each in _budgets(config, equal, alike, part)[0].items():
            settings[name, share] = replace(_as_settled(each, found[name]), train_share=share)
    return Ahead(material.split, equal, budget, settings, images)


def _as_settled(config: TrainConfig, settled: Settled) -> TrainConfig:
    """With the domain, size of image and method that were found before."""
    resolved = settled.resolved.config
    return replace(
        config,
        preset=resolved.preset,
        image_size=resolved.image_size,
        exposure=resolved.exposure,
        method=resolved.method,
    )


def for_model(config: TrainConfig, name: str) -> TrainConfig:
    """The shared settings for one model; what shapes a Vision Transformer is not for convolutional models."""
    net = config.net
    if not is_vit(name):
        net = NetConfig(drop_path=net.drop_path, dropout=net.dropout)
    return replace(config, model=name, net=net)


def _one_size(config: TrainConfig, names: Sequence[str], material: Material, reporter: Reporter) -> TrainConfig:
    """The size of image that all models see: asked for, or that which one of them is made for."""
    sizes = {name: fitting_image_size(name) for name in names}
    own = {size for size in sizes.values() if size is not None}
    if config.image_size is not None or not own:
        return config
    if len(own) == 1 and all(sizes[name] is not None or _takes(name, *own) for name in names):
        reporter.say(
            f"all models see images of {min(own)} px, which {_named(sizes)} is made for (change with --image-size)"
        )
        return replace(config, image_size=min(own))
    listed = ", ".join(f"{name} {size} px" for name, size in sizes.items() if size is not None)
    raise UsageError(
        f"The models are made for images of different sizes ({listed}), which would compare the sizes.",
        f"Choose one for all: --image-size {max(own)}",
    )


def _named(sizes: Mapping[str, int | None]) -> str:
    return next(name for name, size in sizes.items() if size is not None)


def _takes(name: str, size: int) -> bool:
    """Whether a model for every size takes this one."""
    try:
        with torch.device("meta"):
            build(architecture(name, num_classes=2, image_size=size))
    except UsageError:
        return False
    return True


def _equal(config: TrainConfig, study: StudyConfig) -> Equal:
    """What is the same for all models. Raises UsageError where it contradicts what bounds a training."""
    bound: Equal = "time" if config.time else "steps" if config.steps else "images"
    if study.equal == "auto":
        return bound
    if study.equal == "time" and not config.time:
        raise UsageError("--equal time needs the time that each training gets.", "Such as: --equal time --time 5m")
    if study.equal == "steps" and not config.steps:
        raise UsageError("--equal steps needs their number.", "Such as: --equal steps --steps 500")
    if study.equal != bound and bound != "images":
        given = f"--time {config.time}" if config.time else f"--steps {config.steps}"
        raise UsageError(
            f"--equal {study.equal} and {given} contradict each other.",
            "Bound the trainings with --epochs, or leave one out.",
        )
    return study.equal


def _settled(config: TrainConfig, material: Material) -> Settled:
    """Raises UsageError for a model whose weights alone do not fit into memory, before they are made."""
    with torch.device("meta"):
        skeleton = build(
            architecture(
                config.model, num_classes=2, image_size=config.image_size or fitting_image_size(config.model) or 64
            )
        )
    need, free = BYTES_A_PARAMETER * count_parameters(skeleton), free_memory(default_device())
    if need > free:
        raise _too_large(config.model, need, free)
    return settle(config, material, Silent())


def _check_fits(name: str, settled: Settled, config: TrainConfig, material: Material) -> None:
    """Raise UsageError where one image at a time is too much for memory, or the least that a training does for its time."""
    device, spec, model = default_device(), settled.spec, settled.start.model
    macs = count_macs(model, spec.shape)
    precision = choose_precision(settled.resolved.config.precision, device, macs)
    predicted = forecast(model, spec.shape, precision, device, settled.resolved.config.optim.name or "adamw")
    recomputed = predicted.per_image_recomputed is not None
    need, free = predicted.bytes(1, recomputed=recomputed), free_memory(device)
    if need > free:
        raise _too_large(name, need, free)
    if config.time is None or settled.resolved.config.method == "probe":
        return
    batch = settled.resolved.config.batch_size
    assert isinstance(batch, int)
    trained = FEWEST_STEPS * min(batch, len(material.trained))
    scored = len(material.rows("val")) + len(material.rows("test"))
    least = (FLOPS_PER_MAC * trained + 2 * scored) * macs / product_rate(device, precision)
    if least > parse_duration(config.time):
        raise UsageError(
            f"{name} cannot be trained in --time {config.time}: {FEWEST_STEPS} steps and scoring {scored:,} images take at least "
            f"{least:.0f} s here, at the speed of plain matrix products.",
            "Give more time, ask for smaller images (--image-size), or leave the model out.",
        )


def _too_large(name: str, need: int, free: int) -> UsageError:
    return UsageError(
        f"{name} does not fit into memory: training it takes {need / 1e9:,.1f} GB even with one image at a time, and "
        f"{free / 1e9:,.1f} GB are free.",
        "Leave it out, or ask for smaller images (--image-size).",
    )


def _budgets(
    config: TrainConfig, equal: Equal, found: Mapping[str, Settled], material: Material
) -> tuple[dict[str, TrainConfig], str]:
    """The settings of each model with the length of its training, and that length in words."""
    asked = {name: for_model(replace(config, image_size=each.spec.height), name) for name, each in found.items()}
    if any(each.resolved.config.method == "probe" for each in found.values()):
        return asked, "one pass over the images for their features"
    if equal == "time":
        return asked, f"{config.time} for each training, all included"
    if equal == "steps":
        return asked, f"{config.steps:,} optimiser steps for each training"
    images, first = len(material.trained), next(iter(found.values()))
    epochs = config.epochs or first.resolved.config.epochs
    assert epochs is not None
    if equal == "images":
        words = f"{epochs} epochs for each training, {epochs * images:,} images seen"
        return {name: replace(each, epochs=epochs) for name, each in asked.items()}, words
    total = epochs * images * count_macs(first.start.model, first.spec.shape)
    budgets = {}
    for name, each in found.items():
        resolved, augment = each.resolved.config, asked[name].augment
        assert isinstance(resolved.batch_size, int)
        macs = count_macs(each.start.model, each.spec.shape)
        step = min(resolved.batch_size, images) * (resolved.optim.accumulation or 1) * (config.devices or 1)
        # Images that grow in training would cost less than they are counted for.
        augment = replace(augment, start_size=1.0) if augment.start_size is None else augment
        budgets[name] = replace(asked[name], epochs=None, steps=max(1, round(total / (macs * step))), augment=augment)
    return budgets, f"{amount(3 * total)} multiply-accumulates for each training, forward and backward"
