"""`kill -9` at random moments of training: does every run resume, and does it end with the very same weights?

    .venv/bin/python benchmarks/kill.py [--trials 50] [--seed 1]

A trial trains a small model on 200 of the embedded digits, which is killed one to three times and continued each time; the
last process may finish. Half of the kills come by the clock, at any moment from the first reading of the data to the last
file of the report; the others at a touch of the disk drawn at random (half of a file written, a file written, synced or
renamed), so that many fall into a save. After each kill the newest finished state must be the one that training goes on
from; in the end the weights must be those of a run that nobody disturbed, and no temporary file, lock, process or shared
memory may be left.

Every process is forked from one that has imported everything and has trained once, so that a trial takes seconds. Needs
Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from record import write
from sklearn.datasets import load_digits

from vitreous.config.train import NetConfig, TrainConfig
from vitreous.errors import VitreousError
from vitreous.runs.atomic import sha256_file
from vitreous.runs.folder import CHECKPOINTS, MODEL
from vitreous.training.checkpoint import PATTERN
from vitreous.workflows.reporter import Silent
from vitreous.workflows.train import train

IMAGES = 200
STEPS = 60


class Listener(Silent):
    """Keeps what training says."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)

    def warn(self, text: str) -> None:
        self.heard.append(text)


class Touches:
    """Counts touches of the disk, and ends the process at one of them; 0 never does."""

    def __init__(self) -> None:
        self.count, self.fatal = 0, 0
        write, replace, fsync = Path.write_bytes, Path.replace, os.fsync

        def write_in_two(path: Path, data: Any) -> int:
            write(path, bytes(data)[: len(data) // 2])
            self.touch()
            return self.touch(write(path, data))

        def synced(handle: int) -> None:
            self.touch(fsync(handle))

        Path.write_bytes = write_in_two  # type: ignore[method-assign]
        Path.replace = lambda path, target: self.touch(replace(path, target))  # type: ignore[method-assign]
        os.fsync = synced  # type: ignore[assignment]

    def touch(self, result: Any = None) -> Any:
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def make_images(folder: Path) -> Path:
    """The first digits as PNG files, a folder for each class."""
    digits: Any = load_digits()
    for number in range(IMAGES):
        place = folder / str(digits.target[number])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[number] * 15).astype(np.uint8)).save(place / f"{number:04d}.png")
    return folder


def config(out: Path) -> TrainConfig:
    net = NetConfig(embed_dim=32, depth=2, num_heads=2)
    return TrainConfig(model="vit_micro", init="scratch", out=out, steps=STEPS, threads=1, resume=True, net=net)


def start(work: Callable[[], Any]) -> tuple[int, int]:
    """A forked process in a group of its own; its number, and where what it tells can be read."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(reader)
        try:
            told = work()
        except VitreousError as error:
            told = {"error": str(error)}
        os.write(writer, json.dumps(told).encode())
        os._exit(0)
    os.close(writer)
    return child, reader


def end(child: int, reader: int) -> tuple[bool, Any]:
    """Whether a process was killed, and what it told."""
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return killed, json.loads(told) if told else None


def newest(run: Path) -> int:
    """The step of the newest state that is finished; 0 where there is none."""
    return max((int(path.stem.split("_")[1]) for path in (run / CHECKPOINTS).glob(PATTERN)), default=0)


def leftovers(run: Path, temporary: Path, shared: set[str]) -> list[str]:
    """Temporary files, locks and shared memory that are there after a run."""
    hidden = [str(path.relative_to(run)) for path in run.rglob(".*")]
    strewn = [str(path.relative_to(temporary)) for path in temporary.rglob("*")]
    return [*hidden, *strewn, *sorted(shared_memory() - shared)]


def shared_memory() -> set[str]:
    """Names in shared memory that are of this kind of process."""
    folder = Path("/dev/shm")
    return {path.name for path in folder.iterdir() if "torch" in path.name} if folder.is_dir() else set()


def trial(
    number: int, data: Path, place: Path, touches: Touches, draw: random.Random, whole: dict[str, Any]
) -> dict[str, Any]:
    """One run, killed and continued until it is finished; what was seen, and under "wrong" what should not have been."""
    run, temporary, shared = place / "run", place / "tmp", shared_memory()
    temporary.mkdir(parents=True)
    wrong: list[str] = []
    kills: list[dict[str, Any]] = []

    def work(fatal: int) -> dict[str, Any]:
        tempfile.tempdir = str(temporary)
        touches.count, touches.fatal = 0, fatal
        listener = Listener()
        finished = train(data, config(run), listener)
        return {"weights": sha256_file(finished.path / MODEL), "heard": listener.heard}

    told = None
    for _ in range(draw.randint(1, 3)):
        before = newest(run)
        by_clock = draw.random() < 0.5
        fatal = 0 if by_clock else draw.randint(1, whole["touches"])
        child, reader = start(lambda fatal=fatal: work(fatal))
        if by_clock:
            time.sleep(draw.uniform(0, whole["seconds"]))
            os.kill(child, signal.SIGKILL)
        killed, told = end(child, reader)
        kills.append({"by": "clock" if by_clock else f"touch {fatal}", "killed": killed, "state": newest(run)})
        if newest(run) < before:
            wrong.append(f"a finished state was lost: {before} before, {newest(run)} after")
        if not killed:
            break  # it was done before
    while told is None:
        expected = newest(run)
        killed, told = end(*start(lambda: work(0)))
        if told is None or "error" in told:
            wrong.append(f"could not be resumed: {told}")
            told = told or {}
        elif expected and not any(
            text == f"Continuing from step_{expected:08d}.safetensors." or "is finished" in text
            for text in told["heard"]
        ):
            wrong.append(f"did not continue from step {expected}: {told['heard']}")
        if killed:
            break
    if told and told.get("weights") != whole["weights"]:
        wrong.append("the weights differ from those of an undisturbed run")
    left = leftovers(run, temporary, shared)
    if left:
        wrong.append(f"left behind: {left}")
    return {"trial": number, "kills": kills, "wrong": wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["VITREOUS_CACHE"] = str(Path(scratch) / "cache")
        data, touches = make_images(Path(scratch) / "digits"), Touches()
        # Once in this process: what torch and others set up at first use is then there for all that are forked.
        first = train(data, config(Path(scratch) / "first"))
        counted = touches.count
        begin = time.monotonic()
        second, reader = start(lambda: sha256_file(train(data, config(Path(scratch) / "second")).path / MODEL))
        weights = end(second, reader)[1]
        whole = {"weights": weights, "touches": counted, "seconds": time.monotonic() - begin}
        assert sha256_file(first.path / MODEL) == weights, "two undisturbed runs differ"
        draw, found = random.Random(arguments.seed), []
        for number in range(arguments.trials):
            found.append(trial(number, data, Path(scratch) / f"trial{number}", touches, draw, whole))
            print(json.dumps(found[-1]), flush=True)
    kills = [kill for each in found for kill in each["kills"] if kill["killed"]]
    summary = {
        "trials": len(found),
        "failed": [each["trial"] for each in found if each["wrong"]],
        "kills": len(kills),
        "kills_by": Counter(kill["by"].split()[0] for kill in kills),
        "undisturbed": whole,
        "seed": arguments.seed,
    }
    print(json.dumps(summary, indent=2))
    write("kill", {**summary, "runs": found})
    return 1 if summary["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
