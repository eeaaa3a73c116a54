"""What may happen to a run from outside: signals at any time, a second process, a move to another machine, little memory."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import vitreous
from vitreous.errors import StoppedError, UsageError
from vitreous.runs.atomic import sha256_file
from vitreous.runs.lock import LOCK, RunLock
from vitreous.training.forecast import Forecast
from vitreous.training.loop import fit as real_fit
from vitreous.training.signals import STOPPING
from vitreous.workflows import train as workflow

Call = Callable[..., Any]


def weights(run: Path) -> str:
    return sha256_file(run / "model.safetensors")


def stopped_at(step: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a signal come when training has logged this step."""

    def fit(*arguments: Any, record: Any, **named: Any) -> None:
        def record_and_signal(row: dict[str, Any]) -> None:
            record(row)
            if row["step"] == step:
                signal.raise_signal(number)

        real_fit(*arguments, record=record_and_signal, **named)

    monkeypatch.setattr(workflow, "fit", fit)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_in_training_saves_and_is_exit_75(
    number: signal.Signals, call: Call, colors: Path, tiny_flags: list[str], tmp_path: Path, monkeypatch: Any
) -> None:
    stopped_at(3, number, monkeypatch)
    stopped = call("train", colors, "--out", tmp_path / "run", *tiny_flags)
    assert stopped.returncode == 75
    last = stopped.stderr.strip().splitlines()[-1]
    assert f"Stopped by {number.name} after step 3 of " in last and "the state is saved. Continue with: " in last
    assert not (tmp_path / "run" / LOCK).exists()
    assert len(list((tmp_path / "run" / "checkpoints").glob("step_00000003.safetensors"))) == 1


def test_a_signal_while_the_data_are_read_leaves_at_once_and_nothing_behind(
    call: Call, colors: Path, tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather(*arguments: Any, **named: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("not reached")

    monkeypatch.setattr(workflow, "gather", gather)
    stopped = call("train", colors, "--out", tmp_path / "run", *tiny_flags)
    assert stopped.returncode == 75
    assert "Stopped by SIGTERM before the first step. Run the same command again." in stopped.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_signal_after_the_last_step_loses_nothing(
    call: Call, colors: Path, tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def finish(*arguments: Any, **named: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(workflow, "finish", finish)
    stopped = call("train", colors, "--out", run, *tiny_flags)
    assert stopped.returncode == 75
    assert (
        f"Stopped by SIGTERM; what was saved until then is kept. Continue with: vitreous train {colors} --out {run} --resume"
        in (stopped.stderr)
    )
    steps = json.loads((run / "config.json").read_text(encoding="utf-8"))["steps"]
    assert (run / "checkpoints" / f"step_{steps:08d}.safetensors").is_file(), "what is left to do is done by --resume"


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_a_run_that_another_process_writes_is_left_alone(
    flag: str, call: Call, colors: Path, tiny_flags: list[str], run_copy: Path
) -> None:
    facts = json.loads((run_copy / "run.json").read_text(encoding="utf-8"))
    (run_copy / "run.json").write_text(json.dumps({**facts, "status": "training"}), encoding="utf-8")
    before = sorted(run_copy.rglob("*"))
    lock = RunLock(run_copy)
    try:
        refused = call("train", colors, "--out", run_copy, flag, *tiny_flags)
    finally:
        lock.release()
    assert refused.returncode == 2
    assert f"{str(run_copy)!r} is being written to by another process" in refused.stderr
    assert "Wait for it or stop it, or write elsewhere with --out." in refused.stderr
    assert sorted(run_copy.rglob("*")) == before


def test_a_run_and_its_data_may_move_to_another_machine(
    colors: Path, tiny: dict[str, Any], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stopped_at(4, signal.SIGTERM, patch)
        with pytest.raises(StoppedError, match="after step 4 "):
            vitreous.train(colors, out=tmp_path / "here" / "run", **tiny)
    there = tmp_path / "there"
    shutil.copytree(colors, there / "pictures")
    shutil.move(tmp_path / "here" / "run", there / "renamed")
    monkeypatch.chdir(there)
    done = vitreous.train("pictures", out="renamed", resume=True)
    assert done.path == Path("renamed")
    assert weights(there / "renamed") == weights(trained)
    texts = [path.read_text(encoding="utf-8") for path in there.glob("renamed/*.json*")]
    assert texts and not any(str(tmp_path / "here") in text for text in texts)


def test_what_was_settled_about_memory_is_stored_and_the_peak_reported(trained: Path) -> None:
    stored = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    assert stored["micro_batch"] >= 1 and stored["net"]["checkpointing"] is False
    timing = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))["timing"]
    rows = [json.loads(line) for line in (trained / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert timing["peak_memory_bytes"] == max(row["peak_memory_bytes"] for row in rows)


def test_with_little_memory_batches_go_in_pieces_or_activations_are_recomputed(
    call: Call, colors: Path, tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitreous.workflows import memory

    predicted = Forecast(fixed=1000, per_image=1000, per_image_recomputed=400)
    monkeypatch.setattr(memory, "forecast", lambda *arguments, **named: predicted)
    monkeypatch.setattr(memory, "free_memory", lambda device: 5000)
    stopped_at(1, signal.SIGINT, monkeypatch)
    done = call("train", colors, "--out", tmp_path / "run", *tiny_flags)
    assert done.returncode == 75, done.stderr
    assert "activations are recomputed in the backward pass" in done.stderr
    assert "training takes about " in done.stderr and " of free memory, with each batch of " in done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert config["net"]["checkpointing"] is True
    assert 1 < config["micro_batch"] <= 7 < config["batch_size"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(row["micro_batch"] == config["micro_batch"] for row in rows)


def test_a_piece_has_at_least_one_image() -> None:
    with pytest.raises(UsageError, match="--micro-batch must be at least 1"):
        replace(vitreous.TrainConfig(), micro_batch=0)
