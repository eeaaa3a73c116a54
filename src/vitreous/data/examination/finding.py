"""What looking at one image once tells. Everything the audit knows of an image without opening it again."""

from __future__ import annotations

from dataclasses import dataclass

THUMBNAIL = 32
"""Side in pixels of the stored thumbnail: the whole image squashed to a square, RGB, one byte a sample."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One readable image."""

    width: int
    """Pixels, upright (EXIF orientation applied)."""
    height: int
    mode: str
    """Pillow's name of the stored pixel format: L, RGB, P, CMYK, I;16 ..., or "6xuint16" for bands Pillow cannot hold."""
    bits: int
    """Bits a sample: 8, 16, or 32 for floats and wide integers."""
    channels: int
    """1 for grey, 3 for colour, more for multi-band images."""
    frames: int
    """Pictures in the file; `DecodeConfig.frame` says which is used."""
    format: str
    """JPEG, PNG, TIFF, DICOM ...; "array" for pixels that came as an array."""
    bytes: int
    """Size of the file."""
    digest: str
    """sha256 of mode, size and upright pixels: equal exactly where two images are."""
    brightness: float
    """Mean grey value, in [0, 1]."""
    contrast: float
    """Standard deviation of the grey values, in [0, 1]."""
    sharpness: float
    """Variance of the Laplacian of grey values in [0, 1], at up to 256 pixels on the longer side: low is blurred."""
    low: float
    """Smallest stored value (of the chosen bands)."""
    high: float
    """Largest stored value."""
    thumbnail: bytes
    """THUMBNAIL x THUMBNAIL x 3 bytes."""
    suffix_format: str = ""
    """The format the file's name promises where that is another than it has."""
    camera: str = ""
    """EXIF make, model and serial number, joined."""
    taken: str = ""
    """EXIF time of the picture, "YYYY:MM:DD HH:MM:SS"."""
    patient: str = ""
    """Pseudonym of a DICOM PatientID: equal for equal patients, never the ID itself."""
