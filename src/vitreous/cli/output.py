"""What a person at the terminal, or a program behind `--json`, gets to see.

Results go to stdout; progress, decisions and warnings go to stderr. With `--json` stdout holds exactly one object.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vitreous.errors import VitreousError
from vitreous.workflows.reporter import Progress

PLAIN_EVERY = 5.0
"""Seconds between lines of progress where stderr is not a terminal."""


@dataclass
class Console:
    """The two streams, and how errors leave. Also the `Reporter` of the workflows."""

    json: bool = False
    debug: bool = False
    began: float = field(default_factory=time.monotonic)
    """When the command started: a promised time counts from here, importing included."""

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> Console:
        """Read `--json` and `--debug` before anything is parsed, since parsing itself may fail."""
        return cls(json="--json" in arguments, debug="--debug" in arguments)

    def result(self, facts: dict[str, Any], text: str) -> None:
        """The answer: `facts` under --json, `text` otherwise."""
        print(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) if self.json else text, flush=True)

    def fail(self, error: VitreousError) -> int:
        """One paragraph for the person, one object for the program; returns the exit code."""
        if self.debug:
            traceback.print_exception(error, file=sys.stderr)
        if self.json:
            print(json.dumps({"error": {"code": error.code, "message": error.message, "hint": error.hint}}))
        else:
            print(f"vitreous: {error}", file=sys.stderr)
        return error.exit_code

    def crash(self, error: Exception) -> int:
        """What we did not foresee: our fault, said as such."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename.rsplit('/', 1)[-1]}:{where.lineno}"
        return self.fail(
            VitreousError(
                f"Something went wrong inside vitreous ({type(error).__name__}: {error}, at {place}).",
                "" if self.debug else "Add --debug to see where, and report it.",
            ).with_traceback(error.__traceback__)
        )

    def say(self, text: str) -> None:
        self._line("  ", text)

    def warn(self, text: str) -> None:
        self._line("! ", text)

    @contextlib.contextmanager
    def task(self, name: str, unit: str) -> Iterator[Progress]:
        """A bar on a terminal, a line every few seconds elsewhere; gone or silent for tasks that end at once."""
        display = _Bar(name, unit) if sys.stderr.isatty() else _Lines(name, unit)
        try:
            yield display
        finally:
            display.close()

    def _line(self, mark: str, text: str) -> None:
        print(f"{mark}{text}", file=sys.stderr, flush=True)


class _Lines:
    """Plain lines, for files and pipes."""

    def __init__(self, name: str, unit: str) -> None:
        self.name, self.unit = name, unit
        self.started = self.shown = time.monotonic()
        self.pending, self.kept = "", {}
        self.printed = False

    def update(self, done: int, total: int, **fields: float) -> None:
        self.kept |= fields
        left = time_left(self.started, done, total)
        self.pending = f"  {self.name}: {done:,}/{total:,} {self.unit}{describe(self.kept)}{left}"
        now = time.monotonic()
        if now - self.shown >= PLAIN_EVERY:
            self.flush()
            self.shown = now

    def flush(self) -> None:
        if self.pending:
            print(self.pending, file=sys.stderr, flush=True)
            self.pending, self.printed = "", True

    def close(self) -> None:
        if self.printed or time.monotonic() - self.started >= PLAIN_EVERY / 2:
            self.flush()


class _Bar:
    """A live line at the bottom of a terminal."""

    def __init__(self, name: str, unit: str) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self.name, self.unit = name, unit
        self.started = time.monotonic()
        self.kept: dict[str, float] = {}
        columns = (TextColumn("  {task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
        self.progress = RichProgress(*columns, console=RichConsole(stderr=True), transient=True)
        self.bar = self.progress.add_task(name, total=None, text="")
        self.progress.start()

    def update(self, done: int, total: int, **fields: float) -> None:
        self.kept |= fields
        text = f"{done:,}/{total:,} {self.unit}{describe(self.kept)}{time_left(self.started, done, total)}"
        self.progress.update(self.bar, completed=done, total=total, text=text)

    def close(self) -> None:
        self.progress.stop()
        if self.kept:
            print(
                f"  {self.name}: done in {time.monotonic() - self.started:.0f} s{describe(self.kept)}", file=sys.stderr
            )


def describe(fields: dict[str, float]) -> str:
    """Numbers in the style of a progress line: ", loss 0.213, val accuracy 98.1 %, 1,204 images/s"."""
    text = ""
    for name, value in fields.items():
        if name == "images_per_s":
            text += f", {value:,.0f} images/s"
        elif name == "memory_bytes":
            text += f", {value / 1e9:.1f} GB"
        elif name == "gpu_utilisation":
            text += f", GPU {100 * value:.0f} %"
        elif name.endswith("accuracy"):
            text += f", {name.replace('_', ' ')} {100 * value:.1f} %"
        else:
            text += f", {name.replace('_', ' ')} {value:.3f}"
    return text


def time_left(started: float, done: int, total: int) -> str:
    """ ", 12 s left", from the pace so far; nothing at the very beginning and at the end."""
    spent = time.monotonic() - started
    if not 0 < done < total or spent < 1:
        return ""
    seconds = spent * (total - done) / done
    return f", {seconds:.0f} s left" if seconds < 100 else f", {seconds / 60:.0f} min left"
