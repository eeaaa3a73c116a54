"""Compressed frames of DICOM files: measured before they are decoded, and the kinds of JPEG that pydicom leaves to others:
lossless (process 14), JPEG-LS, and 12 bits a sample (process 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitreous.errors import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_EXTENDED = "1.2.840.10008.1.2.4.51"
_START_OF_FRAME = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}


def is_uncommon_jpeg(dataset: Dataset) -> bool:
    syntax = dataset.file_meta.TransferSyntaxUID
    return syntax in (*_LOSSLESS, *_JPEG_LS) or (syntax == _EXTENDED and int(dataset.BitsStored) > 8)


def check_encoded(dataset: Dataset, number: int, frames: int, size: tuple[int, int]) -> bytes:
    """The compressed bytes of one frame. Raises ImageError where they announce another size than the file does: a
    decoder would make room for what they announce.
    """
    from pydicom.encaps import get_frame

    offsets = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    frame = get_frame(dataset.PixelData, number, number_of_frames=frames, extended_offsets=offsets)
    announced = _announced_size(frame)
    if announced is not None and announced != size:
        raise ImageError(
            f"holds a frame of {announced[1]} x {announced[0]} pixels where {size[1]} x {size[0]} are announced"
        )
    return frame


def decode_uncommon_jpeg(dataset: Dataset, frame: bytes, size: tuple[int, int]) -> np.ndarray:
    """A frame that `is_uncommon_jpeg`, through imagecodecs, with the sign that the file states."""
    try:
        import imagecodecs
    except ImportError as error:
        raise ImageError(
            "holds a kind of JPEG that needs the package imagecodecs; type: pip install 'vitreous[medical]'"
        ) from error
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _JPEG_LS:
        values = imagecodecs.jpegls_decode(frame)
    elif syntax == _EXTENDED:
        values = imagecodecs.jpeg_decode(frame, bitspersample=12)
    else:
        values = imagecodecs.ljpeg_decode(frame) if dataset.SamplesPerPixel == 1 else imagecodecs.jpegsof3_decode(frame)
    values = np.asarray(values)
    if values.shape[:2] != size:
        raise ImageError(f"holds a frame of shape {values.shape} where {size[1]} x {size[0]} pixels are announced")
    return _with_sign(values, int(dataset.BitsStored)) if dataset.PixelRepresentation == 1 else values


def _with_sign(values: np.ndarray, bits: int) -> np.ndarray:
    """Two's complement numbers of so many bits, which were stored as if they were unsigned."""
    whole = values.astype(np.int32) & (2**bits - 1)
    return (whole - (whole >> (bits - 1) << bits)).astype(np.int16)


def _announced_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) in the header of a JPEG, JPEG-LS or JPEG 2000 code stream; None for other ways of compression."""
    if frame[:2] != b"\xff\xd8":
        start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
        if start < 0 or len(frame) < start + 24:
            return None
        right, bottom, left, top = (int.from_bytes(frame[at : at + 4], "big") for at in range(start + 8, start + 24, 4))
        return bottom - top, right - left
    position = 2
    while position + 9 < len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker in _START_OF_FRAME:
            return (
                int.from_bytes(frame[position + 5 : position + 7], "big"),
                int.from_bytes(frame[position + 7 : position + 9], "big"),
            )
        position += 1 if marker == 0xFF else 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    raise ImageError("holds a damaged JPEG frame")
