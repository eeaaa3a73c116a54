"""Look at one image: decode it in full, and tell what it shows in brief. A pure function of bytes and settings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from vitreous.config.decode import DecodeConfig
from vitreous.data.examination.finding import THUMBNAIL, Bad, Finding, one_line
from vitreous.data.examination.header import promised_instead, read_header
from vitreous.errors import ImageError, UnfitImageError, VitreousError
from vitreous.inputs import ImageSource, Raster, open_image
from vitreous.inputs.dicom import patient_pseudonym

SMALL = 256
"""Longer side, in pixels, at which grey values are judged."""
_BOX = Image.Resampling.BOX
_PLAIN = {
    ("1xuint8", False): "L",
    ("3xuint8", False): "RGB",
    ("4xuint8", True): "RGBA",
    ("1xuint16", False): "I;16",
}
"""Rasters that Pillow could hold: their digest is that of the same pixels from another reader."""


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What the pixels alone tell; the fields are those of `Finding`."""

    width: int
    height: int
    mode: str
    bits: int
    channels: int
    digest: str
    brightness: float
    contrast: float
    sharpness: float
    low: float
    high: float
    thumbnail: bytes


def look(source: ImageSource, decode: DecodeConfig, max_pixels: int, *, name: str = "") -> Finding | Bad:
    """Everything about one image, or why it cannot be used. Raises nothing but KeyboardInterrupt and SystemExit.

    source: the encoded bytes of a file, or an array, tensor or Pillow image.
    name: of the file, whose suffix promises a format.
    """
    try:
        seen = see(open_image(source, max_pixels=max_pixels, decode=decode))
        if not isinstance(source, bytes):
            return Finding(frames=1, format="array", bytes=_size(source), **_fields(seen))
        header = read_header(source)
        finding = Finding(
            frames=header.frames,
            format=header.format,
            bytes=len(source),
            camera=header.camera,
            taken=header.taken,
            patient=patient_pseudonym(source),
            **_fields(seen),
        )
    except MemoryError:
        return Bad("needs too much memory to be decoded", lasting=False)
    except ImageError as error:
        if _lacked_memory(error):
            return Bad("needs too much memory to be decoded", lasting=False)
        return Bad(one_line(error.message))
    except VitreousError as error:  # a package that is not installed: no property of the file
        return Bad(one_line(f"cannot be read: {error}"), lasting=False)
    except Exception as error:
        return Bad(one_line(f"cannot be examined ({type(error).__name__}: {error})"), lasting=False)
    return named(finding, name)


def named(finding: Finding, name: str) -> Finding:
    """The same finding for a file of this name: content is looked at once, whatever the files are called."""
    return replace(finding, suffix_format=promised_instead(name, finding.format))


def see(image: Image.Image | Raster) -> _Seen:
    """What a decoded image shows. Raises UnfitImageError where nothing in it was measured."""
    if isinstance(image, Raster):
        return _see_raster(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image)[..., None]
        known = np.isfinite(values) if image.mode == "F" else None
        return _see_values(values, known, image.mode, pixel_digest(image))
    shown = _resolve(image)
    data = shown.tobytes()
    grey, thumbnail = _small(shown)
    counts = np.array(grey.histogram(), np.float64)
    levels = np.arange(256) / 255
    brightness = float(counts @ levels / counts.sum())
    contrast = float(np.sqrt(counts @ (levels - brightness) ** 2 / counts.sum()))
    low, high = _extremes(shown, data)
    return _Seen(
        width=image.width,
        height=image.height,
        mode=image.mode,
        bits=8,
        channels=1 if shown.mode in ("1", "L", "LA", "La") else 3,
        digest=_digest(shown.mode, shown.size, data),
        brightness=brightness,
        contrast=contrast,
        sharpness=sharpness(np.asarray(grey)) / 255**2,
        low=low,
        high=high,
        thumbnail=thumbnail,
    )


def pixel_digest(image: Image.Image | Raster) -> str:
    """sha256 of what the image shows. Palettes are resolved first: equal indices may be different colours."""
    if isinstance(image, Raster):
        values = image.values
        mode = _PLAIN.get((image.mode, image.alpha), image.mode)
        return _digest(mode, image.size, values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    image = _resolve(image)
    if image.mode.startswith("I;16"):  # byte order is a property of the file
        return _digest("I;16", image.size, np.asarray(image).astype("<u2").tobytes())
    return _digest(image.mode, image.size, image.tobytes())


def sharpness(grey: np.ndarray) -> float:
    """Variance of the discrete Laplacian of grey values (h, w) (Pech-Pacheco et al. 2000, "Diatom autofocusing in
    brightfield microscopy", section 2); 0 where a side is shorter than three pixels.
    """
    if min(grey.shape) < 3:
        return 0.0
    values = grey.astype(np.int16 if grey.dtype == np.uint8 else np.float64)  # 4 x 255 fits, and is twice as fast
    edges = values[1:-1, 1:-1] * 4
    edges -= values[:-2, 1:-1]
    edges -= values[2:, 1:-1]
    edges -= values[1:-1, :-2]
    edges -= values[1:-1, 2:]
    flat = edges.astype(np.float32).ravel()
    return max(0.0, float(flat @ flat) / flat.size - float(flat.mean()) ** 2)


def _lacked_memory(error: BaseException | None) -> bool:
    """Whether a want of memory, which is no property of the file, led to this error."""
    for _ in range(10):
        if error is None or isinstance(error, MemoryError):
            break
        error = error.__cause__ or error.__context__
    return isinstance(error, MemoryError)


def _resolve(image: Image.Image) -> Image.Image:
    if image.mode in ("P", "PA") or "transparency" in image.info:
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image


def _digest(mode: str, size: tuple[int, int], data: bytes) -> str:
    digest = hashlib.sha256(f"{mode} {size[0]} {size[1]}\n".encode())
    digest.update(data)
    return digest.hexdigest()


def _small(image: Image.Image) -> tuple[Image.Image, bytes]:
    """Grey values at up to SMALL pixels, and the thumbnail. Transparent pixels are laid over white, as models see them."""
    if image.mode == "1":
        image = image.convert("L")
    if max(image.size) > SMALL:
        image = image.resize(_fit(image.size), _BOX, reducing_gap=1.0)
    if image.mode in ("RGBA", "LA", "RGBa", "La"):
        whole = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", whole.size, (255, 255, 255, 255)), whole)
    grey = image if image.mode == "L" else image.convert("L")
    colour = image if image.mode in ("L", "RGB") else image.convert("RGB")
    colour = colour.resize((THUMBNAIL, THUMBNAIL), _BOX, reducing_gap=1.0)
    return grey, colour.convert("RGB").tobytes()


def _fit(size: tuple[int, int]) -> tuple[int, int]:
    scale = SMALL / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _extremes(image: Image.Image, data: bytes) -> tuple[float, float]:
    """Smallest and largest stored value, transparency left out."""
    if image.mode in ("L", "RGB", "CMYK", "YCbCr"):
        values = np.frombuffer(data, np.uint8)
        return float(values.min()), float(values.max())
    pairs: Any = image.getextrema()
    pairs = [pairs] if isinstance(pairs[0], int | float) else list(pairs)
    pairs = pairs[: 1 if image.mode in ("LA", "La") else 3]
    return float(min(low for low, _ in pairs)), float(max(high for _, high in pairs))


def _see_raster(raster: Raster) -> _Seen:
    values, known = raster.values, raster.valid()
    if raster.alpha and raster.channels > 1:
        values, known = values[..., :-1], known[..., :-1]
    return _see_values(values, known, raster.mode, pixel_digest(raster))


def _see_values(values: np.ndarray, known: np.ndarray | None, mode: str, digest: str) -> _Seen:
    """Samples of any type (h, w, bands). known: False where nothing was measured, which then counts as the smallest."""
    if known is None or known.all():
        low, high = float(values.min()), float(values.max())
    else:
        measured = values[known]
        if measured.size == 0:
            raise UnfitImageError("holds no valid pixel: all are marked as missing or not numbers")
        low, high = float(measured.min()), float(measured.max())
        values = np.where(known, values, np.array(low, values.dtype))
    bits = 8 * min(values.dtype.itemsize, 4) if values.dtype.kind == "u" else 32
    if values.dtype.kind in "iu" and low >= 0 and high <= 65535:  # Pillow widens 16 bits in some formats
        bits = min(bits, 16)
    black, white = (0.0, 2.0**bits - 1) if bits < 32 else (low, high)
    planes = [_shrink(values[..., band]) for band in range(values.shape[2])]
    grey = (np.mean(planes, axis=0) - black) / ((white - black) or 1.0)
    return _Seen(
        width=values.shape[1],
        height=values.shape[0],
        mode=mode,
        bits=bits,
        channels=values.shape[2],
        digest=digest,
        brightness=float(grey.mean()),
        contrast=float(grey.std()),
        sharpness=sharpness(grey),
        low=low,
        high=high,
        thumbnail=_stretched(planes, low, high),
    )


def _shrink(plane: np.ndarray) -> np.ndarray:
    """One band (h, w) as float64 at up to SMALL pixels on the longer side."""
    image = Image.fromarray(plane.astype(np.float32))
    if max(image.size) > SMALL:
        image = image.resize(_fit(image.size), _BOX, reducing_gap=1.0)
    return np.asarray(image).astype(np.float64)


def _stretched(planes: list[np.ndarray], low: float, high: float) -> bytes:
    """Thumbnail of the first three bands, or of the first alone as grey, with `low` black and `high` white."""
    chosen = planes[:3] if len(planes) >= 3 else planes[:1] * 3
    scaled = (np.stack(chosen, axis=-1) - low) * (255 / ((high - low) or 1.0))
    image = Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))
    return image.resize((THUMBNAIL, THUMBNAIL), _BOX, reducing_gap=1.0).tobytes()


def _fields(seen: _Seen) -> dict[str, Any]:
    return {name: getattr(seen, name) for name in _Seen.__dataclass_fields__}


def _size(source: ImageSource) -> int:
    return int(getattr(source, "nbytes", 0))
