"""From a decoded image to the array a model sees, as its `InputSpec` says.

Two steps, so that a training set can keep the first and repeat only the second:
`to_pixels` gives whole numbers (height, width, channels); `normalise` gives float32 (channels, height, width).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from vitreous.config.input import InputSpec
from vitreous.errors import ImageError, UnfitImageError
from vitreous.inputs.bands import flatten, is_deep, scaled_bands
from vitreous.inputs.decode import FILE_FORMATS, MAX_PIXELS, ImageSource, open_image
from vitreous.inputs.raster import Raster
from vitreous.inputs.reduced import EDGES, extent

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


def prepare(
    source: ImageSource,
    spec: InputSpec,
    *,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] = FILE_FORMATS,
) -> np.ndarray:
    """One image as the model takes it: float32 (channels, height, width). Raises the errors of `open_image`."""
    image = open_image(source, max_pixels=max_pixels, formats=formats, target=spec)
    return normalise(to_pixels(image, spec), spec)


def to_pixels(image: Image.Image | Raster, spec: InputSpec) -> np.ndarray:
    """Channels, bit depth and size as in `spec`: uint8 or uint16 (height, width, channels).

    Transparent pixels are laid over `spec.background`; palettes, CMYK and other colour spaces become RGB or grey;
    16-bit samples keep their bits when `spec.bit_depth` is 16 and are scaled to 8 bits by 1/257 otherwise. Bands are mapped
    through `spec.value_range` one by one; where nothing was measured (nodata, NaN) they are 0.
    Raises UnfitImageError for another number of bands than the model's, for an image without a valid pixel, and without
    a `value_range` for floats, whose range no file states, and for integers outside 0 to 65535.
    """
    pixels = _as_stored(image, spec)
    return _even(pixels, spec.max_value) if spec.exposure == "even" else pixels


def _as_stored(image: Image.Image | Raster, spec: InputSpec) -> np.ndarray:
    if isinstance(image, Raster) or spec.value_range or image.mode == "F" or spec.channels not in (1, 3):
        return _from_bands(image, spec)
    if is_deep(image.mode):
        return _from_sixteen_bits(image, spec)
    mode = "L" if spec.channels == 1 else "RGB"
    try:
        image = flatten(image, spec.background)
        image = image if image.mode == mode else image.convert(mode)  # converting to its own mode would copy it
    except (
        Exception
    ) as error:  # of a palette or transparency that contradicts the pixels, Pillow raises anything at all
        raise ImageError(f"has colours that cannot be read ({type(error).__name__})") from error
    pixels = np.asarray(_resize(image, spec, fill=round(spec.background * 255)))
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if spec.bit_depth == 16:
        return pixels.astype(np.uint16) * 257
    return np.array(pixels)


def _even(pixels: np.ndarray, max_value: int) -> np.ndarray:
    """Mid grey on average, three deviations from black to mid grey, whatever the light was; one gain for all channels, so
    that colours keep their ratios. An image of a single value becomes mid grey."""
    values = pixels.astype(np.float32)
    deviation = float(values.std(dtype=np.float64))
    middle = max_value / 2
    scaled = (values - float(values.mean(dtype=np.float64))) * (middle / 3 / max(deviation, 0.5)) + middle
    return np.clip(np.rint(scaled), 0, max_value).astype(pixels.dtype)


def normalise(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Whole numbers (..., height, width, channels) to float32 (..., channels, height, width), mean 0 and deviation 1."""
    scale, offset = normalisation(spec)
    out = np.empty((*pixels.shape[:-3], pixels.shape[-1], *pixels.shape[-3:-1]), np.float32)
    for channel in range(pixels.shape[-1]):  # straight to where it belongs: six times as fast as moving axes afterwards
        plane = out[..., channel, :, :]
        np.multiply(pixels[..., channel], scale[channel], out=plane, dtype=np.float32)
        plane += offset[channel]
    return out


def normalisation(spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """float32 scale and offset (channels,), so that `stored * scale + offset` is what the model takes."""
    mean, std = np.asarray(spec.mean, np.float64), np.asarray(spec.std, np.float64)
    return (1.0 / (spec.max_value * std)).astype(np.float32), (-mean / std).astype(np.float32)


def _from_bands(decoded: Image.Image | Raster, spec: InputSpec) -> np.ndarray:
    """Each band resized by itself, as floats."""
    scaled = scaled_bands(decoded, spec)
    edges = {} if isinstance(decoded, Raster) or EDGES not in decoded.info else {EDGES: decoded.info[EDGES]}
    pixels = np.empty((spec.height, spec.width, spec.channels), np.uint8 if spec.bit_depth == 8 else np.uint16)
    for channel in range(spec.channels):
        band = Image.fromarray(np.ascontiguousarray(scaled[..., channel]))
        band.info.update(edges)
        resized = np.asarray(_resize(band, spec, fill=spec.background * spec.max_value))
        pixels[..., channel] = np.clip(np.rint(resized), 0, spec.max_value)
    return pixels


def _from_sixteen_bits(image: Image.Image, spec: InputSpec) -> np.ndarray:
    values = np.asarray(image).astype(np.float32)
    if values.min() < 0 or values.max() > 65535:
        raise UnfitImageError(f"holds integers from {values.min():.0f} to {values.max():.0f}, not 0 to 65535")
    resized = np.asarray(_resize(Image.fromarray(values), spec, fill=spec.background * 65535))
    if spec.bit_depth == 8:
        pixels = np.clip(np.rint(resized / 257), 0, 255).astype(np.uint8)
    else:
        pixels = np.clip(np.rint(resized), 0, 65535).astype(np.uint16)
    return np.repeat(pixels[..., None], spec.channels, axis=-1)


def _resize(image: Image.Image, spec: InputSpec, fill: float) -> Image.Image:
    resampling = _FILTERS[spec.interpolation]
    size = (spec.width, spec.height)
    seen = extent(image)
    width, height = seen[2] - seen[0], seen[3] - seen[1]
    if spec.resize == "pad":
        left, top, inner_width, inner_height = _inner_box(width, height, spec)
        canvas = Image.new(image.mode, size, (int(fill),) * 3 if image.mode == "RGB" else fill)
        canvas.paste(image.resize((inner_width, inner_height), resampling, box=seen), (left, top))
        return canvas
    if spec.resize == "crop":
        left, top, right, bottom = _centre_box(width, height, spec)
        seen = (seen[0] + left, seen[1] + top, seen[0] + right, seen[1] + bottom)
    whole = seen == (0, 0, image.width, image.height)
    return image if whole and image.size == size else image.resize(size, resampling, box=seen)


def seen_box(width: int, height: int, spec: InputSpec) -> tuple[float, float, float, float]:
    """Where the model's array lies in an image of width x height pixels: (left, top, right, bottom) in its pixels.

    A part of the image with `crop`, all of it with `squash`, and more than it (padding included) with `pad`.
    """
    if spec.resize == "squash":
        return (0.0, 0.0, float(width), float(height))
    if spec.resize == "crop":
        return _centre_box(width, height, spec)
    left, top, inner_width, inner_height = _inner_box(width, height, spec)
    across, down = width / inner_width, height / inner_height
    return (-left * across, -top * down, (spec.width - left) * across, (spec.height - top) * down)


def _inner_box(width: float, height: float, spec: InputSpec) -> tuple[int, int, int, int]:
    """Where `pad` puts the whole image in the model's array: (left, top, width, height) in the array's pixels."""
    scale = min(spec.width / width, spec.height / height)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    return ((spec.width - inner_width) // 2, (spec.height - inner_height) // 2, inner_width, inner_height)


def _centre_box(width: float, height: float, spec: InputSpec) -> tuple[float, float, float, float]:
    """The largest centred box of the model's aspect ratio, shrunk by `crop_fraction`: (left, top, right, bottom)."""
    scale = min(width / spec.width, height / spec.height) * spec.crop_fraction
    # Not by a rounding error larger than the image, which Pillow refuses.
    box_width, box_height = min(spec.width * scale, width), min(spec.height * scale, height)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return (left, top, left + box_width, top + box_height)
