from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.config.input import InputSpec
from vitreous.errors import ImageError, ImageFormatError, ImageTooLargeError, TruncatedImageError, UnfitImageError
from vitreous.inputs import SERVER_FORMATS, open_image, prepare, to_pixels


def _file(kind: str = "PNG", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_path_its_text_and_its_bytes_are_one_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_file())
    images = [open_image(source) for source in (path, str(path), path.read_bytes(), memoryview(path.read_bytes()))]
    assert len({np.asarray(image).tobytes() for image in images}) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_every_format_of_the_server_is_read(kind: str) -> None:
    assert open_image(_file(kind), formats=SERVER_FORMATS).size == (40, 30)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_truncated_file_is_refused_in_every_format(kind: str) -> None:
    data = _file(kind)
    with pytest.raises(ImageError):
        open_image(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_truncation_is_called_by_its_name(kind: str) -> None:
    data = _file(kind)
    for length in (len(data) * 2 // 3, 12):
        with pytest.raises(TruncatedImageError, match="truncated"):
            open_image(data[:length])


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", ImageError, r"is empty \(0 bytes\)"),
        (b"hello, world", ImageError, "is not an image"),
        (b"%PDF-1.7 and so on", ImageFormatError, "is a PDF document"),
        (b"\0" * 128 + b"DICM" + b"\0" * 50, ImageError, "is a DICOM file without an image"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 50, ImageFormatError, "is a HEIC photo"),
        (b"PK\x03\x04" + b"\0" * 50, ImageFormatError, "is a ZIP archive"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(data: bytes, kind: type[ImageError], message: str) -> None:
    with pytest.raises(kind, match=message):
        open_image(data)


def test_paths_that_hold_no_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="is a folder"):
        open_image(tmp_path)


def test_size_is_judged_from_the_header() -> None:
    header_only = _file(size=(1000, 1000))[:60]
    with pytest.raises(ImageTooLargeError, match="1000 x 1000 pixels; the limit is 999,999"):
        open_image(header_only, max_pixels=999_999)
    assert open_image(_file(size=(100, 100)), max_pixels=10_000).size == (100, 100)


def test_a_decompression_bomb_is_refused_without_a_warning() -> None:
    """Two hundred million white pixels in a few kilobytes."""
    buffer = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(buffer, "PNG")
    with pytest.raises(ImageTooLargeError):
        open_image(buffer.getvalue())


def test_arrays_of_every_fitting_type_are_taken() -> None:
    grey = np.array([[0, 51], [102, 255]], np.uint8)
    assert np.asarray(open_image(grey)).tolist() == grey.tolist()
    assert np.asarray(open_image(grey[..., None])).tolist() == grey.tolist()
    assert np.asarray(open_image(grey / 255)).tolist() == grey.tolist()
    assert np.asarray(open_image(grey > 60)).tolist() == [[0, 0], [255, 255]]
    assert open_image(grey.astype(np.uint16) * 257).mode == "I;16"
    colour = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    assert np.asarray(open_image(torch.from_numpy(colour).permute(2, 0, 1))).tolist() == colour.tolist()
    assert open_image(np.zeros((4, 5, 4), np.uint8)).mode == "RGBA"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 2), np.uint8),
        np.zeros((2, 2), np.int64),
        np.zeros((0, 2), np.uint8),
        np.full((2, 2), 1.5),
        np.full((2, 2), np.nan),
        np.zeros((1, 2, 2, 3), np.uint8),
    ],
)
def test_arrays_that_do_not_fit_are_refused(array: np.ndarray) -> None:
    with pytest.raises(UnfitImageError):
        open_image(array)


def test_what_is_neither_file_nor_array_is_refused() -> None:
    with pytest.raises(UnfitImageError, match="cannot make an image from a dict"):
        open_image({"path": "a.png"})


def test_preparing_a_file_gives_what_the_model_takes() -> None:
    spec = InputSpec(height=16, width=24)
    image = prepare(_file("JPEG"), spec)
    assert image.shape == spec.shape == (3, 16, 24)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    assert -1 <= image.min() < image.max() <= 1


def test_colours_that_pillow_turns_into_rgb_alone_become_grey_too() -> None:
    buffer = io.BytesIO()
    Image.new("LAB", (8, 8), (128, 128, 128)).save(buffer, "TIFF")
    for channels in (1, 3):
        spec = InputSpec(height=8, width=8, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)
        assert np.ptp(to_pixels(open_image(buffer.getvalue()), spec)) <= 2


def test_a_gif_whose_first_frame_has_the_greys_as_its_own_palette_is_read() -> None:
    """Pillow names such a frame grey and holds it as a palette image, which it cannot convert where one index is clear."""
    greys = bytes(value for level in range(256) for value in (level, level, level))
    other = b"\0\0\xc8" + greys[3:]
    screen = b"GIF89a\2\0\2\0\x87\0\0" + other + b"!\xf9\4\1\0\0\xff\0"
    frame = b",\0\0\0\0\2\0\2\0\x87" + greys + b"\x08\x07\0\x01\x04\x10 @\x80\x80\0;"
    image = open_image(screen + frame)
    assert (image.mode, image.size) == ("L", (2, 2))
    spec = InputSpec(height=2, width=2)
    assert np.array_equal(to_pixels(image, spec)[..., 0], np.asarray(image))


def test_an_icon_is_not_taken_for_a_file_without_a_mark_of_its_own() -> None:
    """With 32 bits and a picture of some 70,000 bytes in it, the head of an icon is one of a TGA, too."""
    picture = _file(size=(16, 16))
    size = 70_000
    entry = bytes((16, 16, 0, 0, 1, 0, 32, 0)) + size.to_bytes(4, "little") + (22).to_bytes(4, "little")
    icon = open_image(b"\0\0\1\0\1\0" + entry + picture + bytes(size - len(picture)))
    assert (icon.format, icon.size) == ("ICO", (16, 16))


def test_colours_that_contradict_each_other_are_an_image_error() -> None:
    image = Image.new("L", (4, 4))
    image.info["transparency"] = "nonsense"
    with pytest.raises(ImageError, match="has colours that cannot be read"):
        to_pixels(image, InputSpec(height=4, width=4))
