"""What was found in an image, by its content: a file looked at once is not decoded again, whatever it is called.

One SQLite file in the user's cache folder, shared by all data sets and processes. It holds what `Finding` holds: sizes,
statistics, a thumbnail of 32 x 32 pixels, camera names, pseudonyms of patients; no path and no name. Losing it costs time only,
so whatever goes wrong with it is said once and never stops a scan.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL

from vitreous import __version__
from vitreous.config.decode import DecodeConfig
from vitreous.data.examination.finding import VERSION, Bad, Finding, from_record, to_record

FILE = "examination.sqlite"
MOST_BYTES = 2 * 10**9
MOST_ROWS = 2_000_000
COMMIT_SECONDS = 2.0
_COMMIT_ROWS = 4000
_DAY = 24 * 3600
_OPTIONAL = ("pydicom", "tifffile", "imagecodecs", "rasterio")
"""Packages that decide which files can be read."""
_TABLE = """
CREATE TABLE IF NOT EXISTS findings (key BLOB PRIMARY KEY, record TEXT NOT NULL, thumbnail BLOB NOT NULL, used INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS findings_used ON findings (used);
"""


def cache_folder() -> Path:
    """Where vitreous keeps what can be made again: VITREOUS_CACHE, else the system's place for caches.

    Raises RuntimeError where the user has no home folder and no variable names another.
    """
    own = os.environ.get("VITREOUS_CACHE")
    if own:
        return Path(own)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "vitreous" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vitreous"
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path is invalid by the XDG Base Directory Specification and to be ignored.
    return (Path(shared) if Path(shared).is_absolute() else Path.home() / ".cache") / "vitreous"


def settings_digest(decode: DecodeConfig, max_pixels: int) -> bytes:
    """Of everything but the file that a finding depends on: settings, versions of the decoders, optional packages."""
    facts = {
        "finding": VERSION,
        "vitreous": __version__,
        "decode": asdict(decode),
        "max_pixels": max_pixels,
        "pillow": PIL.__version__,
        "numpy": np.__version__,
        "packages": [name for name in _OPTIONAL if find_spec(name) is not None],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()


def key_of(data: bytes, settings: bytes) -> bytes:
    """sha256 (32 bytes) of a file's bytes and of the settings' digest."""
    return hashlib.sha256(settings + hashlib.sha256(data).digest()).digest()


def today() -> int:
    """Days since 1970, UTC: all that is kept of when a finding was last used."""
    return int(time.time() // _DAY)


class CacheReader:
    """Look-ups alone, for a worker. A cache that cannot be read is an empty one; the writer says so."""

    def __init__(self, file: Path | None) -> None:
        self._connection: sqlite3.Connection | None = None
        if file is not None:
            with contextlib.suppress(sqlite3.Error, OSError, ValueError):
                self._connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)

    def find(self, key: bytes) -> tuple[Finding | Bad, int] | None:
        """What is known, and the day it was last used."""
        if self._connection is None:
            return None
        try:
            row = self._connection.execute(
                "SELECT record, thumbnail, used FROM findings WHERE key = ?", (key,)
            ).fetchone()
            return None if row is None else (from_record(json.loads(row[0]), row[1]), int(row[2]))
        except (sqlite3.Error, ValueError, KeyError, TypeError):
            return None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class Cache:
    """The writing side: one in a process, used by one thread. Rows are collected and written in short transactions, so
    that other processes need not wait, and an interrupted scan loses no more than the last two seconds.
    """

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES, most_rows: int = MOST_ROWS) -> None:
        self.file = folder / FILE
        self.notes: list[str] = []
        """What went wrong, at most one sentence."""
        self._most_bytes, self._most_rows = most_bytes, most_rows
        self._new: dict[bytes, tuple[str, bytes]] = {}
        self._used: list[bytes] = []
        self._written = time.monotonic()
        self._connection: sqlite3.Connection | None = None
        with self._guarded():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            connection = sqlite3.connect(self.file, timeout=20.0)
            self._connection = connection
            with contextlib.suppress(sqlite3.OperationalError):  # another process is setting it at this moment
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 10000")  # pages; each checkpoint waits for the disk
            connection.executescript(_TABLE)
            connection.execute("SELECT key, record, thumbnail, used FROM findings LIMIT 1").fetchone()

    @property
    def usable(self) -> bool:
        return self._connection is not None

    def put(self, key: bytes, entry: Finding | Bad) -> None:
        """Keep what was found; a `Bad` only if its bytes decide it."""
        if self._connection is None or (isinstance(entry, Bad) and not entry.lasting):
            return
        record, thumbnail = to_record(entry)
        self._new[key] = (json.dumps(record), thumbnail)
        self._write_in_time()

    def touch(self, key: bytes, used: int) -> None:
        """Note that a finding last used on the day `used` was used again."""
        if self._connection is not None and used != today():
            self._used.append(key)
            self._write_in_time()

    def close(self) -> None:
        """Write what is left."""
        self._write()
        if self._connection is not None:
            with self._guarded():
                self._connection.close()
        self._connection = None

    def _write_in_time(self) -> None:
        full = len(self._new) + len(self._used) >= _COMMIT_ROWS
        if full or time.monotonic() - self._written >= COMMIT_SECONDS:
            self._write()

    def _write(self) -> None:
        connection, day = self._connection, today()
        if connection is None:
            return
        with self._guarded(), connection:
            connection.executemany(
                "INSERT OR REPLACE INTO findings (key, record, thumbnail, used) VALUES (?, ?, ?, ?)",
                [(key, record, thumbnail, day) for key, (record, thumbnail) in self._new.items()],
            )
            connection.executemany("UPDATE findings SET used = ? WHERE key = ?", [(day, key) for key in self._used])
            self._trim(connection)
        self._new, self._used, self._written = {}, [], time.monotonic()

    def _trim(self, connection: sqlite3.Connection) -> None:
        """Drop the least recently used tenth and more where the cache has outgrown its limits."""
        pages, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        taken = (pages - free) * size
        rows = int(connection.execute("SELECT COUNT(*) FROM findings").fetchone()[0])
        keep = 1.0 if rows == 0 else min(self._most_bytes / max(1, taken), self._most_rows / rows)
        if keep < 1.0:
            connection.execute(
                "DELETE FROM findings WHERE rowid IN (SELECT rowid FROM findings ORDER BY used, rowid LIMIT ?)",
                (rows - int(rows * keep * 0.9),),
            )

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever fails ends the use of the cache, with one sentence."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            self.notes.append(
                f"The cache of examined images, {str(self.file)!r}, cannot be used ({reason}), so every image is decoded anew; "
                "delete the file if it is damaged, or name another folder in VITREOUS_CACHE."
            )
            with contextlib.suppress(sqlite3.Error):
                if self._connection is not None:
                    self._connection.close()
            self._connection = None
