"""Which weights a run starts from, and the model that holds them."""

from __future__ import annotations

import sys
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
from vitreous.models.build import Architecture, architecture, build, check_takes, fitting_image_size, is_vit, resized
from vitreous.models.fetch import Fetched, fetch_timm, hub_is_reachable, open_weights, published
from vitreous.models.fit import load_into
from vitreous.models.presets import full_name, parse_vit
from vitreous.models.vit import VisionTransformer
from vitreous.runs.folder import RUN_JSON, read_facts
from vitreous.workflows.reporter import Reporter

PRETRAINED = {
    "vit_tiny": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_small": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_base": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
}
"""What `--init auto` starts a family from (Steiner et al. 2022, arXiv:2106.10270; Apache-2.0)."""

PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0")
"""Licences of weights that `--init auto` may choose; any other must be named."""

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
    name = _published_for(config.model, "vit_tiny" if facts.device == "cpu" else "vit_small")
    if name is None or facts.short_side < SMALLEST_FOR_PRETRAINED or config.net != NetConfig():
        return replace(config, init="scratch")
    try:
        obtain(name, offline=config.offline, say=reporter.say)
    except WeightsError as error:
        reporter.say(f"init scratch: {error.message} So no pretrained weights (pass a file with --init FILE).")
        return replace(config, init="scratch")
    reporter.say(f"init timm:{name}: published weights, fine-tuned (train from nothing with --init scratch)")
    model = config.model if config.model != "auto" else name.split(".")[0]
    return replace(config, init=f"timm:{name}", model=model)


def settle_size(config: TrainConfig) -> TrainConfig:
    """The image size of a named model that is not one for every size, where none was asked for."""
    if config.image_size is not None or config.model == "auto":
        return config
    return replace(config, image_size=fitting_image_size(config.model))


def obtain(name: str, *, offline: bool, say: Callable[[str], None]) -> Fetched:
    """Published weights for `init="auto"`: from the cache, or from the hub where it answers within seconds.

    Raises WeightsError, whose message says why there are none, in time for the caller to do without.
    """
    if published(name).cached is None:
        if offline:
            raise WeightsError("the weights are not cached and --offline forbids the network.")
        if not hub_is_reachable():
            raise WeightsError("the Hugging Face hub cannot be reached.")
    return fetch_timm(name, offline=offline, say=say)


def _published_for(model: str, otherwise: str) -> str | None:
    """The checkpoint that `auto` would start a model from: our choice for a family, else timm's default for a full name."""
    if model == "auto":
        return PRETRAINED[otherwise]
    parsed = parse_vit(model)
    if parsed is not None and parsed.family in PRETRAINED:
        return PRETRAINED[parsed.family] if parsed.patch_size in (None, 16) else None
    if not is_vit(model) or (parsed is not None and not parsed.preset.published):
        return None
    try:
        found = published(full_name(parsed.family) if parsed and parsed.patch_size is None else model)
    except WeightsError:
        return None
    return found.name if found.licence in PERMISSIVE else None


def prepare_model(config: TrainConfig, spec: InputSpec, reporter: Reporter) -> Start:
    """Build the model a resolved configuration names, seeded, and load its initial weights.

    A run folder given as `init` also gives its architecture, at the size of the new images. Raises UsageError for numbers
    that do not fit, WeightsError for a named source that cannot be had.
    """
    net = {name: getattr(config.net, name) for name in config.net.__dataclass_fields__}
    sizes = {"num_classes": len(spec.classes), "image_size": spec.height, "in_chans": spec.channels}
    found = _stored_architecture(config)
    found = architecture(config.model, **sizes, **net) if found is None else resized(found, **sizes, **net)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = build(found)
    check_takes(model, found.name, spec.shape)
    if config.init == "scratch":
        return Start(model, found, {"init": "scratch", "source": None, "licence": None, "notes": []})
    fetched, notes = start_from(model, found.name, config.init, offline=config.offline, say=reporter.say)
    return Start(
        model,
        found,
        {"init": config.init, "source": fetched.source, "licence": fetched.licence, "notes": list(notes)},
    )


def _stored_architecture(config: TrainConfig) -> Architecture | None:
    """The architecture of the run folder that training starts from, where that is the model asked for."""
    facts_file = Path(config.init) / RUN_JSON
    if not facts_file.is_file():
        return None
    stored = read_facts(facts_file)["architecture"]
    return Architecture(**stored) if stored["family"] == "vit" and stored["name"] == config.model else None


def start_from(
    model: nn.Module, name: str, init: str, *, offline: bool, say: Callable[[str], None]
) -> tuple[Fetched, tuple[str, ...]]:
    """Load named weights into a model, adapted where sizes differ, saying each adaptation.

    Raises UsageError for a convolutional model, WeightsError for weights that cannot be had or do not fit.
    """
    fetched = _fetch(init, offline, say)
    if not isinstance(model, VisionTransformer):
        raise UsageError(
            f"--init {init} holds Vision Transformer weights; {name!r} is a convolutional model.",
            "Use --init scratch, or a --model whose name begins with vit_.",
        )
    notes = load_into(
        model,
        fetched.state,
        fetched.source,
        convention=fetched.convention,
        kernel=fetched.kernel,
        grid=fetched.grid,
    )
    for note in notes:
        say(note)
    return fetched, notes


def create(
    name: str, num_classes: int, init: str, *, image_size: int, in_chans: int, offline: bool, **net: Any
) -> nn.Module:
    """What `vitreous.create_model` does; see there."""
    from_dict(NetConfig, net)  # refuses unknown keywords by name, also those that a convolutional model ignores
    sizes = {"num_classes": num_classes, "image_size": image_size, "in_chans": in_chans}
    if Path(name).exists():
        arguments = open_weights(Path(name)).arguments
        if arguments is None:
            raise UsageError(
                f"{name!r} does not say which model its weights belong to.",
                f"Name the model and pass the file as its weights: create_model(NAME, init={name!r}).",
            )
        model = build(resized(Architecture(Path(name).name, "vit", arguments), **sizes, **net))
        start_from(model, name, name, offline=True, say=_say)
        return model
    model = build(architecture(name, **sizes, **net))
    if init == "auto":
        tag = _published_for(name, "")
        try:
            if tag is not None:
                obtain(tag, offline=offline, say=_say)
                init = f"timm:{tag}"
            else:
                _say(f"init scratch: there are no published weights to choose for {name!r}.")
        except WeightsError as error:
            _say(f"init scratch: {error.message}")
    if init not in ("scratch", "auto"):
        start_from(model, name, init, offline=offline, say=_say)
    return model


def _say(text: str) -> None:
    """For callers without a reporter: what is fetched and adapted is never silent."""
    print(text, file=sys.stderr)


def _fetch(init: str, offline: bool, say: Callable[[str], None]) -> Fetched:
    if init.startswith("timm:"):
        return fetch_timm(init.removeprefix("timm:"), offline=offline, say=say)
    path = Path(init)
    if not path.exists():
        raise WeightsError(
            f"--init {init!r} is neither a file, a run folder, nor timm:NAME.",
            "Use auto, scratch, a path, or for example timm:vit_tiny_patch16_224.",
        )
    return open_weights(path)
