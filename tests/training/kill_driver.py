"""Trains, and kills itself at a chosen moment of saving: what `test_training_kill.py` runs as a process of its own.

    python kill_driver.py FOLDER NUMBER...

Every touch of the disk that saving makes is counted: half of a file written, a file complete, synced, renamed, its folder
synced, an old state removed. For each NUMBER a forked process trains and gets SIGKILL at that touch, and another continues
what it left. Prints one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from conftest import Problem
from vitreous.training.checkpoint import PATTERN, TrainState, restore_newest
from vitreous.training.loop import fit
from vitreous.training.losses import cross_entropy
from vitreous.training.objective import classify
from vitreous.training.signals import StopFlag

STEPS = 12


def train(folder: Path, state: TrainState, problem: Problem) -> str:
    """Train to the end; a digest of all that a state holds."""
    fit(
        state,
        problem.batches(STEPS),
        problem.settings(STEPS),
        objective=classify(cross_entropy),
        evaluate=problem.evaluate,
        record=lambda row: None,
        stop=StopFlag(),
        checkpoints=folder,
    )
    digest = hashlib.sha256((folder / "best.safetensors").read_bytes())
    for value in (*state.model.state_dict().values(), *state.ema.model.state_dict().values()):
        digest.update(value.detach().numpy().tobytes())
    for parameter in state.model.parameters():
        for _, value in sorted(state.optimizer.state[parameter].items()):
            digest.update(value.numpy().tobytes())
    return digest.hexdigest()


class Touches:
    """Counts what saving does to the disk, and ends the process at one of them."""

    def __init__(self) -> None:
        self.fatal, self.count = 0, 0
        self._write, self._replace, self._unlink, self._fsync = Path.write_bytes, Path.replace, Path.unlink, os.fsync

    def install(self) -> None:
        def write(path: Path, data: Any) -> int:
            self._write(path, bytes(data)[: len(data) // 2])
            self.touch()
            written = self._write(path, data)
            self.touch()
            return written

        self._patch(Path, "write_bytes", write)
        self._patch(Path, "replace", lambda path, target: (self._replace(path, target), self.touch())[0])
        self._patch(Path, "unlink", lambda path, missing_ok=False: (self._unlink(path, missing_ok), self.touch())[0])
        self._patch(os, "fsync", lambda handle: (self._fsync(handle), self.touch())[0])

    def touch(self) -> None:
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def _patch(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        setattr(owner, name, function)


def forked(work: Callable[[], Any]) -> tuple[int, Any]:
    """The exit status of a forked process, and what `work` gave there, None where it did not live to tell."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, json.dumps(work()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    return os.waitpid(child, 0)[1], json.loads(told) if told else None


def resumed(folder: Path, problem: Problem) -> dict[str, Any]:
    state = problem.state(seed=99)  # nothing of a fresh start may survive
    notes = restore_newest(state, folder)
    return {"notes": notes, "from": state.step, "digest": train(folder, state, problem)}


def main(folder: Path, numbers: list[int]) -> dict[str, Any]:
    problem, touches = Problem(), Touches()
    touches.install()
    (folder / "undisturbed").mkdir()
    # In this process, so that what torch sets up at its first use is there for all that are forked.
    digest = train(folder / "undisturbed", problem.state(), problem)
    expected = {"digest": digest, "touches": touches.count}

    def killed(place: Path, number: int) -> None:
        touches.count, touches.fatal = 0, number
        train(place, problem.state(), problem)

    trials = []
    for number in numbers or range(1, expected["touches"] + 1):
        place = folder / str(number)
        place.mkdir()
        status, _ = forked(lambda place=place, number=number: killed(place, number))
        finished = sorted(path.name for path in place.glob(PATTERN))
        _, found = forked(lambda place=place: resumed(place, problem))
        trials.append(
            {
                "touch": number,
                "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
                "finished": finished,
                "left": sorted(path.name for path in place.iterdir()),
                **(found or {}),
            }
        )
    return {"expected": expected, "trials": trials}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), [int(number) for number in sys.argv[2:]])))
