"""One writer at a time for a run folder: a lock that the system lets go of when its process ends, however it ends.

The lock is on the open file `.lock` in the folder, not in its being there: one that a killed process left behind stops
nobody, and goes with the next run that ends well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

from vitreous.errors import UsageError
from vitreous.runs.atomic import storage_error

LOCK = ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""How file systems that have no locks answer: some network and user-space ones."""
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}


class RunLock:
    """Held from construction to `release`. `note` says where the file system has no locks, so that nothing is held."""

    def __init__(self, folder: Path) -> None:
        """folder: exists. Raises UsageError when another process holds it, RunError when nothing can be written there."""
        self.path = folder / LOCK
        self.note = ""
        self._file: int | None = None
        while self._file is None and not self.note:
            self._file = self._take()

    def release(self) -> None:
        """Let go and remove the file. Doing so twice is no error."""
        file, self._file = self._file, None
        if file is None:
            return
        if os.name == "nt":  # where an open file cannot be removed
            os.close(file)
            with contextlib.suppress(OSError):
                self.path.unlink()
            return
        # Removed while it is still locked: see `_take` for who opened it before.
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(file)

    def _take(self) -> int | None:
        """The locked file; None where it has to be tried again, or cannot be (which is noted)."""
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            raise storage_error(self.path, error) from error
        try:
            _lock(file)
        except OSError as error:
            holder = _holder(file)
            os.close(file)
            if error.errno in _BUSY:
                raise UsageError(
                    f"{str(self.path.parent)!r} is being written to by another process{holder}.",
                    "Wait for it or stop it, or write elsewhere with --out.",
                ) from None
            if error.errno in _NO_LOCKS:
                self.note = (
                    f"The file system of {self.path.parent} has no locks: see that no other process writes there."
                )
                return None
            raise storage_error(self.path, error) from error
        # The holder before may have removed the file between our opening it and its letting go.
        if os.name != "nt" and not _is_at(file, self.path):
            os.close(file)
            return None
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
            os.write(file, f"{os.getpid()} {socket.gethostname()}\n".encode())
        return file


def _lock(file: int) -> None:
    if os.name == "nt":
        import msvcrt

        # Locked bytes cannot be read by others, so it is one far behind what is written.
        os.lseek(file, 1 << 30, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        os.lseek(file, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(file: int) -> str:
    try:
        os.lseek(file, 0, os.SEEK_SET)
        number, host = os.read(file, 200).decode().split()
    except (OSError, ValueError):
        return ""
    return f" ({number} on {host})"


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False
