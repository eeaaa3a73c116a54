"""Which picture of an animation is read, and how many there are."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from image_files import png_chunk, png_file
from PIL import Image

from vitreous.config.decode import DecodeConfig
from vitreous.errors import ImageError, ImageTooLargeError
from vitreous.inputs import Raster, count_frames, open_image

LEVELS = (10, 90, 170, 250)


def _animation(kind: str, size: tuple[int, int] = (8, 6), levels: tuple[int, ...] = LEVELS, **options: Any) -> bytes:
    frames = [Image.new("L", size, level).convert("RGB") for level in levels]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


def _level(data: bytes, frame: Any) -> int:
    image = open_image(data, decode=DecodeConfig(frame=frame))
    assert isinstance(image, Image.Image)
    return int(np.asarray(image.convert("L")).mean())


@pytest.mark.parametrize(
    ("kind", "options"),
    [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("AVIF", {"quality": 100})],
)
def test_a_frame_is_chosen_by_name_or_number(kind: str, options: dict[str, Any]) -> None:
    data = _animation(kind, **options)
    assert count_frames(data) == 4
    chosen = [_level(data, frame) for frame in ("first", "middle", "last", 0, 2)]
    np.testing.assert_allclose(chosen, [10, 90, 250, 10, 170], atol=2)
    with pytest.raises(ImageError, match="has 4 frames, numbered from 0; frame 4 was asked for"):
        _level(data, 4)


def test_what_has_one_picture_has_only_frame_0() -> None:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), 7).save(buffer, "PNG")
    assert count_frames(buffer.getvalue()) == 1
    assert [_level(buffer.getvalue(), frame) for frame in ("first", "middle", "last", 0)] == [7] * 4
    with pytest.raises(ImageError, match="has 1 frame"):
        _level(buffer.getvalue(), 1)


def test_the_further_pictures_of_a_phone_or_an_icon_are_no_frames() -> None:
    mpo = _animation("MPO")
    assert count_frames(mpo) == 1
    assert _level(mpo, "last") == 10
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "ICO", sizes=[(16, 16), (32, 32)])
    assert open_image(buffer.getvalue(), decode=DecodeConfig(frame="last")).size == (32, 32)


def test_counting_agrees_with_pillow_and_survives_a_file_cut_anywhere() -> None:
    for levels in (LEVELS, LEVELS[:1], tuple(range(0, 250, 5))):
        data = _animation("GIF", levels=levels, comment=b"x" * 600)
        with Image.open(io.BytesIO(data)) as image:
            assert count_frames(data) == getattr(image, "n_frames", 1) == len(levels)
    for length in range(13, len(data), 5):
        with contextlib.suppress(ImageError):
            assert 1 <= count_frames(data[:length]) <= len(levels)


def test_the_first_of_very_many_frames_needs_no_walk_to_the_last() -> None:
    """A hundred thousand one-pixel frames behind the first: counted where asked for, refused as a late frame."""
    frame = b"\x2c" + bytes(4) + b"\x01\x00\x01\x00\x00" + b"\x02\x02\x44\x01\x00"
    head = b"GIF89a\x01\x00\x01\x00\x80\x00\x00" + b"\0\0\0\xff\xff\xff"
    data = head + frame * 100_000 + b"\x3b"
    assert open_image(data).size == (1, 1)
    assert count_frames(data) == 100_000
    with pytest.raises(ImageTooLargeError, match="holds 99,999 frames of 1 x 1 pixels before that one"):
        open_image(data, decode=DecodeConfig(frame="last"))
    with pytest.raises(ImageError, match="more than 100,000 frames"):
        count_frames(head + frame * 100_001)


def test_a_late_frame_of_a_large_animation_is_refused_before_it_is_decoded() -> None:
    data = _animation("GIF", (200, 100), tuple(range(0, 240, 2)))
    with pytest.raises(ImageTooLargeError, match="holds 119 frames of 200 x 100"):
        open_image(data, max_pixels=20_000, decode=DecodeConfig(frame="last"))


def test_an_animation_in_16_bit_colour_gives_its_first_frame_only() -> None:
    values = np.full((4, 4, 3), 300, np.uint16)
    still = png_file(values)
    control = png_chunk(b"acTL", b"\0\0\0\x02\0\0\0\0")
    data = still[:33] + control + still[33:]
    first = open_image(data)
    assert isinstance(first, Raster)
    assert first.values.max() == 300
    with pytest.raises(ImageError, match="only the first frame"):
        open_image(data, decode=DecodeConfig(frame="last"))


def test_frames_of_what_is_no_file() -> None:
    assert count_frames(np.zeros((4, 4), np.uint8)) == 1
    assert count_frames(Raster(np.zeros((4, 4, 1), np.uint8), frames=3)) == 3
