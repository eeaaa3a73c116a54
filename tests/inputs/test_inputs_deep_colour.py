"""16-bit colour PNGs, bit for bit."""

from __future__ import annotations

import struct
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from image_files import png_file, random_values
from PIL import Image

from vitreous.config.decode import DecodeConfig
from vitreous.config.input import InputSpec
from vitreous.errors import ImageError, ImageTooLargeError
from vitreous.inputs import Raster, open_image, to_pixels

SPEC = InputSpec(height=13, width=9, bit_depth=16)


def _raster(data: bytes) -> Raster:
    decoded = open_image(data)
    assert isinstance(decoded, Raster)
    return decoded


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("filters", ["none", "all"])
def test_every_bit_of_16_bit_colour_is_kept_under_every_filter(channels: int, filters: str) -> None:
    values = random_values((13, 9, channels), "uint16")
    raster = _raster(png_file(values, filters=filters))
    np.testing.assert_array_equal(raster.values, values)
    assert raster.mode == f"{channels}xuint16"
    assert (raster.format, raster.size, raster.alpha) == ("PNG", (9, 13), channels != 3)


def test_a_file_of_another_encoder_reads_the_same() -> None:
    y, x = np.mgrid[0:60, 0:80]
    values = np.stack([x * 700, y * 900, (x + y) * 400], -1).astype(np.uint16)
    np.testing.assert_array_equal(_raster(bytes(imagecodecs.png_encode(values))).values, values)


def test_sixteen_bit_colour_reaches_the_model_at_16_bits_or_divided_by_257() -> None:
    values = random_values((13, 9, 3), "uint16")
    data = png_file(values)
    np.testing.assert_array_equal(to_pixels(open_image(data), SPEC), values)
    np.testing.assert_array_equal(to_pixels(open_image(data), replace(SPEC, bit_depth=8)), np.rint(values / 257))


def test_16_bit_colour_becomes_grey_by_the_weights_of_8_bit_colour() -> None:
    values = random_values((13, 9, 3), "uint16")
    grey = to_pixels(Raster(values), replace(SPEC, channels=1, mean=(0.5,), std=(0.5,)))
    np.testing.assert_allclose(grey[..., 0], values @ [0.299, 0.587, 0.114], atol=1)


def test_16_bit_opacity_is_laid_over_the_background_at_16_bits() -> None:
    values = np.array([[[65535, 0, 301, 65535], [65535, 0, 301, 0], [60000, 0, 301, 13107]]], np.uint16)
    spec = replace(SPEC, height=1, width=3)
    decoded = open_image(png_file(values))
    # 13107 is a fifth of 65535.
    assert to_pixels(decoded, spec)[0].tolist() == [[65535, 0, 301], [65535, 65535, 65535], [64428, 52428, 52488]]
    assert to_pixels(decoded, replace(spec, background=0.0))[0].tolist() == [[65535, 0, 301], [0, 0, 0], [12000, 0, 60]]


def test_a_transparent_colour_is_transparent() -> None:
    values = np.array([[[1, 2, 3], [1, 2, 4]]], np.uint16)
    raster = _raster(png_file(values, chunks=((b"tRNS", struct.pack(">HHH", 1, 2, 3)),)))
    assert raster.alpha
    assert raster.values[0].tolist() == [[1, 2, 3, 0], [1, 2, 4, 65535]]


def test_an_exif_orientation_turns_16_bit_colour_too() -> None:
    values = random_values((2, 3, 3), "uint16")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        raster = _raster(png_file(values, chunks=((b"eXIf", exif.tobytes()[6:]),)))
        eight_bits = Image.fromarray((values >> 8).astype(np.uint8))
        eight_bits.getexif()[0x0112] = orientation
        np.testing.assert_array_equal(raster.values >> 8, np.asarray(open_image(eight_bits)))


def test_16_bit_colour_is_held_to_the_limits_of_every_image() -> None:
    data = png_file(random_values((13, 9, 3), "uint16"))
    with pytest.raises(ImageTooLargeError, match="9 x 13 pixels; the limit is 100"):
        open_image(data, max_pixels=100)
    with pytest.raises(ImageError, match="has 1 frame, numbered from 0; frame 2 was asked for"):
        open_image(data, decode=DecodeConfig(frame=2))


def test_a_16_bit_png_cut_anywhere_is_an_image_error() -> None:
    data = png_file(random_values((13, 9, 3), "uint16"), filters="all")
    for length in range(8, len(data) - 28, 7):
        with pytest.raises(ImageError):
            open_image(data[:length])
