from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.config.input import InputSpec
from vitreous.config.train import AugmentConfig, Preset
from vitreous.data import PixelStore, load_source
from vitreous.data.augmentation.description import describe_augmentation
from vitreous.data.augmentation.sheet import augmented_sheet
from vitreous.recipes import AUGMENTATION

torch.set_num_threads(1)
Make = Callable[..., Path]
SPEC = InputSpec(height=24, width=24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
PRESETS: tuple[Preset, ...] = get_args(Preset)


@pytest.fixture
def store(make_images: Make) -> PixelStore:
    root = make_images({f"{label}/{i}.png": 10 * ord(label) + i for label in "ab" for i in range(3)}, size=(24, 24))
    return PixelStore(load_source(root), range(6), SPEC, threads=1, max_bytes=10**9)


class _Kept:
    """A store of pixels that no file need hold."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def get(self, rows: np.ndarray) -> np.ndarray:
        return self.pixels[rows]


def _many_bands(channels: int, depth: int) -> InputSpec:
    settings: dict[str, Any] = {"height": 16, "width": 16, "channels": channels, "bit_depth": depth}
    return InputSpec(**settings, mean=(0.02,) * channels, std=(0.01,) * channels)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_sheet_shows_each_image_unchanged_and_then_its_variants(store: PixelStore, preset: Preset) -> None:
    sheet = augmented_sheet(store, [4, 1, 2], AUGMENTATION[preset], SPEC, variants=3, seed=0)
    assert [len(row) for row in sheet.rows] == [5, 5, 5]
    assert sheet.captions[:4] == ["original", "variant 1", "variant 2", "variant 3"]
    assert sheet.captions[4].startswith("mixed: ")
    for row, stored in zip(sheet.rows, store.get(np.array([4, 1, 2])), strict=True):
        np.testing.assert_array_equal(np.asarray(row[0]), stored)
        assert {picture.size for picture in row} == {(24, 24)}
        variants = [np.asarray(picture).astype(int) for picture in row[1:4]]
        assert any(np.abs(variant - stored.astype(int)).mean() > 1 for variant in variants)
    assert sheet.description == describe_augmentation(AUGMENTATION[preset])


def test_one_seed_gives_one_sheet(store: PixelStore) -> None:
    def make(seed: int) -> list[bytes]:
        sheet = augmented_sheet(store, [0, 1], AUGMENTATION["natural"], SPEC, seed=seed)
        return [picture.tobytes() for row in sheet.rows for picture in row]

    assert make(1) == make(1)
    assert make(1) != make(2)


def test_without_mixing_or_with_one_image_there_is_no_mixed_column(store: PixelStore) -> None:
    config = AUGMENTATION["medical"]
    assert len(augmented_sheet(store, [0, 1], replace(config, mixup=0.0), SPEC, seed=0).captions) == 7
    assert len(augmented_sheet(store, [0, 1], replace(config, mix_probability=0.0), SPEC, seed=0).captions) == 7
    assert len(augmented_sheet(store, [0], config, SPEC, seed=0).captions) == 7


def test_the_mixed_column_says_how_much_is_its_own(store: PixelStore) -> None:
    only_mixing = replace(AUGMENTATION["inspection"], **dict.fromkeys(MOVES, 0.0), **dict.fromkeys(FLIPS, False))
    sheet = augmented_sheet(store, [0, 1], only_mixing, SPEC, variants=0, seed=0)
    share = int(sheet.captions[1].removeprefix("mixed: ").split("%")[0]) / 100
    assert 0.1 < share < 0.9
    first, second = (np.asarray(row[0]).astype(float) for row in sheet.rows)
    np.testing.assert_allclose(np.asarray(sheet.rows[0][1]), share * first + (1 - share) * second, atol=2.5)


MOVES = ("rotate", "translate", "scale", "brightness", "contrast")
FLIPS = ("horizontal_flip", "vertical_flip", "quarter_turns")


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (6, "RGB"), (13, "RGB")])
def test_sixteen_bits_and_many_bands_are_shown_in_full_contrast(channels: int, mode: str) -> None:
    """Twelve bits in a file of sixteen, as detectors write them, are nearly black as they stand."""
    spec = _many_bands(channels, 16)
    pixels = np.random.default_rng(0).integers(500, 4096, (2, 16, 16, channels)).astype(np.uint16)
    store = cast(PixelStore, _Kept(pixels))
    sheet = augmented_sheet(store, [0, 1], AUGMENTATION["satellite"], spec, variants=2, seed=0)
    for row in sheet.rows:
        assert {picture.mode for picture in row} == {mode}
        original = np.asarray(row[0])
        assert original.min() == 0
        assert original.max() == 255
        assert 100 < original.mean() < 155
    assert ("bands" in sheet.description) == (channels not in (1, 3))


def test_all_pictures_of_a_row_are_shown_by_the_range_of_the_first() -> None:
    """Otherwise a darker variant would be stretched to look like the original."""
    spec = _many_bands(1, 16)
    pixels = np.random.default_rng(0).integers(500, 4096, (1, 16, 16, 1)).astype(np.uint16)
    config = replace(AUGMENTATION["satellite"], brightness=0.5, contrast=0.0)
    sheet = augmented_sheet(cast(PixelStore, _Kept(pixels)), [0], config, spec, variants=12, seed=0)
    means = [np.asarray(picture).mean() for picture in sheet.rows[0][1:]]
    assert max(means) - min(means) > 40


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (AugmentConfig(), "nothing: the images stay as they are"),
        (AugmentConfig(horizontal_flip=True, rotate=10.0), "mirrored left to right, turned up to 10 degrees"),
        (AugmentConfig(scale=0.1, crop_area=0.35), "scaled by 0.9 to 1.1, cropped to no less than 35 % of the area"),
        (AugmentConfig(rand_augment_ops=1, rand_augment_magnitude=9), "RandAugment (1 operation of strength 9 of 30)"),
        (AugmentConfig(gamma=0.25, blur=0.003), "gamma 0.8 to 1.25, blurred by up to 0.3 % of the side"),
        (
            AugmentConfig(mixup=0.2, cutmix=1.0, mix_probability=0.3, mix_until=0.8),
            "mixup or CutMix of two images in 30 % of the batches until 80 % of training",
        ),
        (AugmentConfig(mixup=0.2, mix_probability=0.0), "nothing: the images stay as they are"),
        (AugmentConfig(pad_crop=4), "shifted up to 4 pixels, the gap filled with the mirrored image"),
        (AugmentConfig(three_augment=True), "either grey, with its bright half inverted or blurred (3-Augment)"),
        (
            AugmentConfig(repeats=3, start_size=0.5, full_size_from=0.7),
            "each image 3 times in a batch, each time changed anew, "
            "images from 50 % of the side upwards in the first 70 % of training (shown here at full size)",
        ),
    ],
)
def test_what_is_on_is_said_in_words(config: AugmentConfig, words: str) -> None:
    assert describe_augmentation(config) == words


@pytest.mark.parametrize(
    "name", [name for name in vars(AUGMENTATION["natural"]) if not name.startswith(("mix", "cutmix"))]
)
def test_no_change_goes_unmentioned(name: str) -> None:
    value = {"rand_augment_ops": 2, "rand_augment_magnitude": 9, "repeats": 3, "pad_crop": 4}.get(name, 0.5)
    config = AugmentConfig(**{name: True if name in (*FLIPS, "three_augment") else value})  # type: ignore[arg-type]
    silent = name in ("rand_augment_magnitude", "full_size_from", "strong_until")  # the strength and the end of nothing
    assert describe_augmentation(config).startswith("nothing") == silent


def test_pictures_are_pillow_images(store: PixelStore) -> None:
    sheet = augmented_sheet(store, [0], AUGMENTATION["document"], SPEC, variants=1, seed=0)
    assert all(isinstance(picture, Image.Image) for row in sheet.rows for picture in row)
