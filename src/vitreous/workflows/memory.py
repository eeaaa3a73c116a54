"""Before the first step: does the batch fit into memory, and how is it cut up where it does not."""

from __future__ import annotations

from dataclasses import replace

import torch

from vitreous.config.train import TrainConfig
from vitreous.models.cost.activations import set_checkpointing
from vitreous.training.forecast import MARGIN, Forecast, Plan, forecast, largest_piece, plan, taken_by_pass
from vitreous.training.memory import uses_batch_statistics
from vitreous.workflows.environment import free_memory
from vitreous.workflows.reporter import Reporter
from vitreous.workflows.setup import Setup


def fit_into_memory(setup: Setup, asked: TrainConfig, reporter: Reporter, *, sharded: bool = False) -> Setup:
    """The setup with the images that go through the model at once, and with recomputed activations where that is needed.

    asked: the settings before anything was filled in; what it settles stays. The images of an optimiser step, and so the
    learning rate, are those of the recipe whatever comes of it. sharded: whether each process of the team holds only its slice
    of what does not depend on the batch. The forecast is said.
    """
    config, batch = setup.config, setup.batch_size
    free = setup.team.least(free_memory(setup.device) // (1 if setup.device == "cuda" else setup.team.local_size))
    assert config.precision != "auto"
    model = setup.start.model
    predicted = forecast(model, setup.spec.shape, config.precision, setup.device, config.optim.name or "adamw")
    if sharded:
        predicted = replace(predicted, fixed=predicted.fixed // setup.team.size)
    by_hand = asked.net.checkpointing
    if config.micro_batch is None:
        found = plan(predicted, batch, free, recompute=by_hand)
    else:
        micro = min(config.micro_batch, batch)
        found = Plan(micro, bool(by_hand), predicted.bytes(micro, recomputed=bool(by_hand)))
    recomputed = found.recomputed and set_checkpointing(model, True)
    if by_hand and not recomputed:
        reporter.warn(
            f"{setup.start.architecture.name} cannot recompute its activations; --net.checkpointing is left out."
        )
    if setup.device == "cuda" and config.micro_batch is None and not sharded:
        found = _tried(setup, predicted, found, free)
    reporter.say(_sentence(predicted, found, batch, free))
    if recomputed and by_hand is None:
        reporter.say(
            "activations are recomputed in the backward pass, about a third more time: without, not even 8 images fit"
        )
    if found.micro_batch < batch and uses_batch_statistics(model):
        reporter.warn("The model's batch normalisation sees the pieces of a batch, not the whole.")
    if found.bytes > free:
        reporter.warn(
            "That is more than is free: training may end for want of memory. Smaller images or a smaller model help."
        )
    net = replace(config.net, checkpointing=recomputed if found.recomputed else config.net.checkpointing)
    return replace(setup, config=replace(config, micro_batch=found.micro_batch, net=net))


def _tried(setup: Setup, predicted: Forecast, found: Plan, free: int) -> Plan:
    """The plan after passes of random images on the GPU, which knows better than any forecast: the largest pieces that leave
    the margin."""
    assert setup.config.precision != "auto"
    model, objective, precision = setup.start.model.to(setup.device), setup.objective, setup.config.precision
    generator = torch.Generator(setup.device).manual_seed(0)
    classes = len(setup.spec.classes)
    measured: dict[int, int] = {}

    def fits(count: int) -> bool:
        try:
            images = torch.randn(count, *setup.spec.shape, device=setup.device, generator=generator)
        except torch.OutOfMemoryError:
            return False
        targets = torch.full((count, classes), 1 / classes, device=setup.device)
        taken = taken_by_pass(model, images, targets, objective, precision)
        if taken is None:
            return False
        measured[count] = predicted.fixed + taken
        return measured[count] <= MARGIN * free

    micro = setup.team.least(largest_piece(found.micro_batch, setup.batch_size, fits))
    return Plan(micro, found.recomputed, measured.get(micro, predicted.bytes(micro, recomputed=found.recomputed)))


def _sentence(predicted: Forecast, found: Plan, batch: int, free: int) -> str:
    """ "training takes about 1.2 of 20.1 GB free, with 64 images at once"."""
    need = predicted.bytes(found.micro_batch, recomputed=found.recomputed)
    pieces = -(-batch // found.micro_batch)
    text = f"training takes about {_size(need)} of {_size(free)} of free memory"
    if pieces > 1:
        text += f", with each batch of {batch} images in {pieces} pieces of {found.micro_batch}"
    return text


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6)):,} MB"
