"""One worker process as its crew sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from vitreous.data.examination.messages import receive, send
from vitreous.errors import VitreousError

START_SECONDS = 120.0
"""For starting Python and importing Pillow and NumPy on a busy machine."""
_MOST_ANSWER = 2**20
"""Bytes behind an answer's header: a thumbnail has 3,072."""


class WorkerProcess:
    """A process that answers messages; used by one thread, watched by another."""

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        """seconds: for one image. Raises VitreousError where the process cannot be started."""
        self._seconds = seconds
        self._lock = threading.Lock()
        self._due: float | None = time.monotonic() + START_SECONDS
        self._heard = 0
        self._late_after: int | None = None
        """Messages that had been heard when the process was killed for being late."""
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `wait_until_ready`, which reads it)
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                env=_environment(),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            self._complaints.close()
            raise VitreousError(f"The process that decodes images cannot be started ({error}).") from error

    def wait_until_ready(self) -> None:
        """Raises VitreousError, with the last thing it said, where the process ends before."""
        with self._complaints:
            if next(self._messages(1), None) is None:
                end = self.close()
                self._complaints.seek(0)
                last = self._complaints.read()[-2000:].decode(errors="replace").strip().rpartition("\n")[2]
                reason = ", ".join(text for text in (end, last) if text) or "silently"
                raise VitreousError(f"The process that decodes images ended before it was ready ({reason}).")

    def ask(self, items: Sequence[dict[str, Any]], payload: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Send the items and yield an answer to each, in their order; fewer where the process ends before."""
        self._set_due(self._seconds)
        try:
            send(self._stdin, {"items": list(items)}, payload)
        except OSError:  # it has ended
            return
        yield from self._messages(len(items))

    def kill_if_late(self) -> None:
        """For the watching thread: end a process whose time for the present image is over."""
        with self._lock:
            if self._due is not None and time.monotonic() > self._due:
                self._due, self._late_after = None, self._heard
                self._process.kill()

    def kill(self) -> None:
        """End it from any thread; whoever waits for its answers gets no more."""
        self._process.kill()

    def close(self) -> str:
        """End it, and say why it had ended: "late", "killed", a signal, an exit code, or "" where it was still well."""
        self._set_due(None)
        ended = self._process.poll()
        if ended is None:
            # Its output is closed before the system has noted its end; a healthy process is not waited for in vain.
            with contextlib.suppress(OSError):
                self._stdin.close()
            try:
                ended = self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # the system itself may be stuck in reading a file
            self._process.wait(5.0)
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._stdout.close()
        if self._late_after is not None:
            # Where answers were still waiting to be heard, it was this process that was late, not its present image.
            return "late" if self._late_after == self._heard else "killed"
        return _name_of(ended)

    @property
    def _stdin(self) -> BinaryIO:
        return cast(BinaryIO, self._process.stdin)

    @property
    def _stdout(self) -> BinaryIO:
        return cast(BinaryIO, self._process.stdout)

    def _messages(self, count: int) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Up to `count` messages, each with a time limit of its own."""
        for number in range(1, count + 1):
            try:
                message = receive(self._stdout, _MOST_ANSWER)
            except (OSError, ValueError):  # nonsense comes from a process that a file has wrecked
                self._process.kill()
                message = None
            if message is None:
                return
            with self._lock:
                self._heard += 1
            self._set_due(self._seconds if number < count else None)
            yield message

    def _set_due(self, seconds: float | None) -> None:
        with self._lock:
            self._due = None if seconds is None else time.monotonic() + seconds


def _environment() -> dict[str, str]:
    """The same modules as here, whatever the current folder holds; one thread, since there is a worker for each core."""
    places = [str(Path(place).absolute()) for place in sys.path if place]
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    python = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(places)), "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **single, **python}


def _name_of(code: int | None) -> str:
    if code is None or code == 0:
        return ""
    if code > 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
