"""Memory while training: noticing that it ran out, taking a batch in smaller pieces, and what is in use.

A step that does not fit is taken again with its batch in more pieces. The gradients of the pieces, each weighed by its share
of the images, add up to the gradient of the whole: the same up to rounding for every loss that is a mean over images, and
for models without batch normalisation, whose statistics are then those of a piece.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitreous.errors import UsageError
from vitreous.training.checkpoint import TrainState
from vitreous.training.team import ALONE, Team

_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed", "cannot allocate memory")
"""How allocators say it that have no exception of their own: CPU (Linux, Windows), MPS, cuBLAS, the system."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def halve(state: TrainState, batch_size: int, error: BaseException, team: Team = ALONE) -> str:
    """Let `state` take its batches in pieces of half the size from now on; the sentence that says so is returned and noted.

    What the failed step has gathered is dropped. The new size goes into the checkpoints, so that a continued run does not
    run into the same wall. Raises UsageError when single images do not fit, and in a team, where the others wait for this
    process's gradients and cannot be told.
    """
    state.optimizer.zero_grad(set_to_none=True)
    before = min(state.micro_batch or batch_size, batch_size)
    if before <= 1:
        raise UsageError(
            f"Memory ran out at step {state.step + 1} with a single image ({_first_line(error)}).",
            "Train a smaller model, smaller images (--image-size), or with --net.checkpointing True.",
        ) from error
    if team.size > 1:
        raise UsageError(
            f"Memory ran out at step {state.step + 1} with {before} images at once in each of {team.size} processes "
            f"({_first_line(error)}).",
            f"Train again with --micro-batch {before // 2}: the same gradients from smaller pieces.",
        ) from error
    state.micro_batch = before // 2
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    note = (
        f"Memory ran out at step {state.step + 1} with {before} images at once. Training went on with {state.micro_batch} at "
        f"once; the batch of an optimiser step is the same as before."
    )
    if uses_batch_statistics(state.model):
        note += " The model's batch normalisation now sees smaller batches, which may change its result a little."
    state.notes.append(note)
    return note


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether what one image gives depends on the others that are in the model with it."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def peak_memory(device: str) -> int | None:
    """Bytes: the most the GPU has held, or the most this process has on a CPU; None where the system does not say."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def usage(device: str) -> dict[str, float]:
    """What is in use now, for the history and the progress line, as far as the system says.

    memory_bytes: taken by this process on the GPU, or resident on a CPU. gpu_utilisation: share of the last moments in
    which the GPU was busy, in [0, 1]; it needs NVIDIA's management library.
    """
    found: dict[str, float] = {}
    if device == "cuda":
        found["memory_bytes"] = torch.cuda.memory_reserved()
        # pynvml is an optional package, and its errors are of types that only it has.
        with contextlib.suppress(Exception):
            found["gpu_utilisation"] = torch.cuda.utilization() / 100
        return found
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        found["memory_bytes"] = pages * os.sysconf("SC_PAGE_SIZE")
    return found


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0].split(". ")[0].rstrip(".") if text else type(error).__name__
