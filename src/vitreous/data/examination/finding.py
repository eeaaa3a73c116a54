"""What looking at one image once tells: everything the audit knows of an image without opening it again.

Finding   a readable image
Bad       one that is not, and why
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

THUMBNAIL = 32
"""Side in pixels of the stored thumbnail: the whole image squashed to a square, RGB, one byte a sample."""

VERSION = 2
"""Raised whenever a field is added or computed otherwise, so that no cache offers an older meaning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One readable image. Grey values lie in [0, 1]; they are taken at up to 256 pixels on the longer side."""

    width: int
    """Pixels, upright (EXIF orientation applied)."""
    height: int
    mode: str
    """Pillow's name of the stored pixel format: L, RGB, P, CMYK, I;16 ..., or "6xuint16" for bands Pillow cannot hold."""
    bits: int
    """Bits a sample: 8, 16, or 32 for floats and wide integers."""
    channels: int
    """1 for grey, 3 for colour, more for multi-band images; transparency is not counted."""
    frames: int
    """Pictures in the file; `DecodeConfig.frame` says which is used."""
    format: str
    """JPEG, PNG, TIFF, DICOM ...; "array" for pixels that came as an array."""
    bytes: int
    """Size of the file."""
    digest: str
    """sha256 of mode, size and upright pixels: equal exactly where two images are."""
    brightness: float
    """Mean grey value; of 8 and 16 bits the largest storable value is 1, of others the largest in the image."""
    contrast: float
    """Standard deviation of the grey values."""
    sharpness: float
    """Variance of the Laplacian of the grey values: low is blurred."""
    low: float
    """Smallest stored value (of the chosen bands)."""
    high: float
    """Largest stored value."""
    thumbnail: bytes
    """THUMBNAIL x THUMBNAIL x 3 bytes; more than 8 bits are stretched so that `low` is black and `high` white."""
    suffix_format: str = ""
    """The format the file's name promises where that is another than it has."""
    camera: str = ""
    """EXIF make, model and serial number, joined."""
    taken: str = ""
    """EXIF time of the picture, "YYYY:MM:DD HH:MM:SS"."""
    patient: str = ""
    """Pseudonym of a DICOM PatientID: equal for equal patients, never the ID itself."""


@dataclass(frozen=True, slots=True)
class Bad:
    """One image that cannot be used."""

    reason: str
    """One line that completes the sentence begun by the path: "is truncated ..."."""
    lasting: bool = True
    """The bytes alone decide it, so that looking again would tell the same."""


_TYPES: dict[str, type] = {"int": int, "float": float, "str": str}
_KINDS = {field.name: _TYPES[str(field.type)] for field in fields(Finding) if field.name != "thumbnail"}


def to_record(entry: Finding | Bad) -> tuple[dict[str, Any], bytes]:
    """A form for JSON and the thumbnail (empty for a bad image)."""
    if isinstance(entry, Bad):
        return {"reason": entry.reason, "lasting": entry.lasting}, b""
    return {name: getattr(entry, name) for name in _KINDS}, entry.thumbnail


def from_record(record: dict[str, Any], thumbnail: bytes) -> Finding | Bad:
    """The inverse of `to_record`. Raises ValueError, KeyError or TypeError where the record is none."""
    if "reason" in record:
        return Bad(str(record["reason"]), bool(record["lasting"]))
    if len(thumbnail) != THUMBNAIL * THUMBNAIL * 3:
        raise ValueError(f"a thumbnail has {THUMBNAIL * THUMBNAIL * 3} bytes, this one {len(thumbnail)}")
    return Finding(thumbnail=thumbnail, **{name: kind(record[name]) for name, kind in _KINDS.items()})


def one_line(text: str, most: int = 240) -> str:
    """Without line breaks and control characters, at most `most` characters: what a hostile file made its reader say."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= most else line[: most - 3] + "..."
