from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vitreous.errors import RunError, UsageError
from vitreous.runs import lock
from vitreous.runs.atomic import remove_leftovers, storage_error
from vitreous.runs.create import claim
from vitreous.runs.lock import LOCK, RunLock

HOLD = "import sys, time; from pathlib import Path; from vitreous.runs.lock import RunLock; kept = RunLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_process_is_refused_by_name_and_a_killed_one_stops_nobody(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with pytest.raises(UsageError, match=rf"is being written to by another process \({process.pid} on ") as caught:
            RunLock(tmp_path)
        assert "--out" in caught.value.hint
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        assert (tmp_path / LOCK).is_file(), "what a killed process leaves"
        RunLock(tmp_path).release()
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.communicate()


def test_a_lock_is_refused_within_the_same_process_too_until_it_is_released(tmp_path: Path) -> None:
    first = RunLock(tmp_path)
    with pytest.raises(UsageError, match="another process"):
        RunLock(tmp_path)
    first.release()
    first.release()
    second = RunLock(tmp_path)
    second.release()


def test_a_file_that_was_removed_meanwhile_locks_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, real, opened = RunLock(tmp_path), lock._lock, []

    def lets_go(file: int) -> None:
        if not opened:  # the holder goes between this process's opening of the file and its locking it
            first.release()
        opened.append(file)
        real(file)

    monkeypatch.setattr(lock, "_lock", lets_go)
    second = RunLock(tmp_path)
    assert len(opened) == 2, "the file that is gone is not enough"
    assert (tmp_path / LOCK).is_file()
    monkeypatch.undo()
    with pytest.raises(UsageError):
        RunLock(tmp_path)
    second.release()


def test_a_file_system_without_locks_is_said_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(file: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", none)
    place = claim(tmp_path / "run", "x")
    with place.held() as note:
        assert "has no locks" in note
    place.release()


def test_what_is_held_is_given_back_without_a_trace(tmp_path: Path) -> None:
    place = claim(tmp_path / "a" / "run", "x")
    with place.held() as note:
        assert note == ""
        assert (place.path / LOCK).is_file()
    place.release()
    assert list(tmp_path.iterdir()) == []


def test_replacing_a_run_keeps_the_lock_that_is_held(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    place = claim(run, "x", overwrite=True)
    with place.held():
        place.clear()
        assert [path.name for path in run.iterdir()] == [LOCK]
        with pytest.raises(UsageError, match="another process"), claim(run, "x", overwrite=True).held():
            pass


def test_a_lock_left_behind_does_not_make_a_folder_occupied(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("1 nowhere\n")
    assert claim(tmp_path, "x").path == tmp_path


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    for name in (".run.json.17.tmp", "plots/.a.png.17.tmp", "kept.tmp", ".hidden", "plots/a.png"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".hidden", "a.png", "kept.tmp"]


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "The disk is full"), (errno.EFBIG, "The largest allowed size of a file")]
)
def test_a_write_that_finds_no_room_says_what_is_intact(number: int, words: str) -> None:
    found = storage_error(Path("run/step.safetensors"), OSError(number, os.strerror(number)))
    assert isinstance(found, RunError)
    assert words in found.message and "intact" in found.message and "--resume" in found.hint
