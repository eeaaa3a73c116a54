"""Reduced decoding of JPEG files: by how much, and how little it changes, on photographs that come with scikit-learn."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from vitreous.config.input import InputSpec
from vitreous.inputs import open_image, prepare, to_pixels
from vitreous.inputs.reduced import LEAST, reduction

GREY_LEVELS = InputSpec(height=224, width=224, crop_fraction=0.875, mean=(0.0,) * 3, std=(1 / 255,) * 3)
NAMES = ("china.jpg", "flower.jpg")


@cache
def _photograph(name: str, width: int, height: int, orientation: int = 1) -> bytes:
    """Enlarged, with fine detail and noise of its own, as a JPEG."""
    picture = Image.fromarray(load_sample_image(name)).resize((width, height), Image.Resampling.LANCZOS)
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 1))
    pixels = np.clip(np.rint(np.asarray(picture) + noise), 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


def _difference(data: bytes, spec: InputSpec) -> np.ndarray:
    """Grey levels between reduced and full decoding."""
    return np.abs(prepare(data, spec) - prepare(open_image(data), spec))


@pytest.mark.parametrize("size", [(2000, 1500), (1501, 1001), (3001, 2001)])
def test_photographs_decoded_small_differ_by_a_fraction_of_a_grey_level(size: tuple[int, int]) -> None:
    differences = []
    for name in NAMES:
        data = _photograph(name, *size)
        assert open_image(data, target=GREY_LEVELS).width < size[0]
        differences.append(_difference(data, GREY_LEVELS))
    means = [float(difference.mean()) for difference in differences]
    assert 0 < np.mean(means) < 0.8
    assert max(means) < 1.4
    assert max(difference.max() for difference in differences) <= 20


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_sides_that_no_power_of_two_divides_shift_nothing_however_the_camera_was_held(
    resize: str, orientation: int
) -> None:
    """The last column of a reduced picture is mostly empty; counted as full, it would cost three grey levels."""
    spec = replace(GREY_LEVELS, height=70, width=70, resize=resize, crop_fraction=1.0)  # type: ignore[arg-type]
    size = (1001, 1204)
    turned, straight = (_photograph("china.jpg", *size, number) for number in (orientation, 1))
    assert open_image(turned, target=spec).width in (126, 151)
    assert _difference(straight, spec).mean() < 1.4
    assert _difference(turned, spec).mean() == pytest.approx(_difference(straight, spec).mean(), abs=0.03)


def test_the_shape_of_a_turned_photograph_is_the_one_that_is_seen() -> None:
    spec = InputSpec(height=100, width=200, resize="squash")
    for orientation, size in ((1, (301, 602)), (6, (301, 151))):
        assert open_image(_photograph("china.jpg", 602, 1204, orientation), target=spec).size == size


def test_the_part_that_is_cropped_away_does_not_count() -> None:
    assert reduction(3000, 2000, GREY_LEVELS) == 4  # 1750 pixels remain for 224
    assert reduction(3000, 2000, replace(GREY_LEVELS, resize="pad")) == 8
    assert reduction(8000, 400, GREY_LEVELS) == 1
    assert reduction(8000, 400, replace(GREY_LEVELS, resize="pad")) == 8
    assert reduction(400, 8000, replace(GREY_LEVELS, resize="squash")) == 1


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("crop", [0.5, 0.875, 1.0])
def test_what_remains_is_never_less_than_the_model_needs(resize: str, crop: float) -> None:
    spec = replace(GREY_LEVELS, height=96, resize=resize, crop_fraction=crop)  # type: ignore[arg-type]
    for width in range(100, 5000, 97):
        for height in range(100, 5000, 131):
            factor = reduction(width, height, spec)
            left, right = (width / factor, height / factor)
            if resize == "pad":
                enough = max(left / spec.width, right / spec.height)
            else:
                enough = min(left / spec.width, right / spec.height) * (crop if resize == "crop" else 1)
            assert factor == 1 or enough >= LEAST
            assert factor == 8 or enough < 2 * LEAST


def test_an_image_just_large_enough_is_reduced_and_one_pixel_less_is_not() -> None:
    spec = InputSpec(height=100, width=100)
    buffers = []
    for side in (279, 280):
        buffer = io.BytesIO()
        Image.new("RGB", (side, side)).save(buffer, "JPEG")
        buffers.append(buffer.getvalue())
    assert [open_image(data, target=spec).size for data in buffers] == [(279, 279), (140, 140)]


def test_without_a_target_or_with_nearest_or_as_png_all_pixels_are_decoded() -> None:
    data = _photograph("flower.jpg", 1501, 1001)
    assert open_image(data).size == (1501, 1001)
    assert open_image(data, target=replace(GREY_LEVELS, interpolation="nearest")).size == (1501, 1001)
    buffer = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(buffer, "PNG")
    assert open_image(buffer.getvalue(), target=GREY_LEVELS).size == (2000, 2000)


def test_a_thumbnail_says_only_its_longer_side() -> None:
    data = _photograph("flower.jpg", 1501, 1001)
    assert open_image(data, target=1000).size == (1501, 1001)
    assert open_image(data, target=500).size == (751, 501)
    assert open_image(data, target=100).size == (188, 126)


def test_an_image_opened_for_a_model_is_prepared_like_its_file() -> None:
    """What a server opens once, to predict and to explain it."""
    data = _photograph("china.jpg", 1501, 1001)
    np.testing.assert_array_equal(
        prepare(data, GREY_LEVELS), prepare(open_image(data, target=GREY_LEVELS), GREY_LEVELS)
    )


def test_an_image_that_is_given_is_not_changed() -> None:
    picture = Image.open(io.BytesIO(_photograph("china.jpg", 1501, 1001, 6)))
    opened = open_image(picture, target=GREY_LEVELS)
    assert (picture.size, opened.size) == ((1501, 1001), (1001, 1501))
    plain = Image.new("RGB", (8, 8), (1, 2, 3))
    pixels = to_pixels(open_image(plain), InputSpec(height=8, width=8))
    pixels[:] = 0
    assert plain.getpixel((0, 0)) == (1, 2, 3)
