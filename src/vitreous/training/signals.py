"""Stopping on a signal: the step in hand is finished and saved; a second signal leaves at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class StopFlag:
    """Set by the first SIGINT or SIGTERM."""

    signal_name: str = ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """Inside the block SIGINT and SIGTERM set the flag; afterwards the former handlers are back.

    Off the main thread, where Python allows no handlers, the flag is simply never set.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: object) -> None:
        flag.signal_name = signal.Signals(number).name
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, handle)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
