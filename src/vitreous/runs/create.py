"""Choosing the folder of a new run, or finding the one to continue."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitreous.errors import UsageError
from vitreous.runs.atomic import storage_error
from vitreous.runs.folder import CHECKPOINTS, CONFIG, RUN_JSON, read_facts
from vitreous.runs.lock import LOCK, RunLock

RUNS = Path("runs")


@dataclass(frozen=True)
class Claim:
    """A folder to write to, and what was there."""

    path: Path
    state: Literal["new", "continue", "finished"]
    note: str = ""
    made: tuple[Path, ...] = ()
    """Folders that did not exist before, innermost first."""
    replaces: bool = False
    """Whether a former run lies there, to go once the new one has something to write."""

    def clear(self) -> None:
        """Remove the run that is to be replaced. Raises RunError when that is not allowed."""
        if not self.replaces:
            return
        try:
            for entry in self.path.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name != LOCK:  # a lock that is gone would lock nobody out
                    entry.unlink()
        except OSError as error:
            raise storage_error(self.path, error) from error

    @contextlib.contextmanager
    def held(self) -> Iterator[str]:
        """Inside the block no other process writes to the folder; yields what is to be said where that cannot be assured.

        Raises UsageError when another process is writing to it.
        """
        lock = RunLock(self.path)
        try:
            yield lock.note
        finally:
            lock.release()

    def release(self) -> None:
        """Give the place back: remove the folders made for it, as far as they are still empty."""
        for folder in self.made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def claim(out: Path | None, name: str, *, resume: bool = False, overwrite: bool = False) -> Claim:
    """The folder for a run called `name`: `out`, or runs/NAME.

    An existing folder gets a numbered sibling, unless `resume` continues it or `overwrite` replaces it. Only what looks
    like a run folder is ever replaced, and not before `Claim.clear`, so that bad data never costs a good run.
    Raises UsageError, and RunError when the place cannot be written to.
    """
    path = out if out is not None else default_place(name)
    if path.exists() and not path.is_dir():
        raise UsageError(f"--out {str(path)!r} is a file.", "Name a folder.")
    occupied = is_occupied(path)
    if resume and occupied:
        if not is_run(path):
            raise UsageError(f"{str(path)!r} is not a run folder, so it cannot be continued.", "Check --out.")
        facts = read_facts(path / RUN_JSON) if (path / RUN_JSON).is_file() else {}
        if facts.get("status") == "complete":
            return Claim(path, "finished", f"{path} is finished; nothing to do.")
        if (path / CONFIG).is_file() and facts:
            return Claim(path, "continue", f"Continuing {path}.")
        return Claim(path, "new", f"{path} stopped before its first step; starting it again.")
    if overwrite and occupied and not is_run(path):
        raise UsageError(f"{str(path)!r} is not a run folder, so --overwrite leaves it alone.", "Choose another --out.")
    above = [folder for folder in path.parents if not folder.exists()]
    try:
        if overwrite or (out is not None and not occupied):
            made = () if path.exists() else (path, *above)
            path.mkdir(parents=True, exist_ok=True)
            return Claim(path, "new", made=made, replaces=occupied)
        found = _numbered(path)
    except OSError as error:
        raise storage_error(path, error) from error
    return Claim(found, "new", f"{path} exists; writing to {found}." if found != path else "", (found, *above))


def default_place(name: str) -> Path:
    """Where a run called `name` goes when nothing else is said."""
    return RUNS / _safe(name)


def _numbered(path: Path) -> Path:
    """Make the first of `path`, `path-2`, `path-3` ... that is not there. Of commands that ask at once, each gets its own."""
    candidate, number = path, 2
    while True:
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
        else:
            return candidate


def is_occupied(path: Path) -> bool:
    """Whether a folder holds anything but the lock of runs."""
    return path.is_dir() and any(entry.name != LOCK for entry in path.iterdir())


def is_run(path: Path) -> bool:
    """Whether a folder looks like a run, finished or not."""
    return (path / RUN_JSON).is_file() or (path / CHECKPOINTS).is_dir()


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "run"
