"""What of a run follows from its settings and the data alone: the recipe, what the model sees, and the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vitreous.config.facts import DataFacts
from vitreous.config.input import InputSpec
from vitreous.config.train import TrainConfig
from vitreous.models.fetch import published
from vitreous.recipes import Resolved, resolve
from vitreous.runs.folder import CHECKPOINTS, read_facts
from vitreous.training.checkpoint import is_restorable
from vitreous.workflows.initial import (
    Start,
    prepare_model,
    restored_model,
    settle_exposure,
    settle_init,
    settle_size,
)
from vitreous.workflows.prepare import Material, facts_of, first_spec, fit_value_range
from vitreous.workflows.reporter import Reporter
from vitreous.workflows.several_labels import check_several


@dataclass(frozen=True)
class Settled:
    """A run before any image is stored for it."""

    resolved: Resolved
    facts: DataFacts
    spec: InputSpec
    """Its mean and deviation are measured on the training part yet, unless `standard`."""
    standard: bool
    """Whether mean and deviation are those of the weights."""
    start: Start


def recipe_of(config: TrainConfig, material: Material, reporter: Reporter) -> tuple[Resolved, DataFacts]:
    """The complete settings for these data. Raises UsageError for initial weights that do not say what they are of."""
    facts = facts_of(material, config)
    if facts.several_labels:
        check_several(config, material)
    config = settle_exposure(settle_size(settle_init(config, facts, reporter)))
    return resolve(config, facts), facts


def settle(config: TrainConfig, material: Material, reporter: Reporter, begun: Path | None = None) -> Settled:
    """begun: the `run.json` of a run that is continued. Raises what reading weights and building the model raises."""
    resolved, facts = recipe_of(config, material, reporter)
    for reason in resolved.reasons:
        reporter.say(reason)
    for warning in resolved.warnings:
        reporter.warn(warning)
    init = resolved.config.init
    pretrained = published(init.removeprefix("timm:")) if init.startswith("timm:") else None
    value_range = fit_value_range(material, config, reporter)
    shown = replace(facts, classes=()) if config.pretrains else facts
    spec = first_spec(resolved, shown, pretrained and (pretrained.mean, pretrained.std), value_range)
    stored = read_facts(begun) if begun is not None else {}
    if begun is not None and "architecture" in stored and is_restorable(begun.parent / CHECKPOINTS):
        start = restored_model(stored, resolved.config.seed)
    else:
        start = prepare_model(resolved.config, spec, reporter)
    # Published statistics are those of red, green and blue.
    return Settled(resolved, facts, spec, pretrained is not None and spec.channels in (1, 3), start)
