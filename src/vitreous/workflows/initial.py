"""Which weights a run starts from, and the model that holds them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
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
from vitreous.models.layers.patch import Size
from vitreous.models.presets import full_name, parse_vit
from vitreous.models.vit import VisionTransformer
from vitreous.runs.folder import RUN_JSON, RunFolder, read_facts
from vitreous.workflows.reporter import Reporter

PRETRAINED = {
    "vit_tiny": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_small": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_base": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
}
"""What `--init auto` starts a family from (Steiner et al. 2022, arXiv:2106.10270; Apache-2.0)."""

OURS = ((None, None), (16, None), (16, 224))
"""(patch, image) of the names that `PRETRAINED` answers for; of others it is timm's default."""

WITHOUT_WEIGHTS = (
    "head_hidden", "drop_path", "drop_path_shape", "dropout", "attention_dropout", "projection_dropout", "patch_dropout",
    "checkpointing",
)  # fmt: skip
"""Settings of a network that leave the weights below its head what they are."""

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
    restored: bool = False
    """Whether the model is empty yet, since a checkpoint of the run holds all its weights."""


def check_model(config: TrainConfig) -> None:
    """Say what cannot work before any image is read: weights that are not there, numbers and options that do not fit.

    Raises WeightsError and UsageError, and RunError for a run folder that is not finished.
    """
    begun = config.resume and config.out is not None and (config.out / RUN_JSON).is_file()
    if config.init not in ("auto", "scratch") and not config.init.startswith("timm:") and not begun:
        _check_exists(config.init)
    facts_file = Path(config.init) / RUN_JSON
    if facts_file.is_file():
        RunFolder.open(config.init, verify=False, pretrained=True)
    if config.model == "auto" or not is_vit(config.model) or facts_file.is_file():
        return
    net = {name: getattr(config.net, name) for name in config.net.__dataclass_fields__}
    # Where the image size follows from the data, any that the patch divides will do to see whether the rest fits.
    image_size = config.image_size or 8 * (config.net.patch_size or 0) or fitting_image_size(config.model) or 64
    with torch.device("meta"):
        build(architecture(config.model, num_classes=2, image_size=image_size, **net))


def settle_init(config: TrainConfig, facts: DataFacts, reporter: Reporter) -> TrainConfig:
    """Turn `init="auto"` into a named source or "scratch". Never fails for want of a network: it says so instead."""
    if config.init != "auto":
        if config.init.startswith("timm:") and config.model == "auto":
            return replace(config, model=config.init.removeprefix("timm:").split(".")[0])
        facts_file = Path(config.init) / RUN_JSON
        if config.model == "auto" and facts_file.is_file():
            return replace(config, model=read_facts(facts_file)["architecture"]["name"])
        if config.model == "auto" and config.init != "scratch":
            raise UsageError(
                f"--init {config.init} does not say which model to train.",
                "Name it with --model, such as --model vit_base_patch16_224; a run folder or timm:NAME says it itself.",
            )
        return config
    name = _published_for(config.model, "vit_tiny" if facts.device == "cpu" else "vit_small")
    why = (
        f"no published weights to choose for {config.model!r}"
        if name is None
        else f"images of {facts.short_side:.0f} px are too small for published weights"
        if facts.short_side < SMALLEST_FOR_PRETRAINED
        else "the model is changed by --net settings"
        if replace(config.net, **dict.fromkeys(WITHOUT_WEIGHTS)) != NetConfig()
        else ""
    )
    if name is None or why:
        reporter.say(f"init scratch: {why}")
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


def settle_exposure(config: TrainConfig) -> TrainConfig:
    """Weights of a run see images as that run did, where nothing else was asked for."""
    facts_file = Path(config.init) / RUN_JSON
    if config.exposure != "auto" or not facts_file.is_file():
        return config
    exposure = read_facts(facts_file).get("input", {}).get("exposure", "stored")
    return replace(config, exposure=exposure)


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
    if parsed is not None and parsed.family in PRETRAINED and (parsed.patch_size, parsed.image_size) in OURS:
        return PRETRAINED[parsed.family]
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
    found = shape_of(config.model, config.init, sizes, net)
    fetched = None
    if config.init != "scratch":
        _check_vit(config.model, config.init)
        fetched = _fetch(config.init, config.offline, reporter.say)
        reporter.say(f"initial weights {fetched.source}, for {found.name}; licence: {fetched.licence}")
        found = _agreed(found, fetched, net, reporter.say)
    if config.method == "probe":
        found = _reading_both(found)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = build(found)
    check_takes(model, found.name, spec.shape)
    if fetched is None:
        return Start(model, found, {"init": "scratch", "source": None, "licence": None, "notes": []})
    notes = _load(model, fetched, reporter.say)
    return Start(
        model,
        found,
        {"init": config.init, "source": fetched.source, "licence": fetched.licence, "notes": list(notes)},
    )


def restored_model(facts: dict[str, Any], seed: int) -> Start:
    """The model of a run that has a checkpoint, from its `run.json`: what it once started from is not needed any more, and
    may be gone, or lie on another machine."""
    found = Architecture(**facts["architecture"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Start(build(found), found, facts["weights"], restored=True)


def shape_of(name: str, init: str, sizes: dict[str, Any], net: dict[str, Any]) -> Architecture:
    """The architecture of a name; that of the run folder that weights come from where it is the model asked for."""
    facts_file = Path(init) / RUN_JSON
    if facts_file.is_file():
        stored = read_facts(facts_file)["architecture"]
        if stored["family"] == "vit" and stored["name"] == name:
            return resized(Architecture(**stored), **sizes, **net)
    return architecture(name, **sizes, **net)


def settled_net(found: Architecture, net: NetConfig) -> NetConfig:
    """The settings of the network with those that its name decided; the stored ones then say what was built.

    What cannot be said in them stays open: patches that are not square, a branch without a learned factor.
    """
    if found.family != "vit":
        return net
    options = inspect.signature(VisionTransformer.__init__).parameters
    values = {}
    for field in fields(net):
        if getattr(net, field.name) is None and field.name in options:
            value = found.arguments.get(field.name, options[field.name].default)
            if field.name == "patch_size":
                height, width = value if isinstance(value, list | tuple) else (value, value)
                value = height if height == width else None
            values[field.name] = value
    return replace(net, **values)


def _reading_both(found: Architecture) -> Architecture:
    """The architecture for a probe: where the head reads [CLS], it reads the mean of the patches too, as DINOv2's do
    (arXiv:2304.07193, section B.3). A norm after the pooling, whose weights are of one width, keeps it as it is.
    """
    options = inspect.signature(VisionTransformer.__init__).parameters
    as_is = {"pooling": "cls", "output_norm": "tokens", "distillation_token": False}
    if found.family != "vit" or any(found.arguments.get(name, options[name].default) != as_is[name] for name in as_is):
        return found
    return replace(found, arguments=found.arguments | {"pooling": "cls_mean"})


def _agreed(found: Architecture, fetched: Fetched, net: dict[str, Any], say: Callable[[str], None]) -> Architecture:
    """The architecture with what the weights' source says of options that no tensor shows: the number of heads, the
    activation, rotary positions. Loaded into another function, weights would fit and mean nothing.

    Raises WeightsError where the caller asked for something else.
    """
    if fetched.arguments is None or found.family != "vit":
        return found
    options = inspect.signature(VisionTransformer.__init__).parameters
    changed = {}
    for name in UNSEEN:
        theirs = fetched.arguments.get(name, options[name].default)
        ours = found.arguments.get(name, options[name].default)
        if theirs == ours or (
            name.startswith("rope_") and "none" in (_rope(fetched.arguments), _rope(found.arguments))
        ):
            continue
        if net.get(name) is not None:
            raise WeightsError(
                f"The weights of {fetched.source!r} were made with {name}={theirs!r}, and {ours!r} was asked for.",
                f"Leave {name} out, or train from --init scratch.",
            )
        changed[name] = theirs
        say(f"{name} {theirs!r}, as the weights were made with, instead of {ours!r}")
    return replace(found, arguments=found.arguments | changed)


UNSEEN = (
    "num_heads", "activation", "norm_eps", "rope", "rope_theta", "rope_coordinates", "rope_layout", "rope_axes",
    "rope_offset", "rope_register_theta",
)  # fmt: skip
"""Options that decide what weights mean and that no tensor's name or shape shows."""


def _rope(arguments: dict[str, Any]) -> str:
    return arguments.get("rope", "none")


def _check_vit(name: str, init: str) -> None:
    """Raise UsageError for a convolutional model, before anything is fetched."""
    if not is_vit(name):
        raise UsageError(
            f"--init {init} cannot start {name!r}: initial weights are for Vision Transformers only.",
            "Use --init scratch, or a --model whose name begins with vit_.",
        )


def _load(model: nn.Module, fetched: Fetched, say: Callable[[str], None]) -> tuple[str, ...]:
    """Put weights into a model, adapted where sizes differ, saying each adaptation. Raises WeightsError."""
    assert isinstance(model, VisionTransformer)
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
    return notes


def create(
    name: str,
    num_classes: int | None,
    init: str,
    *,
    image_size: Size,
    in_chans: int | None,
    offline: bool,
    **net: Any,
) -> nn.Module:
    """What `vitreous.create_model` does; see there."""
    from_dict(NetConfig, net)  # refuses unknown keywords by name, also those that a convolutional model ignores
    if Path(name).exists():
        return _of_path(name, num_classes, init, image_size, in_chans, net)
    classes = 1000 if num_classes is None else num_classes
    sizes: dict[str, Any] = {"num_classes": classes, "image_size": image_size, "in_chans": in_chans or 3}
    if init == "auto":
        init = _auto(name, offline, net)
    found, fetched = shape_of(name, init, sizes, net), None
    if init != "scratch":
        _check_vit(name, init)
        fetched = _fetch(init, offline, _say)
        found = _agreed(found, fetched, net, _say)
    model = build(found)
    if fetched is not None:
        _load(model, fetched, _say)
    return model


def _auto(name: str, offline: bool, net: dict[str, Any]) -> str:
    """The `init` that "auto" means for a name, said aloud; never fails for want of a network."""
    tag = _published_for(name, "")
    if tag is None or any(value is not None for value in net.values()):
        why = "the model is changed by other settings" if tag else f"there are none to choose for {name!r}"
        _say(f"init scratch: no published weights are used, {why}.")
        return "scratch"
    try:
        found = obtain(tag, offline=offline, say=_say)
        _say(f"init {found.source}: published weights, licence {found.licence}")
    except WeightsError as error:
        _say(f"init scratch: {error.message}")
        return "scratch"
    return f"timm:{tag}"


def _of_path(
    path: str, num_classes: int | None, init: str, image_size: Size, in_chans: int | None, net: dict[str, Any]
) -> nn.Module:
    """The model that a folder or file describes, with its weights. Raises UsageError for an `init` beside them, and for a
    source that does not say which model it is of."""
    if init != "scratch":
        raise UsageError(
            f"{path!r} brings its own weights; init={init!r} would be others.", "Leave init out, or name a model."
        )
    fetched = open_weights(Path(path))
    if fetched.arguments is None:
        raise UsageError(
            f"{path!r} does not say which model its weights belong to.",
            f"Name the model and pass the file as its weights: create_model(NAME, init={path!r}).",
        )
    classes = fetched.arguments.get("num_classes", 1000) if num_classes is None else num_classes
    found = resized(
        Architecture(Path(path).name, "vit", fetched.arguments),
        num_classes=classes,
        image_size=image_size,
        in_chans=in_chans or fetched.arguments.get("in_chans", 3),
        **net,
    )
    model = build(found)
    _load(model, fetched, _say)
    return model


def _say(text: str) -> None:
    """For callers without a reporter: what is fetched and adapted is never silent."""
    print(text, file=sys.stderr)


def _fetch(init: str, offline: bool, say: Callable[[str], None]) -> Fetched:
    if init.startswith("timm:"):
        return fetch_timm(init.removeprefix("timm:"), offline=offline, say=say)
    _check_exists(init)
    return open_weights(Path(init))


def _check_exists(init: str) -> None:
    if not Path(init).exists():
        raise WeightsError(
            f"--init {init!r} is neither a file, a run folder, nor timm:NAME.",
            "Use auto, scratch, a path, or for example timm:vit_tiny_patch16_224.",
        )
