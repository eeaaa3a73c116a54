"""Which picture of a file with several is meant, and how many there are, without decoding them."""

from __future__ import annotations

from PIL import Image

from vitreous.config.decode import Frame
from vitreous.errors import ImageError, ImageTooLargeError, TruncatedImageError

ONE_PICTURE = ("MPO", "PSD", "ICO", "CUR", "ICNS")
"""Formats whose further pictures are not frames: depth and gain maps of phones, layers, other sizes of the same icon."""

MOST_FRAMES = 100_000
"""Frames counted before a file is refused."""

_FRAME_COST = 20_000
"""Pixels' worth of work that one frame takes however small it is."""


def choose_frame(frame: Frame | int, count: int) -> int:
    """The number, from 0, of the wanted one of `count` frames. Raises ImageError where there is no such frame."""
    if isinstance(frame, int):
        if frame >= count:
            held = "1 frame" if count == 1 else f"{count:,} frames"
            raise ImageError(f"has {held}, numbered from 0; frame {frame} was asked for")
        return frame
    return {"first": 0, "middle": (count - 1) // 2, "last": count - 1}[frame]


def seek_frame(image: Image.Image, data: bytes, frame: Frame | int, max_pixels: int) -> None:
    """Move a freshly opened Pillow image to a frame.

    Frames of animations build upon each other, so a late frame of a large animation is refused when all those before it
    hold more than twenty times `max_pixels` together. Raises ImageError, ImageTooLargeError.
    """
    if frame == "first" or (frame == 0 and not isinstance(frame, str)):
        return
    number = choose_frame(frame, frame_count(image, data))
    if number * (image.width * image.height + _FRAME_COST) > 20 * max_pixels:
        raise ImageTooLargeError(f"holds {number:,} frames of {image.width} x {image.height} pixels before that one")
    try:
        image.seek(number)
    except EOFError as error:
        raise TruncatedImageError(f"is truncated: it ends before frame {number}") from error


def frame_count(image: Image.Image, data: bytes) -> int:
    """Pictures in a file that Pillow has opened, from its headers alone."""
    if image.format in ONE_PICTURE:
        return 1
    if image.format == "GIF":
        return count_gif_frames(data)
    return max(1, int(getattr(image, "n_frames", 1)))


def count_gif_frames(data: bytes) -> int:
    """Image blocks of a GIF (GIF89a specification, section 20), counted by stepping from block to block.

    A file that ends early counts what it holds, at least 1. Raises ImageError above `MOST_FRAMES`.
    """
    if len(data) < 13:
        return 1
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    count = 0
    while position < len(data):
        block = data[position]
        if block == 0x2C and position + 9 < len(data):
            count += 1
            if count > MOST_FRAMES:
                raise ImageError(f"has more than {MOST_FRAMES:,} frames")
            flags = data[position + 9]
            position += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        elif block == 0x21:
            position += 2
        elif block == 0:  # stray terminators occur
            position += 1
            continue
        else:
            break
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    return max(1, count)
