"""Names of the formats that are read, and of the things people take for images."""

from __future__ import annotations

from vitreous.errors import ImageError, ImageFormatError, TruncatedImageError

SERVER_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""What the server accepts. MPO is what phones write into files named .jpg; its first picture is an ordinary JPEG."""

FILE_FORMATS = (
    *SERVER_FORMATS,
    *("DICOM", "PPM", "JPEG2000", "ICO", "PCX", "SGI", "AVIF", "DIB", "PSD", "QOI", "DDS", "ICNS", "CUR"),
    *("XBM", "XPM", "MSP", "BLP", "DCX", "FLI", "PIXAR", "SPIDER", "SUN", "FTEX", "GBR", "XVTHUMB", "TGA"),
)
"""What training and prediction read from files, in the order in which it is recognised: TGA, which has no mark of its own
and would take some icons for one of its kind, comes last.

Left out on purpose: formats that run other programs (PostScript, WMF) or only point to other libraries (GRIB, HDF5,
BUFR, MPEG), those that Pillow reads wrongly or in part (FITS without its scale, the small base picture of Photo CD), and
those it recognises in what is no image (IMT, MCIDAS, IPTC) or is about to drop (IM).
"""

# First bytes, so that the message can name what a file is.
_LOOKALIKES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF document; export its pages as PNG first"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (128, b"DICM", "a DICOM file"),
    (0, b"SIMPLE  =", "a FITS file; convert it to TIFF first"),
    (0, b"\x89HDF\r\n", "an HDF5 file"),
    (4, b"ftypheic", "a HEIC photo; convert it to JPEG first"),
    (4, b"ftypmif1", "a HEIF photo; convert it to JPEG first"),
    (4, b"ftypmp4", "a video"),
    (4, b"ftypisom", "a video"),
    (0, b"<!DOC", "an HTML page"),
    (0, b"<html", "an HTML page"),
)


def unidentified(data: bytes, formats: tuple[str, ...]) -> ImageError:
    """What to say of a file in none of these formats."""
    for offset, magic, name in _LOOKALIKES:
        if data[offset : offset + len(magic)].lower() == magic.lower():
            return ImageFormatError(f"is {name}")
    for name, magic in (("AVIF", b"ftypavif"), ("JPEG2000", b"jP  "), ("PPM", b""), ("ICO", b"\x00\x00\x01\x00")):
        if name in formats or not magic:
            continue
        if magic in data[:12]:
            return ImageFormatError(f"is {name}; accepted: {', '.join(formats)}")
    starts = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\x00", b"MM\x00*", b"BM")
    if data.startswith(starts):
        return TruncatedImageError("is truncated or damaged: it starts like an image and ends before its header does")
    return ImageError("is not an image")
