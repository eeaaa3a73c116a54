"""What a file says of itself beside its pixels: format, number of pictures, camera and time."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from PIL import Image

from vitreous.data.examination.finding import one_line
from vitreous.inputs import count_frames
from vitreous.inputs.decode import FILE_FORMATS
from vitreous.inputs.dicom import is_dicom
from vitreous.inputs.tiff_header import is_tiff

_SUFFIXES = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "MPO": ("mpo",),
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "TIFF": ("tif", "tiff"),
    "BMP": ("bmp", "dib"),
    "GIF": ("gif",),
    "AVIF": ("avif",),
    "PPM": ("ppm", "pgm", "pbm", "pnm"),
    "JPEG2000": ("jp2", "j2k", "jpx"),
    "TGA": ("tga",),
    "ICO": ("ico",),
    "PCX": ("pcx",),
    "SGI": ("sgi", "rgb"),
    "DICOM": ("dcm", "dicom"),
}
_PROMISED = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes}
_SAME = {"MPO": "JPEG", "DIB": "BMP"}
"""Formats that differ in name only for whoever chooses a suffix: phones write MPO into files named .jpg."""

_NO_READERS = ("MPO", "DICOM")
"""Names of formats under which Pillow has no reader of its own."""

_HEAD = 2**18
"""Bytes searched for the marks of what only Pillow's parser can read."""
_MAKE, _MODEL, _TIME = 271, 272, 306
_EXIF_FOLDER, _TAKEN, _SERIAL = 0x8769, 0x9003, 0xA431


@dataclass(frozen=True, kw_only=True)
class Header:
    format: str
    frames: int = 1
    camera: str = ""
    taken: str = ""


def read_header(data: bytes) -> Header:
    """Of a file that `open_image` could read. A damaged part of it tells nothing, and hinders nothing.

    The usual JPEG and PNG files have one picture and no EXIF; their first bytes say so, without a second parse.
    """
    head = data[:_HEAD]
    if head.startswith(b"\xff\xd8\xff") and b"Exif\0" not in head and b"MPF\0" not in head:
        return Header(format="JPEG")
    if head.startswith(b"\x89PNG") and b"eXIf" not in head and b"acTL" not in head:
        return Header(format="PNG")
    name, camera, taken = "DICOM" if is_dicom(data) else "TIFF" if is_tiff(data) else "", "", ""
    if name != "DICOM":
        try:
            with Image.open(
                io.BytesIO(data), formats=[name for name in FILE_FORMATS if name not in _NO_READERS]
            ) as image:
                name = image.format or name
                camera, taken = camera_and_time(image)
        except Exception:  # Pillow does not know bands of 16 bits and more; its parsers raise anything on hostile files
            pass
    return Header(format=name, frames=_frames(data), camera=camera, taken=taken)


def promised_instead(name: str, found: str) -> str:
    """The format that a file's name promises where it is another than the one found, else ""."""
    promised = _PROMISED.get(PurePath(name).suffix[1:].lower(), "")
    if not promised or not found or _SAME.get(promised, promised) == _SAME.get(found, found):
        return ""
    return promised


def camera_and_time(image: Image.Image) -> tuple[str, str]:
    """EXIF make, model and serial number, joined, and the time of the picture; "" where the file does not say."""
    try:
        exif = image.getexif()
        inner = exif.get_ifd(_EXIF_FOLDER)
    except Exception:
        return "", ""
    pieces = (_text(exif.get(_MAKE)), _text(exif.get(_MODEL)), _text(inner.get(_SERIAL)))
    return " ".join(piece for piece in pieces if piece), _text(inner.get(_TAKEN)) or _text(exif.get(_TIME))


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return one_line(value.split("\0")[0], 80) if isinstance(value, str) else ""


def _frames(data: bytes) -> int:
    try:
        return count_frames(data)
    except Exception:  # too many to count, or damaged behind the first one
        return 1
