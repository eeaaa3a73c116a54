"""Golden pixels: what each kind of file must look like to the model, worked out by hand."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitreous.config.input import InputSpec
from vitreous.errors import UnfitImageError
from vitreous.inputs import normalise, open_image, prepare, to_pixels

GREY = InputSpec(height=2, width=2, channels=1, mean=(0.0,), std=(1.0,))
RGB = InputSpec(height=2, width=2, mean=(0.0,) * 3, std=(1.0,) * 3)


def _file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _pixels(data: Any, spec: InputSpec) -> list[Any]:
    pixels = to_pixels(open_image(data), spec)
    return (pixels[..., 0] if spec.channels == 1 else pixels).tolist()


# Where the pixel [[1, 2, 3], [4, 5, 6]] of the stored file belongs once the file is upright (EXIF 2.3, tag 0x0112).
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_every_exif_orientation_is_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], np.uint8) * 10)
    data = _file(stored, exif=exif)
    expected = np.array(UPRIGHT[orientation]) * 10
    spec = replace(GREY, height=expected.shape[0], width=expected.shape[1])
    assert _pixels(data, spec) == expected.tolist()


def test_an_exif_orientation_in_a_jpeg_turns_it_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _file(Image.new("RGB", (64, 32)), "JPEG", exif=exif)
    assert open_image(data).size == (32, 64)


def test_a_palette_becomes_its_colours() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    assert _pixels(_file(image), RGB) == [[[255, 0, 0], [0, 255, 0]], [[10, 20, 30], [0, 255, 0]]]
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    assert _pixels(_file(image), GREY) == [[76, 150], [18, 150]]


def test_a_transparent_palette_entry_is_laid_over_the_background() -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 200])
    data = _file(image, transparency=0)
    white, blue = [255, 255, 255], [0, 0, 200]
    assert _pixels(data, RGB) == [[white, blue], [blue, white]]
    assert _pixels(data, replace(RGB, background=0.0))[0][0] == [0, 0, 0]


def test_alpha_is_laid_over_the_background_in_proportion() -> None:
    values = np.array([[[200, 100, 0, 255], [200, 100, 0, 0]], [[200, 100, 0, 51], [200, 100, 0, 204]]], np.uint8)
    data = _file(Image.fromarray(values))
    # A fifth of 200 over four fifths of 255 is 244.
    assert _pixels(data, RGB) == [
        [[200, 100, 0], [255, 255, 255]],
        [[244, 224, 204], [211, 131, 51]],
    ]
    assert _pixels(data, replace(RGB, background=0.0)) == [
        [[200, 100, 0], [0, 0, 0]],
        [[40, 20, 0], [160, 80, 0]],
    ]


def test_grey_with_alpha_is_laid_over_the_background() -> None:
    values = np.array([[[100, 255], [100, 0]], [[0, 255], [0, 51]]], np.uint8)
    assert _pixels(_file(Image.fromarray(values, "LA")), GREY) == [[100, 255], [0, 204]]


def test_a_transparent_colour_of_an_rgb_file_is_laid_over_the_background() -> None:
    values = np.array([[[1, 2, 3], [9, 9, 9]], [[9, 9, 9], [1, 2, 3]]], np.uint8)
    data = _file(Image.fromarray(values), transparency=(1, 2, 3))
    white = [255, 255, 255]
    assert _pixels(data, RGB) == [[white, [9, 9, 9]], [[9, 9, 9], white]]


def test_cmyk_becomes_rgb() -> None:
    ink = np.array([[[0, 0, 0, 0], [255, 0, 0, 0]], [[0, 255, 255, 0], [0, 0, 0, 255]]], np.uint8)
    data = _file(Image.fromarray(ink, "CMYK"), "TIFF")
    assert _pixels(data, RGB) == [[[255, 255, 255], [0, 255, 255]], [[255, 0, 0], [0, 0, 0]]]


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    data = _file(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = _pixels(data, RGB)[0][0]
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_bits_or_are_scaled_by_257(kind: str) -> None:
    values = np.array([[0, 257], [1000, 65535]], np.uint16)
    data = _file(Image.fromarray(values), kind)
    assert _pixels(data, replace(GREY, bit_depth=16)) == values.tolist()
    assert _pixels(data, GREY) == [[0, 1], [4, 255]]
    assert _pixels(data, RGB)[1][0] == [4, 4, 4]
    np.testing.assert_allclose(prepare(data, replace(GREY, bit_depth=16))[0], values / 65535, rtol=1e-6)


def test_eight_bits_at_sixteen_are_multiplied_by_257_so_that_white_stays_white() -> None:
    data = _file(Image.fromarray(np.array([[0, 1], [128, 255]], np.uint8)))
    assert _pixels(data, replace(GREY, bit_depth=16)) == [[0, 257], [32896, 65535]]


def test_a_big_endian_tiff_reads_like_a_little_endian_one() -> None:
    values = np.array([[1, 258], [40000, 65535]], np.uint16)
    big = Image.frombytes("I;16B", (2, 2), values.astype(">u2").tobytes())
    assert _pixels(_file(big, "TIFF"), replace(GREY, bit_depth=16)) == values.tolist()


def test_thirty_two_bit_integers_are_taken_only_within_sixteen_bits() -> None:
    fits = Image.fromarray(np.array([[0, 65535], [257, 514]], np.int32))
    assert _pixels(fits, GREY) == [[0, 255], [1, 2]]
    for values in ([[0, 65536], [0, 0]], [[0, -1], [0, 0]]):
        with pytest.raises(UnfitImageError, match="not 0 to 65535"):
            to_pixels(Image.fromarray(np.array(values, np.int32)), GREY)


def test_one_bit_becomes_black_and_white() -> None:
    image = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    assert image.mode == "1"
    for kind in ("PNG", "TIFF", "BMP"):
        assert _pixels(_file(image, kind), GREY) == [[0, 255], [255, 0]]
    assert _pixels(_file(image), RGB)[0] == [[0, 0, 0], [255, 255, 255]]


def test_floats_in_a_file_are_refused() -> None:
    data = _file(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF")
    with pytest.raises(UnfitImageError, match="floats"):
        to_pixels(open_image(data), GREY)


def test_only_the_first_frame_is_read() -> None:
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    data = _file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert _pixels(data, GREY) == [[10, 10], [10, 10]]


def test_crop_keeps_the_centre_and_the_aspect_ratio() -> None:
    columns = np.tile(np.array([10, 20, 30, 40, 50, 60], np.uint8), (2, 1))
    assert _pixels(_file(Image.fromarray(columns)), GREY) == [[30, 40], [30, 40]]


def test_crop_fraction_cuts_further_in() -> None:
    rows = np.arange(16, dtype=np.uint8).reshape(4, 4) * 10
    assert _pixels(_file(Image.fromarray(rows)), replace(GREY, crop_fraction=0.5)) == [[50, 60], [90, 100]]


def test_squash_uses_the_whole_image() -> None:
    columns = np.tile(np.array([10, 20, 30, 40], np.uint8), (2, 1))
    spec = replace(GREY, resize="squash", interpolation="box")
    assert _pixels(_file(Image.fromarray(columns)), spec) == [[15, 35], [15, 35]]


def test_pad_fills_the_rest_with_the_background() -> None:
    image = Image.fromarray(np.full((1, 2), 100, np.uint8))
    spec = replace(GREY, resize="pad", height=4, width=2)
    assert _pixels(_file(image), spec) == [[255, 255], [100, 100], [255, 255], [255, 255]]
    assert _pixels(_file(image.convert("RGB")), replace(RGB, resize="pad", height=4, width=2, background=0.0))[3] == [
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    values = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    for resize in ("crop", "squash", "pad"):
        spec = replace(RGB, height=7, width=5, resize=resize, interpolation="lanczos")
        np.testing.assert_array_equal(to_pixels(open_image(_file(Image.fromarray(values))), spec), values)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_shrinking_averages_over_the_source_in_every_mode(mode: str) -> None:
    """A checkerboard shrunk eightfold is grey; a filter that only looked at neighbours would find black or white."""
    board = (np.indices((64, 64)).sum(0) % 2).astype(np.uint16)
    image = Image.fromarray(board * 65535) if mode == "I;16" else Image.fromarray((board * 255).astype(np.uint8))
    image = image if mode == "I;16" else image.convert(mode)
    pixels = to_pixels(image, replace(GREY, height=8, width=8))
    assert np.abs(pixels[1:-1, 1:-1].astype(int) - 127).max() <= 1


def test_normalise_subtracts_mean_and_divides_by_deviation_per_channel() -> None:
    spec = InputSpec(height=1, width=1, mean=(0.0, 0.5, 1.0), std=(1.0, 0.25, 0.5))
    image = normalise(np.array([[[255, 51, 0]]], np.uint8), spec)
    assert image.dtype == np.float32
    assert image.shape == (3, 1, 1)
    np.testing.assert_allclose(image.ravel(), [1.0, -1.2, -2.0], rtol=1e-6)


def test_a_batch_is_normalised_like_its_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
    spec = replace(RGB, mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1))
    np.testing.assert_array_equal(normalise(pixels, spec), np.stack([normalise(image, spec) for image in pixels]))


def test_an_even_exposure_makes_images_under_any_light_alike() -> None:
    rng = np.random.default_rng(0)
    scene = rng.normal(0, 1, (40, 40, 3)).clip(-2.5, 2.5)
    spec = InputSpec(height=40, width=40, exposure="even")
    lights = [np.rint(mean + gain * scene).astype(np.uint8) for mean, gain in ((60, 8), (128, 20), (180, 14))]
    seen = [to_pixels(Image.fromarray(light), spec).astype(int) for light in lights]
    for pixels in seen:
        assert abs(pixels.mean() - 127.5) < 1
        assert abs(pixels.std() - 42.5) < 1
    assert np.abs(seen[0] - seen[1]).max() <= 5  # what rounding to 8 bits lost, times the gain
    stored = [to_pixels(Image.fromarray(light), replace(spec, exposure="stored")) for light in lights]
    assert all(np.array_equal(pixels, light) for pixels, light in zip(stored, lights, strict=True))


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_an_image_of_one_value_becomes_mid_grey_at_an_even_exposure(bit_depth: Any) -> None:
    spec = InputSpec(height=4, width=4, channels=1, mean=(0.5,), std=(0.5,), exposure="even", bit_depth=bit_depth)
    pixels = to_pixels(Image.new("L", (9, 9), 7), spec)
    assert np.unique(pixels).tolist() == [round(spec.max_value / 2)]


def test_a_spec_that_says_nothing_of_exposure_keeps_its_digest() -> None:
    spec = InputSpec(height=4, width=4)
    assert spec.digest() == replace(spec, exposure="stored").digest() != replace(spec, exposure="even").digest()
