"""From a file, bytes, a Pillow image or an array to one upright, fully decoded Pillow image.

Everything that can go wrong with an image file goes wrong here, and comes out as one of the `ImageError`s, so that no
other room needs to know Pillow's exceptions. Size limits are judged from the header, before any pixel is decoded.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vitreous.errors import (
    ImageError,
    ImageFormatError,
    ImageTooLargeError,
    TruncatedImageError,
    UnfitImageError,
)

ImageSource: TypeAlias = Any
"""str | Path | bytes | PIL.Image.Image | numpy.ndarray | torch.Tensor: a path, encoded bytes, a Pillow image, an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), or a tensor (c, h, w)."""

SERVER_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""What the server accepts. MPO is what phones write into files named .jpg; its first picture is an ordinary JPEG."""

FILE_FORMATS = (*SERVER_FORMATS, "PPM", "JPEG2000", "TGA", "ICO", "PCX", "SGI", "AVIF", "DIB")
"""What training and prediction read from files. Formats that run other programs (PostScript) are left out on purpose."""

MAX_PIXELS = 89_000_000
"""Default limit on width x height; just under the size at which Pillow itself begins to warn of decompression bombs."""

# First bytes of things people take for images, so that the message can name them.
_LOOKALIKES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF document; export its pages as PNG first"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (128, b"DICM", "a DICOM file"),
    (4, b"ftypheic", "a HEIC photo; convert it to JPEG first"),
    (4, b"ftypmif1", "a HEIF photo; convert it to JPEG first"),
    (4, b"ftypmp4", "a video"),
    (4, b"ftypisom", "a video"),
    (0, b"<!DOC", "an HTML page"),
    (0, b"<html", "an HTML page"),
)


def open_image(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] = FILE_FORMATS,
    target: int | None = None,
) -> Image.Image:
    """Decode one image: first frame, turned upright by its EXIF orientation.

    target: pixels of the longer side that will be needed; a JPEG at least four times as large is decoded at a half, a
    quarter or an eighth of its size, never below twice the target, which is several times faster and costs
    a fraction of a grey level.

    Raises ImageError (empty, unreadable or no image), TruncatedImageError, ImageTooLargeError (by its header),
    ImageFormatError (an image of a format not in `formats`), UnfitImageError (arrays of the wrong shape or type).
    """
    if isinstance(source, Image.Image):
        return _decode(source, max_pixels, None)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if hasattr(source, "detach") and hasattr(source, "cpu"):
        return _from_array(_channels_last(source.detach().cpu().numpy()))
    if isinstance(source, str | Path):
        try:
            data = Path(source).read_bytes()
        except IsADirectoryError as error:
            raise ImageError("is a folder, not an image") from error
        except FileNotFoundError as error:
            raise ImageError("does not exist") from error
        except OSError as error:
            raise ImageError(f"cannot be read ({error.strerror or type(error).__name__})") from error
    elif isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    else:
        raise UnfitImageError(f"cannot make an image from a {type(source).__name__}")
    if not data:
        raise ImageError("is empty (0 bytes)")
    readers = [name for name in formats if name != "MPO"]  # Pillow's JPEG reader yields these, none is named so
    try:
        image = Image.open(io.BytesIO(data), formats=readers)
    except UnidentifiedImageError as error:
        raise _unidentified(data, formats) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"has more pixels than the limit of {max_pixels:,}") from error
    except Exception as error:  # decoders raise anything at all on hostile files
        if "truncated" in str(error).lower() or _ends_before_its_riff_size(data):
            raise TruncatedImageError("is truncated: the file ends before its header does") from error
        raise ImageError(f"has a damaged header ({type(error).__name__})") from error
    return _decode(image, max_pixels, target)


def _decode(image: Image.Image, max_pixels: int, target: int | None) -> Image.Image:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise ImageTooLargeError(f"has {width} x {height} pixels; the limit is {max_pixels:,}")
    try:
        if target is not None and image.format in ("JPEG", "MPO"):
            image.draft(None, (2 * target, 2 * target))
        image.load()
        return ImageOps.exif_transpose(image)
    except Exception as error:
        text = str(error).lower()
        if "truncated" in text or "unexpected end" in text or isinstance(error, EOFError):
            raise TruncatedImageError("is truncated: the file ends before the image does") from error
        raise ImageError(f"cannot be decoded ({type(error).__name__}: {_short(error)})") from error


def _unidentified(data: bytes, formats: tuple[str, ...]) -> ImageError:
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


def _ends_before_its_riff_size(data: bytes) -> bool:
    """WebP states its length in its first bytes; its decoder says nothing of why it refused a file."""
    return data[:4] == b"RIFF" and len(data) < 8 + int.from_bytes(data[4:8], "little")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or 0 in array.shape:
        raise UnfitImageError(
            f"has shape {array.shape}; an array must be (height, width), (height, width, 1), (height, width, 3) or (height, width, 4)"
        )
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise UnfitImageError("holds floats outside [0, 1]; scale them, or pass uint8 or uint16")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype == np.uint16 and array.ndim == 2:
        return Image.fromarray(np.ascontiguousarray(array))
    elif array.dtype == np.uint16:
        array = np.rint(array / 257).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise UnfitImageError(f"holds {array.dtype}; pass uint8, uint16, bool or floats in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(array))


def _channels_last(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 80 else text[:77] + "..."
