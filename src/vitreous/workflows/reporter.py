"""How a workflow tells what it does. The command line draws it; in Python it is silent unless one is passed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """One task under way."""

    def update(self, done: int, total: int, **fields: float) -> None:
        """done of total units; fields are numbers worth showing, such as loss or images_per_s."""
        ...


class Reporter(Protocol):
    """Receives what a person would want to read, as it happens."""

    def say(self, text: str) -> None:
        """A fact or a decision."""
        ...

    def warn(self, text: str) -> None:
        """Something the person should act on or know of when reading the numbers."""
        ...

    def task(self, name: str, unit: str) -> AbstractContextManager[Progress]:
        """A task with progress, shown until the block ends."""
        ...


class _NoProgress:
    def update(self, done: int, total: int, **fields: float) -> None:
        return


class Silent:
    """Says nothing."""

    def say(self, text: str) -> None:
        return

    def warn(self, text: str) -> None:
        return

    def task(self, name: str, unit: str) -> AbstractContextManager[Progress]:
        return nullcontext(_NoProgress())


class Once:
    """Passes on each sentence the first time only, for several runs that say the same of their data."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self._told: set[str] = set()

    def say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.reporter.say(text)

    def warn(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.reporter.warn(text)

    def task(self, name: str, unit: str) -> AbstractContextManager[Progress]:
        return self.reporter.task(name, unit)
