from __future__ import annotations

import numpy as np
import pytest

from vitreous.config.input import InputSpec
from vitreous.inputs.looks import looks

SPEC = InputSpec(height=32, width=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def photographs(count: int, seed: int = 0, side: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, side, side)).astype(np.float32)


def test_each_image_is_described_by_itself() -> None:
    batch = photographs(5)
    np.testing.assert_array_equal(looks(batch, SPEC)[3], looks(batch[3:4], SPEC)[0])


def grey_of(batch: np.ndarray) -> np.ndarray:
    """The same images without colour, as the spec's normalisation leaves them."""
    std, mean = (np.array(each, np.float32).reshape(-1, 1, 1) for each in (SPEC.std, SPEC.mean))
    levels = (batch * std + mean).mean(axis=1, keepdims=True)
    return (np.repeat(levels, 3, axis=1) - mean) / std


@pytest.mark.parametrize("change", ["grey", "dark", "flat", "blurred"])
def test_what_the_eye_sees_at_once_moves_the_numbers(change: str) -> None:
    batch = photographs(40)
    changed = {
        "grey": grey_of(batch),
        "dark": batch - 2,
        "flat": batch * 0.2,
        "blurred": np.repeat(np.repeat(batch[:, :, ::4, ::4], 4, axis=2), 4, axis=3),
    }[change]
    usual, other = looks(batch, SPEC), looks(changed, SPEC)
    away = np.abs(other.mean(axis=0) - usual.mean(axis=0)) / usual.std(axis=0)
    assert away.max() > 8


def test_flat_grey_and_tiny_images_give_finite_numbers() -> None:
    for shape in ((2, 1, 8, 8), (2, 3, 3, 5), (2, 4, 16, 16)):
        channels = shape[1]
        spec = InputSpec(height=8, width=8, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)
        found = looks(np.zeros(shape, np.float32), spec)
        assert np.isfinite(found).all() and len(found) == 2


def test_large_images_are_looked_at_as_means_of_blocks() -> None:
    small = photographs(4, side=64)
    large = np.repeat(np.repeat(small, 3, axis=2), 3, axis=3)
    np.testing.assert_allclose(looks(large, SPEC), looks(small, SPEC), atol=1e-4)
