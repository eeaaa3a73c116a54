"""Which images of a set resemble each other, kept between runs: the search is the dearest part of looking at small images.

One small file for each set, named by the content of all its images, in the user's cache folder. A file that cannot be read
or written is as good as none: the search is simply made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from vitreous import __version__
from vitreous.data.examination.cache import cache_folder
from vitreous.data.examination.similar import Pair, Similar
from vitreous.errors import RunError
from vitreous.runs.atomic import write_text

KEPT = 90 * 24 * 3600
"""Seconds after which a file that was not used is removed."""
_VERSION = 2
"""To be raised with any change of what `find_similar` answers."""


def similar_or_remembered(
    digests: Sequence[str], search: Callable[[], Similar], cache: bool | Path | None, *, quick: bool = False
) -> Similar:
    """What `search` finds, or found for images with these pixels before.

    digests: sha256 of the pixels of each image, in order. cache: True for the user's cache folder, or a folder; None or
    False to search. quick: that the search is a quick one, which what a full one found answers too, never the other way.
    """
    file = _file(digests, cache, quick)
    if file is None:
        return search()
    full = _file(digests, cache, False)
    for known_file in dict.fromkeys((full, file)):
        known = _read(known_file, len(digests)) if known_file is not None else None
        if known_file is not None and known is not None:
            with contextlib.suppress(OSError):
                known_file.touch()
            return known
    found = search()
    with contextlib.suppress(RunError, OSError):
        write_text(file, json.dumps(asdict(found), separators=(",", ":")))
        _remove_old(file.parent)
    return found


def _file(digests: Sequence[str], cache: bool | Path | None, quick: bool) -> Path | None:
    if cache is None or cache is False:
        return None
    try:
        folder = cache if isinstance(cache, Path) else cache_folder()
    except (OSError, RuntimeError):
        return None
    key = hashlib.sha256(f"{_VERSION} {__version__}\n".encode())
    for digest in digests:
        key.update(digest.encode())
    return folder / "similar" / f"{key.hexdigest()[:32]}{'-quick' if quick else ''}.json"


def _read(file: Path, count: int) -> Similar | None:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        found = Similar(
            pairs=[Pair(**pair) for pair in stored["pairs"]],
            clusters=[int(number) for number in stored["clusters"]],
            representatives=[int(index) for index in stored["representatives"]],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if len(found.clusters) == len(found.representatives) == count else None


def _remove_old(folder: Path) -> None:
    oldest = time.time() - KEPT
    for file in folder.glob("*.json"):
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < oldest:
                file.unlink()
