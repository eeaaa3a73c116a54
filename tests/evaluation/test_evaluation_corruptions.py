"""Corruptions: stronger from severity to severity, the same for the same image, any size, depth and number of bands."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vitreous.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt


def scene(side: int = 48, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A picture with edges, a gradient and some texture, uint8 (side, side, channels)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    bands = [0.3 + 0.4 * x, 0.6 - 0.3 * y, 0.5 + 0.2 * np.sin(12 * x)]
    image = np.stack([bands[band % 3] for band in range(channels)], axis=-1)
    image[side // 4 : side // 2, side // 3 : 2 * side // 3] += 0.25
    image += rng.normal(0, 0.03, image.shape)
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def damage(name: str, severity: int) -> float:
    """Root mean square change, over a few images."""
    changes = [
        corrupt(scene(seed=seed), name, severity, seed).astype(float) - scene(seed=seed).astype(float)
        for seed in range(6)
    ]
    return float(np.sqrt(np.mean(np.square(changes))))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_grows_with_severity(name: str):
    found = [damage(name, severity) for severity in SEVERITIES]
    assert found[0] > 0.5
    assert found[-1] > 1.15 * found[0]
    # Blocks that fall together with edges, and fogs of other grains, make a step or two uneven.
    assert all(after > 0.8 * before for before, after in itertools.pairwise(found)), found


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("shape", "dtype"), [((32, 32, 3), np.uint8), ((24, 40, 1), np.uint16), ((9, 8, 5), np.uint8)])
def test_any_image_keeps_its_kind_and_repeats_exactly(name: str, shape: tuple[int, int, int], dtype: type):
    top = np.iinfo(dtype).max
    image = np.random.default_rng(1).integers(0, top, shape, endpoint=True).astype(dtype)
    before = image.copy()
    worse = corrupt(image, name, 3, seed=5)
    assert (worse.shape, worse.dtype) == (image.shape, image.dtype)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(worse, corrupt(image, name, 3, seed=5))


def test_images_differ_in_their_noise_and_ways_in_what_they_do():
    image = scene()
    assert not np.array_equal(corrupt(image, "gaussian noise", 2, 0), corrupt(image, "gaussian noise", 2, 1))
    assert len({corrupt(image, name, 3, 0).tobytes() for name in CORRUPTIONS}) == len(CORRUPTIONS)


def test_shifts_move_the_picture_and_light_changes_its_level():
    image = scene()
    assert corrupt(image, "brightness", 3, 0).mean() > image.mean() + 30
    assert corrupt(image, "darkness", 3, 0).mean() < image.mean() - 30
    assert corrupt(image, "contrast", 3, 0).std() < 0.6 * image.std()
    blocks = corrupt(scene(64), "pixelate", 5, 0)
    assert len(np.unique(blocks[:, :, 0])) <= 16 * 16
