"""JPEG files decoded at a half, a quarter or an eighth of their size, where the model needs no more than that.

A JPEG is stored as blocks of 8 x 8 pixels by frequency, so a decoder can give a smaller picture by leaving out the high
ones, which also filters it. What is saved is most of the work of decoding and resizing a photograph.
"""

from __future__ import annotations

from PIL import Image, ImageOps

from vitreous.config.input import InputSpec

LEAST = 1.4
"""Pixels, along each side, that a reduced picture must have for each pixel of the model.

Measured on eleven photographs of 1280 x 960 to 4000 x 3000 pixels for a model of 224, against decoding in full: over
photographs the mean difference is 0.2 to 0.7 grey levels (of 255), in the sharpest one at most 1.4. With 1.0 instead these
are up to 1.8 and 3.1, because the resampling filter then has nothing left to average over.
"""

EDGES = "vitreous_edges"
"""Key in `Image.info` for what the outermost pixels of a reduced picture show too much: shares of a pixel (left, top,
right, bottom), each in [0, 1). An eighth of 1001 pixels is 126 pixels, the last of which is only an eighth full."""

_ORIENTATION = 0x0112
_JPEG = ("JPEG", "MPO")


def reduction(width: int, height: int, target: InputSpec | int) -> int:
    """By how much both sides of a JPEG of width x height pixels (upright) may be divided: 1, 2, 4 or 8.

    target: what the image will be prepared for. The one rule for training, evaluation, prediction and serving; the part
    that is cropped away does not count. With `interpolation="nearest"`, which asks for pixels as they are in the file,
    it is always 1. An int is the longer side of a picture for people, such as a thumbnail.
    """
    if isinstance(target, int):
        shrinking = max(width, height) / target
    elif target.interpolation == "nearest":
        return 1
    elif target.resize == "pad":
        shrinking = max(width / target.width, height / target.height)
    else:
        shrinking = min(width / target.width, height / target.height)
        shrinking *= target.crop_fraction if target.resize == "crop" else 1
    return next((factor for factor in (8, 4, 2) if shrinking >= LEAST * factor), 1)


def reduce_jpeg(image: Image.Image, target: InputSpec | int) -> None:
    """Have a JPEG that Pillow has opened and not yet decoded be decoded as small as `reduction` allows."""
    width, height = image.size
    if image.format not in _JPEG:
        return
    lying = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    factor = reduction(*((height, width) if lying else (width, height)), target)
    if factor > 1 and image.draft(None, (width // factor, height // factor)) is not None:
        image.info[EDGES] = (0.0, 0.0, image.width - width / factor, image.height - height / factor)


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says it should be seen; itself where there is nothing to turn."""
    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation not in range(2, 9):
        return image
    turned = ImageOps.exif_transpose(image)
    if EDGES in image.info:
        _, _, right, bottom = image.info[EDGES]
        turned.info[EDGES] = {
            2: (right, 0.0, 0.0, bottom),
            3: (right, bottom, 0.0, 0.0),
            4: (0.0, bottom, right, 0.0),
            5: (0.0, 0.0, bottom, right),
            6: (bottom, 0.0, 0.0, right),
            7: (bottom, right, 0.0, 0.0),
            8: (0.0, right, bottom, 0.0),
        }[orientation]
    return turned


def extent(image: Image.Image) -> tuple[float, float, float, float]:
    """Where the file's picture lies in an image that may have been reduced: (left, top, right, bottom) in its pixels."""
    left, top, right, bottom = image.info.get(EDGES, (0.0, 0.0, 0.0, 0.0))
    return (left, top, image.width - right, image.height - bottom)
