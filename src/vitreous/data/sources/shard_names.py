"""Which tar shards are meant: a folder of them, one file, a pattern such as x-{000..009}.tar, or web addresses."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from vitreous.data.sources.folder import IMAGE_SUFFIXES
from vitreous.data.sources.source import PART_NAMES
from vitreous.errors import DataError, UsageError, nearest

COMPRESSED = {
    **dict.fromkeys((".tar.gz", ".tgz"), "gzip"),
    **dict.fromkeys((".tar.bz2", ".tbz2"), "bzip2"),
    **dict.fromkeys((".tar.xz", ".txz"), "xz"),
}
SHARD_SUFFIXES = (".tar", *COMPRESSED)
MAX_SHARDS = 100_000

_BRACES = re.compile(r"\{([^{}]*)\}")
_WEB = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    """Relative to the root of the data."""
    place: str
    """Path or web address."""
    part: str | None

    @property
    def compression(self) -> str | None:
        """gzip, bzip2, xz, or None."""
        return next((kind for suffix, kind in COMPRESSED.items() if _bare(self.place).endswith(suffix)), None)

    @property
    def is_web(self) -> bool:
        return is_web(self.place)

    @property
    def is_direct(self) -> bool:
        """Whether its members can be read where they lie."""
        return not self.is_web and self.compression is None


def is_web(data: str) -> bool:
    return _WEB.match(data) is not None


def is_shard_name(name: str) -> bool:
    """Whether a file of this name, or a pattern of names, is a tar file that can be read."""
    return _bare(name).endswith(SHARD_SUFFIXES)


def expand_braces(pattern: str) -> list[str]:
    """ "x-{08..10}.tar" -> x-08.tar, x-09.tar, x-10.tar; "{a,b}.tar" -> a.tar, b.tar; several braces multiply.

    Raises UsageError for braces without a range or a list in them, and for more than 100,000 names.
    """
    pieces = _BRACES.split(pattern)
    choices = [_choices(piece, pattern) if index % 2 else [piece] for index, piece in enumerate(pieces)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MAX_SHARDS:
        raise UsageError(f"{pattern!r} stands for {count:,} shards, more than {MAX_SHARDS:,}.", "Correct the range.")
    return ["".join(choice) for choice in itertools.product(*choices)]


def named_shards(pattern: str) -> list[Shard]:
    """The shards a path, an address or a pattern stands for. Raises DataError where some of the files are absent."""
    places = expand_braces(pattern)
    if is_web(pattern):
        start = len(shards_root(pattern)) + 1
        return [Shard(_unasked(place)[start:], place, _part(_unasked(place).rsplit("/", 1)[-1])) for place in places]
    paths = [Path(place).expanduser() for place in places]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise _absent(pattern, absent, len(paths))
    root = shards_root(pattern)
    return [Shard(Path(os.path.relpath(path, root)).as_posix(), str(path), _part(path.name)) for path in paths]


def shards_root(pattern: str) -> str:
    """The folder, or the start of the address, that all shards of a pattern lie in."""
    start = _unasked(pattern).split("{", 1)[0]
    if is_web(pattern):
        return start.rsplit("/", 1)[0]
    return str((Path(start + "x") if start != pattern else Path(start)).expanduser().parent)


def shards_in(folder: Path) -> list[Shard]:
    """The shards directly in a folder, or in its subfolders named after parts; none where the folder holds images."""
    found = [Shard(name, str(folder / name), _part(name)) for name in _tars(folder)]
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        part = PART_NAMES.get(entry.name.lower()) if entry.is_dir() else None
        if part is not None:
            inner = Path(entry.path)
            found += [Shard(f"{entry.name}/{name}", str(inner / name), part) for name in _tars(inner)]
    return found if found and not _holds_image(folder) else []


def _tars(folder: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if is_shard_name(entry.name) and not entry.name.startswith(".") and entry.is_file()
    )


def _holds_image(folder: Path) -> bool:
    """Whether a subfolder holds an image, at any depth: then a tar file beside is only the archive it came in."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if Path(place) != folder and any(name.lower().endswith(IMAGE_SUFFIXES) for name in files):
            return True
    return False


def _part(name: str) -> str | None:
    """The part a shard's name speaks of: train-000.tar, imagenet-val-07.tar. "dev" counts only as the first word."""
    words = re.findall(r"[a-z]+", _bare(name))
    named = [word for place, word in enumerate(words) if word in PART_NAMES and (place == 0 or word != "dev")]
    parts = {PART_NAMES[word] for word in named}
    return parts.pop() if len(parts) == 1 else None


def _unasked(place: str) -> str:
    """Without an address's query."""
    return re.split(r"[?#]", place, maxsplit=1)[0] if is_web(place) else place


def _bare(place: str) -> str:
    return _unasked(place).lower()


def _choices(piece: str, pattern: str) -> list[str]:
    match = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", piece)
    if match:
        first, last = int(match[1]), int(match[2])
        width = len(match[1]) if match[1].startswith("0") or match[2].startswith("0") else 0
        if abs(last - first) >= MAX_SHARDS:
            raise UsageError(
                f"{{{piece}}} in {pattern!r} stands for more than {MAX_SHARDS:,} shards.", "Correct the range."
            )
        return [f"{number:0{width}d}" for number in range(first, last + 1)] or [
            f"{number:0{width}d}" for number in range(first, last - 1, -1)
        ]
    if "," in piece:
        return piece.split(",")
    raise UsageError(
        f"{{{piece}}} in {pattern!r} is neither a range nor a list.",
        "Write {000..009} for ten shards, or {a,b} for two.",
    )


def _absent(pattern: str, absent: list[Path], count: int) -> DataError:
    parent = absent[0].parent
    siblings = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    close = nearest(absent[0].name, siblings)
    if count == 1:
        message = f"There is no {pattern!r}."
    else:
        message = f"{len(absent):,} of the {count:,} shards of {pattern!r} do not exist; the first: {str(absent[0])!r}."
    return DataError(
        message, f"Did you mean {str(parent / close[0])!r}?" if close else "Correct the range or the folder."
    )
