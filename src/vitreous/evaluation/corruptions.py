"""Images made worse on purpose: noise, blur, weather, light, compression and small shifts, at five severities.

After Hendrycks and Dietterich 2019 (ImageNet-C, arXiv:1903.12261), written anew for whole numbers of any size and depth on
NumPy, SciPy and Pillow; snow and frost, which need photographs of their own, are left out, and three shifts that cameras and
grippers make are added. Strengths that the paper states in pixels of 224 are scaled with the image. Published figures of
ImageNet-C are for its own files and are not comparable.

Every function takes float64 (h, w, c) in [0, 1], the severity from 1 to 5 and a generator, and returns the same kind, not yet
clipped.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from PIL import Image
from scipy import ndimage

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
Kind = Literal["noise", "blur", "weather", "digital", "shift"]
SEVERITIES = (1, 2, 3, 4, 5)
REFERENCE = 224
"""Pixels of the side that strengths are stated for."""


def corrupt(pixels: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """uint8 or uint16 (h, w, c) made worse in the way `name` says. seed: of the image, so that all models see the same."""
    top = float(np.iinfo(pixels.dtype).max)
    rng = np.random.default_rng([seed, list(CORRUPTIONS).index(name), severity])
    worse = CORRUPTIONS[name][1](pixels / top, severity, rng)
    return np.rint(np.clip(worse, 0, 1) * top).astype(pixels.dtype)


def gaussian_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return image + rng.normal(0, (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1], image.shape)


def shot_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Few photons: Poisson counts."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return rng.poisson(image * photons) / photons


def impulse_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Dead samples, black or white."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    dead = rng.random(image.shape) < share
    return np.where(dead, rng.integers(0, 2, image.shape), image)


def defocus_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    radius = (3, 4, 6, 8, 10)[severity - 1] * _scale(image)
    reach = max(1, int(np.ceil(radius)))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)  # a soft edge, so that small radii differ too
    return _convolved(image, disk / disk.sum())


def motion_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Along a straight line in a random direction."""
    length = (10, 15, 15, 20, 25)[severity - 1] * (1, 1, 1.3, 1.3, 1.3)[severity - 1] * _scale(image)
    angle = rng.uniform(-np.pi / 4, np.pi / 4)
    steps = max(3, int(np.ceil(2 * length)) | 1)
    total = np.zeros_like(image)
    for place in np.linspace(-length / 2, length / 2, steps):
        moved = (place * np.sin(angle), place * np.cos(angle), 0)
        total += ndimage.shift(image, moved, order=1, mode="nearest")
    return total / steps


def zoom_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    most = (1.11, 1.16, 1.21, 1.26, 1.31)[severity - 1]
    factors = np.arange(1, most, 0.02)
    return np.mean([_zoomed(image, factor) for factor in factors], axis=0)


def fog(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A cloud of fractal noise laid over the image, brightest spots kept."""
    thick, rough = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    cloud = thick * _fractal(image.shape[:2], rough, rng)[..., None]
    brightest = max(float(image.max()), 1e-6)
    return (image + cloud) * brightest / (brightest + thick)


def brightness(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return image + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]


def darkness(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Less light on a linear sensor."""
    return image * (0.8, 0.6, 0.45, 0.3, 0.2)[severity - 1]


def contrast(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * factor + mean


def pixelate(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Fewer pixels, blown up again."""
    factor = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    for axis in (0, 1):
        image = _in_blocks(image, max(1, round(image.shape[axis] * factor)), axis)
    return image


def jpeg(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Compressed and opened again, grey or colour; each band of other images by itself."""
    quality = (25, 18, 15, 10, 7)[severity - 1]
    if image.shape[2] not in (1, 3):
        bands = [jpeg(image[..., band : band + 1], severity, rng) for band in range(image.shape[2])]
        return np.concatenate(bands, axis=2)
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels[..., 0] if image.shape[2] == 1 else levels).save(file, "JPEG", quality=quality)
    opened = np.asarray(Image.open(file), np.float64) / 255
    return opened.reshape(image.shape)


def elastic(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Places moved by a smooth random field (Simard et al. 2003)."""
    side = min(image.shape[:2])
    reach = (0.010, 0.015, 0.020, 0.027, 0.035)[severity - 1] * side
    fields = [ndimage.gaussian_filter(rng.uniform(-1, 1, image.shape[:2]), 0.08 * side, mode="reflect") for _ in "yx"]
    dy, dx = (field / max(float(np.abs(field).max()), 1e-9) * reach for field in fields)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float64)
    planes = [
        ndimage.map_coordinates(image[..., band], [y + dy, x + dx], order=1, mode="reflect")
        for band in range(image.shape[2])
    ]
    return np.stack(planes, axis=-1)


def rotation(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A crooked camera: either way."""
    angle = (3, 6, 10, 15, 20)[severity - 1] * rng.choice([-1, 1])
    return ndimage.rotate(image, angle, axes=(1, 0), reshape=False, order=1, mode="nearest")


def translation(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The object is not in the middle: in a random direction, the edge continued."""
    angle, reach = rng.uniform(0, 2 * np.pi), (0.03, 0.06, 0.1, 0.15, 0.2)[severity - 1]
    height, width = image.shape[:2]
    return ndimage.shift(
        image, (reach * height * np.sin(angle), reach * width * np.cos(angle), 0), order=1, mode="nearest"
    )


def smaller(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Seen from further away, the edge continued."""
    return _zoomed(image, (0.95, 0.9, 0.83, 0.75, 0.66)[severity - 1])


CORRUPTIONS: dict[str, tuple[Kind, Corruption]] = {
    "gaussian noise": ("noise", gaussian_noise),
    "shot noise": ("noise", shot_noise),
    "impulse noise": ("noise", impulse_noise),
    "defocus blur": ("blur", defocus_blur),
    "motion blur": ("blur", motion_blur),
    "zoom blur": ("blur", zoom_blur),
    "fog": ("weather", fog),
    "brightness": ("weather", brightness),
    "darkness": ("weather", darkness),
    "contrast": ("digital", contrast),
    "pixelate": ("digital", pixelate),
    "jpeg": ("digital", jpeg),
    "elastic": ("digital", elastic),
    "rotation": ("shift", rotation),
    "translation": ("shift", translation),
    "smaller": ("shift", smaller),
}
"""Each with its kind."""


def _scale(image: np.ndarray) -> float:
    return min(image.shape[:2]) / REFERENCE


def _convolved(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    planes = [ndimage.convolve(image[..., band], kernel, mode="reflect") for band in range(image.shape[2])]
    return np.stack(planes, axis=-1)


def _zoomed(image: np.ndarray, factor: float) -> np.ndarray:
    """About the centre; below 1 the edge is continued."""
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset: Any = centre - centre / factor
    planes = [
        ndimage.affine_transform(image[..., band], np.full(2, 1 / factor), offset, order=1, mode="nearest")
        for band in range(image.shape[2])
    ]
    return np.stack(planes, axis=-1)


def _in_blocks(image: np.ndarray, blocks: int, axis: int) -> np.ndarray:
    """Means of so many blocks along an axis, each repeated to its length."""
    starts = np.arange(blocks) * image.shape[axis] // blocks
    lengths = np.diff(starts, append=image.shape[axis])
    shape = [-1 if place == axis else 1 for place in range(3)]
    return np.repeat(np.add.reduceat(image, starts, axis) / lengths.reshape(shape), lengths, axis)


def _fractal(shape: tuple[int, int], rough: float, rng: np.random.Generator) -> np.ndarray:
    """Noise in [0, 1] of all scales, each finer one 1 / `rough` as strong."""
    total, strength, size = np.zeros(shape), 1.0, 2
    while size <= 2 * max(shape):
        coarse = rng.random((min(size, shape[0]) + 1, min(size, shape[1]) + 1))
        y = np.linspace(0, coarse.shape[0] - 1, shape[0])
        x = np.linspace(0, coarse.shape[1] - 1, shape[1])
        total += strength * ndimage.map_coordinates(coarse, np.meshgrid(y, x, indexing="ij"), order=1)
        strength, size = strength / rough, 2 * size
    return (total - total.min()) / max(float(np.ptp(total)), 1e-9)
