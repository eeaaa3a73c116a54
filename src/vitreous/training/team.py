"""Processes that train together: who they are, and the few things they tell each other.

The processes of a team are numbered by rank. Rank 0, the main one, speaks and writes; the others compute. A process on its
own is a team of one, for which everything here is free, so that no caller has to ask which of the two it is.

Small things (flags, numbers, validation results) travel between the processors by gloo, whatever the models run on: an
agreement about stopping must not make a GPU wait for its queue. Gradients travel by NCCL between GPUs.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vitreous.errors import PeerError, UsageError

T = TypeVar("T")
PATIENCE = timedelta(days=1)
"""How long a process waits for another: as long as rank 0 may take to read the data. A process that has died is noticed at
once, by its closed connections."""


@dataclass(frozen=True)
class Team:
    """This process among those that train together. `ALONE` is a process on its own."""

    rank: int = 0
    """From 0, over all machines."""
    size: int = 1
    local_rank: int = 0
    """From 0, on this machine; the number of its GPU."""
    local_size: int = 1
    device: str = "cpu"
    """cpu, or cuda for the GPU numbered `local_rank`, which is the current one."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set in any process: the same answer everywhere."""
        if self.size == 1:
            return flags
        found = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(bool(each) for each in found)

    def mean(self, value: Tensor) -> Tensor:
        """Element by element over the processes; a new tensor of the same shape, on the same device."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def barrier(self) -> None:
        """Return once every process has come here."""
        self.any(False)

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` returns in rank 0, the only process to call it, in every process; it has to be picklable.

        Raises PeerError in the others where `make` raised in rank 0.
        """
        if self.size == 1:
            return make()
        box: list[Any] = [None]
        if self.is_main:
            try:
                box = [make()]
            except BaseException:
                self._fail()
                raise
        self._check_on_main()
        dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return box[0]

    def least(self, value: int) -> int:
        """The smallest of what the processes have."""
        if self.size == 1:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return int(found)

    def gathered(self, rows: Tensor) -> list[Tensor]:
        """The `rows` (n, ...) of each process by rank, on the CPU; n may differ between them, and be 0."""
        if self.size == 1:
            return [rows.cpu()]
        rows = rows.cpu().contiguous()
        counts = [torch.zeros((), dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor(len(rows)))
        most = max(int(count) for count in counts)
        padded = rows.new_zeros(most, *rows.shape[1:])
        padded[: len(rows)] = rows
        received = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(received, padded)
        return [each[: int(count)] for each, count in zip(received, counts, strict=True)]

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """A block that rank 0 goes through before the others: what it leaves in a cache, they find there.

        Raises PeerError in the others where rank 0 left the block by an exception.
        """
        if self.size == 1:
            yield
        elif self.is_main:
            try:
                yield
            except BaseException:
                self._fail()
                raise
            self._check_on_main()
        else:
            self._check_on_main()
            yield

    def _fail(self) -> None:
        """Say in rank 0 that it failed; those who wait for it get to know."""
        with contextlib.suppress(RuntimeError):  # where the others have failed as well, and are gone
            self.any(True)

    def _check_on_main(self) -> None:
        """Raise PeerError where rank 0 says that it failed."""
        (failed,) = self.any(False)
        if failed:
            raise PeerError("The process of rank 0 could not go on; it says why.")


ALONE = Team()
"""A process on its own."""


def join(rank: int, size: int, local_rank: int, local_size: int, meeting: str) -> Team:
    """Meet the other processes. Calling it again in a process that has joined gives the same team.

    meeting: where, as `torch.distributed.init_process_group` takes it: "env://", or "file://" and a path that no team has
    used before.
    Raises UsageError where this machine has GPUs, but fewer than processes.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 < gpus < local_size:
        raise UsageError(
            f"{local_size} devices were asked for, and this machine has {gpus} GPU{'s' if gpus > 1 else ''}.",
            f"Give --devices {gpus}, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to train on the CPU.",
        )
    device = "cuda" if gpus else "cpu"
    if gpus:
        torch.cuda.set_device(local_rank)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
        dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size, timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    return Team(rank, size, local_rank, local_size, device)


def is_sharded(model: nn.Module) -> bool:
    """Whether the processes hold slices of the model's weights, so that a forward pass needs all of them at once."""
    return any(hasattr(parameter, "full_tensor") for parameter in model.parameters())


def cores_each(cores: int, local_size: int) -> int:
    """CPU threads for each of the processes that share this machine."""
    return max(1, cores // local_size)
