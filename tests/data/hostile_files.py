"""Files that no decoder likes: written to a folder, the same at every call."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP", "ppm": "PPM"}


def picture(seed: int, size: int = 40, mode: str = "RGB") -> Image.Image:
    shape = (size, size, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).convert(mode)


def encoded(seed: int, name: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture(seed).save(stream, name, **options)
    return stream.getvalue()


def hostile_files() -> Iterator[tuple[str, bytes]]:
    """(name, content), about 700 of them."""
    yield from damaged_files()
    yield from bombs()
    yield from impostors()


def damaged_files() -> Iterator[tuple[str, bytes]]:
    generator = np.random.default_rng(5)
    for number, (suffix, name) in enumerate(FORMATS.items()):
        whole = encoded(number, name)
        cuts = {*range(0, 64, 4), *np.linspace(64, len(whole) - 1, 30).astype(int).tolist()}
        for cut in sorted(cuts):
            yield f"cut-{cut}.{suffix}", whole[:cut]
        for flip in range(40):
            wrong = bytearray(whole)
            places = generator.integers(0, min(len(whole), 64) if flip % 2 else len(whole), 1 + flip % 3)
            for place in places:
                wrong[place] ^= 1 << int(generator.integers(8))
            yield f"flip-{flip}.{suffix}", bytes(wrong)
        yield f"noise.{suffix}", whole[:16] + generator.bytes(500)
        yield f"tail.{suffix}", whole + generator.bytes(2000)
        yield f"twice.{suffix}", whole + whole


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that promise or unfold to far more than they should."""
    for side in (20_000, 65_535, 2**31 - 1):
        yield f"bomb-{side}.png", _png(side, side, zlib.compress(bytes(10_000)))
    unfolding = zlib.compress(bytes(50_000_000), 9)
    yield "text-bomb.png", _png(4, 4, zlib.compress(bytes(52)), (b"zTXt", b"Comment\0\0" + unfolding))
    yield "profile-bomb.png", _png(4, 4, zlib.compress(bytes(52)), (b"iCCP", b"x\0\0" + unfolding))
    yield "pixel-bomb.png", _png(4, 4, unfolding)
    yield "bomb.gif", _gif(65_535, 65_535, 1)
    yield "frames.gif", _gif(8, 8, 5_000)
    yield (
        "bomb.bmp",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    )
    yield "bomb.ppm", b"P6 60000 60000 255\n" + bytes(100)
    yield "endless.ppm", b"P6 " + b"#" * 100_000
    yield "loop.tif", _tiff({}, following=8)
    yield "tiles.tif", _tiff(_tiled(8, 1, 2**31 - 1))
    yield "tiny-tiles.tif", _tiff(_tiled(9_000, 1, 1))
    yield "strips.tif", _tiff({256: (4, 1, 60_000), 257: (4, 1, 60_000), 273: (4, 2**28, 8)})
    yield "bomb.tif", _tiff(_tiled(2**31 - 1, 16, 4))
    yield "itself.tif", _tiff({330: (4, 1, 8), 34665: (4, 1, 8)}, following=8)
    yield "bomb.webp", b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + b"\xff\xff\xff" * 2


def impostors() -> Iterator[tuple[str, bytes]]:
    """Content that is not what its name says, or two things at once."""
    yield "zero.jpg", b""
    yield "document.jpg", b"%PDF-1.7\n1 0 obj\n"
    yield "page.png", b"<!DOCTYPE html><html></html>"
    yield "drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "archive.jpg", b"PK\x03\x04" + bytes(40)
    yield "script.jpg", b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file\n"
    yield "text.png", b"hello\n" * 10
    yield "nulls.png", bytes(1000)
    yield "png-inside.jpg", encoded(1, "PNG")
    yield "jpeg-inside.png", encoded(2, "JPEG")
    yield "zip-behind.jpg", encoded(3, "JPEG") + b"PK\x03\x04" + bytes(100) + b"PK\x05\x06" + bytes(18)
    yield "page-behind.gif", encoded(4, "GIF") + b"<script>alert(1)</script>"
    yield "exif.jpg", encoded(5, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(range(256)) * 8)
    yield "comment.jpg", encoded(6, "JPEG", comment=b"line\nline\r\x1b[31m" * 1000)


def odd_entries(folder: Path) -> list[str]:
    """Things in a folder that are no readable files, as far as this system has them; their names."""
    (folder / "folder.jpg").mkdir()
    (folder / "line\nbreak.png").write_bytes(encoded(7, "PNG")) if os.name == "posix" else None
    with contextlib.suppress(OSError, NotImplementedError):
        (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
        (folder / "nowhere.jpg").symlink_to(folder / "absent")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.jpg")
        (folder / "device.jpg").symlink_to("/dev/zero")
    with contextlib.suppress(OSError):  # file systems that insist on UTF-8
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png")).write_bytes(encoded(8, "PNG"))
    return sorted(path.name for path in folder.iterdir())


def _png(width: int, height: int, data: bytes, *others: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), *others, (b"IDAT", data), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _gif(width: int, height: int, frames: int) -> bytes:
    """One picture of 8 x 8 pixels as often as wanted on a canvas of any size."""
    stream = io.BytesIO()
    picture(9, 8, "L").save(stream, "GIF")
    whole = stream.getvalue()
    begin = 13 + 3 * 2 ** ((whole[10] & 7) + 1)  # behind the palette
    return whole[:6] + struct.pack("<HH", width, height) + whole[10:begin] + whole[begin:-1] * frames + b";"


def _tiff(tags: dict[int, tuple[int, int, int]], following: int = 0) -> bytes:
    """A grey picture of 8 x 8 pixels in a directory at byte 8, with these {tag: (type, count, value)} instead or besides.

    following: where the next directory is said to be.
    """
    usual = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 256, 277: 1, 278: 8, 279: 64}
    entries = {tag: (4, 1, value) for tag, value in usual.items()} | tags
    packed = b"".join(struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries))
    start = b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", following)
    return start.ljust(256, b"\0") + bytes(range(64))


def _tiled(side: int, tile: int, count: int) -> dict[int, tuple[int, int, int]]:
    sizes = {256: side, 257: side, 322: tile, 323: tile}
    return {tag: (4, 1, value) for tag, value in sizes.items()} | {324: (4, count, 256), 325: (4, count, 256)}
