"""The bytes of a file, where it is one: a pipe or a device of the same name would never end."""

from __future__ import annotations

import os
import stat

from vitreous.errors import ImageError

MAX_BYTES = 2**30
"""Largest file that is read: more than any image within the limit on pixels takes."""


def read_file(path: str, most: int = MAX_BYTES) -> bytes:
    """All bytes of a regular file of at most `most` bytes. Raises ImageError with what the path is instead."""
    try:
        _check_kind(os.stat(path))  # before opening: to open a device may already do something  # noqa: PTH116
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(number, "rb") as file:  # noqa: PTH123
            status = os.fstat(number)
            _check_kind(status)  # again: it may have been exchanged in between
            if status.st_size > most:
                raise ImageError(f"is a file of {status.st_size:,} bytes; the limit is {most:,}")
            return file.read(most)
    except IsADirectoryError as error:
        raise ImageError("is a folder, not an image") from error
    except FileNotFoundError as error:
        raise ImageError("does not exist") from error
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror or type(error).__name__})") from error
    except ValueError as error:  # a null character in the path
        raise ImageError("has a path that no file can have") from error


def _check_kind(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("is a folder, not an image")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("is not a regular file")
