"""From stored values to what a model takes: ranges, gaps, numbers of bands."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from image_files import random_values, tiff_file
from PIL import Image

from vitreous.config.convert import from_dict, to_dict
from vitreous.config.decode import DecodeConfig
from vitreous.config.input import InputSpec
from vitreous.errors import UnfitImageError, UsageError
from vitreous.inputs import Raster, as_picture, band_values, needs_range, open_image, prepare, to_pixels

ONE = InputSpec(height=2, width=2, channels=1, bit_depth=16, mean=(0.0,), std=(1.0,))
FIVE = InputSpec(height=2, width=2, channels=5, bit_depth=16, mean=(0.0,) * 5, std=(1.0,) * 5)


def test_floats_need_a_range_and_are_mapped_through_it() -> None:
    image = Image.fromarray(np.array([[-5.0, 0.0], [15.0, 40.0]], np.float32))
    with pytest.raises(UnfitImageError, match="floats, whose range is unknown"):
        to_pixels(image, ONE)
    spec = replace(ONE, value_range=((-5.0, 35.0),))
    assert to_pixels(image, spec)[..., 0].tolist() == [[0, 8192], [32768, 65535]]
    assert to_pixels(image, replace(spec, bit_depth=8))[..., 0].tolist() == [[0, 32], [128, 255]]


def test_each_band_has_a_range_of_its_own() -> None:
    values = np.zeros((2, 2, 5), np.float32) + np.arange(5, dtype=np.float32)
    spec = replace(FIVE, value_range=((0.0, 1.0), (0.0, 2.0), (0.0, 4.0), (3.0, 4.0), (2.0, 3.0)))
    assert to_pixels(Raster(values), spec)[0, 0].tolist() == [0, 32768, 32768, 0, 65535]


def test_large_values_close_together_are_told_apart() -> None:
    values = (np.arange(4, dtype=np.uint32) + 4_000_000_000).reshape(2, 2, 1)
    spec = replace(ONE, value_range=((4_000_000_000.0, 4_000_000_003.0),))
    assert to_pixels(Raster(values), spec)[..., 0].tolist() == [[0, 21845], [43690, 65535]]


def test_a_range_maps_8_bit_and_16_bit_images_too() -> None:
    spec = replace(ONE, value_range=((100.0, 200.0),))
    for image in (np.full((2, 2), 120, np.uint8), np.full((2, 2), 120, np.uint16)):
        assert set(to_pixels(open_image(image), spec).ravel().tolist()) == {13107}


def test_unsigned_bands_span_their_type_without_a_range() -> None:
    for kind in ("uint8", "uint16"):
        values = random_values((2, 2, 5), kind)
        scale = 257 if kind == "uint8" else 1
        np.testing.assert_array_equal(to_pixels(Raster(values), FIVE), values.astype(int) * scale)


def test_signed_bands_without_a_range_are_taken_only_within_16_bits() -> None:
    assert to_pixels(Raster(np.full((2, 2, 5), 257, np.int16)), FIVE).max() == 257
    with pytest.raises(UnfitImageError, match="integers from -1 to -1, not 0 to 65535"):
        to_pixels(Raster(np.full((2, 2, 5), -1, np.int16)), FIVE)


def test_missing_values_become_0_and_an_image_of_nothing_else_is_refused() -> None:
    spec = replace(ONE, value_range=((-100.0, 0.0),))
    image = Image.fromarray(np.array([[np.nan, 0.0], [-np.inf, -80.0]], np.float32))
    assert to_pixels(image, spec)[..., 0].tolist() == [[0, 65535], [0, 13107]]
    for nothing in (
        Image.fromarray(np.full((2, 2), np.nan, np.float32)),
        Raster(np.full((2, 2, 1), 7, np.int16), nodata=7),
    ):
        with pytest.raises(UnfitImageError, match="holds no valid pixel"):
            to_pixels(nothing, spec)


@pytest.mark.parametrize(
    ("image", "spec", "message"),
    [
        (Raster(np.zeros((2, 2, 5), np.uint16)), replace(FIVE, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3), "has 5 bands and the model takes 3"),
        (Raster(np.zeros((2, 2, 5), np.uint16)), ONE, "has 5 bands and the model takes 1"),
        (Raster(np.zeros((2, 2, 3), np.int16)), ONE, "has 3 bands and the model takes 1"),
        (Image.new("RGB", (2, 2)), FIVE, "has 3 bands and the model takes 5"),
        (Image.new("L", (2, 2)), FIVE, "has 1 band and the model takes 5"),
    ],
)  # fmt: skip
def test_another_number_of_bands_than_the_models_is_refused(image: Any, spec: InputSpec, message: str) -> None:
    with pytest.raises(UnfitImageError, match=message):
        to_pixels(image, spec)


def test_one_band_serves_a_model_of_three() -> None:
    spec = replace(FIVE, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3, value_range=((0.0, 1.0),) * 3)
    pixels = to_pixels(Raster(np.full((2, 2, 1), 0.5, np.float32)), spec)
    assert set(pixels.ravel().tolist()) == {32768}


def test_shrinking_averages_in_every_band() -> None:
    board = (np.indices((64, 64)).sum(0) % 2).astype(np.float32)
    values = np.stack([board, 1 - board, board * 2, board, board], -1)
    spec = replace(FIVE, height=8, width=8, value_range=((0.0, 1.0), (0.0, 1.0), (0.0, 2.0), (0.0, 1.0), (0.0, 1.0)))
    assert np.abs(to_pixels(Raster(values), spec)[1:-1, 1:-1].astype(int) - 32768).max() <= 300


def test_padding_is_the_background_in_every_band() -> None:
    spec = replace(FIVE, height=4, resize="pad", background=0.5)
    assert to_pixels(Raster(np.zeros((1, 1, 5), np.uint8)), spec)[:, 0, 4].tolist() == [32768, 0, 0, 32768]


def test_a_wide_image_is_normalised_band_by_band() -> None:
    spec = replace(FIVE, mean=(0.0, 0.1, 0.2, 0.3, 0.4), std=(1.0, 0.5, 0.25, 0.2, 0.1))
    prepared = prepare(np.full((2, 2, 5), 65535, np.uint16), spec)
    assert prepared.shape == (5, 2, 2)
    np.testing.assert_allclose(prepared[:, 0, 0], [1.0, 1.8, 3.2, 3.5, 6.0], rtol=1e-6)


def test_bands_are_chosen_from_pictures_too_and_opacity_is_then_a_band() -> None:
    values = random_values((2, 2, 4), "uint8")
    for bands in ((2,), (3, 2, 1), (4,), (1, 2, 3, 4), (4, 4)):
        chosen = open_image(Image.fromarray(values), decode=DecodeConfig(bands=bands))
        got = chosen.values if isinstance(chosen, Raster) else np.asarray(chosen).reshape(2, 2, -1)
        np.testing.assert_array_equal(got, values[..., [band - 1 for band in bands]])
    with pytest.raises(UnfitImageError, match="has 1 band, numbered from 1; band 2"):
        open_image(np.zeros((2, 2)), decode=DecodeConfig(bands=(2,)))


def test_band_values_are_the_valid_ones_in_stored_units() -> None:
    values = random_values((100, 90, 5), "int16")
    values[:50] = -999
    sample = band_values(Raster(values, nodata=-999))
    assert sample.shape[1] == 5
    assert 2048 <= len(sample) <= 4096
    assert -999 not in sample
    np.testing.assert_array_equal(sample, band_values(Raster(values, nodata=-999)))
    floats = np.full((10, 10), 2.5, np.float32)
    floats[0] = np.nan
    assert band_values(Image.fromarray(floats)).tolist() == [[2.5]] * 90
    assert band_values(Image.new("RGBA", (3, 3), (9, 8, 7, 255))).tolist() == [[9, 8, 7]] * 9
    assert band_values(Image.new("LA", (3, 3), (9, 0))).tolist() == [[255]] * 9
    assert len(band_values(Raster(np.full((2, 2, 5), np.nan, np.float32)))) == 0


def test_only_floats_and_signed_or_wide_integers_need_a_range() -> None:
    assert [
        mode for mode in ("L", "RGB", "I;16", "I;16B", "3xuint16", "12xuint8", "P", "CMYK") if needs_range(mode)
    ] == []
    assert all(needs_range(mode) for mode in ("F", "I", "1xfloat32", "6xint16", "2xuint32", "10xint32"))


def test_anything_can_be_drawn() -> None:
    ramp = np.tile(np.linspace(-3, 3, 50, dtype=np.float32), (50, 1))
    for image, mode in (
        (Image.fromarray(ramp), "L"),
        (Image.fromarray((ramp * 10 + 100).astype(np.uint16)), "L"),
        (Raster(np.stack([ramp] * 5, -1)), "RGB"),
        (Raster(ramp[..., None], nodata=0), "L"),
    ):
        drawn = as_picture(image)
        assert (drawn.mode, drawn.size) == (mode, (50, 50))
        assert drawn.getextrema() == ((0, 255) if mode == "L" else ((0, 255),) * 3)
    assert as_picture(Raster(np.full((2, 2, 5), np.nan, np.float32))).getextrema() == ((0, 0),) * 3
    colour = Image.new("RGB", (3, 3))
    assert as_picture(colour) is colour


def test_arrays_of_more_than_four_channels_are_bands_and_16_bit_colour_keeps_its_bits() -> None:
    for kind in ("uint8", "uint16", "int16", "float32"):
        values = random_values((3, 4, 7), kind)
        np.testing.assert_array_equal(open_image(values).values, values)  # type: ignore[union-attr]
    assert open_image(np.zeros((3, 4, 3), np.uint16)).mode == "3xuint16"
    with pytest.raises(UnfitImageError, match="int64"):
        open_image(np.zeros((3, 4, 7), np.int64))


def test_a_raster_is_checked_where_it_is_made() -> None:
    for values in (np.zeros((2, 2), np.uint8), np.zeros((2, 2, 1), np.float64), np.zeros((0, 2, 1), np.uint8)):
        with pytest.raises(UnfitImageError):
            Raster(values)


@pytest.mark.parametrize(
    "wrong",
    [{"frame": "second"}, {"frame": -1}, {"bands": (0, 1)}, {"window": "lungs"}, {"window": "1,2,3"}, {"window": "a,b"},
     {"window": "40,0"}, {"window": "nan,40"}],
)  # fmt: skip
def test_a_choice_that_cannot_be_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DecodeConfig(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"value_range": ((0.0, 1.0),)}, {"value_range": ((1.0, 1.0),) * 3}, {"value_range": ((0.0, float("inf")),) * 3},
     {"channels": 0, "mean": (), "std": ()}, {"decode": DecodeConfig(bands=(1, 2))}],
)  # fmt: skip
def test_a_spec_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        InputSpec(**{"height": 8, "width": 8, **wrong})


def test_specs_written_before_bands_and_ranges_read_as_they_were() -> None:
    old = {"height": 8, "width": 8, "channels": 3, "resize": "crop", "crop_fraction": 1.0, "interpolation": "bilinear"}
    old |= {"bit_depth": 8, "background": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3, "classes": ["a"]}
    spec = from_dict(InputSpec, old)
    assert spec == InputSpec(height=8, width=8, classes=("a",))
    assert spec.digest() == hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()
    wide = replace(
        FIVE, decode=DecodeConfig(frame=3, window="lung", bands=(5, 4, 3, 2, 1)), value_range=((0.0, 2.0),) * 5
    )
    assert from_dict(InputSpec, json.loads(json.dumps(to_dict(wide)))) == wide
    assert (
        len({wide.digest(), replace(wide, value_range=()).digest(), replace(wide, decode=DecodeConfig()).digest()}) == 3
    )


def test_a_multi_band_file_goes_all_the_way() -> None:
    values = random_values((2, 2, 5), "float32")
    data = tiff_file(values, photometric="minisblack", planarconfig="contig")
    spec = replace(FIVE, value_range=((-4.0, 4.0),) * 5)
    np.testing.assert_allclose(prepare(data, spec), np.moveaxis((values + 4) / 8, -1, 0), atol=1e-5)
