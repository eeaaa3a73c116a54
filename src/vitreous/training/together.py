"""The objective of a team: each process computes its share, and the gradients become those of all shares together.

Two ways. Replicated (DDP, arXiv:2006.15704): every process holds the whole model and the gradients are averaged while the
backward pass is still under way. Sharded (fully sharded data parallel, arXiv:2304.11277, as ZeRO stage 3, arXiv:1910.02054):
every process holds a slice of each weight, of its gradient, its average and its moments, and a block's weights are put
together just before they are needed; for models whose weights and optimiser state do not fit one device.

Either wraps the objective rather than the model, so that a method may call whatever it likes of the model, and the names of
its parameters stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from vitreous.training.checkpoint import TrainState, whole
from vitreous.training.objective import Objective, SharedObjective
from vitreous.training.team import Team

BYTES_EACH_PARAMETER = 20
"""fp32 weight, gradient, two moments of AdamW, and the average of the weights."""
ROOM = 0.7
"""Share of a device's memory that these may take before they are sharded; the rest is for activations."""


class _Share(nn.Module):
    """An objective as the forward pass of a module: what DDP and FSDP know how to wrap."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        return self.objective(self.model, images, targets)


class Together(SharedObjective):
    """An `Objective` whose backward pass leaves the mean gradient of all processes, in each of them.

    The call returns this process's own loss. Gradients of all but the last batch of an optimiser step are added up without
    being exchanged: see `gathering`.
    """

    def __init__(self, model: nn.Module, objective: Objective, team: Team, wrapped: nn.Module) -> None:
        self._model = model
        self._objective = objective
        self._team = team
        self._wrapped = wrapped
        self._exchanges = True
        self._statistics = [
            buffer
            for module in model.modules()
            if isinstance(module, _BatchNorm)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]

    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        assert model is self._model, "a team trains the model it was made for"
        loss = self._wrapped(images, targets)
        if self._exchanges and self._statistics:
            # Each process has seen its own images; evaluation uses one set of running statistics.
            flat = self._team.mean(torch.cat([each.flatten() for each in self._statistics]))
            parts = flat.split([each.numel() for each in self._statistics])
            for mine, mean in zip(self._statistics, parts, strict=True):
                mine.copy_(mean.view_as(mine))
        return loss

    def exchange(self, now: bool) -> None:
        """Whether the coming backward pass ends with the exchange of the gradients that have gathered."""
        self._exchanges = now
        if isinstance(self._wrapped, DistributedDataParallel):
            self._wrapped.require_backward_grad_sync = now
        elif isinstance(self._wrapped, FSDPModule):
            self._wrapped.set_requires_gradient_sync(now)


def replicate(state: TrainState, objective: Objective, team: Team) -> Objective:
    """The objective of a team in which every process holds the whole model. Weights and average become those of rank 0."""
    if team.size == 1:
        return objective
    for value in state.ema.model.state_dict().values():
        dist.broadcast(value, 0)
    wrapped = DistributedDataParallel(
        _Share(state.model, objective),
        device_ids=[team.local_rank] if team.device == "cuda" else None,
        gradient_as_bucket_view=True,
    )
    wrapped.broadcast_buffers = False  # running statistics are averaged, not overwritten by those of rank 0
    return Together(state.model, objective, team, wrapped)


def shard(state: TrainState, objective: Objective, team: Team) -> Objective:
    """The same for a model that is cut up: model, average and optimiser state keep only this process's slices.

    state: whole, the same in every process, on the CPU if a device cannot hold it; it is changed in place, and the slices
    are on the team's device. Numbers are the same as with `replicate` up to the order of sums.
    """
    if team.size == 1:
        return objective
    mesh = dist.device_mesh.init_device_mesh(team.device, (team.size,))
    optimizer = state.optimizer
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    groups = [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
    moments = {names[id(parameter)]: values for parameter, values in optimizer.state.items()}

    share = _Share(state.model, objective)
    for root in (share, state.ema.model):
        for block in _blocks(root):
            fully_shard(block, mesh=mesh)
        # The average is never differentiated, so that no backward pass would put its root's slices back.
        fully_shard(root, mesh=mesh, reshard_after_forward=True)

    slices = dict(state.model.named_parameters())
    optimizer.state.clear()
    for group, members in zip(optimizer.param_groups, groups, strict=True):
        group["params"] = [slices[name] for name in members]
    for name, values in moments.items():
        optimizer.state[slices[name]] = {key: _slice_like(value, slices[name]) for key, value in values.items()}
    return Together(state.model, objective, team, share)


def unshard(state: TrainState, plain: nn.Module, device: str) -> None:
    """Put the averaged weights together into `plain`, a model of the same shape, which becomes `state.ema.model`.

    For when training is over: what follows runs in one process, on `device`. The optimiser's slices are let go.
    """
    found = {name: whole(value).cpu() for name, value in state.ema.model.state_dict().items()}
    plain.load_state_dict(found)
    state.optimizer.state.clear()
    state.ema.model = plain.to(device).eval().requires_grad_(False)


def must_shard(parameters: int, memory: int, team: Team) -> bool:
    """Whether weights and optimiser state of a model would fill too much of a device.

    memory: bytes of the GPU, or of the machine for processes that share a CPU.
    """
    copies = 1 if team.device == "cuda" else team.local_size
    return team.size > 1 and copies * parameters * BYTES_EACH_PARAMETER > ROOM * memory


def _blocks(root: nn.Module) -> Iterator[nn.Module]:
    """The members of the longest list of modules: what is put together one at a time."""
    lists = [module for module in root.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    longest = max(lists, key=lambda each: sum(p.numel() for p in each.parameters()) if len(each) > 1 else 0, default=())
    for block in longest:  # type: ignore[union-attr]
        if next(block.parameters(), None) is not None:
            yield block


def _slice_like(value: Tensor, parameter: Tensor) -> Tensor:
    """An optimiser's tensor cut as its parameter is; a step count stays as it is."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
