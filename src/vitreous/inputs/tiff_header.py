"""The directory of a TIFF or BigTIFF, read without decoding anything: sizes, types, bands, pages.

Written here because every reader must be chosen, and every limit judged, before one of them touches hostile data.
Tags as in the TIFF 6.0 specification, sections 2 and 8; BigTIFF as in its design document of 2007; 42113 is GDAL's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vitreous.errors import ImageError, TruncatedImageError

MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
MOST_PAGES = 65_536
"""Directories followed before a file is refused."""
_MOST_ENTRIES = 4096
_MOST_VALUES = 4_000_000
_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_SUBFILE, _REDUCED, _MASK = 254, 1, 4


@dataclass(frozen=True, kw_only=True)
class Page:
    """One image file directory, as far as decoding depends on it."""

    number: int
    """Position in the chain of directories, from 0."""
    order: str
    """"<" for little-endian files, ">" for big-endian ones."""
    width: int
    height: int
    samples: int
    bits: tuple[int, ...]
    """Bits of each sample."""
    sample_format: int
    """1 unsigned, 2 signed, 3 float, 4 unknown, 5 and 6 complex; 0 where the samples differ."""
    photometric: int
    """0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr, 8 CIE Lab; -1 where absent."""
    planar: bool
    """Each sample lies in a plane of its own."""
    extra: tuple[int, ...]
    """Samples beyond the photometric ones: 0 unspecified, 1 premultiplied alpha, 2 alpha."""
    compression: int
    orientation: int
    nodata: float | None
    georeferenced: bool
    """Holds geographic keys and the transform from pixels to the ground."""
    tile: tuple[int, int]
    """(width, height) in pixels of a tile or strip."""
    end: float
    """Bytes the file must have to hold every strip or tile, as far as it states them."""
    palette: np.ndarray | None
    """uint16 (3, 2 ** bits)."""

    @property
    def alpha(self) -> bool:
        """The one sample beyond grey or colour is opacity."""
        shown = {0: 1, 1: 1, 2: 3}.get(self.photometric, 0)
        if self.samples != shown + 1:
            return False
        return self.extra in ((1,), (2,)) or (not self.extra and shown == 3)


def is_tiff(data: bytes) -> bool:
    return data[:4] in MAGICS


def read_page(data: bytes, number: int) -> Page:
    """The page that is number `number` of the full-size ones. Raises ImageError, TruncatedImageError."""
    for position, (index, offset) in enumerate(_pages(data)):
        if position == number:
            return _Directory(data, offset).page(index)
    raise TruncatedImageError("is truncated: it ends before its first page does")


def count_pages(data: bytes) -> int:
    """Full-size pages; smaller copies of them (overviews) and masks are none. A chain that loops ends there."""
    return max(1, sum(1 for _ in _pages(data)))


def _pages(data: bytes) -> Iterator[tuple[int, int]]:
    """(number in the chain, offset) of the directories of full-size pages."""
    seen: set[int] = set()
    try:
        offset = _first_offset(data)
        for index in range(MOST_PAGES + 1):
            if offset == 0 or offset in seen or (index and offset >= len(data)):
                return
            if index == MOST_PAGES:
                raise ImageError(f"has more than {MOST_PAGES:,} pages")
            seen.add(offset)
            directory = _Directory(data, offset)
            if index == 0 or not directory.reduced():
                yield index, offset
            offset = directory.next_offset()
    except struct.error as error:
        if len(seen) <= 1:
            raise TruncatedImageError("is truncated: it ends before its first page does") from error


def _first_offset(data: bytes) -> int:
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] in (b"+\x00", b"\x00+"):
        size, _, offset = struct.unpack_from(order + "HHQ", data, 4)
        if size != 8:
            raise ImageError("has a damaged header (BigTIFF with offsets of another size)")
        return offset
    return struct.unpack_from(order + "I", data, 4)[0]


class _Directory:
    """Access to the entries of one directory. Methods raise struct.error where the file ends before the entry."""

    def __init__(self, data: bytes, offset: int) -> None:
        self.data, self.offset = data, offset
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = data[2:4] in (b"+\x00", b"\x00+")
        head, self.first, self.step = ("Q", 8, 20) if self.big else ("H", 2, 12)
        self.count = struct.unpack_from(self.order + head, data, offset)[0]
        if self.count > _MOST_ENTRIES:
            raise ImageError(f"has a damaged header ({self.count:,} entries in a directory)")

    def next_offset(self) -> int:
        where = self.offset + self.first + self.count * self.step
        return struct.unpack_from(self.order + ("Q" if self.big else "I"), self.data, where)[0]

    def reduced(self) -> bool:
        """Entries are sorted by tag, and 254 is the lowest one."""
        for index in range(min(self.count, 4)):
            entry = self.offset + self.first + index * self.step
            tag = struct.unpack_from(self.order + "H", self.data, entry)[0]
            if tag == _SUBFILE:
                value = self.values(entry)
                return len(value) > 0 and bool(int(value[0]) & (_REDUCED | _MASK))
        return False

    def values(self, entry: int) -> np.ndarray:
        """The values of the entry at an offset of the file; empty for types that nothing here needs."""
        head = "HHQ" if self.big else "HHI"
        _, kind, count = struct.unpack_from(self.order + head, self.data, entry)
        code = _TYPES.get(kind)
        if code is None:
            return np.zeros(0, np.int64)
        if count > _MOST_VALUES:
            raise ImageError(f"has a damaged header ({count:,} values in one entry)")
        room, start = (8, entry + 12) if self.big else (4, entry + 8)
        size = struct.calcsize("<" + code)
        if count * size > room:
            start = struct.unpack_from(self.order + ("Q" if self.big else "I"), self.data, start)[0]
        if start + count * size > len(self.data):
            raise struct.error("values lie beyond the end")
        return np.frombuffer(self.data, np.dtype(self.order + code), count, start)

    def page(self, number: int) -> Page:
        try:
            tags = self._tags()
        except struct.error as error:
            raise TruncatedImageError("is truncated: it ends before its header does") from error

        def one(tag: int, absent: int) -> int:
            return int(tags[tag][0]) if tag in tags and len(tags[tag]) else absent

        width, height, compression = one(256, 0), one(257, 0), one(259, 1)
        if width < 1 or height < 1:
            raise ImageError(f"has no pixels ({width} x {height})")
        photometric = one(262, -1)
        samples = one(277, 3 if compression == 7 and photometric in (2, 6) else 1)
        if not 1 <= samples <= 65_535:
            raise ImageError(f"has a damaged header ({samples:,} samples a pixel)")
        bits = tuple(int(value) for value in tags.get(258, (1,))) or (1,)
        formats = {int(value) for value in tags.get(339, (1,))} or {1}
        return Page(
            number=number,
            order=self.order,
            width=width,
            height=height,
            samples=samples,
            bits=(bits * samples if len(bits) == 1 else bits)[:samples],
            sample_format=formats.pop() if len(formats) == 1 else 0,
            photometric=photometric,
            planar=one(284, 1) == 2 and samples > 1,
            extra=tuple(int(value) for value in tags.get(338, ())),
            compression=compression,
            orientation=one(274, 1),
            nodata=_nodata(tags.get(42113)),
            georeferenced=34735 in tags and (34264 in tags or (33550 in tags and 33922 in tags)),
            tile=(one(322, width), one(323, min(one(278, height), height))),
            end=_end(tags.get(273, tags.get(324)), tags.get(279, tags.get(325))),
            palette=_palette(tags.get(320)),
        )

    def _tags(self) -> dict[int, np.ndarray]:
        found: dict[int, np.ndarray] = {}
        for index in range(self.count):
            entry = self.offset + self.first + index * self.step
            tag = struct.unpack_from(self.order + "H", self.data, entry)[0]
            if tag in _WANTED and tag not in found:
                found[tag] = self.values(entry)
        return found


_LAYOUT = (256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 320, 322, 323, 324, 325, 338, 339)
_GEOGRAPHY = (33550, 33922, 34264, 34735, 42113)
_WANTED = frozenset((*_LAYOUT, *_GEOGRAPHY))


def _end(offsets: np.ndarray | None, sizes: np.ndarray | None) -> float:
    if offsets is None or sizes is None or len(offsets) != len(sizes) or len(offsets) == 0:
        return 0.0
    return float((offsets.astype(np.float64) + sizes.astype(np.float64)).max())


def _nodata(values: np.ndarray | None) -> float | None:
    """GDAL writes the number as text. What is no number means none."""
    if values is None:
        return None
    text = values.astype(np.uint8).tobytes().split(b"\0")[0].decode("latin-1").strip()
    try:
        return float(text)
    except ValueError:
        return None


def _palette(values: np.ndarray | None) -> np.ndarray | None:
    if values is None or len(values) % 3:
        return None
    return values.astype(np.uint16).reshape(3, -1)
