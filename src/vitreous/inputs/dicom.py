"""DICOM images as greys or colours that mean the same in every file (DICOM PS3.3, sections C.7.6.3, C.11.1, C.11.2).

Only the elements that decide about pixels are read. No name, date or number of a patient gets into an image, a
message or a log; `patient_pseudonym` alone looks at the patient's ID, and returns a hash of it.
"""

from __future__ import annotations

import hashlib
import io
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vitreous.config.decode import DecodeConfig, window_limits
from vitreous.errors import ImageError, ImageTooLargeError, TruncatedImageError, UnfitImageError
from vitreous.inputs.frames import choose_frame
from vitreous.inputs.raster import Raster, named

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
_NEEDED = (
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "PixelData", "FloatPixelData", "DoubleFloatPixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)
_FULL = 65535.0


def is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def read_dicom(data: bytes, decode: DecodeConfig, max_pixels: int) -> Image.Image | Raster:
    """One frame: greys as a 16-bit Pillow image whose 0 and 65535 are the ends of the window, colours as RGB.

    Raises ImageErrors only; their messages quote nothing from the file but sizes, types and its way of compression.
    """
    dataset = _read(data, max_pixels)
    rows, columns, frames = (_whole(dataset, name) for name in ("Rows", "Columns", "NumberOfFrames"))
    frames = max(frames, 1)
    if rows < 1 or columns < 1:
        raise ImageError("is a DICOM file without an image")
    if rows * columns > max_pixels:
        raise ImageTooLargeError(f"has {columns} x {rows} pixels; the limit is {max_pixels:,}")
    number = choose_frame(decode.frame, frames)
    try:
        stored = _stored_values(dataset, number, frames, (rows, columns))
        if stored.ndim == 3 or dataset.PhotometricInterpretation == "PALETTE COLOR":
            return _colour(stored, dataset, frames)
        return named(Image.fromarray(_grey(stored, dataset, number, decode.window)), "DICOM")
    except ImageError:
        raise
    except Exception as error:
        raise _undecodable(dataset, error) from None  # the cause may quote the file


def count_dicom_frames(data: bytes) -> int:
    """Frames of a DICOM file. Raises ImageError where it cannot be read."""
    return max(1, _whole(_read(data, 2**40, ["NumberOfFrames"]), "NumberOfFrames"))


def patient_pseudonym(data: bytes) -> str:
    """16 hexadecimal digits that are equal for equal patients; "" for what is no DICOM file or names no patient.

    sha256 of the PatientID: it keeps the ID out of files and off screens, but whoever has a list of all IDs can find
    the patient again, so it is to be treated as personal data.
    """
    if not is_dicom(data):
        return ""
    try:
        entry = _read(data, 2**40, ["PatientID"]).get_item("PatientID")
    except ImageError:
        return ""
    value = getattr(entry, "value", None)
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    text = text.strip(" \0")
    return hashlib.sha256(f"vitreous patient {text}".encode()).hexdigest()[:16] if text else ""


def _read(data: bytes, max_pixels: int, tags: list[str] | None = None) -> Dataset:
    """tags: the only elements wanted, without pixels; all that decide about pixels when None."""
    try:
        import pydicom
    except ImportError as error:
        raise ImageError(
            "is a DICOM file, which needs the package pydicom; type: pip install 'vitreous[medical]'"
        ) from error
    _judge_deflated(data, max_pixels)
    try:
        return pydicom.dcmread(
            io.BytesIO(data), specific_tags=list(tags or _NEEDED), stop_before_pixels=tags is not None
        )
    except Exception as error:
        if isinstance(error, EOFError):
            raise TruncatedImageError("is truncated: the DICOM file ends before its header does") from None
        if isinstance(error, zlib.error) and "truncated" in str(error):
            raise TruncatedImageError("is truncated: the DICOM file ends before its compressed part does") from None
        raise ImageError(f"is a damaged DICOM file ({type(error).__name__})") from None


def _judge_deflated(data: bytes, max_pixels: int) -> None:
    """A deflated file is inflated whole by its reader, so it is measured here first, within a limit."""
    if _DEFLATED.encode() not in data[:4096]:
        return
    start = 144 + int.from_bytes(data[140:144], "little")  # behind the group of the transfer syntax
    limit = 16 * min(max_pixels, 2**28)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    size, rest = 0, data[start:]
    try:
        while rest and size <= limit:
            size += len(inflate.decompress(rest, 2**20))
            rest = inflate.unconsumed_tail
    except zlib.error:
        raise ImageError("is a damaged DICOM file (its compression)") from None
    if size > limit:
        raise ImageTooLargeError(f"unfolds to more than {limit:,} bytes")


def _stored_values(dataset: Dataset, number: int, frames: int, size: tuple[int, int]) -> np.ndarray:
    """The frame as stored (rows, columns) or, in colour, as RGB (rows, columns, 3)."""
    from pydicom.pixels import pixel_array

    from vitreous.inputs.dicom_frames import check_encoded, decode_uncommon_jpeg, is_uncommon_jpeg

    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        frame = check_encoded(dataset, number, frames, size)
        if is_uncommon_jpeg(dataset):
            return decode_uncommon_jpeg(dataset, frame, size)
    return pixel_array(dataset, index=number)


def _grey(stored: np.ndarray, dataset: Dataset, number: int, window: str) -> np.ndarray:
    """uint16 (rows, columns): modality transform, then the window, then inversion where the file asks for it."""
    values = _modality(stored, dataset, number)
    shown = _windowed(values, dataset, number, window)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = _FULL - shown
    shown = np.where(_padding(stored, dataset), 0.0, np.clip(np.nan_to_num(shown), 0, _FULL))
    return np.rint(shown).astype(np.uint16)


def _modality(stored: np.ndarray, dataset: Dataset, number: int) -> np.ndarray:
    """Stored values in the modality's units, such as Hounsfield units: float64 (PS3.3 C.11.1)."""
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        return apply_modality_lut(stored, dataset).astype(np.float64)
    group = _group(dataset, number, "PixelValueTransformationSequence")
    return stored.astype(np.float64) * _number(group, "RescaleSlope", 1.0) + _number(group, "RescaleIntercept", 0.0)


def _windowed(values: np.ndarray, dataset: Dataset, number: int, window: str) -> np.ndarray:
    """0 to 65535 over the window; not yet clipped where the window is linear."""
    if window not in ("file", "full"):
        return _linear(values, *window_limits(window))
    group = _group(dataset, number, "FrameVOILUTSequence")
    if window == "file" and group.get("VOILUTSequence"):
        from pydicom.pixels import apply_voi

        table = group.VOILUTSequence[0]
        return (
            apply_voi(values.astype(np.int64), group, 0).astype(np.float64)
            / (2 ** int(table.LUTDescriptor[2]) - 1)
            * _FULL
        )
    width = _number(group, "WindowWidth", math.nan)
    if window == "full" or math.isnan(width):
        low, high = _full_range(values, dataset, number)
        return (values - low) * (_FULL / ((high - low) or 1.0))
    centre, function = _number(group, "WindowCenter", math.nan), str(group.get("VOILUTFunction") or "LINEAR")
    if math.isnan(centre) or width <= 0 or (function == "LINEAR" and width < 1):
        raise ImageError(f"states a window of width {width:g}, which cannot be; choose another with the window setting")
    if function == "SIGMOID":
        return _FULL / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return ((values - centre) / width + 0.5) * _FULL
    return _linear(values, centre, width)


def _linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """The function LINEAR (PS3.3 C.11.2.1.2.1), whose half and whole pixels are no mistake."""
    if width == 1:
        return np.where(values > centre - 0.5, _FULL, 0.0)
    return ((values - (centre - 0.5)) / (width - 1) + 0.5) * _FULL


def _full_range(values: np.ndarray, dataset: Dataset, number: int) -> tuple[float, float]:
    """All values that the stored bits can express, so that images remain comparable; what occurs where these are floats
    or more than 16 bits.
    """
    if "PixelData" not in dataset or _whole(dataset, "BitsStored") > 16:
        return float(values.min()), float(values.max())
    table = dataset.get("ModalityLUTSequence")
    if table:
        return 0.0, 2.0 ** int(table[0].LUTDescriptor[2]) - 1
    bits, signed = _whole(dataset, "BitsStored"), _whole(dataset, "PixelRepresentation") == 1
    ends = np.array([-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1] if signed else [0.0, 2.0**bits - 1])
    low, high = sorted(_modality(ends, dataset, number).tolist())
    return low, high


def _padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """bool (rows, columns): pixels outside what was measured (PS3.3 C.7.5.1.1.2)."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    last = dataset.get("PixelPaddingRangeLimit", first)
    low, high = sorted((int(first), int(last)))
    return (stored >= low) & (stored <= high)


def _colour(stored: np.ndarray, dataset: Dataset, frames: int) -> Image.Image | Raster:
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        stored = apply_color_lut(stored, dataset)
        if stored.dtype == np.uint16:  # entries of 16 bits hold screen colours, with the eight bits that count on top
            stored = (stored >> 8).astype(np.uint8)
    if stored.ndim != 3 or stored.shape[-1] != 3:
        raise UnfitImageError(f"is a DICOM image of shape {stored.shape}, neither grey nor RGB")
    if stored.dtype == np.uint8:
        return named(Image.fromarray(np.ascontiguousarray(stored)), "DICOM")
    if stored.dtype != np.uint16:
        raise UnfitImageError(f"is a DICOM image in colours of {stored.dtype}")
    return Raster(np.ascontiguousarray(stored), format="DICOM", frames=frames)


def _group(dataset: Dataset, number: int, name: str) -> Dataset:
    """Where the settings of a frame are: its own functional group, the shared one, or the file itself."""
    per_frame, shared = dataset.get("PerFrameFunctionalGroupsSequence"), dataset.get("SharedFunctionalGroupsSequence")
    for groups, index in ((per_frame, number), (shared, 0)):
        if groups and index < len(groups) and groups[index].get(name):
            return groups[index].get(name)[0]
    return dataset


def _number(dataset: Dataset, name: str, absent: float) -> float:
    """The first value of an element that may hold several."""
    value: Any = dataset.get(name)
    if value is None or value == "":
        return absent
    if not isinstance(value, str | int | float):
        value = next(iter(value), absent)
    return float(value)


def _whole(dataset: Dataset, name: str) -> int:
    try:
        return int(dataset.get(name) or 0)
    except Exception:
        raise ImageError(f"is a damaged DICOM file ({name})") from None


def _undecodable(dataset: Dataset, error: Exception) -> ImageError:
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    way = getattr(syntax, "name", "unknown")
    if isinstance(error, EOFError) or "less than expected" in str(error) or "too short" in str(error):
        return TruncatedImageError("is truncated: the DICOM file ends before the image does")
    return ImageError(f"cannot be decoded (DICOM, {way}: {type(error).__name__})")
