"""Two processes that train together do what one process does alone with the same batches."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vitreous.errors import UsageError
from vitreous.training.checkpoint import BEST, restore_newest
from vitreous.training.loop import fit
from vitreous.training.losses import cross_entropy
from vitreous.training.memory import halve
from vitreous.training.objective import classify
from vitreous.training.settings import Supply
from vitreous.training.signals import StopFlag
from vitreous.training.team import ALONE, Team, cores_each, is_sharded

Alone = Callable[[int], tuple[Path, list[dict[str, Any]]]]
HERE = Path(__file__).parent
STEPS = 6


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes (gloo, CPU) have trained; see team_member.py."""
    folder = tmp_path_factory.mktemp("two")
    loopback = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(HERE / "team_member.py")]
    team = [
        subprocess.Popen(
            [*words, str(rank), str(folder), str(HERE / "conftest.py")],
            env={**os.environ, **loopback},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=240)[1] for process in team]
    finally:
        for process in team:
            process.kill()
            process.wait()
    assert [process.returncode for process in team] == [0, 0], told
    return folder


def found(folder: Path, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"found-{rank}.json").read_text())


@pytest.fixture(scope="module")
def alone(problem: Any, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """The same steps in one process, which takes all so many batches of a step itself: the folder, and the history."""

    @functools.cache
    def train(batches: int) -> tuple[Path, list[dict[str, Any]]]:
        folder, rows = tmp_path_factory.mktemp("alone"), []
        fit(
            problem.state(),
            problem.batches(STEPS, accumulation=batches),
            problem.settings(STEPS, optim=replace(problem.settings(1).optim, accumulation=batches), validate_every=3),
            objective=classify(cross_entropy),
            evaluate=problem.evaluate,
            record=rows.append,
            stop=StopFlag(),
            checkpoints=folder,
        )
        return folder, rows

    return train


def last_state(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / f"step_{STEPS:08d}.safetensors")


def test_the_processes_agree_on_small_things(two: Path) -> None:
    told = [found(two, rank)["told"] for rank in range(2)]
    for each in told:
        assert each["any"] == [True, False]
        assert (each["mean"], each["least"], each["gathered"]) == (0.5, 4, [3, 0])
        assert each["from main"] == "rank 0"
    assert [each["failed"] for each in told] == ["ZeroDivisionError", "PeerError"]
    assert [each["failed first"] for each in told] == ["KeyError", "PeerError"]


def test_two_processes_with_a_batch_each_are_one_process_with_two_bit_for_bit(two: Path, alone: Alone) -> None:
    folder, rows = alone(2)
    for rank in range(2):
        mine = found(two, rank)["in turn"]
        assert [row["loss"] for row in mine] == [row["loss"] for row in rows]
        assert [row.get("val_loss") for row in mine] == [row.get("val_loss") for row in rows]
    for name in (BEST, f"step_{STEPS:08d}.safetensors"):
        ours, theirs = load_file(two / "in turn" / name), load_file(folder / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("way", ["replicated", "sharded"])
def test_with_more_batches_only_the_order_of_sums_differs(two: Path, alone: Alone, way: str) -> None:
    folder, rows = alone(4)
    mine = found(two)[way]
    for name in ("loss", "val_loss"):
        wanted = [row[name] for row in rows if name in row]
        assert [row[name] for row in mine if name in row] == pytest.approx(wanted, abs=2e-5)
    ours, theirs = last_state(two / way), last_state(folder)
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=2e-3, rtol=0.0)


def test_one_process_continues_what_was_saved_in_slices(two: Path, problem: Any) -> None:
    state = problem.state()
    assert restore_newest(state, two / "sharded") == [f"Continuing from step_{STEPS:08d}.safetensors."]
    assert not is_sharded(state.model)
    saved = last_state(two / "sharded")
    assert all(torch.equal(value, saved[f"model.{name}"]) for name, value in state.model.state_dict().items())


@pytest.mark.parametrize("way", ["replicated", "sharded"])
def test_a_signal_to_one_process_stops_both_and_the_continued_run_ends_as_an_undisturbed_one(
    two: Path, way: str
) -> None:
    messages = [found(two, rank)[f"{way} stopped"] for rank in range(2)]
    assert messages[0].startswith(f"Stopped by a signal after step 2 of {STEPS}")
    assert messages[1].startswith(f"Stopped by SIGTERM after step 2 of {STEPS}")
    undisturbed, continued = last_state(two / way), last_state(two / f"{way} stopped")
    assert all(torch.equal(undisturbed[name], continued[name]) for name in undisturbed)
    assert [row["loss"] for row in found(two)[f"{way} continued"]] == [row["loss"] for row in found(two)[way][2:]]


def test_the_batches_of_a_step_are_dealt_out_in_turn(problem: Any) -> None:
    optim = replace(problem.settings(1).optim, accumulation=2)
    whole = Supply(problem.batches(2), problem.settings(2, optim=replace(optim, accumulation=6)), 1, 2)
    numbers = [number for number, _, _ in whole.step()]
    assert numbers == [6, 7, 8, 9, 10, 11]
    dealt = []
    for rank in range(3):
        supply = Supply(problem.batches(2), problem.settings(2, optim=optim, team=Team(rank, 3)), 1, 2)
        dealt += [number for number, _, _ in supply.step()]
        supply.close()
    whole.close()
    assert dealt == [6, 9, 7, 10, 8, 11]


def test_a_process_on_its_own_is_a_team_of_one() -> None:
    value = torch.tensor([1.0, 2.0])
    assert ALONE.any(True, False) == (True, False)
    assert ALONE.mean(value) is value
    assert ALONE.from_main(lambda: 3) == 3
    assert ALONE.least(4) == 4
    assert [each.tolist() for each in ALONE.gathered(value)] == [[1.0, 2.0]]
    with ALONE.main_first():
        ALONE.barrier()
    assert [cores_each(cores, 3) for cores in (2, 8)] == [1, 2]


def test_memory_that_runs_out_in_a_team_is_an_error_that_says_what_to_type(problem: Any) -> None:
    with pytest.raises(UsageError, match="--micro-batch 8") as caught:
        halve(problem.state(), 16, MemoryError("no room"), Team(0, 2))
    assert "each of 2 processes" in caught.value.message


def test_a_model_is_sharded_only_where_it_does_not_fit() -> None:
    from vitreous.training.together import must_shard

    gpus, processes = Team(0, 2, 0, 2, "cuda"), Team(0, 2, 0, 2, "cpu")
    assert not must_shard(10**9, 80 * 10**9, gpus) and must_shard(10**9, 24 * 10**9, gpus)
    assert must_shard(10**9, 40 * 10**9, processes)  # which hold the model twice in the same memory
    assert not must_shard(10**12, 10**9, ALONE)
    assert not is_sharded(nn.Linear(2, 2))
