"""A run that is stopped, killed or out of disk continues, and ends with the very weights of an undisturbed one."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vitreous
from vitreous.data.examination.similar import equal_pixels
from vitreous.errors import DataError, RunError, StoppedError
from vitreous.runs import RunFolder
from vitreous.runs.atomic import sha256_file
from vitreous.training.loop import fit as real_fit

LONG = 60
"""Epochs of the run that is stopped: seconds of training, so that there is something to interrupt."""


def long_flags(tiny_flags: list[str]) -> list[str]:
    return [str(LONG) if flag == "12" else flag for flag in tiny_flags]


def weights(run: Path) -> str:
    return sha256_file(run / "model.safetensors")


def start_training(arguments: list[str]) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "vitreous", *arguments]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(process: subprocess.Popen[str], history: Path, count: int) -> None:
    """Return once training has logged this many rows."""
    for _ in range(3000):
        if process.poll() is not None:
            raise AssertionError(f"training ended before it could be stopped: {process.communicate()}")
        if history.is_file() and len(history.read_text(encoding="utf-8").splitlines()) >= count:
            return
        time.sleep(0.02)
    raise AssertionError("training never began")


@pytest.mark.slow
def test_stopped_by_a_signal_and_resumed_equals_undisturbed_bit_for_bit(
    call: Callable[..., Any], colors: Path, tiny: dict[str, Any], tiny_flags: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "a run"  # the space must come back quoted in what to type next
    process = start_training(["train", str(colors), "--out", str(run), *long_flags(tiny_flags)])
    try:
        wait_for_rows(process, run / "history.jsonl", 2)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == 75, told
    last = told.strip().splitlines()[-1]
    assert last.startswith("vitreous: Stopped by SIGTERM after step ")
    assert last.endswith(f"the state is saved. Continue with: vitreous train {colors} --out '{run}' --resume")
    assert "Traceback" not in told

    unfinished = call("evaluate", run)
    assert unfinished.returncode == 2
    assert "half written" in unfinished.stderr
    assert f"vitreous train {colors} --out '{run}' --resume" in unfinished.stderr

    finished = call("train", colors, "--out", run, "--resume")
    assert finished.returncode == 0, finished.stderr
    undisturbed = vitreous.train(colors, out=tmp_path / "undisturbed", **{**tiny, "epochs": LONG})
    assert weights(run) == weights(undisturbed.path)
    kept = [json.loads(line)["step"] for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert kept == sorted(set(kept))
    assert undisturbed.run.facts["training"]["steps"] == RunFolder.open(run).facts["training"]["steps"]


@pytest.mark.parametrize("steps", [(1,), (3, 4, 11)])
def test_control_c_at_any_step_is_exit_75_and_changes_no_bit_of_the_result(
    steps: tuple[int, ...],
    call: Callable[..., Any],
    colors: Path,
    tiny_flags: list[str],
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = ["--out", tmp_path / "run", "--resume", *tiny_flags]
    for stop_at in steps:

        def interrupted(*arguments: Any, evaluate: Any, record: Any, at: int = stop_at, **named: Any) -> None:
            def record_and_press(row: dict[str, Any]) -> None:
                record(row)
                if row["step"] == at:
                    signal.raise_signal(signal.SIGINT)

            real_fit(*arguments, evaluate=evaluate, record=record_and_press, **named)

        with monkeypatch.context() as patch:
            patch.setattr("vitreous.workflows.train.fit", interrupted)
            stopped = call("train", colors, "--json", *flags)
        assert stopped.returncode == 75
        error = json.loads(stopped.stdout)["error"]
        assert error["code"] == "stopped" and f"Stopped by SIGINT after step {stop_at} " in error["message"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert call("train", colors, *flags).returncode == 0
    assert weights(tmp_path / "run") == weights(trained)


def test_resume_on_a_finished_run_does_nothing_and_succeeds(
    call: Callable[..., Any], run_copy: Path, colors: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")}
    done = call("train", colors, "--out", run_copy, "--resume", "--json")
    assert done.returncode == 0
    assert "is finished; nothing to do" in done.stderr
    assert json.loads(done.stdout)["run"] == str(run_copy)
    assert {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")} == before


def test_resume_where_there_is_nothing_starts(
    call: Callable[..., Any], colors: Path, tiny_flags: list[str], trained: Path, tmp_path: Path
) -> None:
    done = call("train", colors, "--out", tmp_path / "fresh", "--resume", *tiny_flags)
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "fresh") == weights(trained)


def test_resume_refuses_a_folder_that_is_no_run_and_changed_data(
    colors: Path, make_images: Callable[..., Path], tiny: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(vitreous.errors.UsageError, match="not a run folder"):
        vitreous.train(colors, out=tmp_path / "mine", resume=True, **tiny)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]

    data = make_images(tmp_path / "data", 8)

    def stopped(*arguments: Any, **named: Any) -> None:
        raise StoppedError("Stopped at once.")

    monkeypatch.setattr("vitreous.workflows.train.fit", stopped)
    with pytest.raises(StoppedError):
        vitreous.train(data, out=tmp_path / "run", **tiny)
    make_images(data, 9, seed=1)
    with pytest.raises(DataError, match="changed since"):
        vitreous.train(data, out=tmp_path / "run", resume=True, **tiny)


class Killed(BaseException):
    """Stands for the power cut: nothing in the program may catch it."""


def killed(state: Any, batches: Any, settings: Any, *, record: Callable[..., None], **named: Any) -> None:
    """`fit` that dies after half of its steps."""

    def record_until(row: dict[str, Any]) -> None:
        record(row)
        if row["step"] >= settings.steps // 2:
            raise Killed

    real_fit(state, batches, settings, record=record_until, **named)


def test_a_kill_without_warning_loses_at_most_the_work_since_the_last_checkpoint(
    colors: Path, tiny: dict[str, Any], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("vitreous.workflows.train.fit", killed)
        with pytest.raises(Killed):
            vitreous.train(colors, out=tmp_path / "run", **tiny)
    with (tmp_path / "run" / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 9, "lo')  # a row that was being written
    assert vitreous.train(colors, out=tmp_path / "run", resume=True, **tiny).path == tmp_path / "run"
    assert weights(tmp_path / "run") == weights(trained)


@pytest.mark.parametrize("named", [True, False], ids=["init given again", "init left out"])
def test_a_run_resumes_where_the_weights_it_started_from_are_gone(
    colors: Path, tiny: dict[str, Any], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    gone = shutil.copytree(trained, tmp_path / "gone")
    settings = {**tiny, "init": str(gone), "head_init": "closed-form", "epochs": 4}
    undisturbed = vitreous.train(colors, out=tmp_path / "undisturbed", **settings).path
    with monkeypatch.context() as patch:
        patch.setattr("vitreous.workflows.train.fit", killed)
        with pytest.raises(Killed):
            vitreous.train(colors, out=tmp_path / "run", **settings)
    shutil.rmtree(gone)
    if not named:
        del settings["init"]
    resumed = vitreous.train(colors, out=tmp_path / "run", resume=True, **settings)
    assert weights(resumed.path) == weights(undisturbed)
    assert resumed.run.facts["weights"]["init"] == str(gone)


def test_a_fold_that_is_continued_keeps_its_images_whatever_looks_alike_now(
    colors: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**tiny, "epochs": 2, "k_fold": "1/3"}
    undisturbed = vitreous.train(colors, out=tmp_path / "undisturbed", **settings).path
    with monkeypatch.context() as patch:
        patch.setattr("vitreous.workflows.train.fit", killed)
        with pytest.raises(Killed):
            vitreous.train(colors, out=tmp_path / "run", **settings)

    def fewer(*given: Any, **named: Any) -> Any:
        return equal_pixels(given[1].hashes)

    # As where a budget made the first search a quick one and the second has none; folds are dealt by what looks alike.
    monkeypatch.setattr("vitreous.workflows.inspection._compare", fewer)
    resumed = vitreous.train(colors, out=tmp_path / "run", resume=True, **settings).path
    assert weights(resumed) == weights(undisturbed)
    assert (resumed / "splits.csv").read_bytes() == (undisturbed / "splits.csv").read_bytes()


def test_a_full_disk_ends_training_with_the_earlier_checkpoint_intact(
    call: Callable[..., Any],
    colors: Path,
    tiny_flags: list[str],
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    real = Path.write_bytes

    def full(self: Path, data: Any) -> int:
        if self.parent == checkpoints and list(checkpoints.glob("step_*.safetensors")):
            real(self, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        failed = call("train", colors, "--out", tmp_path / "run", *tiny_flags)
    assert failed.returncode == 2
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("vitreous: The disk is full") and "Free some space" in last and "--resume" in last
    assert "Traceback" not in failed.stderr
    assert len(list(checkpoints.glob("step_*.safetensors"))) == 1
    assert not list(checkpoints.glob(".*"))
    with pytest.raises(RunError, match="half written"):
        RunFolder.open(tmp_path / "run")
    resumed = call("train", colors, "--out", tmp_path / "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "Continuing from step_" in resumed.stderr
    assert weights(tmp_path / "run") == weights(trained)


@pytest.mark.parametrize("full", ["history.jsonl", "model.safetensors", "predictions.parquet", "report.html"])
def test_a_disk_that_is_full_for_any_file_is_said_in_one_sentence(
    full: str,
    call: Callable[..., Any],
    colors: Path,
    tiny_flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import io

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    real_fsync, real_open = vitreous.runs.atomic.os.fsync, Path.open

    def fsync(handle: int) -> None:
        if full in str(Path(f"/proc/self/fd/{handle}").resolve().name):
            raise OSError(errno.ENOSPC, "No space left on device")
        real_fsync(handle)

    def opened(self: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        return Full() if self.name == full and mode == "a" else real_open(self, mode, *arguments, **named)

    monkeypatch.setattr("vitreous.runs.atomic.os.fsync", fsync)
    monkeypatch.setattr(Path, "open", opened)
    failed = call("train", colors, "--out", tmp_path / "run", *tiny_flags)
    assert failed.returncode == 2
    assert f"vitreous: The disk is full: '{full}'" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not list((tmp_path / "run").glob(".*.tmp"))
