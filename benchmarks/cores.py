"""Programs side by side, each on a core of its own."""

from __future__ import annotations

import os
import subprocess
import threading


class Cores:
    """One core for each job that runs."""

    def __init__(self) -> None:
        self.free = sorted(os.sched_getaffinity(0))[:2]
        self.lock = threading.Lock()

    def run(self, command: list[str], **environment: str) -> str:
        with self.lock:
            core = self.free.pop()
        try:
            return subprocess.run(
                ["taskset", "-c", str(core), *command],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            ).stdout
        finally:
            with self.lock:
                self.free.append(core)
