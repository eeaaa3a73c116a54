"""How a run is shared out among the processes of a team: who they are, what each of them takes, who holds which weights."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from vitreous.config.train import TrainConfig
from vitreous.engines.onnxruntime import available_cores
from vitreous.errors import UsageError
from vitreous.training.checkpoint import TrainState
from vitreous.training.objective import Objective
from vitreous.training.precision import gradient_scaler
from vitreous.training.team import ALONE, Team, cores_each, join
from vitreous.workflows.environment import available_memory
from vitreous.workflows.reporter import Reporter
from vitreous.workflows.seat import Seat, continued, seat
from vitreous.workflows.setup import Setup


def take_seat(config: TrainConfig, began: float) -> tuple[Team, Seat | None, TrainConfig, float]:
    """The team of this process, its place there (None on its own), the settings as they are for it, and when the command
    was given, as `time.monotonic()`.

    Raises UsageError where several devices are asked for in a process that was not started as one of several.
    """
    found = seat()
    if found is None:
        if (config.devices or 1) > 1:
            raise UsageError(
                f"{config.devices} devices need a process each, and this is a single one.",
                f"Type: vitreous train DATA --devices {config.devices}, or start this script with torchrun.",
            )
        return ALONE, None, config, began
    if config.devices not in (None, found.size):
        raise UsageError(
            f"--devices {config.devices} was given, and {found.size} processes were started.",
            "Leave out --devices: torchrun says how many there are.",
        )
    team = join(found.rank, found.size, found.local_rank, found.local_size, found.meeting)
    if found.began is not None:
        began = time.monotonic() - max(0.0, time.time() - found.began)
    return team, found, replace(continued(found, config), devices=team.size), began


def say_team(team: Team, threads: int, reporter: Reporter) -> None:
    """What the processes of the team run on."""
    if team.size == 1:
        return
    if team.device == "cuda":
        reporter.say(f"{team.size} processes, each on a GPU of its own")
    else:
        each = f"{threads} thread{'s' if threads > 1 else ''} each"
        why = "" if torch.cuda.is_available() else " (no GPU was found)"
        reporter.say(f"{team.size} processes share the CPU, {each}{why}")


def shared_threads(threads: int | None, team: Team) -> int:
    """CPU threads of this process: as many as are asked for, or its share of all."""
    return threads or cores_each(available_cores(), team.local_size)


def dealt_out(stored: TrainConfig, team: Team) -> TrainConfig:
    """The settings of a run that is continued by `team`, whatever the number of processes that it had: each step is made of
    the same batches.

    Raises UsageError where they cannot be shared out evenly.
    """
    batches = (stored.optim.accumulation or 1) * (stored.devices or 1)
    if batches % team.size:
        possible = ", ".join(str(count) for count in range(1, batches + 1) if batches % count == 0)
        raise UsageError(
            f"A step of this run is made of {batches} batches, which {team.size} devices cannot share evenly.",
            f"Continue it with --devices {possible.replace(', ', ' or ')}.",
        )
    return replace(stored, devices=team.size, optim=replace(stored.optim, accumulation=batches // team.size))


def is_to_be_sharded(setup: Setup, reporter: Reporter) -> bool:
    """Whether each process is to hold a slice of the weights only.

    Raises UsageError for what needs all of them in one place.
    """
    from vitreous.training.together import must_shard

    config, team = setup.config, setup.team
    if team.size == 1 or config.shard == "none":
        return False
    if config.shard == "auto":
        memory = torch.cuda.mem_get_info()[0] if team.device == "cuda" else available_memory()
        if not must_shard(setup.parameters, team.least(memory), team):
            return False
        reporter.say("weights and optimiser state do not fit one device, so each holds a slice of them (FSDP)")
    optim = config.optim
    wrong = [
        flag
        for flag, is_wrong in (
            (f"--optim.name {optim.name}", optim.name not in (None, "adamw")),
            (f"--optim.sam {optim.sam}", bool(optim.sam)),
            (f"--optim.soup {optim.soup}", bool(optim.soup)),
            (f"--precision {config.precision}", config.precision == "fp16"),
            (f"--time {config.time}", config.time is not None),
            (f"--method {config.method}", config.method not in ("auto", "full", "pretrain")),
        )
        if is_wrong
    ]
    if wrong:
        raise UsageError(
            f"Sharded weights (--shard {config.shard}) do not go together with {' and '.join(wrong)}.",
            "Give --optim.name adamw, or --shard none."
            if len(wrong) == 1 and optim.name not in (None, "adamw")
            else "Leave it out, or give --shard none.",
        )
    return True


def put_together(state: TrainState, setup: Setup, sharded: bool) -> tuple[Objective, Callable[[], None]]:
    """The objective of the team, and what is to be called when training is over, which leaves the average whole in each
    process. sharded: as `is_to_be_sharded` says; `state` is then on the CPU, and its slices come to the device.
    """
    team, objective = setup.team, setup.objective
    if team.size == 1:
        return objective, lambda: None
    from vitreous.training.together import replicate, shard, unshard

    if not sharded:
        return replicate(state, objective, team), lambda: None
    assert setup.config.precision != "auto"
    plain = copy.deepcopy(state.ema.model)
    state.scaler = gradient_scaler(setup.config.precision, setup.device)
    return shard(state, objective, team), lambda: unshard(state, plain, setup.device)
