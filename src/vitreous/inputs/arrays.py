"""Arrays and tensors that stand for images."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vitreous.errors import UnfitImageError
from vitreous.inputs.raster import HELD_TYPES, Raster


def from_array(array: np.ndarray) -> Image.Image | Raster:
    """(height, width), or (height, width, channels) with 1, 3, 4 or more channels, as an image.

    Grey and colour: uint8, uint16, bool or floats in [0, 1], which become 8 bits. Five channels and more are bands, kept
    as they are. Raises UnfitImageError for every other shape or type.
    """
    if array.ndim == 3 and array.shape[-1] > 4 and 0 not in array.shape and array.dtype.type in HELD_TYPES:
        return Raster(np.ascontiguousarray(array))
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or 0 in array.shape:
        raise UnfitImageError(
            f"has shape {array.shape} of {array.dtype}; an array must be (height, width), (height, width, 1), "
            "(height, width, 3) or (height, width, 4); more bands than four must be 8 to 32-bit integers or 32-bit floats"
        )
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise UnfitImageError("holds floats outside [0, 1]; scale them, or pass uint8, uint16 or a Raster")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype == np.uint16 and array.ndim == 3:
        return Raster(np.ascontiguousarray(array), alpha=array.shape[-1] == 4)
    elif array.dtype not in (np.uint8, np.uint16):
        raise UnfitImageError(f"holds {array.dtype}; pass uint8, uint16, bool or floats in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(array))


def channels_last(array: np.ndarray) -> np.ndarray:
    """A tensor (channels, height, width) as (height, width, channels)."""
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array
