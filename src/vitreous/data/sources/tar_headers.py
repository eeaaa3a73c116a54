"""The headers of a tar file, read for their offsets only.

The standard library's `tarfile` keeps every member in memory and trusts what headers say of their own length. Here a
header costs a few microseconds, nothing is kept, nothing is written, and a hostile one ends the reading with a reason.

Formats: POSIX ustar and pax (IEEE Std 1003.1, "pax"), and GNU's long names, large numbers and sparse files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

BLOCK = 512
MAX_EXTENSION = 1 << 20
"""Bytes of a pax header or a long name; larger ones are taken for damage."""
WINDOW = 4096
"""Bytes read at once: a small member, and the header that follows it, come along with its own header."""

ReadAt: TypeAlias = Callable[[int, int], bytes]
"""(offset, bytes wanted) -> bytes, fewer at the end of the file."""
Kind: TypeAlias = Literal["file", "folder", "link", "device", "sparse", "unknown", "cut"]

_KINDS: dict[bytes, Kind] = {
    **dict.fromkeys((b"0", b"\0", b"7"), "file"),
    **dict.fromkeys((b"1", b"2"), "link"),
    **dict.fromkeys((b"3", b"4", b"6"), "device"),
    b"5": "folder",
    b"S": "sparse",
}
_EXTENSIONS = (b"L", b"K", b"x", b"X", b"g")


class DamagedTarError(Exception):
    """What follows cannot be read; the message completes a sentence that begins with the file's name."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a tar file."""

    name: str
    """As stored; bytes that are no UTF-8 as surrogates."""
    kind: Kind
    """A file is "cut" that is longer than what is left of the tar file."""
    offset: int
    """Of its first byte in the tar file."""
    size: int


class Window:
    """Small reads at rising offsets, served from few large ones."""

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._start = 0
        self._held = b""

    def read(self, offset: int, size: int) -> bytes:
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._held):
            self._held = self._read_at(offset, max(size, WINDOW))
            self._start, begin = offset, 0
        return self._held[begin : begin + size]


def read_members(window: Window, length: int) -> Iterator[Member]:
    """The members of a tar file of `length` bytes, in order; their contents are skipped.

    Raises DamagedTarError, after the members before it, where a header is cut off, damaged or larger than allowed.
    """
    offset = 0
    extended: dict[str, str] = {}
    for_all: dict[str, str] = {}
    while offset < length:
        header = window.read(offset, BLOCK)
        if len(header) < BLOCK:
            raise DamagedTarError(f"is truncated: it ends within the header at byte {offset:,}")
        if not header.strip(b"\0"):
            return
        _check(header, offset)
        flag, size = header[156:157], _number(header[124:136], offset)
        begin = offset + BLOCK
        if flag in _EXTENSIONS:
            found = _extension(window, flag, begin, size, length)
            if flag == b"g":
                for_all.update(found)
            else:
                extended.update(found)
            offset = begin + _padded(size)
            continue
        told = {**for_all, **extended}
        extended = {}
        kind = _kind(flag, told)
        if kind == "sparse" and flag == b"S":
            begin = _after_sparse_map(window, header, begin)
        size = _told_size(told.get("size"), size, offset) if kind not in ("link", "device", "folder") else 0
        name = told.get("path") or _name(header)
        if kind == "file" and name.endswith("/"):
            kind = "folder"
        end = begin + size
        yield Member(name, "cut" if kind == "file" and end > length else kind, begin, size)
        offset = begin + _padded(size)


def _check(header: bytes, offset: int) -> None:
    """The checksum is the sum of the header's bytes, its own eight taken as spaces; some writers sum signed bytes."""
    try:
        stated = _number(header[148:156], offset)
    except DamagedTarError:
        stated = -1
    counted = sum(header) - sum(header[148:156]) + 8 * 32
    if stated != counted and stated != counted - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
        raise DamagedTarError(
            f"is damaged at byte {offset:,}; what follows was not read" if offset else "is no tar file"
        )


def _number(field: bytes, offset: int) -> int:
    """Octal digits, or GNU's binary form where the first byte is 128 or more."""
    try:
        value = int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        value = -1
    if value < 0 or field[0] == 0xFF:
        raise DamagedTarError(f"has a header without a valid size at byte {offset:,}; what follows was not read")
    return value


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _kind(flag: bytes, told: dict[str, str]) -> Kind:
    kind = _KINDS.get(flag, "unknown")
    return "sparse" if kind == "file" and any(key.startswith("GNU.sparse") for key in told) else kind


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _told_size(told: str | None, size: int, offset: int) -> int:
    """A pax header may give a size that is too large for the field of the header itself."""
    if told is None:
        return size
    if not (told.isascii() and told.isdigit() and len(told) < 20):
        raise DamagedTarError(f"has a header without a valid size at byte {offset:,}; what follows was not read")
    return int(told)


def _extension(window: Window, flag: bytes, begin: int, size: int, length: int) -> dict[str, str]:
    """What a header for the next member says: its name, its size, whether it is sparse."""
    if size > MAX_EXTENSION:
        raise DamagedTarError(f"has a header of {size:,} bytes at byte {begin:,}; what follows was not read")
    body = window.read(begin, size)
    if len(body) < size or begin + size > length:
        raise DamagedTarError(f"is truncated: it ends within the header at byte {begin:,}")
    if flag in (b"L", b"K"):
        return {"path": _text(body.split(b"\0", 1)[0])} if flag == b"L" else {}
    return _pax_records(body, begin)


def _pax_records(body: bytes, offset: int) -> dict[str, str]:
    """ "LENGTH KEY=VALUE\\n" records, of which only those that matter are kept."""
    records: dict[str, str] = {}
    place = 0
    while place < len(body):
        space = body.find(b" ", place, place + 20)
        digits = body[place:space]
        end = place + int(digits) if space > 0 and digits.isdigit() else 0
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(body) or not equals:
            raise DamagedTarError(f"has a damaged header at byte {offset:,}; what follows was not read")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse"):
            records[_text(key)] = _text(value)
        place = end
    return records


def _after_sparse_map(window: Window, header: bytes, begin: int) -> int:
    """GNU's old sparse files continue their map in blocks of their own, each of which says whether another follows."""
    more = header[482]
    while more:
        block = window.read(begin, BLOCK)
        if len(block) < BLOCK:
            raise DamagedTarError(f"is truncated: it ends within the header at byte {begin:,}")
        begin, more = begin + BLOCK, block[504]
    return begin
