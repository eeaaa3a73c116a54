"""TIFF and GeoTIFF: written by tifffile or by hand, read through whichever of three readers fits."""

from __future__ import annotations

import builtins
import io
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tifffile
from image_files import random_values, tiff_file
from PIL import Image

from vitreous.config.decode import DecodeConfig
from vitreous.config.input import InputSpec
from vitreous.errors import ImageError, ImageTooLargeError, TruncatedImageError, UnfitImageError
from vitreous.inputs import Raster, count_frames, open_image, to_pixels
from vitreous.inputs.tiff_header import read_page

PLACE = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),  # ModelPixelScale
    (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0), True),  # ModelTiepoint
    (34735, "H", 4, (1, 1, 0, 0), True),  # GeoKeyDirectory, empty
]


def _nodata(text: str) -> tuple[int, str, int, str, bool]:
    return (42113, "s", len(text) + 1, text, True)


def _values(decoded: Image.Image | Raster) -> np.ndarray:
    return decoded.values if isinstance(decoded, Raster) else np.asarray(decoded)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("uint8", "L"), ("uint16", "I;16"), ("int16", "I"), ("int32", "I"), ("float32", "F"), ("float64", "F")),
        *(("int8", "I"), ("float16", "F"), ("uint32", "1xuint32")),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_one_band_of_any_type_keeps_its_values(kind: str, mode: str, order: Any) -> None:
    values = random_values((12, 17), kind)
    decoded = open_image(tiff_file(values, photometric="minisblack", byteorder=order))
    assert decoded.mode in (mode, f"{mode}B")
    assert decoded.size == (17, 12)
    np.testing.assert_array_equal(
        _values(decoded).reshape(12, 17), values.astype("f4") if kind == "float64" else values
    )


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
def test_bands_are_kept_however_they_are_stored(planar: Any, compression: Any, kind: str) -> None:
    values = random_values((12, 17, 6), kind)
    stored = values if planar == "contig" else np.ascontiguousarray(np.moveaxis(values, -1, 0))
    decoded = open_image(tiff_file(stored, photometric="minisblack", planarconfig=planar, compression=compression))
    assert isinstance(decoded, Raster)
    assert decoded.mode == f"6x{kind}"
    np.testing.assert_array_equal(decoded.values, values)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True}]
)
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_keeps_16_bits(planar: Any, options: dict[str, Any], channels: int) -> None:
    values = random_values((20, 33, channels), "uint16")
    stored = values if planar == "contig" else np.ascontiguousarray(np.moveaxis(values, -1, 0))
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    decoded = open_image(tiff_file(stored, photometric="rgb", planarconfig=planar, **options, **extra))
    assert isinstance(decoded, Raster)
    np.testing.assert_array_equal(decoded.values, values)
    assert decoded.alpha == (channels == 4)


def test_premultiplied_opacity_is_divided_out_of_16_bit_colour() -> None:
    values = np.array([[[1000, 2000, 3000, 32768], [0, 0, 0, 0], [5, 6, 7, 65535]]], np.uint16)
    decoded = open_image(tiff_file(values, photometric="rgb", extrasamples=["assocalpha"]))
    assert _values(decoded)[0].tolist() == [[2000, 4000, 6000, 32768], [0, 0, 0, 0], [5, 6, 7, 65535]]


def test_a_fourth_sample_that_is_not_called_opacity_is_a_band() -> None:
    values = random_values((5, 6, 4), "uint8")
    decoded = open_image(tiff_file(values, photometric="rgb", extrasamples=["unspecified"]))
    assert decoded.mode == "4xuint8"
    np.testing.assert_array_equal(_values(decoded), values)
    with pytest.raises(UnfitImageError, match="has 4 bands and the model takes 3"):
        to_pixels(decoded, InputSpec(height=5, width=6))


def test_white_is_zero_is_turned_round_at_16_bits() -> None:
    values = random_values((5, 6), "uint16")
    for order in ("<", ">"):
        decoded = open_image(tiff_file(values, photometric="miniswhite", byteorder=order))
        np.testing.assert_array_equal(_values(decoded), 65535 - values)


def test_16_bit_ink_becomes_light() -> None:
    ink = np.array([[[0, 0, 0, 0], [65535, 0, 0, 0], [0, 0, 0, 65535], [0, 65535, 0, 32768]]], np.uint16)
    decoded = open_image(tiff_file(ink, photometric="separated"))
    assert _values(decoded)[0].tolist() == [[65535] * 3, [0, 65535, 65535], [0, 0, 0], [32767, 0, 32767]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright_in_every_reader(orientation: int) -> None:
    """As Pillow turns 8-bit grey; 16-bit colour and bands come by other ways."""
    grey = random_values((3, 4), "uint8")
    tag = [(274, "H", 1, orientation, True)]
    expected = np.asarray(open_image(tiff_file(grey, photometric="minisblack", extratags=tag)))
    bands = open_image(
        tiff_file(np.stack([grey] * 5, -1), photometric="minisblack", planarconfig="contig", extratags=tag)
    )
    colour = open_image(tiff_file(np.stack([grey * np.uint16(257)] * 3, -1), photometric="rgb", extratags=tag))
    np.testing.assert_array_equal(_values(bands)[..., 4], expected)
    np.testing.assert_array_equal(_values(colour)[..., 0] // 257, expected)
    assert orientation != 6 or expected.shape == (4, 3)


def test_pages_are_chosen_by_name_or_number() -> None:
    pages = [np.full((4, 5), value, np.uint8) for value in (10, 20, 30, 40)]
    deep = [np.full((4, 5, 5), value, np.uint16) for value in (10, 20, 30, 40)]
    for data in (_pages(pages), _pages(deep, photometric="minisblack", planarconfig="contig")):
        assert count_frames(data) == 4
        for frame, value in (("first", 10), ("middle", 20), ("last", 40), (2, 30)):
            assert _values(open_image(data, decode=DecodeConfig(frame=frame))).max() == value  # type: ignore[arg-type]
        with pytest.raises(ImageError, match="has 4 frames, numbered from 0; frame 4 was asked for"):
            open_image(data, decode=DecodeConfig(frame=4))


def test_overviews_are_no_pages() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(np.full((8, 8), 10, np.uint8))
        writer.write(np.full((4, 4), 99, np.uint8), subfiletype=1)
        writer.write(np.full((8, 8), 20, np.uint8))
    data = buffer.getvalue()
    assert count_frames(data) == 2
    assert _values(open_image(data, decode=DecodeConfig(frame="last"))).max() == 20


def test_a_chain_of_pages_that_loops_comes_to_an_end() -> None:
    data = bytearray(_pages([np.zeros((4, 5), np.uint8)] * 3))
    offsets = [page.offset for page in tifffile.TiffFile(io.BytesIO(bytes(data))).pages]
    entries = struct.unpack_from("<H", data, offsets[2])[0]
    struct.pack_into("<I", data, offsets[2] + 2 + 12 * entries, offsets[0])
    assert count_frames(bytes(data)) == 3
    assert open_image(bytes(data), decode=DecodeConfig(frame="last")).size == (5, 4)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("bands", [1, 3, 5])
def test_the_value_that_means_no_data_becomes_0(kind: str, bands: int) -> None:
    values = np.full((2, 2, bands), 100, kind)
    values[0, 0] = 7
    options = {"photometric": "minisblack", "planarconfig": "contig"} if bands > 1 else {"photometric": "minisblack"}
    decoded = open_image(tiff_file(values if bands > 1 else values[..., 0], extratags=[_nodata("7")], **options))
    assert isinstance(decoded, Raster)
    assert decoded.nodata == 7
    spec = InputSpec(
        height=2, width=2, channels=bands, bit_depth=16, mean=(0.5,) * bands, std=(0.5,) * bands,
        value_range=((0.0, 100.0),) * bands,
    )  # fmt: skip
    assert to_pixels(decoded, spec)[..., -1].tolist() == [[0, 65535], [65535, 65535]]


def test_a_no_data_value_that_the_type_cannot_hold_means_nothing() -> None:
    values = random_values((4, 5), "uint8")
    decoded = open_image(tiff_file(values, photometric="minisblack", extratags=[_nodata("-9999")]))
    assert decoded.mode == "L"


def test_rasterio_and_tifffile_read_a_geotiff_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rasterio", reason="the extra geo is not installed", exc_type=ImportError)
    values = random_values((20, 30, 4), "float32")
    values[3, 4] = -9999
    for planar, stored in (("contig", values), ("separate", np.ascontiguousarray(np.moveaxis(values, -1, 0)))):
        data = tiff_file(
            stored, photometric="minisblack", planarconfig=planar, extratags=[*PLACE, _nodata("-9999")], compression="zlib"
        )  # fmt: skip
        assert read_page(data, 0).georeferenced
        by_rasterio = open_image(data)
        with monkeypatch.context() as patch:
            _hide(patch, "rasterio")
            by_tifffile = open_image(data)
        assert isinstance(by_rasterio, Raster)
        assert isinstance(by_tifffile, Raster)
        np.testing.assert_array_equal(by_rasterio.values, values)
        np.testing.assert_array_equal(by_tifffile.values, values)
        assert by_rasterio.nodata == by_tifffile.nodata == -9999


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiff_file(random_values((4, 5, 6), "uint16"), photometric="minisblack", planarconfig="contig")
    _hide(monkeypatch, "tifffile")
    with pytest.raises(ImageError, match=r"6 bands of 16 bits .* pip install 'vitreous\[tiff\]'"):
        open_image(data)


def test_what_needs_no_package_is_read_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        tiff_file(random_values((4, 5, 3), "uint16"), photometric="rgb"),
        tiff_file(random_values((4, 5), "float32"), photometric="minisblack", extratags=[_nodata("nan")]),
        tiff_file(random_values((4, 5, 3), "uint8"), photometric="rgb", extratags=[*PLACE, _nodata("0")]),
    ]
    _hide(monkeypatch, "tifffile")
    _hide(monkeypatch, "rasterio")
    assert [open_image(data).mode for data in files] == ["3xuint16", "1xfloat32", "3xuint8"]


def test_size_bands_tiles_and_pieces_are_judged_from_the_header() -> None:
    data = tiff_file(np.zeros((40, 50, 9), np.uint16), photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageTooLargeError, match="50 x 40 pixels; the limit is 1,999"):
        open_image(data, max_pixels=1999)
    with pytest.raises(ImageTooLargeError, match="of 9 bands; the limit is 16,000 values"):
        open_image(data, max_pixels=4000)
    assert open_image(data, max_pixels=5000).size == (50, 40)
    with pytest.raises(ImageTooLargeError, match="100000 x 100000 pixels"):
        open_image(_with_tag(data, {256: 100_000, 257: 100_000}))
    tiled = tiff_file(np.zeros((40, 50, 9), np.uint8), photometric="minisblack", planarconfig="contig", tile=(16, 16))
    with pytest.raises(ImageTooLargeError, match="tiles of 60000 x 60000"):
        open_image(_with_tag(tiled, {322: 60_000, 323: 60_000}))
    with pytest.raises(ImageTooLargeError, match="pieces; the limit is"):
        open_image(_with_tag(tiled, {256: 6000, 257: 6000, 322: 1, 323: 1}))


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_tiff_cut_anywhere_is_an_image_error(compression: Any) -> None:
    for values, options in (
        (random_values((9, 11, 6), "uint16"), {"photometric": "minisblack", "planarconfig": "contig"}),
        (random_values((9, 11, 3), "uint16"), {"photometric": "rgb"}),
        (random_values((9, 11), "float32"), {"photometric": "minisblack"}),
    ):
        data = tiff_file(values, compression=compression, metadata=None, **options)
        for length in range(8, len(data) - 1, 23):
            with pytest.raises(ImageError):
                open_image(data[:length])
        with pytest.raises(TruncatedImageError):
            open_image(data[:-40])


def test_complex_numbers_are_refused() -> None:
    data = tiff_file(np.zeros((4, 5), np.complex64), photometric="minisblack")
    with pytest.raises(UnfitImageError, match="holds complex numbers"):
        open_image(data)


def test_only_the_chosen_bands_are_seen() -> None:
    values = random_values((4, 5, 6), "uint16")
    data = tiff_file(values, photometric="minisblack", planarconfig="contig")
    spec = InputSpec(height=4, width=5, bit_depth=16, decode=DecodeConfig(bands=(4, 1, 6)))
    np.testing.assert_array_equal(to_pixels(open_image(data, target=spec), spec), values[..., [3, 0, 5]])
    with pytest.raises(UnfitImageError, match="has 6 bands, numbered from 1; band 7 was asked for"):
        open_image(data, target=replace(spec, decode=DecodeConfig(bands=(7, 1, 6))))


def _pages(pages: list[np.ndarray], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in pages:
            writer.write(page, contiguous=False, metadata=None, **options)
    return buffer.getvalue()


def _with_tag(data: bytes, changes: dict[int, int]) -> bytes:
    """The file with other values of short or long tags of its first directory."""
    changed = bytearray(data)
    start = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, start)[0]):
        offset = start + 2 + 12 * entry
        tag = struct.unpack_from("<H", data, offset)[0]
        if tag in changes:
            struct.pack_into("<HII", changed, offset + 2, 4, 1, changes[tag])
    return bytes(changed)


def _hide(patch: pytest.MonkeyPatch, package: str) -> None:
    real: Callable[..., Any] = builtins.__import__

    def fake(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **named)

    patch.setattr(builtins, "__import__", fake)
