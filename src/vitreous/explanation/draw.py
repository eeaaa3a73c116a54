"""From a coarse heat map on the model's array to a picture over the original image. NumPy and Pillow only.

Shapes: gh gw cells of the map, h w pixels of the original image.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vitreous.config.decode import DecodeConfig
from vitreous.config.input import InputSpec
from vitreous.inputs import Raster, as_picture, needs_range
from vitreous.inputs.pixels import seen_box, to_pixels

SMALLEST_SIDE, LARGEST_SIDE = 224, 1024
"""Pixels of an overlay's longer side: smaller images are enlarged in whole steps, larger ones reduced."""

# Dark violet over red to pale yellow; lightness rises evenly, so that grey printing and colour-blind eyes keep the order.
_STOPS = np.array(
    [
        (8, 4, 32),
        (38, 12, 78),
        (82, 18, 108),
        (126, 32, 106),
        (168, 50, 92),
        (206, 74, 68),
        (234, 112, 40),
        (248, 160, 24),
        (250, 208, 62),
        (252, 250, 170),
    ],
    np.float32,
)


def unit_range(heatmap: np.ndarray) -> np.ndarray:
    """float32, same shape: evidence against (below 0) becomes 0, the rest is stretched to [0, 1]; a flat map is all 0."""
    positive = np.maximum(heatmap.astype(np.float32), 0)
    low, high = positive.min(), positive.max()
    if high - low <= 1e-6 * high:
        return np.zeros_like(positive)
    return (positive - low) / (high - low)


def place(
    heatmap: np.ndarray, spec: InputSpec, image_size: tuple[int, int], output_size: tuple[int, int] | None = None
) -> np.ndarray:
    """Put a map of the model's array where its pixels came from in the original image.

    heatmap:     (gh, gw) in [0, 1] over the array that `spec` makes.
    image_size:  width and height of the original, upright image; output_size: of the result, the same when None.
    returns:     float32 (h, w) in [0, 1], smooth; 0 outside what the model saw.
    """
    width, height = image_size
    output_width, output_height = output_size or image_size
    left, top, right, bottom = seen_box(width, height, spec)
    down = _interpolation(heatmap.shape[0], output_height, top / height, bottom / height)
    across = _interpolation(heatmap.shape[1], output_width, left / width, right / width)
    return np.clip(down @ heatmap.astype(np.float32) @ across.T, 0, 1)


def _interpolation(cells: int, pixels: int, start: float, stop: float) -> np.ndarray:
    """Cubic interpolation (Keys 1981, a = -1/2) along one axis as a matrix, float32 (pixels, cells).

    start, stop: where the cells begin and end, as shares of the axis; pixels outside get an empty row. Beyond the
    outer cells' centres the map goes on flat.
    """
    centre = (np.arange(pixels) + 0.5) / pixels
    position = (centre - start) / (stop - start) * cells - 0.5
    inside = (centre >= start) & (centre <= stop)
    weights = np.zeros((pixels, cells), np.float32)
    first = np.floor(position).astype(int)
    for offset in range(-1, 3):
        distance = np.abs(position - (first + offset))
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weight = np.where(distance <= 1, near, np.where(distance < 2, far, 0)) * inside
        np.add.at(weights, (np.arange(pixels), np.clip(first + offset, 0, cells - 1)), weight.astype(np.float32))
    return weights


def colorize(heatmap: np.ndarray) -> np.ndarray:
    """Values in [0, 1] (h, w) to colors, float32 (h, w, 3) in [0, 255]."""
    position = np.linspace(0, 1, len(_STOPS))
    return np.stack([np.interp(heatmap, position, _STOPS[:, index]) for index in range(3)], -1).astype(np.float32)


def display_size(width: int, height: int) -> tuple[int, int]:
    """The size an overlay is drawn at: the image's own, whole multiples of it when tiny, reduced when huge."""
    longer = max(width, height)
    if longer < SMALLEST_SIDE:
        factor = math.ceil(SMALLEST_SIDE / longer)
        return width * factor, height * factor
    if longer > LARGEST_SIDE:
        return max(1, round(width * LARGEST_SIDE / longer)), max(1, round(height * LARGEST_SIDE / longer))
    return width, height


def display(image: Image.Image | Raster, spec: InputSpec) -> Image.Image:
    """The image as RGB at a legible size; transparency, palettes, CMYK and 16 bits are treated as for the model.

    Floats, wide integers and bands beyond colour, which no screen can show, are stretched over most of their values.
    """
    width, height = display_size(image.width, image.height)
    bands = image.channels - image.alpha if isinstance(image, Raster) else 3
    if needs_range(image.mode) or bands not in (1, 3):
        image = as_picture(image)
    view = replace(
        spec,
        width=width,
        height=height,
        channels=3,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        resize="squash",
        bit_depth=8,
        decode=DecodeConfig(),
        value_range=(),
        exposure="stored",
        interpolation="nearest" if width > image.width else "box",
    )
    return Image.fromarray(to_pixels(image, view))


def overlay(picture: Image.Image, heatmap: np.ndarray, strength: float = 0.75) -> Image.Image:
    """Lay a map (h, w) in [0, 1], of the picture's size, over an RGB picture; where it is 0 the picture is untouched.

    strength: opacity of the hottest place, in [0, 1].
    """
    opacity = (strength * np.sqrt(heatmap))[..., None]
    mixed = np.asarray(picture, np.float32) * (1 - opacity) + colorize(heatmap) * opacity
    return Image.fromarray(np.rint(np.clip(mixed, 0, 255)).astype(np.uint8))


def side_by_side(picture: Image.Image, covered: Image.Image, caption: str = "") -> Image.Image:
    """The picture and its overlay next to each other on white, with the caption below where there is one."""
    gap = 8
    font = ImageFont.load_default(size=14)
    lines = _wrapped(caption, font, 2 * picture.width + gap)
    foot = gap + 20 * len(lines) if lines else 0
    sheet = Image.new("RGB", (2 * picture.width + gap, picture.height + foot), "white")
    sheet.paste(picture, (0, 0))
    sheet.paste(covered, (picture.width + gap, 0))
    for index, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((2, picture.height + gap // 2 + 20 * index), line, fill="black", font=font)
    return sheet


def _wrapped(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Words of a text in lines no wider than `width` pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width - 4:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines
