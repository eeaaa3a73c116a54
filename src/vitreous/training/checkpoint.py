"""Resumable states: everything a step depends on, in safetensors, written atomically.

Random numbers need no state of their own: order and augmentation are functions of (seed, step), and the global
generator is seeded from them before every step.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vitreous.runs.atomic import remove_leftovers, write_bytes
from vitreous.training.ema import Ema
from vitreous.training.team import ALONE, Team

KEEP = 2
BEST = "best.safetensors"
PATTERN = "step_*.safetensors"


@dataclass
class TrainState:
    """What training changes from step to step."""

    model: nn.Module
    ema: Ema
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    """Optimiser steps done."""
    best_score: float = float("-inf")
    best_step: int = 0
    stale: int = 0
    """Validations since the one with the best score."""
    seconds: float = 0.0
    """Wall time spent training, over all sessions."""
    allowed: float | None = None
    """Where `seconds` ends training, which a time budget promised; None without one."""
    micro_batch: int = 0
    """Images that go through the model at once; 0 takes a batch whole."""
    skipped: list[int] = field(default_factory=list)
    """Steps (1-based) that were left out because loss or gradient was not finite."""
    notes: list[str] = field(default_factory=list)
    """Sentences that the report must carry."""
    ended: bool = False
    """Whether a time budget ended training before its last step; a continued run does not go on then."""


def save_checkpoint(state: TrainState, folder: Path, team: Team = ALONE) -> Path:
    """Write `step_NNNNNNNN.safetensors` and drop all but the two newest. Raises RunError when the disk is full.

    team: its processes all call this, for each may hold a slice of the weights; rank 0 writes, and all return when it has.
    """
    tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in state.ema.model.state_dict().items()}
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    for parameter, values in state.optimizer.state.items():
        tensors |= {f"optimizer.{key}.{names[id(parameter)]}": value for key, value in values.items()}
    tensors = _whole(tensors, team)
    facts = {
        "step": state.step,
        "best_score": state.best_score,
        "best_step": state.best_step,
        "stale": state.stale,
        "seconds": state.seconds,
        "allowed": state.allowed,
        "micro_batch": state.micro_batch,
        "skipped": state.skipped,
        "notes": state.notes,
        "ended": state.ended,
        "scaler": state.scaler.state_dict(),
        "checksum": _checksum(tensors),
    }
    path = folder / f"step_{state.step:08d}.safetensors"
    if team.is_main:
        _save(tensors, path, {"vitreous": json.dumps(facts)})
        # A later state is one that was damaged and passed over when this run was continued.
        earlier = [each for each in sorted(folder.glob(PATTERN)) if each.name <= path.name]
        for old in set(folder.glob(PATTERN)) - set(earlier[-KEEP:]):
            old.unlink(missing_ok=True)
    team.barrier()
    return path


def save_weights(model: nn.Module, path: Path, team: Team = ALONE) -> None:
    """The weights alone, as `model.safetensors` and `best.safetensors` hold them; in a team as `save_checkpoint`."""
    tensors = _whole(dict(model.state_dict()), team)
    if team.is_main:
        _save(tensors, path, {"format": "pt"})


def whole(value: Tensor) -> Tensor:
    """A tensor of which each process holds a slice put together, in all of them at once; any other as it is."""
    together = getattr(value, "full_tensor", None)
    return value if together is None else together()


def _whole(tensors: dict[str, Tensor], team: Team) -> dict[str, Tensor]:
    """All tensors put together, one after the other, and kept by rank 0, on the CPU where they were in slices."""
    if team.size == 1:
        return tensors
    found = {}
    for name, value in tensors.items():
        together = whole(value.detach())
        if team.is_main:
            found[name] = together if together is value else together.cpu()
    return found


DAMAGE = (SafetensorError, OSError, KeyError, TypeError, ValueError)
"""What reading a damaged checkpoint raises."""


def restore_newest(state: TrainState, folder: Path) -> list[str]:
    """Load the newest readable checkpoint into `state`; sentences about what was skipped are returned.

    A damaged file is passed over for the one before it. With none, `state` stays as it is.
    """
    remove_leftovers(folder)
    skipped = []
    for path in sorted(folder.glob(PATTERN), reverse=True):
        try:
            _restore(state, path)
        except DAMAGE as error:
            skipped.append(f"{path.name} is damaged ({type(error).__name__}) and was passed over.")
            continue
        return [*skipped, f"Continuing from {path.name}."]
    return [*skipped, "No checkpoint to continue from; starting at the beginning."]


def is_restorable(folder: Path) -> bool:
    """Whether `restore_newest` would find a readable checkpoint."""
    for path in sorted(folder.glob(PATTERN), reverse=True):
        with contextlib.suppress(*DAMAGE):
            _read(path)
            return True
    return False


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(facts, tensors by name). Raises one of `DAMAGE`."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["vitreous"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    if _checksum(tensors) != facts["checksum"]:
        raise ValueError("the tensors are not those that were saved")
    return facts, tensors


def _restore(state: TrainState, path: Path) -> None:
    facts, tensors = _read(path)
    state.model.load_state_dict(_below("model.", tensors))
    state.ema.model.load_state_dict(_below("ema.", tensors))
    parameters = dict(state.model.named_parameters())
    moments: dict[str, dict[str, Tensor]] = {}
    for key, value in _below("optimizer.", tensors).items():
        kind, name = key.split(".", 1)
        moments.setdefault(name, {})[kind] = value
    for name, values in moments.items():
        device = parameters[name].device
        state.optimizer.state[parameters[name]] = {kind: value.to(device) for kind, value in values.items()}
    state.step, state.best_step = int(facts["step"]), int(facts["best_step"])
    state.best_score, state.seconds = float(facts["best_score"]), float(facts["seconds"])
    state.allowed, state.stale = facts.get("allowed"), int(facts.get("stale", 0))
    state.micro_batch = int(facts.get("micro_batch", state.micro_batch))
    state.skipped, state.notes = list(facts.get("skipped", [])), list(facts.get("notes", []))
    state.ended = bool(facts.get("ended", False))
    with contextlib.suppress(KeyError):
        state.scaler.load_state_dict(facts["scaler"])


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _checksum(tensors: dict[str, Tensor]) -> int:
    """CRC-32 of names and contents: safetensors itself notices a shortened file, not a changed one."""
    total = 0
    for name in sorted(tensors):
        content = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        total = zlib.crc32(content.numpy().data, zlib.crc32(name.encode(), total))
    return total


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    # Not `save_file`: it reports a full disk in a type of its own, makes files that only their owner can read, and
    # leaves a temporary file of its own behind when it is killed.
    whole = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    write_bytes(path, save(whole, metadata))
