"""A few numbers of how an image looks, whatever it shows: light, contrast, colour, sharpness. No torch.

They tell an X-ray from a photograph where a small model's features, trained to tell photographs apart, do not.
"""

from __future__ import annotations

import numpy as np

from vitreous.config.input import InputSpec

SIDE = 64
"""Larger images are looked at as means of blocks of pixels, so that their shorter side is not much longer than this."""
SCALES = 3
"""Sharpness is measured at full, half and quarter size, as far as the image has pixels for it."""
LEAST = 2e-3
"""Added below logarithms, of values from 0 to 1: what is flat has no contrast, what is grey no colour."""


def looks(batch: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Prepared images float32 (b, c, h, w) -> float64 (b, s).

    Of each channel its mean and the logarithm of its deviation; of several channels the logarithms of how far each is from
    their mean, and of how far any is anywhere; and the logarithm of the mean step from pixel to pixel, across and down, at each
    scale.
    """
    images = batch.astype(np.float32)
    if (block := min(images.shape[2:]) // SIDE) > 1:
        images = _means(images, block)
    # As stored, from 0 to 1: normalised channels of a grey image are not equal.
    std, mean = (np.array(each, np.float32).reshape(-1, 1, 1) for each in (spec.std, spec.mean))
    images = images * std + mean
    grey = images.mean(axis=1)
    found = [images.mean(axis=(2, 3)), _log(images.std(axis=(2, 3)))]
    if images.shape[1] > 1:
        apart = np.abs(images - grey[:, None])
        found += [_log(apart.mean(axis=(2, 3))), _log(apart.max(axis=(1, 2, 3)))[:, None]]
    for _ in range(SCALES):
        if min(grey.shape[1:]) < 4:
            break
        steps = [np.abs(np.diff(grey, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
        found.append(_log(np.stack(steps, axis=1)))
        grey = _means(grey, 2)
    return np.concatenate(found, axis=1, dtype=np.float64)


def _means(images: np.ndarray, block: int) -> np.ndarray:
    """Means of square blocks over the last two axes; what is left over at the far edges is left out."""
    height, width = (size // block * block for size in images.shape[-2:])
    cut = images[..., :height, :width]
    rows = sum(cut[..., start::block, :] for start in range(block))
    assert isinstance(rows, np.ndarray)
    total = sum(rows[..., start::block] for start in range(block))
    assert isinstance(total, np.ndarray)
    return total / block**2


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(values + LEAST)
