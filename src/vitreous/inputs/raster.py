"""Pixels that no Pillow image holds without loss: many bands, 16-bit colour, signed and floating-point bands."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from vitreous.errors import UnfitImageError

HELD_TYPES = (np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.float32)
"""What the values of a raster may be; readers widen everything else to one of these without loss, or refuse it."""

PREVIEW_PERCENTILES = (2.0, 98.0)
"""Share of the valid values of a band that a preview shows as black and as white."""


@dataclass(frozen=True, eq=False)
class Raster:
    """One decoded image as an array. Upright, like every image that `open_image` returns."""

    values: np.ndarray
    """(height, width, channels) of one of `HELD_TYPES`, as stored in the file."""
    nodata: float | None = None
    """The stored value that means that nothing was measured; NaN always means that."""
    format: str = "array"
    """TIFF, PNG, DICOM ...; "array" for pixels that came as an array."""
    frames: int = 1
    """Pictures in the file this one was chosen from."""
    alpha: bool = False
    """The last channel is opacity (not premultiplied), and the ones before it are grey or colour."""

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or 0 in self.values.shape:
            raise UnfitImageError(f"has shape {self.values.shape}; a raster is (height, width, channels)")
        if self.values.dtype.type not in HELD_TYPES:
            names = ", ".join(kind.__name__ for kind in HELD_TYPES)
            raise UnfitImageError(f"holds {self.values.dtype}; a raster holds {names}")

    @property
    def width(self) -> int:
        return self.values.shape[1]

    @property
    def height(self) -> int:
        return self.values.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, as Pillow has it."""
        return (self.width, self.height)

    @property
    def channels(self) -> int:
        return self.values.shape[2]

    @property
    def mode(self) -> str:
        """Channels and type: "6xuint16"."""
        return f"{self.channels}x{self.values.dtype.name}"

    def valid(self) -> np.ndarray:
        """bool (height, width, channels): False where the value is nodata or not a number."""
        mask = np.isfinite(self.values) if self.values.dtype.kind == "f" else np.ones(self.values.shape, bool)
        if self.nodata is not None and np.isfinite(self.nodata):
            mask &= self.values != self._stored_nodata()
        return mask

    def select(self, bands: tuple[int, ...]) -> Raster:
        """These bands, numbered from 1, in this order; all when empty. Raises UnfitImageError for one it lacks."""
        if not bands:
            return self
        if max(bands) > self.channels:
            counted = "1 band" if self.channels == 1 else f"{self.channels} bands"
            raise UnfitImageError(f"has {counted}, numbered from 1; band {max(bands)} was asked for")
        return replace(self, values=self.values[..., [band - 1 for band in bands]], alpha=False)

    def preview(self) -> Image.Image:
        """For looking at only: the first three bands as RGB, or the first as L, stretched over most of their values."""
        colour = self.channels - self.alpha >= 3
        values, valid = self.values[..., : 3 if colour else 1], self.valid()[..., : 3 if colour else 1]
        bands = [stretch(values[..., band], valid[..., band]) for band in range(values.shape[-1])]
        return Image.fromarray(np.stack(bands, -1) if colour else bands[0])

    def _stored_nodata(self) -> np.generic | float:
        """In the type of the values: a float file that says -3.4028235e38 means its own smallest number."""
        assert self.nodata is not None
        if self.values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                return self.values.dtype.type(self.nodata)
        return float(self.nodata)


def named(image: Image.Image, name: str) -> Image.Image:
    """An image made from an array, with the format of the file it came from, as Pillow's own have it."""
    image.format = name
    return image


def stretch(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """One band (h, w) as uint8: black and white at `PREVIEW_PERCENTILES` of its valid values, black where not valid."""
    known = values[valid]
    if known.size == 0:
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(known[:: max(1, known.size // 100_000)].astype(np.float64), PREVIEW_PERCENTILES)
    if high <= low:  # one value almost everywhere
        low, high = float(known.min()), float(known.max())
    scale = 255 / (high - low) if high > low else 0.0
    shown = np.where(valid, values, low).astype(np.float64)
    return np.where(valid, np.clip(np.rint((shown - low) * scale), 0, 255), 0).astype(np.uint8)


def turn_upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF or TIFF orientation (tag 274, 1 to 8) to an array (height, width, channels)."""
    if orientation in (5, 6, 7, 8):
        values = np.swapaxes(values, 0, 1)
    down = {3: -1, 4: -1, 7: -1, 8: -1}.get(orientation, 1)
    across = {2: -1, 3: -1, 6: -1, 7: -1}.get(orientation, 1)
    return np.ascontiguousarray(values[::down, ::across])
