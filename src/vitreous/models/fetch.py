"""Where initial weights come from: files, run folders, and timm's published checkpoints on the Hugging Face hub.

Nothing that is pickled is ever run, and the network is asked for nothing but weights that were named.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vitreous.errors import WeightsError, unknown_name
from vitreous.models.foreign import convert, recognise
from vitreous.models.foreign.google import npz_arguments, read_npz
from vitreous.models.foreign.huggingface_config import huggingface_arguments, huggingface_convention
from vitreous.models.foreign.original import unwrap
from vitreous.models.resample import Convention
from vitreous.models.timm_models import plain_vits, timm_arguments
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
    """Weights of a run folder, a Hugging Face folder or a file, with what the source says of the model they were made for.

    path: a folder of either kind, or a .safetensors, .pth, .pt, .bin or .npz file in the layout of this package, timm,
    transformers, torchvision, Google's code, or the authors of DINO, DINOv2, DINOv3 or MAE. Raises WeightsError.
    """
    licence = "as the file's owner says"
    if path.suffix == ".npz":
        arrays = read_npz(path)
        return Fetched(convert(arrays), str(path), licence, "big_vision", npz_arguments(arrays))
    run, config = _facts(path, RUN_JSON), _facts(path, "config.json")
    if run.get("architecture", {}).get("family") == "vit":
        return Fetched(read_weights(path), str(path), licence, arguments=run["architecture"].get("arguments"))
    if "model_type" in config:
        state = convert(_read_folder(path), config)
        arguments = huggingface_arguments(config)
        return Fetched(state, str(path), licence, huggingface_convention(config), arguments)
    state = read_tensors(_file_of(path))
    # The authors' DINOv2 resamples positions in a way of its own; those with registers do it as timm does.
    dinov2 = recognise(state) == "original" and any(name.endswith("ls1.gamma") for name in state)
    registers = any(name.endswith("register_tokens") for name in state)
    return Fetched(convert(state), str(path), licence, "dinov2" if dinov2 and not registers else "timm")


def read_weights(path: Path) -> State:
    """Weights from a folder or file, with names made ours; see `open_weights`.

    A pickled file is read with `weights_only=True`: one that holds anything but tensors is refused without running it.
    Raises WeightsError.
    """
    if path.suffix == ".npz":
        return convert(read_npz(path))
    config = _facts(path, "config.json")
    return convert(_read_folder(path), config if "model_type" in config else None)


def _read_folder(path: Path) -> State:
    """The tensors of a file, or of a folder: in one file or, as transformers writes large models, in several."""
    index = _facts(path, f"{MODEL}.index.json")
    if not (path / MODEL).is_file() and index:
        parts = sorted(set(index.get("weight_map", {}).values()))
        return {name: value for part in parts for name, value in read_tensors(_file_of(path / part)).items()}
    if not (path / MODEL).is_file() and (path / "pytorch_model.bin").is_file():
        path = path / "pytorch_model.bin"
    return read_tensors(_file_of(path))


def _file_of(path: Path) -> Path:
    if path.is_dir():
        path = path / MODEL
    if not path.is_file():
        raise WeightsError(
            f"There are no weights at {str(path)!r}.", "Pass a run folder, .safetensors, .pth or .npz to --init."
        )
    return path


def _facts(path: Path, name: str) -> dict[str, Any]:
    """A JSON object in a folder, empty where there is none."""
    if not (path / name).is_file():
        return {}
    try:
        found = json.loads((path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{str(path / name)!r} cannot be read.", "Restore it from a copy.") from error
    return found if isinstance(found, dict) else {}


def read_tensors(path: Path) -> State:
    """The tensors of one file under the names it gives them, never running what is pickled. Raises WeightsError."""
    try:
        if path.suffix == ".safetensors":
            loaded: object = load_file(path)
        else:
            # The training scripts of DINO and DeiT kept their arguments beside the weights: a bare record of settings.
            with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of old pickle protocols; what matters is said below
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError) as error:
        raise WeightsError(
            f"{str(path)!r} cannot be read ({type(error).__name__}).", "Fetch or copy it again."
        ) from error
    except Exception as error:  # torch raises pickle's own errors for a refused payload
        raise WeightsError(
            f"{str(path)!r} is not a file of plain tensors and was refused without running it.",
            "Save the weights as .safetensors.",
        ) from error
    try:
        return unwrap(loaded)
    except WeightsError as error:
        raise WeightsError(
            f"{str(path)!r} is not a dictionary of tensors.", "Save the model's state_dict()."
        ) from error


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
    found = published(name)
    file, licence, source = download(found, offline=offline, say=say)
    return Fetched(from_timm(read_tensors(file)), source, licence, arguments=_of(found.name))


def download(found: Published, *, offline: bool, say: Callable[[str], None] | None = None) -> tuple[Path, str, str]:
    """The file of a published checkpoint, its licence, and where it comes from in words; see `fetch_timm`."""
    from huggingface_hub import HfApi, hf_hub_download

    if found.cached is not None:
        return found.cached, found.licence, f"timm:{found.name} (cached)"
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
    return Path(path), licence, f"timm:{found.name}"


def _of(name: str) -> dict[str, Any] | None:
    """What timm builds under a checkpoint's name; None for what is no plain Vision Transformer."""
    base = name.partition(".")[0]
    return timm_arguments(base) if base in plain_vits() else None


def hub_is_reachable(seconds: float = 3.0) -> bool:
    """Whether a connection to the hub, or to the proxy that leads to it, opens within the given time. Sends nothing."""
    import socket
    import threading
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    from huggingface_hub import constants

    hub = urlsplit(constants.ENDPOINT)
    proxy = getproxies().get(hub.scheme)
    at = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else hub
    answers: list[bool] = []

    def ask() -> None:
        try:
            with socket.create_connection((at.hostname, at.port or (443 if at.scheme == "https" else 80)), seconds):
                answers.append(True)
        except OSError:
            answers.append(False)

    # In a thread of its own: looking up a name has no time limit.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds + 0.5)
    return answers == [True]
