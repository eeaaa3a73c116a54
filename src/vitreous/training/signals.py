"""Stopping on a signal: the step in hand is finished and saved; a second signal leaves at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C, what service managers and `kill` send, and what batch systems send before the time is up (not on Windows)."""


class Interrupted(KeyboardInterrupt):
    """Raised by the first signal where nothing has to be finished. Like a Ctrl-C, no `except Exception` keeps it."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


@dataclass
class StopFlag:
    """Set by the first signal of `STOPPING`."""

    signal_name: str = ""
    at_once: bool = False
    """Whether the first signal raises Interrupted, instead of waiting to be noticed."""

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    @contextlib.contextmanager
    def noticed(self) -> Iterator[None]:
        """Inside the block the first signal only sets the flag; one that nobody acted on raises Interrupted at its end."""
        before, self.at_once = self.at_once, False
        try:
            yield
        finally:
            self.at_once = before
        if self:
            raise Interrupted(self.signal_name)


@contextlib.contextmanager
def stop_on_signal(*, at_once: bool = False) -> Iterator[StopFlag]:
    """Inside the block the first signal sets the flag, and with `at_once` raises Interrupted; from then on, and afterwards,
    the former handlers are back, so that a second signal leaves at once.

    Off the main thread, where Python allows no handlers, the flag is simply never set.
    """
    flag = StopFlag(at_once=at_once)
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in STOPPING}

    def restore() -> None:
        for each, handler in before.items():
            # None stands for a handler that was not set from Python, and cannot be.
            signal.signal(each, signal.SIG_DFL if handler is None else handler)

    def handle(number: int, frame: object) -> None:
        flag.signal_name = signal.Signals(number).name
        restore()
        if flag.at_once:
            raise Interrupted(flag.signal_name)

    for number in before:
        signal.signal(number, handle)
    try:
        yield flag
    finally:
        restore()
