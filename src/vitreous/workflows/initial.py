"""Which weights a run starts from, and the model that holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitreous.config.convert import from_dict
from vitreous.config.facts import DataFacts
from vitreous.config.input import InputSpec
from vitreous.config.train import NetConfig, TrainConfig
from vitreous.errors import UsageError, WeightsError
from vitreous.models.build import Architecture, architecture, build, check_takes
from vitreous.models.presets import parse_vit
from vitreous.models.vit import VisionTransformer
from vitreous.models.weights import Fetched, fetch_timm, hub_is_reachable, load_into, read_weights
from vitreous.runs.folder import RUN_JSON, read_facts
from vitreous.workflows.reporter import Reporter

PRETRAINED = {
    "vit_tiny": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_small": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_base": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
}
"""What `--init auto` starts from when the hub can be reached (Steiner et al. 2022, arXiv:2106.10270; Apache-2.0)."""

SMALLEST_FOR_PRETRAINED = 64
"""Pixels of the short side below which published 224-px weights have nothing to say."""


@dataclass(frozen=True)
class Start:
    """A model ready to train, and how it came to be."""

    model: nn.Module
    architecture: Architecture
    weights: dict[str, Any]
    """{"init", "source", "licence", "notes"}: what `run.json` says of the initial weights."""


def settle_init(config: TrainConfig, facts: DataFacts, reporter: Reporter) -> TrainConfig:
    """Turn `init="auto"` into a named source or "scratch". Never fails for want of a network: it says so instead."""
    if config.init != "auto":
        if config.init.startswith("timm:") and config.model == "auto":
            return replace(config, model=config.init.removeprefix("timm:").split(".")[0])
        facts_file = Path(config.init) / RUN_JSON
        if config.model == "auto" and facts_file.is_file():
            return replace(config, model=read_facts(facts_file)["architecture"]["name"])
        return config
    family = "vit_tiny" if facts.device == "cpu" else "vit_small"
    if config.model != "auto":
        parsed = parse_vit(config.model)
        family = f"vit_{parsed.size}" if parsed and parsed.patch_size in (None, 16) else ""
    if family not in PRETRAINED or facts.short_side < SMALLEST_FOR_PRETRAINED or config.net != NetConfig():
        return replace(config, init="scratch")
    if config.offline or not hub_is_reachable():
        why = "--offline forbids the network" if config.offline else "the Hugging Face hub cannot be reached"
        reporter.say(f"init scratch: {why}, so no pretrained weights (pass a file with --init FILE)")
        return replace(config, init="scratch")
    name = PRETRAINED[family]
    reporter.say(f"init timm:{name}: published weights, fine-tuned (train from nothing with --init scratch)")
    model = config.model if config.model != "auto" else name.split(".")[0]
    return replace(config, init=f"timm:{name}", model=model)


def prepare_model(config: TrainConfig, spec: InputSpec, reporter: Reporter) -> Start:
    """Build the model a resolved configuration names, seeded, and load its initial weights.

    Raises UsageError for numbers that do not fit, WeightsError for a named source that cannot be had.
    """
    net = {name: getattr(config.net, name) for name in config.net.__dataclass_fields__}
    found = architecture(
        config.model, num_classes=len(spec.classes), image_size=spec.height, in_chans=spec.channels, **net
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = build(found)
    check_takes(model, found.name, spec.shape)
    if config.init == "scratch":
        return Start(model, found, {"init": "scratch", "source": None, "licence": None, "notes": []})
    fetched = _fetch(config.init, config.offline, reporter.say)
    if not isinstance(model, VisionTransformer):
        raise UsageError(
            f"--init {config.init} holds Vision Transformer weights; {config.model!r} is a convolutional model.",
            "Use --init scratch, or a --model whose name begins with vit_.",
        )
    notes = load_into(model, fetched.state, fetched.source)
    for note in notes:
        reporter.say(note)
    return Start(
        model,
        found,
        {"init": config.init, "source": fetched.source, "licence": fetched.licence, "notes": list(notes)},
    )


def create(
    name: str, num_classes: int, init: str, *, image_size: int, in_chans: int, offline: bool, **net: Any
) -> nn.Module:
    """What `vitreous.create_model` does; see there."""
    from_dict(NetConfig, net)  # refuses unknown keywords by name, also those that a convolutional model ignores
    model = build(architecture(name, num_classes=num_classes, image_size=image_size, in_chans=in_chans, **net))
    if init == "auto":
        parsed = parse_vit(name)
        published = PRETRAINED.get(f"vit_{parsed.size}") if parsed and parsed.patch_size in (None, 16) else None
        init = f"timm:{published}" if published and not offline and hub_is_reachable() else "scratch"
    if init != "scratch":
        if not isinstance(model, VisionTransformer):
            raise UsageError(
                f"init={init!r} needs a Vision Transformer; {name!r} is convolutional.", "Use init='scratch'."
            )
        fetched = _fetch(init, offline, None)
        load_into(model, fetched.state, fetched.source)
    return model


def _fetch(init: str, offline: bool, say: Callable[[str], None] | None) -> Fetched:
    if init.startswith("timm:"):
        return fetch_timm(init.removeprefix("timm:"), offline=offline, say=say)
    path = Path(init)
    if not path.exists():
        raise WeightsError(
            f"--init {init!r} is neither a file, a run folder, nor timm:NAME.",
            "Use auto, scratch, a path, or for example timm:vit_tiny_patch16_224.",
        )
    return Fetched(read_weights(path), str(path), "as the file's owner says")
