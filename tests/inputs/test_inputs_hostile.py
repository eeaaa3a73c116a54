"""Damaged and malicious files: an image or an ImageError, never another exception."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from image_files import dicom_file, png_file, random_values, tiff_file
from PIL import Image

from vitreous.config.decode import DecodeConfig
from vitreous.errors import ImageError
from vitreous.inputs import Raster, count_frames, open_image
from vitreous.inputs.decode import FILE_FORMATS

PLACE = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (33922, "d", 6, (0.0,) * 6, True), (34735, "H", 4, (1, 1, 0, 0), True)]
BANDS = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}


def _pillow(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(random_values((12, 14, 3), "uint8", seed)) for seed in range(3)]
    more = {"save_all": True, "append_images": frames[1:]} if kind in ("GIF", "WEBP", "TIFF") else {}
    frames[0].save(buffer, kind, **more, **options)
    return buffer.getvalue()


FILES = {
    "png16": png_file(random_values((12, 14, 4), "uint16"), filters="all"),
    "tiff bands": tiff_file(random_values((12, 14, 6), "uint16"), **BANDS),
    "tiff packed": tiff_file(random_values((12, 14, 6), "int16"), compression="lzw", predictor=True, **BANDS),
    "tiff tiled": tiff_file(random_values((30, 34, 5), "float32"), compression="zlib", tile=(16, 16), **BANDS),
    "tiff colour": tiff_file(random_values((12, 14, 3), "uint16"), photometric="rgb", compression="zlib"),
    "bigtiff": tiff_file(random_values((12, 14), "float32"), bigtiff=True),
    "geotiff": tiff_file(random_values((12, 14, 4), "float32"), extratags=PLACE, **BANDS),
    "dicom": dicom_file(random_values((2, 12, 14), "int16"), WindowCenter=0, WindowWidth=100, RescaleSlope=2),
    "dicom colour": dicom_file(random_values((12, 14, 3), "uint8"), SamplesPerPixel=3),
    "gif": _pillow("GIF"),
    "webp": _pillow("WEBP"),
    "tiff pages": _pillow("TIFF", compression="tiff_lzw"),
    "qoi": _pillow("QOI"),
    "dds": _pillow("DDS"),
    "jpeg2000": _pillow("JPEG2000"),
}


def _damaged(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Bytes changed at random, more often near the start, where headers are."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(int(generator.integers(1, 6))):
            reach = len(data) if generator.random() < 0.5 else min(len(data), 400)
            changed[int(generator.integers(0, reach))] = int(generator.integers(0, 256))
        yield bytes(changed)


def _is_image_or_error(data: bytes, decode: DecodeConfig | None = None) -> bool:
    try:
        decoded = open_image(data, max_pixels=1_000_000, decode=decode)
    except ImageError as error:
        assert error.message
        return False
    assert isinstance(decoded, Image.Image | Raster)
    assert decoded.width * decoded.height <= 1_000_000
    return True


@pytest.mark.parametrize("name", FILES)
def test_damage_anywhere_gives_an_image_or_an_image_error(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as outside of tests: a decoder may warn and go on
        assert _is_image_or_error(FILES[name])
        for number, data in enumerate(_damaged(FILES[name], 150, seed=sum(name.encode()))):
            _is_image_or_error(data, DecodeConfig(frame="last") if number % 3 == 0 else None)
            with contextlib.suppress(ImageError):
                count_frames(data)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_gives_an_image_or_an_image_error(name: str) -> None:
    data = FILES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = [_is_image_or_error(data[:length]) for length in range(0, len(data), max(1, len(data) // 60))]
    assert not any(read[: len(read) // 3])


@pytest.mark.parametrize(("kind", "mode"), [("QOI", "RGB"), ("DDS", "RGB"), ("XBM", "1"), ("MSP", "1"), ("SPIDER", "F"), ("SGI", "RGB"), ("TGA", "RGB"), ("PCX", "RGB"), ("BLP", "P")])  # fmt: skip
def test_the_rarer_formats_are_read(kind: str, mode: str) -> None:
    image = Image.fromarray(random_values((128, 128), "uint8")).convert("RGB").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    decoded = open_image(buffer.getvalue())
    assert isinstance(decoded, Image.Image)
    assert (decoded.size, decoded.format) == ((128, 128), kind)


def test_formats_that_run_programs_or_other_libraries_are_not_read() -> None:
    assert not {"EPS", "WMF", "GRIB", "HDF5", "BUFR", "MPEG", "PDF", "FITS"} & set(FILE_FORMATS)
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "EPS")
    with pytest.raises(ImageError, match="is a PostScript file"):
        open_image(buffer.getvalue())
