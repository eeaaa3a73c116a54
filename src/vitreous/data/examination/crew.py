"""Workers that look at images, and the blame where one of them dies.

An image whose decoder crashes twice, or does not finish in time, is bad; the images behind it are looked at by a new worker.
"""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from vitreous.config.decode import DecodeConfig
from vitreous.data.examination.finding import Bad, Finding, from_record
from vitreous.data.examination.process import WorkerProcess

SECONDS = 30.0
"""For one image; 89 million pixels of PNG take about two."""
MEMORY = 4 * 2**30
"""Bytes for one worker beyond what it takes at its start (kept to on Linux)."""
MOST_TOGETHER = 64 * 2**20
"""Encoded bytes handed to a worker at a time, which both sides hold in memory; a larger image goes alone."""
_STRIKES = 2
"""Crashes on one image in a row that make it bad: a single one may have come from outside."""
_WATCH_SECONDS = 0.1
COMMAND = (sys.executable, "-m", "vitreous.data.examination.worker")


@dataclass(frozen=True, slots=True)
class Item:
    """One image to look at."""

    source: str | bytes
    """Path of a file, or the encoded bytes."""
    name: str
    """Whose suffix promises a format."""


@dataclass(frozen=True, slots=True)
class Answer:
    entry: Finding | Bad
    key: bytes = b""
    """Under which the cache keeps it; empty where nothing was read."""
    used: int | None = None
    """The day the cache's entry was last used; None where it was not from the cache."""


class CrewClosedError(Exception):
    """The crew was dismissed while an image was being looked at."""


class Crew:
    """Up to `size` workers, started when first needed, all ended on leaving the `with` block."""

    def __init__(
        self,
        size: int,
        *,
        decode: DecodeConfig,
        max_pixels: int,
        cache: Path | None = None,
        seconds: float = SECONDS,
        memory: int = MEMORY,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """cache: the SQLite file that workers look into. command: what is started, with the settings as last argument."""
        settings = {
            "decode": asdict(decode),
            "max_pixels": max_pixels,
            "seconds": seconds,
            "memory": memory,
            "cache": None if cache is None else str(cache.absolute()),
        }
        self._command = [*command, json.dumps(settings)]
        self._seconds = seconds
        self._lock = threading.Lock()
        self._working: set[WorkerProcess] = set()
        self._idle: queue.LifoQueue[WorkerProcess | None] = queue.LifoQueue()  # the last used first: few may suffice
        for _ in range(size):
            self._idle.put(None)
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._keep_time, name="vitreous-watch", daemon=True)

    def __enter__(self) -> Crew:
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers at once. Threads inside `examine` get CrewClosedError."""
        self._closed.set()
        with self._lock:
            working = list(self._working)
        for worker in working:
            worker.kill()
        taken: list[WorkerProcess | None] = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._idle.get_nowait())
        for worker in taken:
            if worker is not None:
                self._dismiss(worker)
            self._idle.put(None)  # a thread that waits for its turn must learn that there is none
        self._watch.join()

    def examine(self, items: Sequence[Item]) -> list[Answer]:
        """Look at each. May be called by several threads; each waits for a worker that is free.

        Raises CrewClosedError, and VitreousError where no worker can be started.
        """
        answers: list[Answer] = []
        strikes = 0
        worker = self._idle.get()
        try:
            while len(answers) < len(items):
                self._check_open()
                worker = worker or self._start()
                before = len(answers)
                together = items[before : before + _num_together(items[before:])]
                self._ask(worker, together, answers)
                if len(answers) == before + len(together):
                    strikes = 0
                    continue
                strikes = strikes + 1 if len(answers) == before else 1
                end, worker = self._dismiss(worker), None
                self._check_open()
                if end == "late" or strikes == _STRIKES:
                    answers.append(Answer(Bad(self._blame(end), lasting=False)))
                    strikes = 0
        finally:
            if worker is not None and self._closed.is_set():
                self._dismiss(worker)
                worker = None
            self._idle.put(worker)
        return answers

    def _ask(self, worker: WorkerProcess, items: Sequence[Item], answers: list[Answer]) -> None:
        request: list[dict[str, Any]] = []
        payload: list[bytes] = []
        for number, item in enumerate(items):
            if isinstance(item.source, str):
                request.append({"item": number, "path": item.source, "name": item.name})
            else:
                request.append({"item": number, "length": len(item.source), "name": item.name})
                payload.append(item.source)
        for number, (reply, thumbnail) in enumerate(worker.ask(request, b"".join(payload))):
            answer = _read(reply, thumbnail, number)
            if answer is None:
                worker.kill()
                return
            answers.append(answer)

    def _start(self) -> WorkerProcess:
        worker = WorkerProcess(self._command, self._seconds)
        with self._lock:
            self._working.add(worker)
        try:
            self._check_open()
            worker.wait_until_ready()
        except BaseException:
            self._dismiss(worker)
            self._check_open()
            raise
        return worker

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise CrewClosedError

    def _dismiss(self, worker: WorkerProcess) -> str:
        with self._lock:
            self._working.discard(worker)
        return worker.close()

    def _keep_time(self) -> None:
        while not self._closed.wait(_WATCH_SECONDS):
            with self._lock:
                working = list(self._working)
            for worker in working:
                worker.kill_if_late()

    def _blame(self, end: str) -> str:
        if end == "late":
            return f"was not decoded within {self._seconds:g} seconds"
        if end == "SIGKILL":
            return "crashes the decoder (SIGKILL: the system may have run out of memory)"
        return f"crashes the decoder ({end or 'it ends without an answer'})"


def _num_together(items: Sequence[Item]) -> int:
    """How many of the first items go to a worker at once."""
    size = 0
    for number, item in enumerate(items):
        size += 0 if isinstance(item.source, str) else len(item.source)
        if number and size > MOST_TOGETHER:
            return number
    return len(items)


def _read(reply: dict[str, Any], thumbnail: bytes, number: int) -> Answer | None:
    """None for nonsense, which only a process that a file has wrecked would send."""
    try:
        if reply["item"] != number:
            return None
        used = None if reply["used"] is None else int(reply["used"])
        return Answer(from_record(reply["record"], thumbnail), bytes.fromhex(reply["key"]), used)
    except (KeyError, TypeError, ValueError):
        return None
