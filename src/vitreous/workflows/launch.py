"""`--devices N`: start N processes that train together, watch over them, and speak for them when they fail.

Not torchrun's agent: a signal must reach each process once and no more, since the second one means "leave at once"; and only
what may go better the next time (a process that was killed, an error nobody foresaw) is worth starting again. Under
torchrun, for several machines, the same processes run without this.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitreous.errors import PeerError, StoppedError, VitreousError
from vitreous.workflows.reporter import Reporter
from vitreous.workflows.seat import ATTEMPT, BEGAN, TEAM, report_name

GRACE = 10.0
"""Seconds that processes have to end by themselves after one of them has failed: enough to finish writing a file."""
POLL = 0.05
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


def launch(words: Sequence[str], devices: int, *, restarts: int, reporter: Reporter, began: float) -> None:
    """Run the program `words` in `devices` processes of one team, to its end.

    restarts: how often the team is started again, from its last state, after a process has died or failed in a way that
    nobody foresaw. began: `time.monotonic()` at which the command was given.

    Returns when all have succeeded. Raises the error that the first process to fail reported, StoppedError after a signal,
    VitreousError where a process was killed. Whatever happens, no process is left behind.
    """
    wall = time.time() - (time.monotonic() - began)
    with tempfile.TemporaryDirectory(prefix="vitreous-team-") as folder, _Forwarding() as forwarding:
        for attempt in range(restarts + 1):
            environment = {TEAM: folder, ATTEMPT: str(attempt), BEGAN: repr(wall)}
            codes = _run(words, devices, environment, forwarding)
            if not any(codes):
                return
            error, hopeful = _failure(Path(folder), attempt, codes, stopped=forwarding.received)
            if not hopeful or attempt == restarts:
                raise error
            left = restarts - attempt - 1
            again = "no further restart" if left == 0 else f"{left} more restart{'s' if left > 1 else ''}"
            reporter.warn(f"{error.message} Starting again from the last saved state; {again} after this one.")


class _Forwarding:
    """While it is entered, signals to this process go on to the team."""

    def __init__(self) -> None:
        self.received = False
        self.team: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> _Forwarding:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._pass_on) for number in _SIGNALS}
        return self

    def __exit__(self, *ignored: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: object) -> None:
        self.received = True
        for process in self.team:
            with contextlib.suppress(OSError):
                process.send_signal(number)


def _run(words: Sequence[str], devices: int, environment: dict[str, str], forwarding: _Forwarding) -> list[int | None]:
    """Exit codes by rank: negative for a process that a signal ended, None for one that had to be ended by us."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    team = forwarding.team = []
    try:
        for rank in range(devices):
            own = {
                "RANK": str(rank),
                "WORLD_SIZE": str(devices),
                "LOCAL_RANK": str(rank),
                "LOCAL_WORLD_SIZE": str(devices),
                # Nothing of what they tell each other leaves the machine.
                "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", loopback),
            }
            # A session of their own: what is typed at the terminal reaches them through us, once. Standard input stays
            # open as long as we live, by which they notice when we do not.
            named = {**os.environ, **environment, **own}
            team.append(subprocess.Popen(words, env=named, stdin=subprocess.PIPE, start_new_session=True))
        while not any(process.poll() for process in team):
            if all(process.returncode == 0 for process in team):
                return [0] * devices
            time.sleep(POLL)
        end = time.monotonic() + GRACE
        while time.monotonic() < end and any(process.poll() is None for process in team):
            time.sleep(POLL)
        return [process.poll() for process in team]
    finally:
        forwarding.team = []
        for process in team:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _failure(folder: Path, attempt: int, codes: Sequence[int | None], stopped: bool) -> tuple[VitreousError, bool]:
    """What to say of a team that failed, and whether another attempt may go better.

    A process that is left by another fails too, so what counts is, in this order: an error that was foreseen, a process that
    was killed, the earliest of the others.
    """
    files = [folder / report_name(attempt, rank) for rank in range(len(codes))]
    reports = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    foreseen = [report for report in reports if report["foreseen"] and report["code"] != PeerError.code]
    if foreseen:
        return _as_error(min(foreseen, key=lambda report: report["rank"])), False
    killed = [(rank, -code) for rank, code in enumerate(codes) if code is not None and code < 0]
    if killed and stopped:
        return StoppedError("Stopped at once by a signal; what was saved before it is kept."), False
    if killed:
        rank, number = killed[0]
        hint = "Add --max-restarts 1 to start again by itself, or continue the run with --resume."
        return VitreousError(f"Process {rank} of {len(codes)} was killed by {_name_of(number)}.", hint), True
    if reports:
        report = min(reports, key=lambda report: report["when"])
        text = f"Something went wrong inside vitreous, in process {report['rank']} ({report['message']}, at {report['place']})."
        hint = "Continue the run with --resume. Add --debug to see where it failed, and report it."
        return VitreousError(text, hint), True
    left = [f"process {rank} with exit code {code}" for rank, code in enumerate(codes) if code]
    return VitreousError(
        f"The processes ended without a word: {', '.join(left)}.", "Run with one device to see why."
    ), True


def _as_error(report: dict[str, Any]) -> VitreousError:
    error = StoppedError if report["code"] == StoppedError.code else VitreousError
    made = error(report["message"], report["hint"])
    made.code, made.exit_code = report["code"], report["exit_code"]
    return made


def _name_of(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
