"""A source whose test part cannot be opened by code that trains or chooses."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from vitreous.data.sources.source import BadFile, Listing, Sample, Source, Task
from vitreous.errors import VitreousError
from vitreous.inputs import ImageSource


class LockedPartError(VitreousError):
    """The test part was opened where it must not be: our fault, never the caller's."""

    code = "locked_part"


class _Lock:
    """Whether the locked images may be opened now: one for a source and everything selected from it."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.depth = 0
        self.reasons: list[str] = []


class LockedSource:
    """A `Source` that refuses to open the images at `locked`, except inside `unlocked`. The samples can be read."""

    def __init__(self, source: Source, locked: Iterable[int]) -> None:
        """locked: positions in `source.samples`."""
        self._source = source
        self._locked = frozenset(int(index) for index in locked)
        self._lock = _Lock()
        count = len(source.samples)
        assert all(0 <= index < count for index in self._locked), f"a locked position is not below {count}"

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def kind(self) -> str:
        return self._source.kind

    @property
    def root(self) -> str:
        return self._source.root

    @property
    def samples(self) -> list[Sample]:
        return self._source.samples

    @property
    def classes(self) -> list[str]:
        return self._source.classes

    @property
    def task(self) -> Task:
        return self._source.task

    @property
    def notes(self) -> list[str]:
        return self._source.notes

    @property
    def unusable(self) -> list[BadFile]:
        return self._source.unusable

    @property
    def shards(self) -> tuple[int, ...]:
        """Samples in each shard, as `Listing.shards`."""
        return self._source.shards if isinstance(self._source, Listing) else ()

    @property
    def openings(self) -> tuple[str, ...]:
        """The reason of each `unlocked` so far, in order; so its length says how often the part was opened."""
        return tuple(self._lock.reasons)

    def open(self, index: int) -> ImageSource:
        """Raises LockedPartError for a locked image outside `unlocked`."""
        position = int(index) % len(self.samples) if index < 0 else int(index)
        if position in self._locked and not self._lock.depth:
            raise LockedPartError(
                f"The test part was opened while training or choosing: {self.samples[position].path!r}.",
                "This is a defect of vitreous; please report it.",
            )
        return self._source.open(position)

    def select(self, indices: Sequence[int]) -> LockedSource:
        """The same data with only these samples; what was locked stays so, and `unlocked` of either opens both."""
        chosen = [int(index) for index in indices]
        count = len(self.samples)
        positions = (position for position, index in enumerate(chosen) if index % count in self._locked)
        selected = LockedSource(self._source.select(chosen), positions)
        selected._lock = self._lock
        return selected

    @contextmanager
    def unlocked(self, reason: str) -> Iterator[None]:
        """Inside, the locked images can be opened, by any thread. The reason is added to `openings`."""
        with self._lock.guard:
            self._lock.depth += 1
            self._lock.reasons.append(reason)
        try:
            yield
        finally:
            with self._lock.guard:
                self._lock.depth -= 1
