"""One of two processes that train together; started by test_training_team.py, which looks at what they leave.

Arguments: rank, folder, problem module. Leaves in the folder what each way of training ended with.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vitreous.errors import PeerError, StoppedError
from vitreous.training.checkpoint import restore_newest
from vitreous.training.loop import fit
from vitreous.training.losses import cross_entropy
from vitreous.training.objective import classify
from vitreous.training.signals import StopFlag
from vitreous.training.team import Team, join
from vitreous.training.together import replicate, shard, unshard

STEPS = 6


def train(problem: Any, team: Team, folder: Path, way: str, stop_at: int | None = None) -> list[dict[str, Any]]:
    """`fit` over all steps, continuing from what the folder holds; the rows of the history."""
    folder.mkdir(exist_ok=True)
    optim = replace(problem.settings(STEPS).optim, accumulation=1 if way == "in turn" else 2)
    settings = problem.settings(STEPS, team=team, optim=optim, validate_every=3)
    state, stop = problem.state(), StopFlag()
    plain = problem.state().model
    restore_newest(state, folder)
    objective = (shard if way == "sharded" else replicate)(state, classify(cross_entropy), team)
    rows: list[dict[str, Any]] = []

    def record(row: dict[str, Any]) -> None:
        rows.append(row)
        if row["step"] == stop_at and team.rank == 1:
            stop.signal_name = "SIGTERM"

    fit(
        state,
        problem.batches(STEPS, accumulation=settings.batches_per_step),
        settings,
        objective=objective,
        evaluate=problem.evaluate,
        record=record,
        stop=stop,
        checkpoints=folder,
    )
    if way == "sharded":
        unshard(state, plain, "cpu")
    return rows


def talk(team: Team) -> dict[str, Any]:
    """What the processes tell each other in small things."""
    rows = torch.arange(3.0).view(3, 1) if team.is_main else torch.zeros(0, 1)
    told: dict[str, Any] = {
        "any": team.any(team.rank == 1, False),
        "mean": float(team.mean(torch.tensor(float(team.rank)))),
        "least": team.least(5 - team.rank),
        "gathered": [len(each) for each in team.gathered(rows)],
        "from main": team.from_main(lambda: f"rank {team.rank}"),
    }
    try:
        team.from_main(lambda: 1 // 0)
    except (ZeroDivisionError, PeerError) as error:
        told["failed"] = type(error).__name__
    try:
        with team.main_first():
            if team.is_main:
                raise KeyError
    except (KeyError, PeerError) as error:
        told["failed first"] = type(error).__name__
    return told


def main(rank: int, folder: Path, module: Path) -> None:
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("problem_of_two", module)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    problem = loaded.Problem()
    team = join(rank, 2, rank, 2, (folder / "meeting").as_uri())
    found: dict[str, Any] = {"told": talk(team)}
    found["in turn"] = train(problem, team, folder / "in turn", "in turn")
    for way in ("replicated", "sharded"):
        found[way] = train(problem, team, folder / way, way)
        try:
            train(problem, team, folder / f"{way} stopped", way, stop_at=2)
        except StoppedError as error:
            found[f"{way} stopped"] = error.message
        found[f"{way} continued"] = train(problem, team, folder / f"{way} stopped", way)
    (folder / f"found-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
