"""Shards that cannot be read where they lie, unpacked one at a time into a temporary folder of bounded size.

What is written is the plain tar file under a number of our own, never a member under its own name, so no name in a
shard can reach another place.
"""

from __future__ import annotations

import bz2
import gzip
import http.client
import lzma
import shutil
import tempfile
import urllib.error
import urllib.request
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from vitreous.data.sources.shard_names import Shard
from vitreous.errors import DataError

SPOOL_BYTES = 16 * 1024**3
"""How large the temporary folder may get."""
CHUNK = 1 << 20
ATTEMPTS = 3
TIMEOUT_SECONDS = 60

_OPENERS = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
_NETWORK = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


class Spool:
    """Unpacked shards, the oldest removed where a new one needs the room. Not for several threads at once."""

    def __init__(self, max_bytes: int | None = None) -> None:
        """max_bytes: how large the folder may get; SPOOL_BYTES, but half of what is free on the disk, when None.
        It is removed with the object, or at exit.
        """
        free = shutil.disk_usage(tempfile.gettempdir()).free
        self.max_bytes = min(SPOOL_BYTES, free // 2) if max_bytes is None else max_bytes
        self.damage: dict[int, str] = {}
        """Shards that could not be unpacked to their end, and why; what came before is kept."""
        self._folder: Path | None = None
        self._sizes: OrderedDict[int, int] = OrderedDict()

    def fetch(self, number: int, shard: Shard) -> Path:
        """The unpacked shard, read anew where it was never here or had to make room.

        Raises DataError where a web address cannot be read, OSError where a file cannot.
        """
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="vitreous-shards-"))
            weakref.finalize(self, shutil.rmtree, str(self._folder), ignore_errors=True)
        path = self._folder / f"{number}.tar"
        if number in self._sizes:
            return path
        for attempt in range(ATTEMPTS):
            try:
                self._unpack(number, shard, path)
                return path
            except _NETWORK as error:
                path.unlink(missing_ok=True)
                final = isinstance(error, urllib.error.HTTPError) and error.code < 500
                if final or attempt == ATTEMPTS - 1:
                    raise _unreachable(shard, error) from error
        raise AssertionError

    def holds(self, number: int) -> bool:
        return number in self._sizes

    def _unpack(self, number: int, shard: Shard, path: Path) -> None:
        written = 0
        self.damage.pop(number, None)
        with path.open("wb") as target, _opened(shard) as source:
            chunks = _chunks(source)
            while True:
                try:
                    chunk = next(chunks, b"")
                except _NETWORK:
                    raise
                except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
                    if isinstance(error, OSError) and error.errno is not None:
                        raise  # of the file system; the decompressors' own have no number
                    self.damage[number] = f"is damaged or cut off ({error})"
                    break
                if not chunk:
                    break
                if not self._make_room(written + len(chunk)):
                    self.damage[number] = f"unpacks to more than {self.max_bytes:,} bytes; what follows was not read"
                    break
                target.write(chunk)
                written += len(chunk)
        self._sizes[number] = written

    def _make_room(self, needed: int) -> bool:
        """Remove the oldest shards until `needed` bytes fit; whether they do."""
        while self._sizes and sum(self._sizes.values()) + needed > self.max_bytes:
            number, _ = self._sizes.popitem(last=False)
            assert self._folder is not None
            with suppress(OSError):  # on Windows a file that is being read stays until the end
                (self._folder / f"{number}.tar").unlink()
        return needed <= self.max_bytes


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(CHUNK):
        yield chunk


@contextmanager
def _opened(shard: Shard) -> Iterator[IO[bytes]]:
    with _raw(shard) as raw:
        if shard.compression is None:
            yield raw
        else:
            with _OPENERS[shard.compression](raw) as unpacked:
                yield unpacked


@contextmanager
def _raw(shard: Shard) -> Iterator[Any]:
    if not shard.is_web:
        with Path(shard.place).open("rb") as file:
            yield file
        return
    request = urllib.request.Request(shard.place, headers={"User-Agent": "vitreous", "Accept-Encoding": "identity"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        yield _Whole(response)


class _Whole:
    """A reply that ends early is an error, which the standard library leaves to the caller to notice."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        length = response.headers.get("Content-Length")
        self._left = int(length) if length and length.isdigit() else None

    def read(self, size: int = -1) -> bytes:
        data = self._response.read(None if size < 0 else size)
        if self._left is not None:
            self._left -= len(data)
            if not data and size and self._left > 0:
                raise http.client.IncompleteRead(b"", self._left)
        return data


def _unreachable(shard: Shard, error: Exception) -> DataError:
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    if isinstance(error, urllib.error.HTTPError):
        reason = f"the server answers {error.code} {error.reason}"
        error.close()
    return DataError(
        f"The shard {shard.place!r} cannot be read: {reason}.",
        "Check the address and the connection, or download the shards and pass their folder.",
    )
