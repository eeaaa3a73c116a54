"""Candidates timed in turn, in one process: what every benchmark of speed here does."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from record import spread


def milliseconds(work: Callable[[], object]) -> float:
    """With one thread the processor time of this process, steady where others use the machine too; else wall time."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    work()
    return 1000 * (clock() - begin)


def interleaved(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Every candidate once a round, in turn, after one warm-up: median, least and greatest milliseconds of each."""
    for work in candidates.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, work in candidates.items():
            times[name].append(milliseconds(work))
    return {name: spread(values) for name, values in times.items()}
