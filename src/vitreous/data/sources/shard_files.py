"""Random access to the members of tar shards, from any number of threads, with few files open."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from vitreous.data.sources.shard_names import Shard
from vitreous.data.sources.spool import Spool
from vitreous.errors import ImageError

OPEN_FILES = 32


class OpenFile:
    """A file that several threads read from at once; closed when the last of them lets go of it."""

    def __init__(self, path: str | Path) -> None:
        self._lock = threading.Lock()
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.length = os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes, fewer at the end of the file."""
        pieces, left = [], min(size, max(self.length - offset, 0))
        while left > 0 and (piece := self._read(offset, left)):
            pieces.append(piece)
            offset, left = offset + len(piece), left - len(piece)
        return b"".join(pieces)

    def _read(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, size, offset)
        with self._lock:  # Windows
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, size)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class ShardFiles:
    """The shards of one source, by number. A shard that cannot be read where it lies comes through the spool."""

    def __init__(self, shards: Sequence[Shard], spool: Spool | None = None) -> None:
        self.shards = tuple(shards)
        self.spool = spool or Spool()
        self._open: OrderedDict[int, OpenFile] = OrderedDict()
        self._lock = threading.Lock()
        self._opening = threading.Lock()

    def file(self, number: int) -> OpenFile:
        """Raises OSError, or DataError for a web address that cannot be read."""
        found = self._known(number)
        if found is not None:
            return found
        with self._opening:
            found = self._known(number)
            if found is None:
                shard = self.shards[number]
                found = OpenFile(shard.place if shard.is_direct else self.spool.fetch(number, shard))
                with self._lock:
                    for other in [other for other in self._open if self._is_removed(other)]:
                        del self._open[other]  # or its bytes would stay on the disk
                    self._open[number] = found
                    while len(self._open) > OPEN_FILES:
                        self._open.popitem(last=False)
            return found

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Bytes of one member. Raises ImageError where its shard is gone or cannot be read."""
        try:
            return self.file(number).read_at(offset, size)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ImageError(f"lies in a shard that cannot be read ({reason})") from error

    def _is_removed(self, number: int) -> bool:
        return not self.shards[number].is_direct and not self.spool.holds(number)

    def _known(self, number: int) -> OpenFile | None:
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
            return self._open.get(number)
