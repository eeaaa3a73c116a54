"""From a file, bytes, a Pillow image or an array to one upright, fully decoded image.

Everything that can go wrong with an image file goes wrong here, and comes out as one of the `ImageError`s, so that no
other room needs to know the exceptions of the libraries. Size limits are judged from the header, before any pixel is
decoded.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from vitreous.config.decode import DecodeConfig
from vitreous.config.input import InputSpec
from vitreous.errors import (
    ImageError,
    ImageFormatError,
    ImageTooLargeError,
    TruncatedImageError,
    UnfitImageError,
)
from vitreous.inputs.arrays import channels_last, from_array
from vitreous.inputs.bands import select_bands
from vitreous.inputs.deep_colour import is_deep_png, read_deep_png
from vitreous.inputs.dicom import count_dicom_frames, is_dicom, read_dicom
from vitreous.inputs.formats import FILE_FORMATS, SERVER_FORMATS, unidentified
from vitreous.inputs.frames import choose_frame, frame_count, seek_frame
from vitreous.inputs.raster import Raster
from vitreous.inputs.reading import read_file
from vitreous.inputs.reduced import reduce_jpeg, upright
from vitreous.inputs.tiff import read_tiff
from vitreous.inputs.tiff_header import count_pages, is_tiff

__all__ = ["FILE_FORMATS", "MAX_PIXELS", "SERVER_FORMATS", "ImageSource", "count_frames", "open_image"]

ImageSource: TypeAlias = Any
"""str | Path | bytes | PIL.Image.Image | Raster | numpy.ndarray | torch.Tensor: a path, encoded bytes, a decoded image, an array (h, w), (h, w, 1), (h, w, 3), (h, w, 4) or with more bands, or a tensor (c, h, w)."""

MAX_PIXELS = 89_000_000
"""Default limit on width x height; just under the size at which Pillow itself begins to warn of decompression bombs."""


def open_image(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] = FILE_FORMATS,
    target: InputSpec | int | None = None,
    decode: DecodeConfig | None = None,
) -> Image.Image | Raster:
    """Decode one image, turned upright by its EXIF orientation.

    target: what the image will be prepared for; a JPEG much larger than that is decoded at a half, a quarter or an eighth
    of its size, which is several times faster and changes a prepared photograph by about 0.7 grey levels on average, a sharp one by up to 1.4
    (`vitreous.inputs.reduced` has the rule and the measurements). An int is the longer side of a picture for people. In
    full when None.
    decode: which frame, bands and window of a file that holds several; those of `target`, or the defaults, when None.

    Returns a Pillow image, or a `Raster` where no Pillow image holds the pixels without loss: 16-bit colour, bands beyond
    colour and opacity, signed and wide integers or floats of more than one band, values that mean "no data".
    Raises ImageError (empty, unreadable or no image), TruncatedImageError, ImageTooLargeError (by its header),
    ImageFormatError (an image of a format not in `formats`), UnfitImageError (arrays of the wrong shape or type, bands
    that the image lacks).
    """
    if decode is None:
        decode = target.decode if isinstance(target, InputSpec) else DecodeConfig()
    if isinstance(source, Raster):
        return source.select(decode.bands)
    if isinstance(source, Image.Image):
        return select_bands(_decode(source, max_pixels, None), decode.bands)
    if isinstance(source, np.ndarray):
        return select_bands(from_array(source), decode.bands)
    if hasattr(source, "detach") and hasattr(source, "cpu"):
        return select_bands(from_array(channels_last(source.detach().cpu().numpy())), decode.bands)
    data = _read(source)
    try:
        opened = _open_bytes(data, max_pixels, formats, decode)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything at all on hostile files
        raise _explained(error) from error
    if isinstance(opened, Image.Image):
        opened = _decode(opened, max_pixels, target)
    return select_bands(opened, decode.bands)


def count_frames(source: ImageSource) -> int:
    """Pictures in a file, from its headers: frames of animations and DICOM files, full-size pages of TIFFs; else 1.

    Raises the errors of `open_image` where there is no readable header.
    """
    if not isinstance(source, str | Path | bytes | bytearray | memoryview):
        return source.frames if isinstance(source, Raster) else 1
    data = _read(source)
    if is_dicom(data):
        return count_dicom_frames(data)
    if is_tiff(data):
        return count_pages(data)
    return frame_count(_open_with_pillow(data, MAX_PIXELS, FILE_FORMATS), data)


def _read(source: ImageSource) -> bytes:
    if isinstance(source, str | Path):
        data = read_file(str(source))
    elif isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    else:
        raise UnfitImageError(f"cannot make an image from a {type(source).__name__}")
    if not data:
        raise ImageError("is empty (0 bytes)")
    return data


def _open_bytes(data: bytes, max_pixels: int, formats: tuple[str, ...], decode: DecodeConfig) -> Image.Image | Raster:
    """The chosen frame: a Pillow image not yet loaded, or a finished raster. May raise anything."""
    if is_dicom(data):
        if "DICOM" not in formats:
            raise ImageFormatError(f"is a DICOM file; accepted: {', '.join(formats)}")
        return read_dicom(data, decode, max_pixels)
    if is_tiff(data) and "TIFF" in formats:
        return read_tiff(data, lambda page: _open_tiff_page(data, page), decode, max_pixels)
    image = _open_with_pillow(data, max_pixels, formats)
    if is_deep_png(data):
        _judge(image, max_pixels)
        if choose_frame(decode.frame, frame_count(image, data)) > 0:
            raise ImageError("is an animation in 16-bit colour, of which only the first frame can be read")
        return read_deep_png(data, lambda: _open_with_pillow(data, max_pixels, formats))
    seek_frame(image, data, decode.frame, max_pixels)
    return image


def _open_tiff_page(data: bytes, number: int) -> ImageFile.ImageFile:
    image = Image.open(io.BytesIO(data), formats=["TIFF"])
    image.seek(number)
    return image


def _open_with_pillow(data: bytes, max_pixels: int, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    readers = [name for name in formats if name not in ("MPO", "DICOM")]  # Pillow's JPEG reader yields MPOs
    try:
        return Image.open(io.BytesIO(data), formats=readers)
    except UnidentifiedImageError as error:
        raise unidentified(data, formats) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"has more pixels than the limit of {max_pixels:,}") from error
    except Exception as error:  # decoders raise anything at all on hostile files
        if "truncated" in str(error).lower() or _ends_before_its_riff_size(data):
            raise TruncatedImageError("is truncated: the file ends before its header does") from error
        raise ImageError(f"has a damaged header ({type(error).__name__})") from error


def _decode(image: Image.Image, max_pixels: int, target: InputSpec | int | None) -> Image.Image:
    _judge(image, max_pixels)
    try:
        if target is not None:
            reduce_jpeg(image, target)
        image.load()
        turned = upright(image)
        if turned.mode == "LAB":  # which Pillow turns into RGB and nothing else
            turned = turned.convert("RGB")
        elif turned.mode == "L" and turned.im.mode == "P":
            turned = _as_grey(turned)
        turned.format = image.format
        return turned
    except Exception as error:
        raise _explained(error) from error


def _as_grey(image: Image.Image) -> Image.Image:
    """A GIF whose first frame has the levels of grey as a palette of its own: Pillow calls it grey and keeps a palette
    image, which it then cannot convert. The indices are the greys.
    """
    grey = Image.frombytes("L", image.size, image.tobytes())
    grey.info = image.info
    return grey


def _judge(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"has no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise ImageTooLargeError(f"has {width} x {height} pixels; the limit is {max_pixels:,}")


def _explained(error: Exception) -> ImageError:
    """What a decoder's exception means to whoever sees the file's name in front of it."""
    text = str(error).lower()
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageTooLargeError("has more pixels than the limit")
    if "truncated" in text or "unexpected end" in text or isinstance(error, EOFError):
        return TruncatedImageError("is truncated: the file ends before the image does")
    return ImageError(f"cannot be decoded ({type(error).__name__}: {_short(error)})")


def _ends_before_its_riff_size(data: bytes) -> bool:
    """WebP states its length in its first bytes; its decoder says nothing of why it refused a file."""
    return data[:4] == b"RIFF" and len(data) < 8 + int.from_bytes(data[4:8], "little")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 80 else text[:77] + "..."
