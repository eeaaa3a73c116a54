"""`--devices N`: processes that are started, watched over, and spoken for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import vitreous
from vitreous.config.train import OptimConfig, TrainConfig
from vitreous.errors import StoppedError, UsageError, VitreousError
from vitreous.runs.atomic import sha256_file
from vitreous.training.team import ALONE, Team
from vitreous.workflows.devices import dealt_out, take_seat
from vitreous.workflows.launch import launch
from vitreous.workflows.reporter import Silent
from vitreous.workflows.seat import Seat, continued, remember, seat, to_launch

MEMBER = """
import os, signal, sys, time
from pathlib import Path
from vitreous.errors import *
from vitreous.workflows.seat import ATTEMPT, reporting
rank, attempt, out = int(os.environ["RANK"]), int(os.environ[ATTEMPT]), Path(sys.argv[1])
with reporting():
"""


class Told(Silent):
    """Keeps what was warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def start(body: str, out: Path, restarts: int = 0) -> list[str]:
    """Launch two processes that run `body`; what was warned of."""
    told = Told()
    program = MEMBER + textwrap.indent(textwrap.dedent(body), "    ")
    words = [sys.executable, "-c", program, str(out)]
    launch(words, 2, restarts=restarts, reporter=told, began=time.monotonic())
    return told.warnings


def test_each_process_knows_its_place_and_success_is_silent(tmp_path: Path) -> None:
    body = """
        from vitreous.workflows.seat import seat
        found = seat()
        (out / f"{rank}").write_text(f"{found.size} {found.local_rank} {found.local_size} {found.attempt} {found.meeting}")
    """
    assert start(body, tmp_path) == []
    left = [(tmp_path / str(rank)).read_text().split() for rank in range(2)]
    assert [each[:4] for each in left] == [["2", str(rank), "2", "0"] for rank in range(2)]
    assert left[0][4] == left[1][4] and left[0][4].startswith("file://")


def test_what_one_process_foresaw_is_said_once_and_never_tried_again(tmp_path: Path) -> None:
    body = """
        (out / f"{rank}-{attempt}").touch()
        if rank == 1:
            raise UsageError("No such thing.", "Do another.")
        time.sleep(1)
        raise RuntimeError("Connection closed by peer")
    """
    with pytest.raises(VitreousError, match=r"^No such thing\. Do another\.$") as caught:
        start(body, tmp_path, restarts=2)
    assert (caught.value.exit_code, caught.value.code) == (2, "usage")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-0", "1-0"]


def test_a_killed_process_starts_the_team_again_as_often_as_allowed(tmp_path: Path) -> None:
    body = """
        if rank == 1 and attempt < 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if attempt < 1:
            time.sleep(0.5)
            raise RuntimeError("Connection closed by peer")
    """
    (warning,) = start(body, tmp_path, restarts=1)
    assert warning.startswith("Process 1 of 2 was killed by SIGKILL. Starting again from the last saved state")
    with pytest.raises(VitreousError, match=r"killed by SIGKILL.*--max-restarts 1.*--resume") as caught:
        start(body, tmp_path)
    assert caught.value.exit_code == 1


def test_no_process_outlives_a_team_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.workflows.launch.GRACE", 0.5)
    body = """
        (out / str(rank)).write_text(str(os.getpid()))
        if rank == 1:
            while not (out / "0").exists():
                time.sleep(0.01)
            1 / 0
        time.sleep(100)
    """
    with pytest.raises(VitreousError, match=r"in process 1 \(ZeroDivisionError"):
        start(body, tmp_path)
    for rank in range(2):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / str(rank)).read_text()), 0)


def test_a_signal_reaches_each_process_once_and_is_exit_75(tmp_path: Path) -> None:
    body = """
        got = []
        signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
        (out / str(rank)).touch()
        if rank == 0:
            while not (out / "1").exists():
                time.sleep(0.01)
            os.kill(os.getppid(), signal.SIGTERM)
        while not got:
            time.sleep(0.01)
        time.sleep(0.3)
        raise StoppedError(f"Stopped, {len(got)} signal.")
    """
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match=r"^Stopped, 1 signal\.$"):
        start(body, tmp_path, restarts=1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_only_a_process_without_a_team_starts_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert to_launch(TrainConfig()) == 1
    assert to_launch(TrainConfig(devices=3)) == 3
    (tmp_path / "config.json").write_text(json.dumps({"devices": 2}))
    assert to_launch(TrainConfig(resume=True, out=tmp_path)) == 2
    assert to_launch(TrainConfig(resume=True, out=tmp_path, devices=1)) == 1
    with pytest.raises(UsageError, match=r"--devices 2.*torchrun"):
        take_seat(TrainConfig(devices=2), 0.0)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert seat() == Seat(1, 2, 1, 2)
    assert to_launch(TrainConfig(devices=2)) == 1
    with pytest.raises(UsageError, match="2 processes were started"):
        take_seat(TrainConfig(devices=3), 0.0)
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(UsageError, match="LOCAL_RANK"):
        seat()


def test_a_team_started_again_continues_the_run_it_had_opened(tmp_path: Path) -> None:
    config = TrainConfig(overwrite=True)
    first, again = Seat(0, 2, 0, 2, 0, tmp_path), Seat(0, 2, 0, 2, 1, tmp_path)
    assert continued(again, config) == config  # nothing had been opened
    remember(first, config, tmp_path / "run-2")
    assert continued(first, config) == config
    found = continued(again, config)
    assert (found.out, found.resume, found.overwrite) == (tmp_path / "run-2", True, False)
    assert continued(again, TrainConfig(seed=1)) == TrainConfig(seed=1)
    under_torchrun = Seat(0, 2, 0, 2, 1, None)
    assert continued(under_torchrun, TrainConfig(out=tmp_path)).resume
    with pytest.raises(UsageError, match="--out"):
        continued(under_torchrun, config)


def test_a_run_is_continued_by_any_number_of_devices_that_shares_its_batches() -> None:
    stored = TrainConfig(devices=2, optim=OptimConfig(accumulation=3))
    for size, accumulation in ((1, 6), (2, 3), (3, 2), (6, 1)):
        found = dealt_out(stored, Team(0, size))
        assert (found.devices, found.optim.accumulation) == (size, accumulation)
    assert dealt_out(TrainConfig(), ALONE).optim.accumulation == 1
    with pytest.raises(UsageError, match=r"6 batches, which 4 devices.*--devices 1 or 2 or 3 or 6"):
        dealt_out(stored, Team(0, 4))


def wait_for_rows(process: subprocess.Popen[str], history: Path, count: int) -> None:
    for _ in range(12000):
        assert process.poll() is None, process.communicate()
        if history.is_file() and len(history.read_text(encoding="utf-8").splitlines()) >= count:
            return
        time.sleep(0.01)
    raise AssertionError("training never began")


def members(launcher: int) -> list[int]:
    """Process ids of what a process has started, in the order of their start."""
    return [int(each) for each in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes in /proc")
def test_a_rank_that_is_killed_costs_nothing_but_time(
    colors: Path, tiny: dict[str, Any], tiny_flags: list[str], tmp_path: Path
) -> None:
    """The whole command with two devices, killed in the middle, against one process with the same batches."""
    run, length = tmp_path / "two", 30
    flags = [str(length) if flag == "12" else flag for flag in tiny_flags]
    words = ["train", str(colors), "--out", str(run), "--devices", "2", "--max-restarts", "1", *flags]
    process = subprocess.Popen(
        [sys.executable, "-m", "vitreous", *words, "--batch-size", "16", "--optim.accumulation", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_rows(process, run / "history.jsonl", 3)
        os.kill(members(process.pid)[1], signal.SIGKILL)
        _, told = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == 0, told
    assert "2 processes share the CPU, 1 thread each" in told
    assert "Process 1 of 2 was killed by SIGKILL. Starting again" in told
    assert told.count("products in") == 2  # once an attempt: rank 0 alone speaks

    settings = {**tiny, "epochs": length, "batch_size": 16, "optim": {**tiny["optim"], "accumulation": 2}}
    alone = vitreous.train(colors, out=tmp_path / "one", **settings)
    assert sha256_file(run / "model.safetensors") == sha256_file(alone.path / "model.safetensors")
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (run, alone.path)]
    assert metrics[0]["test"] == metrics[1]["test"] and metrics[0]["val"] == metrics[1]["val"]
    rows = [
        [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        for folder in (run, alone.path)
    ]
    told_apart = ("step", "loss", "val_loss", "val_accuracy")
    assert [[row.get(name) for name in told_apart] for row in rows[0]] == [
        [row.get(name) for name in told_apart] for row in rows[1]
    ]
