"""16-bit colour at 16 bits through Pillow, which itself keeps the high bytes only.

Pillow's decoders unpack 16-bit colour in either byte order and keep the high byte. Told the other order, they keep
the low byte instead; two passes therefore give every bit, at the speed and with the safety of its decoders, and with
interlacing, strips, tiles and compression as they come.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import ImageFile

from vitreous.errors import ImageError
from vitreous.inputs.raster import Raster, turn_upright

_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_ORIENTATION = 0x0112
_GREY_WITH_ALPHA = 4
_COLOUR_TYPES = (2, _GREY_WITH_ALPHA, 6)


def is_deep_png(data: bytes) -> bool:
    """16 bits a sample (byte 24) and colour or alpha (byte 25): PNG specification, section 11.2.2."""
    is_png = data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) > 25
    return is_png and data[24] == 16 and data[25] in _COLOUR_TYPES


def read_deep_png(data: bytes, open_file: Callable[[], ImageFile.ImageFile]) -> Raster:
    """A PNG that `is_deep_png`, as uint16 of 2, 3 or 4 channels. Raises what Pillow raises, at worst.

    open_file: opens the file with Pillow without decoding it; called twice.
    """
    if data[25] == _GREY_WITH_ALPHA:
        image = open_file()
        # 4 bytes a pixel whatever they mean: read as 8-bit RGBA they are high grey, low grey, high alpha, low alpha.
        image.tile = [tile._replace(args="RGBA") for tile in image.tile]
        values = np.asarray(image).view(">u2").astype(np.uint16)
    else:
        image, values = _both_bytes(open_file)
    key = image.info.get("transparency")
    if isinstance(key, tuple) and values.shape[-1] == 3:
        opaque = (values != np.array(key, np.uint16)).any(-1, keepdims=True)
        values = np.concatenate([values, opaque.astype(np.uint16) * 65535], -1)
    values = turn_upright(values, int(image.getexif().get(_ORIENTATION, 1)))
    return Raster(values, format="PNG", alpha=values.shape[-1] in (2, 4))


def read_deep_tiff(open_file: Callable[[], ImageFile.ImageFile], premultiplied: bool) -> np.ndarray:
    """uint16 (height, width, 3 or 4) of a TIFF page of 16-bit RGB or RGBA; Pillow turns it upright."""
    _, values = _both_bytes(open_file)
    return divide_by_alpha(values) if premultiplied else values


def divide_by_alpha(values: np.ndarray) -> np.ndarray:
    """Colour that was multiplied by the last channel, opacity, as it was before; 0 where nothing is opaque."""
    colour, alpha = values[..., :-1].astype(np.float64), values[..., -1:]
    full = np.iinfo(values.dtype).max
    colour = np.divide(colour * full, alpha, out=np.zeros_like(colour), where=alpha > 0)
    return np.concatenate([np.clip(np.rint(colour), 0, full).astype(values.dtype), alpha], -1)


def _both_bytes(open_file: Callable[[], ImageFile.ImageFile]) -> tuple[ImageFile.ImageFile, np.ndarray]:
    first, second = open_file(), open_file()
    first.tile = [tile._replace(args=_with_order(tile.args, swap=False)) for tile in first.tile]
    second.tile = [tile._replace(args=_with_order(tile.args, swap=True)) for tile in second.tile]
    high, low = (np.asarray(image).astype(np.uint16) for image in (first, second))
    return first, high * 256 + low


def _with_order(args: Any, *, swap: bool) -> Any:
    """The raw mode of a Pillow tile, with the other byte order; premultiplied alpha is taken as stored."""
    raw, *rest = (args,) if isinstance(args, str) else args
    name, separator, order = str(raw).rpartition(";16")
    if not separator or order not in _OTHER_ORDER:
        raise ImageError(f"is stored in a way that is not known ({raw})")
    name = name.replace("RGBa", "RGBA")
    raw = f"{name};16{_OTHER_ORDER[order] if swap else order}"
    return raw if isinstance(args, str) else (raw, *rest)
