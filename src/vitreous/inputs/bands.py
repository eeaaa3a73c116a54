"""From stored values to [0, 1], band by band: which bands, what range, where nothing was measured."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from vitreous.config.input import InputSpec
from vitreous.errors import UnfitImageError
from vitreous.inputs.raster import Raster, stretch
from vitreous.inputs.reduced import EDGES

MOST_VALUES = 4096
"""Pixels of one image that `band_values` returns at most."""
LUMA = np.array((0.299, 0.587, 0.114), np.float32)
"""Grey from red, green, blue (ITU-R BT.601), as Pillow has it."""
_PALETTES = ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
_RANGELESS = re.compile(r"I|F|\d+x(int16|int32|uint32|float32)")


def select_bands(decoded: Image.Image | Raster, bands: tuple[int, ...]) -> Image.Image | Raster:
    """These bands, numbered from 1, in this order; all when empty.

    Opacity is a band like any other when bands are named: many four-band images merely look transparent.
    Raises UnfitImageError for a band the image lacks.
    """
    if not bands:
        return decoded
    if isinstance(decoded, Raster):
        return decoded.select(bands)
    names = decoded.format or "array"
    chosen = Raster(_plain(decoded), format=names).select(bands)
    values = chosen.values
    if len(bands) == 1 and decoded.mode in ("F", "I"):
        return decoded
    if (len(bands) in (1, 3) and values.dtype == np.uint8) or (len(bands) == 1 and values.dtype == np.uint16):
        image = Image.fromarray(values if len(bands) == 3 else values[..., 0])
        image.format = decoded.format
        if EDGES in decoded.info:
            image.info[EDGES] = decoded.info[EDGES]
        return image
    return chosen


def as_picture(decoded: Image.Image | Raster) -> Image.Image:
    """Something to draw: 8-bit images as they are; greys of 16 bits, floats and bands stretched over their values."""
    if isinstance(decoded, Raster):
        return decoded.preview()
    if not is_deep(decoded.mode):
        return decoded
    values = np.asarray(decoded)
    return Image.fromarray(stretch(values, np.isfinite(values)))


def is_deep(mode: str) -> bool:
    """Whether a Pillow mode holds more than 8 bits a sample."""
    return mode in ("I", "F") or mode.startswith("I;16")


def needs_range(mode: str) -> bool:
    """Whether pixels of this mode (of a Pillow image or a `Raster`) have no range of their own: floats, and signed or
    wide integers. An `InputSpec` for them should have a `value_range`.
    """
    return _RANGELESS.fullmatch(mode) is not None


def band_values(decoded: Image.Image | Raster) -> np.ndarray:
    """(n, channels): up to `MOST_VALUES` pixels in stored units, spread evenly, without nodata and NaN in any band.

    Channels are those the model will see: grey or colour without opacity, or all bands. The same image gives the same
    pixels.
    """
    values, valid = stored_bands(decoded, 1.0)
    flat = values.reshape(-1, values.shape[-1])
    if valid is not None:
        flat = flat[valid.reshape(flat.shape).all(-1)]
    return flat[:: max(1, -(-len(flat) // MOST_VALUES))]


def stored_bands(decoded: Image.Image | Raster, background: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Values (h, w, channels) in stored units, opacity laid over the background, and where they are valid (None: everywhere)."""
    if not isinstance(decoded, Raster):
        flat = flatten(decoded, background)
        if flat.mode == "RGBA":
            flat = flat.convert("L" if decoded.mode in ("L", "LA", "La") else "RGB")
        values = _plain(flat)
        return values, np.isfinite(values) if values.dtype.kind == "f" else None
    has_gaps = decoded.nodata is not None or decoded.values.dtype.kind == "f"
    valid = decoded.valid() if has_gaps else None
    if not decoded.alpha:
        return decoded.values, valid
    full = np.iinfo(decoded.values.dtype).max
    colour, opacity = decoded.values[..., :-1].astype(np.float64), decoded.values[..., -1:].astype(np.float64) / full
    laid = np.rint(colour * opacity + background * full * (1 - opacity)).astype(decoded.values.dtype)
    return laid, None if valid is None else valid[..., :-1]


def flatten(image: Image.Image, background: float) -> Image.Image:
    """Lay transparent pixels over the background; what a viewer hides must not reach the model."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    level = round(background * 255)
    return Image.alpha_composite(Image.new("RGBA", image.size, (level, level, level, 255)), image)


def scaled_bands(decoded: Image.Image | Raster, spec: InputSpec) -> np.ndarray:
    """float32 (h, w, channels of `spec`) in [0, spec.max_value], not rounded; 0 where nothing was measured.

    Raises UnfitImageError where the number of bands is another than the model's, where values have no known range, and
    where no pixel is valid.
    """
    values, valid = stored_bands(decoded, spec.background)
    if valid is not None and not valid.any():
        raise UnfitImageError("holds no valid pixel: all are marked as missing or not numbers")
    values, valid = _in_channels(values, valid, spec.channels)
    ranges = spec.value_range or ((0.0, _largest(values, valid, decoded.mode)),) * spec.channels
    exact = values.dtype in (np.int32, np.uint32)
    scaled = np.empty((*values.shape[:2], spec.channels), np.float32)
    for channel, (low, high) in enumerate(ranges):
        band = values[..., min(channel, values.shape[-1] - 1)].astype(np.float64 if exact else np.float32)
        unit = (band - low) * (spec.max_value / (high - low))
        scaled[..., channel] = np.clip(unit, 0, spec.max_value)
    if valid is not None:
        scaled[~np.broadcast_to(valid, scaled.shape)] = 0
    return scaled


def _plain(image: Image.Image) -> np.ndarray:
    """The samples of a Pillow image, (h, w, channels) of a type that a raster may hold; colours that need it become RGB."""
    if image.mode in _PALETTES:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("RGBa", "La", "RGBX"):
        image = image.convert({"RGBa": "RGBA", "La": "LA", "RGBX": "RGB"}[image.mode])
    values = np.asarray(image)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        values = values.astype(np.uint16)
    return values if values.ndim == 3 else values[..., None]


def _in_channels(values: np.ndarray, valid: np.ndarray | None, channels: int) -> tuple[np.ndarray, np.ndarray | None]:
    """As many bands as the model takes, or one that stands for all of them."""
    found = values.shape[-1]
    if found == channels or (found == 1 and channels == 3):
        return values, valid
    if found == 3 and channels == 1 and values.dtype in (np.uint8, np.uint16):
        grey = np.rint(values.astype(np.float32) @ LUMA)[..., None].astype(values.dtype)
        return grey, None if valid is None else np.all(valid, axis=-1)[..., None]
    counted = "1 band" if found == 1 else f"{found} bands"
    wanted = "1" if channels == 1 else f"{channels}"
    raise UnfitImageError(f"has {counted} and the model takes {wanted}; name which bands are meant, or retrain")


def _largest(values: np.ndarray, valid: np.ndarray | None, mode: str) -> float:
    """The stored value that stands for 1 where the settings name none."""
    if values.dtype.kind == "f":
        raise UnfitImageError("holds 32-bit floats, whose range is unknown; convert it to 8 or 16 bits")
    if values.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(values.dtype).max)
    known = values if valid is None else values[np.broadcast_to(valid, values.shape)]
    if known.min() < 0 or known.max() > 65535:
        raise UnfitImageError(f"holds integers from {known.min()} to {known.max()}, not 0 to 65535 ({mode})")
    return 65535.0
