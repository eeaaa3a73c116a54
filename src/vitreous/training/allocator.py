"""Memory that the C library keeps between training steps, instead of returning it and fetching it again.

Activations come and go with every step. glibc hands large ones back to the operating system at once, and each that is fetched
again costs a page fault for every 4 kB: 5 to 7 % of a step of ViT-Ti/16 on a CPU (benchmarks/TRAINING_SPEED_LOG.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator
from typing import Any

# Numbers of malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 << 20
NEVER = 2**31 - 1


@contextlib.contextmanager
def keep_memory(enabled: bool = True) -> Iterator[bool]:
    """Inside the block memory that is freed stays with this process; what is free is returned when the block is left.

    Yields whether that could be had: with glibc alone. Allocations of more than 32 MB come and go as before.
    """
    library = _glibc() if enabled else None
    if library is None:
        yield False
        return
    library.mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    library.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield True
    finally:
        # Where glibc's own adjustment ends up after large allocations; once set by hand, it adjusts no more.
        library.mallopt(TRIM_THRESHOLD, 2 * LARGEST_MMAP_THRESHOLD)
        library.malloc_trim(0)


def _glibc() -> Any:
    if platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
