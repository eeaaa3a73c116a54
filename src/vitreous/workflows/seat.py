"""What a process knows of the team that it was started for: from the environment, as `--devices` or torchrun leave it there.

Imports no torch: the process that starts a team has no use for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vitreous.config.convert import read_settings, to_dict
from vitreous.config.train import TrainConfig
from vitreous.errors import StoppedError, UsageError, VitreousError
from vitreous.runs.atomic import write_json
from vitreous.runs.folder import CONFIG

TEAM = "VITREOUS_TEAM"
"""Names the folder that the processes of one `--devices` command share: meeting point, reports, opened runs."""
ATTEMPT = "VITREOUS_ATTEMPT"
"""How many times the team has been started before."""
BEGAN = "VITREOUS_BEGAN"
"""`time.time()` at which the command was given: a time budget counts from there."""
LAST_WORDS = 30.0
"""Seconds in which a process whose launcher has gone may save its state and end."""


@dataclass(frozen=True)
class Seat:
    """A place in a team of several processes."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    attempt: int = 0
    """How many times the team has been started before."""
    folder: Path | None = None
    """Shared with the launcher; None under torchrun."""
    began: float | None = None
    """`time.time()` at which the command was given, where that is known."""

    @property
    def meeting(self) -> str:
        """Where the processes find each other: one that every attempt has to itself."""
        return "env://" if self.folder is None else (self.folder / f"meeting-{self.attempt}").as_uri()


def seat() -> Seat | None:
    """This process's place in a team; None where it is on its own. Raises UsageError for an environment cut short."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    try:
        rank, size, local_rank, local_size = (int(os.environ[name]) for name in names)
        folder = Path(os.environ[TEAM]) if TEAM in os.environ else None
        attempt = int(os.environ.get(ATTEMPT, os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")))
        began = float(os.environ[BEGAN]) if BEGAN in os.environ else None
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"RANK is set, but {' and '.join(names[1:])} do not say the rest.",
            "Start the processes with torchrun, or give --devices instead.",
        ) from error
    return None if size == 1 else Seat(rank, size, local_rank, local_size, attempt, folder, began)


def to_launch(config: TrainConfig) -> int:
    """How many processes have to be started for these settings: 1 where this very process can do it, or is one of them.

    A run that is continued goes on with the number it had, unless another is given.
    """
    if seat() is not None:
        return 1
    if config.devices is None and config.resume and config.out is not None and (config.out / CONFIG).is_file():
        return int(read_settings(config.out / CONFIG).get("devices") or 1)
    return config.devices or 1


def speaks() -> bool:
    """Whether this process prints: it is on its own, or the first of its team."""
    return int(os.environ.get("RANK", "0")) == 0


def remember(place: Seat, config: TrainConfig, path: Path) -> None:
    """Note that the run of these settings has been opened at `path`, for the processes of a later attempt."""
    if place.folder is not None:
        write_json(place.folder / _note_of(config), {"path": str(path.absolute())})


def continued(place: Seat, config: TrainConfig) -> TrainConfig:
    """The settings of a team that has been started again: a run that was opened before is gone on with."""
    if place.attempt == 0:
        return config
    if place.folder is None:  # torchrun tells nothing but the number of the attempt
        if config.out is None:
            raise UsageError(
                "torchrun started training again, and without --out nobody knows where the run was.",
                "Give --out runs/NAME.",
            )
        return replace(config, resume=True, overwrite=False)
    try:
        found = json.loads((place.folder / _note_of(config)).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return config  # it had not come so far
    return replace(config, out=Path(found["path"]), resume=True, overwrite=False)


def _note_of(config: TrainConfig) -> str:
    text = json.dumps(to_dict(config), sort_keys=True)
    return f"opened-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """Around what a launched process does: how it fails is left for the launcher to say, once for all of them.

    Does nothing in a process that no launcher started.
    """
    folder = os.environ.get(TEAM)
    if folder is None:
        yield
        return
    _follow_launcher()
    rank = int(os.environ["RANK"])
    try:
        yield
    except (Exception, KeyboardInterrupt) as caught:
        error = StoppedError("Stopped by the keyboard.") if isinstance(caught, KeyboardInterrupt) else caught
        where = traceback.extract_tb(caught.__traceback__)[-1]
        report = {
            "rank": rank,
            "when": time.time(),
            "foreseen": isinstance(error, VitreousError),
            "code": getattr(error, "code", "internal"),
            "exit_code": getattr(error, "exit_code", 1),
            "message": getattr(error, "message", f"{type(error).__name__}: {error}"),
            "hint": getattr(error, "hint", ""),
            "place": f"{where.filename.rsplit('/', 1)[-1]}:{where.lineno}",
            "traceback": traceback.format_exc(),
        }
        write_json(Path(folder) / report_name(int(os.environ[ATTEMPT]), rank), report)
        raise SystemExit(report["exit_code"]) from caught


def report_name(attempt: int, rank: int) -> str:
    return f"report-{attempt}-{rank}.json"


def _follow_launcher() -> None:
    """End with the launcher: its end of our standard input closes when it has gone, however that came about."""

    def wait() -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(0, 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)  # in training: the state is saved at the end of the step
        time.sleep(LAST_WORDS)
        os._exit(1)

    threading.Thread(target=wait, name="vitreous-launcher", daemon=True).start()
