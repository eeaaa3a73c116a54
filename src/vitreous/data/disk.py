"""Decoded images in files of the user's cache folder, one file a set, read through a memory map.

A file is named after what is in it: the digests of the images, in order, and all that decides how they are decoded. So it
never goes stale; another set or size is another file. It is written under a temporary name and renamed when complete.
Losing a file costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL

from vitreous.config.input import InputSpec
from vitreous.inputs.reduced import LEAST

MOST_BYTES = 50 * 10**9
"""What all files together may take; the least recently used ones make room."""
FOLDER = "pixels"
"""Where the files lie, inside the cache folder."""
VERSION = 1
"""Raised when the same image and `InputSpec` give other pixels."""
_ABANDONED_SECONDS = 3600
"""A file under its temporary name that has not grown for so long belongs to a process that has gone."""
_SUFFIX, _PART = ".npy", ".part"


class NoRoomError(Exception):
    """A set cannot be kept on disk; the text says why, as the end of a sentence."""


def key_of(spec: InputSpec, digests: Sequence[str]) -> str:
    """sha256 of the images, in order, and of what decides how they are decoded: mean, std and class names do not."""
    plain = replace(spec, mean=(0.0,) * spec.channels, std=(1.0,) * spec.channels, classes=())
    digest = hashlib.sha256(f"{VERSION} {LEAST} {PIL.__version__} {plain.digest()}".encode())
    for each in digests:
        digest.update(b"\n" + each.encode())
    return digest.hexdigest()


def find(folder: Path, key: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
    """The array (n, height, width, channels) of an earlier fill, read-only; None where there is none or it is damaged."""
    path = folder / f"{key}{_SUFFIX}"
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        if pixels.shape != shape or pixels.dtype != dtype:
            raise ValueError("another array")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError):
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the time of last use; that of reading is often not kept
    return np.asarray(pixels)


def fill(
    folder: Path, key: str, shape: tuple[int, ...], dtype: np.dtype, images: Iterable[np.ndarray], most_bytes: int
) -> np.ndarray:
    """Write the images, in order, and map them. Two processes that fill the same set write the same file, each its own.

    Raises NoRoomError, before the first image is decoded where it can be known then, and whatever `images` raises.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    part = folder / f"{key}.{secrets.token_hex(4)}{_PART}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(folder, size, most_bytes)
        with _removed_on_failure(part):
            _write(part, shape, dtype, images)
            _rename(part, folder / f"{key}{_SUFFIX}")
    except OSError as error:
        raise NoRoomError(f"the cache folder cannot be written ({error.strerror or type(error).__name__})") from error
    pixels = find(folder, key, shape, dtype)
    if pixels is None:
        raise NoRoomError("the cache file was removed while it was written")
    return pixels


def _write(part: Path, shape: tuple[int, ...], dtype: np.dtype, images: Iterable[np.ndarray]) -> None:
    """By writing, not through a map: a disk that fills up meanwhile is an error then, and not the end of the process."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    count = 0
    with part.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for image in images:
            assert (image.shape, image.dtype) == (shape[1:], dtype)
            file.write(np.ascontiguousarray(image).data)
            count += 1
        file.flush()
        os.fsync(file.fileno())
    assert count == shape[0]


def _rename(part: Path, path: Path) -> None:
    try:
        part.replace(path)
    except PermissionError:  # on Windows, where another process made the same file meanwhile and has it open
        if not path.exists():
            raise
        part.unlink()


@contextlib.contextmanager
def _removed_on_failure(part: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def _make_room(folder: Path, size: int, most_bytes: int) -> None:
    """Delete files abandoned half-way, and as many of the least recently used ones as must go. Raises NoRoomError."""
    for part in folder.glob(f"*{_PART}"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                part.unlink()
    held: list[tuple[float, int, Path]] = []
    for path in folder.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            facts = path.stat()
            held.append((facts.st_mtime, facts.st_size, path))
    taken, free = sum(entry[1] for entry in held), shutil.disk_usage(folder).free
    if size > most_bytes:
        raise NoRoomError(f"the cache may hold {in_words(most_bytes)}")
    if free + max(0, taken + size - most_bytes) < 2 * size:
        raise NoRoomError(f"the disk of the cache folder has {in_words(free)} free, and twice the size is needed")
    for _, bytes_, path in sorted(held):
        if taken + size <= most_bytes:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            taken -= bytes_


def in_words(count: float) -> str:
    """ "1.5 GB", or megabytes where it is less than a tenth of one."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
