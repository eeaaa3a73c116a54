"""Programs side by side, each on a core of its own."""

from __future__ import annotations

import os
import queue
import subprocess


class Cores:
    """One core for each job that runs."""

    def __init__(self) -> None:
        self.free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for core in sorted(os.sched_getaffinity(0))[:2]:
            self.free.put(core)

    def run(self, command: list[str], **environment: str) -> str:
        """What the command prints; it waits until a core is free."""
        core = self.free.get()
        try:
            return subprocess.run(
                ["taskset", "-c", str(core), *command],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            ).stdout
        finally:
            self.free.put(core)
