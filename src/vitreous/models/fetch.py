"""Where initial weights come from: files, run folders, and timm's published checkpoints on the Hugging Face hub.

Nothing that is pickled is ever run, and the network is asked for nothing but weights that were named.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitreous.errors import WeightsError, unknown_name
from vitreous.models.resample import Convention
from vitreous.models.timm_models import plain_vits
from vitreous.models.weights import State, from_timm
from vitreous.runs.folder import MODEL, RUN_JSON


@dataclass(frozen=True)
class Fetched:
    """Weights under our names, and where they came from."""

    state: State
    source: str
    licence: str
    convention: Convention = "timm"
    """How their positions are resampled for another grid."""
    arguments: dict[str, Any] | None = None
    """Arguments of the `VisionTransformer` they were made for, where the source tells."""

    @property
    def kernel(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of their patches, where the source tells."""
        if not self.arguments or "patch_size" not in self.arguments:
            return None
        return (self.arguments.get("in_chans", 3), *self.arguments["patch_size"])

    @property
    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) of their patches, where the source tells."""
        if not self.arguments or "image_size" not in self.arguments:
            return None
        (h, w), (ph, pw) = self.arguments["image_size"], self.arguments["patch_size"]
        return h // ph, w // pw


def open_weights(path: Path) -> Fetched:
    """Weights of a run folder or file, with what the folder says of the model they were made for. Raises WeightsError."""
    arguments = None
    if (path / RUN_JSON).is_file():
        try:
            facts = json.loads((path / RUN_JSON).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{str(path / RUN_JSON)!r} cannot be read.", "Restore it from a copy.") from error
        found = facts.get("architecture", {})
        arguments = found.get("arguments") if found.get("family") == "vit" else None
    return Fetched(read_weights(path), str(path), "as the file's owner says", arguments=arguments)


def read_weights(path: Path) -> State:
    """Weights from a run folder, a .safetensors file, or a .pt/.pth file of plain tensors, with names made ours.

    A pickled file is read with `weights_only=True`: one that holds anything but tensors is refused without running it.
    Raises WeightsError.
    """
    if path.is_dir():
        path = path / MODEL
    if not path.is_file():
        raise WeightsError(
            f"There are no weights at {str(path)!r}.", "Pass a run folder, .safetensors or .pth to --init."
        )
    return from_timm(_read_tensors(path))


def _read_tensors(path: Path) -> State:
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError) as error:
        raise WeightsError(
            f"{str(path)!r} cannot be read ({type(error).__name__}).", "Fetch or copy it again."
        ) from error
    except Exception as error:  # torch raises pickle's own errors for a refused payload
        raise WeightsError(
            f"{str(path)!r} holds more than plain tensors and was refused without running it.",
            "Save it again as .safetensors.",
        ) from error
    for key in ("state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise WeightsError(f"{str(path)!r} is not a dictionary of tensors.", "Save the model's state_dict().")
    return state


@dataclass(frozen=True)
class Published:
    """A checkpoint that timm publishes, as its configuration describes it. Nothing of it need be here yet."""

    name: str
    """With its tag, such as vit_tiny_patch16_224.augreg_in21k_ft_in1k."""
    repository: str
    file: str
    licence: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def cached(self) -> Path | None:
        """The file in the hub's local cache."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repository, self.file)
        return Path(found) if isinstance(found, str) else None


def published(name: str) -> Published:
    """The checkpoint that a timm name, with or without a tag, stands for. Asks nobody.

    Raises WeightsError for a name that timm does not know or publishes no weights for, naming the nearest that it does.
    """
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        close = unknown_name("model", base, plain_vits()).hint
        raise WeightsError(f"timm has no model {base!r}.", f"{close} `vitreous models` lists names.")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        offered = ", ".join(tags) if tags else "none"
        raise WeightsError(f"timm publishes no weights {name!r}.", f"Tags of {base}: {offered}.")
    config = timm.get_pretrained_cfg(name)
    if not tags or config is None:
        raise WeightsError(f"timm publishes no weights for {name!r}.", "Train from scratch with --init scratch.")
    full = name if tag or not config.tag else f"{base}.{config.tag}"
    repository = config.hf_hub_id or "timm/"
    return Published(
        full,
        repository + full if repository.endswith("/") else repository,
        config.hf_hub_filename or "model.safetensors",
        config.license or "not stated",
        tuple(config.mean),
        tuple(config.std),
    )


def fetch_timm(name: str, *, offline: bool, say: Callable[[str], None] | None = None) -> Fetched:
    """A published timm checkpoint, from the local cache or the Hugging Face hub.

    say: called with one sentence before anything is downloaded, giving size, source and licence.
    Raises WeightsError when the name is unknown, or when it is not cached and the network is away or forbidden.
    """
    from huggingface_hub import HfApi, hf_hub_download

    found = published(name)
    if found.cached is not None:
        return Fetched(read_weights(found.cached), f"timm:{found.name} (cached)", found.licence)
    address = f"huggingface.co/{found.repository}"
    if offline:
        raise WeightsError(
            f"The weights {found.name!r} are not in the local cache, and --offline forbids fetching them.",
            f"Download {found.file} of {address} elsewhere and pass it with --init FILE.",
        )
    try:
        facts = HfApi().model_info(found.repository, files_metadata=True, timeout=5)
        size = next((entry.size or 0 for entry in facts.siblings or [] if entry.rfilename == found.file), 0)
        licence = str(getattr(facts.card_data, "license", None) or found.licence)
        if say is not None:
            say(f"Fetching {size / 1e6:.0f} MB of weights from {address}, licence {licence}.")
        path = hf_hub_download(found.repository, found.file)
    except Exception as error:  # the hub client raises many kinds for one meaning
        raise WeightsError(
            f"The weights {found.name!r} could not be fetched ({type(error).__name__}).",
            f"Check the network, pass {found.file} of {address} with --init FILE, or train from scratch with --init scratch.",
        ) from error
    return Fetched(read_weights(Path(path)), f"timm:{found.name}", licence)


def hub_is_reachable(seconds: float = 3.0) -> bool:
    """Whether a connection to the hub opens within the given time. Sends nothing."""
    import socket

    try:
        with socket.create_connection(("huggingface.co", 443), timeout=seconds):
            return True
    except OSError:
        return False
