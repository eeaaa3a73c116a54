"""TIFF and GeoTIFF without loss: what Pillow holds stays with Pillow, all else comes through tifffile or rasterio.

The directory is read first (`tiff_header`): every limit is judged and the reader chosen before anything is decoded.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from vitreous.config.decode import DecodeConfig
from vitreous.errors import ImageError, ImageTooLargeError, TruncatedImageError, UnfitImageError
from vitreous.inputs.deep_colour import divide_by_alpha, read_deep_tiff
from vitreous.inputs.frames import choose_frame
from vitreous.inputs.raster import Raster, named, turn_upright
from vitreous.inputs.tiff_header import Page, count_pages, read_page

_PILLOW_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946, 34925, 50000, 50001)
_PILLOW_BITS = (
    *((kind, 1, bits, 1) for kind in (-1, 0, 1, 3) for bits in (1, 2, 4, 8)),
    *((1, 1, bits, 1) for bits in (12, 16)),
    *((0, 1, 16, 1), (1, 2, 16, 1), (1, 2, 32, 1), (0, 3, 32, 1), (1, 3, 32, 1)),
    *((1, 1, 8, 2), (2, 1, 8, 3), (2, 1, 8, 4), (3, 1, 8, 2), (5, 1, 8, 4), (6, 1, 8, 1), (6, 1, 8, 3), (8, 1, 8, 3)),
)
"""(photometric, sample format, bits, samples) that Pillow holds without loss."""
_EXTRA_OF_PILLOW = {(1, 2): ((1,), (2,)), (2, 4): ((), (1,), (2,)), (3, 2): ((2,),)}
"""What the further samples may be, by photometric and samples; Pillow drops unspecified ones, and they may be infrared."""
_MOST_SEGMENTS = 262_144


def read_tiff(
    data: bytes, open_page: Callable[[int], ImageFile.ImageFile], decode: DecodeConfig, max_pixels: int
) -> Image.Image | Raster:
    """The page that `decode` chooses: a Pillow image not yet loaded where Pillow holds it, else a raster.

    open_page: opens the file with Pillow at a directory of this number.
    Raises ImageErrors, and whatever the decoders raise on damaged data.
    """
    number = 0 if decode.frame in ("first", 0) else choose_frame(decode.frame, count_pages(data))
    page = read_page(data, number)
    _judge(page, len(data), max_pixels)
    if _pillow_holds(page):
        try:
            image = open_page(page.number)
        except UnidentifiedImageError:
            return _read_arrays(data, page)
        return _with_tags(image, page, data)
    if _is_deep_colour(page):
        values = read_deep_tiff(lambda: open_page(page.number), page.extra == (1,))
        return Raster(values, _nodata(page, values), "TIFF", count_pages(data), alpha=page.alpha)
    return _read_arrays(data, page)


def _judge(page: Page, length: int, max_pixels: int) -> None:
    size = f"{page.width} x {page.height} pixels"
    if page.width * page.height > max_pixels:
        raise ImageTooLargeError(f"has {size}; the limit is {max_pixels:,}")
    if page.width * page.height * page.samples > 4 * max_pixels:
        raise ImageTooLargeError(f"has {size} of {page.samples} bands; the limit is {4 * max_pixels:,} values")
    across, down = page.tile
    if across < 1 or down < 1 or across * down * page.samples > 4 * max_pixels:
        raise ImageTooLargeError(f"is stored in tiles of {across} x {down} pixels; the limit is {max_pixels:,}")
    segments = math.ceil(page.width / across) * math.ceil(page.height / down) * (page.samples if page.planar else 1)
    if segments > _MOST_SEGMENTS:
        raise ImageTooLargeError(f"is stored in {segments:,} pieces; the limit is {_MOST_SEGMENTS:,}")
    if page.end > length:
        raise TruncatedImageError("is truncated: the file ends before the image does")


def _pillow_holds(page: Page) -> bool:
    alike = len(set(page.bits)) == 1
    sample_format = 1 if page.sample_format == 4 else page.sample_format
    if page.compression not in _PILLOW_COMPRESSIONS or not alike:
        return False
    if (page.photometric, sample_format, page.bits[0], page.samples) not in _PILLOW_BITS:
        return False
    if page.planar and (page.photometric, page.samples) != (2, 3):
        return False
    return page.extra in _EXTRA_OF_PILLOW.get((page.photometric, page.samples), ((),))


def _is_deep_colour(page: Page) -> bool:
    kept = page.compression in _PILLOW_COMPRESSIONS and not page.planar and page.sample_format == 1
    colour = page.photometric == 2 and set(page.bits) == {16}
    return kept and colour and (page.samples, page.extra) in ((3, ()), (4, ()), (4, (1,)), (4, (2,)))


def _with_tags(image: Image.Image, page: Page, data: bytes) -> Image.Image | Raster:
    """What Pillow passes over: 16-bit greys where white is zero, and the value that means no data."""
    white_is_zero = page.photometric == 0 and image.mode.startswith("I;16")
    held = {"L": np.uint8, "RGB": np.uint8, "I;16": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}
    if image.mode not in held or (page.nodata is None and not white_is_zero):
        return image
    values = np.asarray(image).astype(held[image.mode])
    if white_is_zero:
        return named(Image.fromarray(65535 - values), "TIFF")
    nodata = _nodata(page, values)
    if nodata is None:
        return image
    values = values if values.ndim == 3 else values[..., None]
    return Raster(values, nodata, "TIFF", count_pages(data))


def _read_arrays(data: bytes, page: Page) -> Image.Image | Raster:
    if page.sample_format not in (1, 2, 3, 4):
        kind = "complex numbers" if page.sample_format in (5, 6) else "bands of different types"
        raise UnfitImageError(f"holds {kind}, which no model takes")
    values = _read_with_rasterio(data, page)
    if values is None:
        values = _read_with_tifffile(data, page)
    if values.shape[:2] != (page.height, page.width):
        raise ImageError(f"decodes to {values.shape[1]} x {values.shape[0]} pixels; its header says otherwise")
    values = turn_upright(_in_colour(_in_held_type(values, page), page), page.orientation)
    nodata = _nodata(page, values)
    if page.alpha and page.extra == (1,) and values.dtype.kind == "u":
        values = divide_by_alpha(values)
    return _as_image(Raster(values, nodata, "TIFF", count_pages(data), alpha=page.alpha and values.dtype.kind == "u"))


def _read_with_rasterio(data: bytes, page: Page) -> np.ndarray | None:
    """Georeferenced images, where rasterio is installed and the page is the one GDAL opens; else None."""
    if not page.georeferenced or page.number:
        return None
    try:
        import rasterio  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    with rasterio.MemoryFile(data) as memory, memory.open(driver="GTiff") as opened:
        return np.moveaxis(opened.read(), 0, -1)


def _read_with_tifffile(data: bytes, page: Page) -> np.ndarray:
    try:
        import tifffile
    except ImportError as error:
        counted = "1 band" if page.samples == 1 else f"{page.samples} bands"
        raise ImageError(
            f"holds {counted} of {max(page.bits)} bits in a form that needs the package tifffile; "
            "type: pip install 'vitreous[tiff]'"
        ) from error
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        found = opened.pages[page.number]
        values, axes = found.asarray(maxworkers=1), found.axes
    if axes == "YX":
        return values[..., None]
    if axes == "SYX":
        return np.moveaxis(values, 0, -1)
    if axes != "YXS":
        raise ImageError(f"holds {len(axes)} dimensions ({axes}), not one picture")
    return values


def _in_held_type(values: np.ndarray, page: Page) -> np.ndarray:
    """As one of the types a raster may hold. Floats of 64 bits are rounded to 32, whose steps no model could tell."""
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.dtype.kind == "u" and max(page.bits) < 8:
        return (values.astype(np.uint16) * 255 // (2 ** max(page.bits) - 1)).astype(np.uint8)
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(np.float32)
    if values.dtype == np.int8:
        return values.astype(np.int16)
    if values.dtype.itemsize == 8 and values.dtype.kind in "iu":
        narrow = np.int32 if values.dtype.kind == "i" else np.uint32
        if values.min() < np.iinfo(narrow).min or values.max() > np.iinfo(narrow).max:
            raise UnfitImageError(f"holds 64-bit integers up to {values.max()}; convert it to 32 bits or to floats")
        return values.astype(narrow)
    return values.astype(values.dtype.newbyteorder("="))


def _in_colour(values: np.ndarray, page: Page) -> np.ndarray:
    """Grey, RGB or plain bands, from however the samples are to be understood."""
    unsigned, full = values.dtype.kind == "u", np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
    if page.photometric == 0 and page.samples == 1 and unsigned and page.nodata is None:
        return full - values
    if page.photometric == 3 and page.palette is not None and values.shape[-1] == 1 and unsigned:
        if int(values.max()) >= page.palette.shape[1]:
            raise ImageError(f"holds the colour number {values.max()} of a palette of {page.palette.shape[1]}")
        return np.moveaxis(page.palette[:, values[..., 0]], 0, -1)
    if page.photometric == 5 and values.shape[-1] == 4 and unsigned:
        ink = values.astype(np.float64) / full
        return np.rint((1 - ink[..., :3]) * (1 - ink[..., 3:]) * full).astype(values.dtype)
    if page.photometric in (-1, 0, 1, 2, 6) and not (page.photometric == 6 and values.dtype != np.uint8):
        return values
    raise ImageError(f"stores its colours in a way that cannot be read (photometric interpretation {page.photometric})")


def _nodata(page: Page, values: np.ndarray) -> float | None:
    """None where the type cannot hold the value, as -9999 in a file of bytes."""
    if page.nodata is None or values.dtype.kind == "f":
        return page.nodata
    kind = np.iinfo(values.dtype)
    return page.nodata if kind.min <= page.nodata <= kind.max else None


def _as_image(raster: Raster) -> Image.Image | Raster:
    """A Pillow image where one holds the same."""
    values, kind = raster.values, raster.values.dtype
    if raster.nodata is not None:
        return raster
    if raster.channels == 1 and kind in (np.uint8, np.uint16, np.float32):
        return named(Image.fromarray(values[..., 0]), "TIFF")
    if raster.channels == 1 and kind in (np.int16, np.int32):
        return named(Image.fromarray(values[..., 0].astype(np.int32)), "TIFF")
    if kind == np.uint8 and (raster.channels == 3 or (raster.channels == 4 and raster.alpha)):
        return named(Image.fromarray(values), "TIFF")
    return raster
