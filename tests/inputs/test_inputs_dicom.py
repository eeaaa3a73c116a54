"""DICOM: what the window shows, worked out by hand from PS3.3; compressed files against their uncompressed twins."""

from __future__ import annotations

import io
import logging
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from image_files import dicom_file, random_values
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from vitreous.config.decode import DecodeConfig
from vitreous.config.input import InputSpec
from vitreous.errors import ImageError, ImageFormatError, ImageTooLargeError, TruncatedImageError, UnfitImageError
from vitreous.inputs import Raster, count_frames, open_image, prepare
from vitreous.inputs.decode import FILE_FORMATS, SERVER_FORMATS
from vitreous.inputs.dicom import patient_pseudonym

HOUNSFIELD = np.array([[-1000, -600, 0, 40, 400, 1000]], np.int16)


def _seen(data: bytes, window: str = "file", **decode: Any) -> list[int]:
    image = open_image(data, decode=DecodeConfig(window=window, **decode))
    assert isinstance(image, Image.Image)
    assert (image.mode, image.format) == ("I;16", "DICOM")
    return np.asarray(image)[0].tolist()


def _linear(values: np.ndarray, centre: float, width: float) -> list[int]:
    share = (values.astype(np.float64) - (centre - 0.5)) / (width - 1) + 0.5
    return np.rint(np.clip(share, 0, 1) * 65535).astype(int).ravel().tolist()


def test_the_window_of_the_file_spans_the_grey_values() -> None:
    data = dicom_file(HOUNSFIELD, WindowCenter=[40, 300], WindowWidth=[400, 2000])
    assert _seen(data) == _linear(HOUNSFIELD, 40, 400)
    assert _seen(data)[0] == 0
    assert _seen(data)[-1] == 65535


def test_the_rescale_comes_before_the_window() -> None:
    stored = (HOUNSFIELD.astype(int) + 1024).astype(np.uint16)
    data = dicom_file(stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    assert _seen(data) == _linear(HOUNSFIELD, 40, 400)


@pytest.mark.parametrize(
    ("window", "centre", "width"),
    [
        *(("lung", -600, 1500), ("bone", 400, 1800), ("brain", 40, 80), ("soft-tissue", 40, 400)),
        *(("mediastinum", 50, 350), ("liver", 60, 160), ("-600,1500", -600, 1500), ("12.5,1", 12.5, 1)),
    ],
)
def test_a_window_may_be_named_or_given(window: str, centre: float, width: float) -> None:
    data = dicom_file(HOUNSFIELD, WindowCenter=0, WindowWidth=10)
    expected = [65535 * (value > 12) for value in HOUNSFIELD[0]] if width == 1 else _linear(HOUNSFIELD, centre, width)
    assert _seen(data, window) == expected


def test_the_other_functions_of_a_window() -> None:
    values = HOUNSFIELD.astype(np.float64)
    exact = dicom_file(HOUNSFIELD, WindowCenter=40, WindowWidth=400, VOILUTFunction="LINEAR_EXACT")
    sigmoid = dicom_file(HOUNSFIELD, WindowCenter=40, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert _seen(exact) == np.rint(np.clip((values - 40) / 400 + 0.5, 0, 1) * 65535)[0].tolist()
    assert _seen(sigmoid) == np.rint(65535 / (1 + np.exp(-4 * (values - 40) / 400)))[0].tolist()


def test_without_a_window_the_stored_bits_span_the_grey_values() -> None:
    twelve = np.array([[0, 2048, 4095]], np.uint16)
    assert _seen(dicom_file(twelve, BitsStored=12, HighBit=11)) == [0, 32776, 65535]
    signed = np.array([[-32768, 0, 32767]], np.int16)
    assert _seen(dicom_file(signed)) == [0, 32768, 65535]
    assert _seen(dicom_file(signed, WindowCenter=0, WindowWidth=10), "full") == [0, 32768, 65535]
    eight = np.array([[0, 51, 255, 0]], np.uint8)
    assert _seen(dicom_file(eight, RescaleSlope=-2, RescaleIntercept=7)) == [65535, 52428, 0, 65535]


def test_monochrome1_is_inverted_and_padding_stays_black() -> None:
    stored = np.array([[0, 50, 200, 4095, 4095, 0]], np.uint16)
    elements = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 100.5, "WindowWidth": 201, "PixelPaddingValue": 4095}
    upright = _seen(dicom_file(stored, **elements))
    inverted = _seen(dicom_file(stored, PhotometricInterpretation="MONOCHROME1", **elements))
    assert upright[:3] == [0, 16384, 65535]
    assert inverted[:3] == [65535, 49151, 0]
    assert upright[3:5] == inverted[3:5] == [0, 0]


def test_a_table_of_the_modality_and_a_table_of_the_window() -> None:
    stored = np.array([[0, 1, 2, 3]], np.uint8)
    modality, voi = Dataset(), Dataset()
    modality.LUTDescriptor, modality.ModalityLUTType = [4, 0, 16], "US"
    modality.LUTData = np.array([10, 20, 30, 40], np.uint16).tobytes()
    voi.LUTDescriptor = [4, 10, 8]
    voi.LUTData = np.array([0, 5, 250, 255], np.uint16).tobytes()
    for table in (modality, voi):
        table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    looked_up = dicom_file(stored, ModalityLUTSequence=Sequence([modality]))
    assert _seen(looked_up, "25.5,31") == _linear(np.array([10, 20, 30, 40]), 25.5, 31)
    greys = np.array([[10, 11, 12, 13]], np.uint8)
    assert _seen(dicom_file(greys, VOILUTSequence=Sequence([voi]))) == [0, 1285, 64250, 65535]


def test_frames_are_chosen_by_name_or_number() -> None:
    stored = np.arange(4, dtype=np.uint8)[:, None, None] * np.full((4, 2, 2), 50, np.uint8)
    data = dicom_file(stored)
    assert count_frames(data) == 4
    for frame, value in (("first", 0), ("middle", 50), ("last", 150), (2, 100)):
        assert _seen(data, frame=frame)[0] == value * 257
    with pytest.raises(ImageError, match="has 4 frames, numbered from 0; frame 4 was asked for"):
        open_image(data, decode=DecodeConfig(frame=4))


def test_each_frame_of_an_enhanced_file_has_its_own_rescale_and_window() -> None:
    def group(intercept: float, centre: float) -> Dataset:
        values, window, both = Dataset(), Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, intercept, "HU"
        window.WindowCenter, window.WindowWidth = centre, 101
        both.PixelValueTransformationSequence = Sequence([values])
        both.FrameVOILUTSequence = Sequence([window])
        return both

    stored = np.array([[[0, 50]], [[0, 50]]], np.uint16)
    data = dicom_file(stored, PerFrameFunctionalGroupsSequence=Sequence([group(0, 50.5), group(50, 50.5)]))
    assert _seen(data, frame=0) == [0, 32768]
    assert _seen(data, frame=1) == [32768, 65535]


def test_colours_become_rgb() -> None:
    colours = random_values((3, 4, 3), "uint8")
    image = open_image(dicom_file(colours, SamplesPerPixel=3))
    assert (image.mode, image.format) == ("RGB", "DICOM")
    np.testing.assert_array_equal(np.asarray(image), colours)
    deep = open_image(dicom_file(colours.astype(np.uint16) * 257, SamplesPerPixel=3))
    assert isinstance(deep, Raster)
    assert deep.mode == "3xuint16"
    grey_as_ybr = np.full((2, 2, 3), 128, np.uint8)
    image = open_image(dicom_file(grey_as_ybr, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL"))
    assert np.asarray(image).reshape(-1).tolist() == [128] * 12


def test_a_palette_becomes_its_colours() -> None:
    indices = np.array([[0, 1, 2, 1]], np.uint8)
    table = {}
    for name, entries in (("Red", [255, 0, 9]), ("Green", [0, 255, 8]), ("Blue", [0, 1, 7])):
        table[f"{name}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        table[f"{name}PaletteColorLookupTableData"] = (np.array(entries, np.uint16) << 8).tobytes()
    image = open_image(dicom_file(indices, PhotometricInterpretation="PALETTE COLOR", **table))
    assert np.asarray(image)[0].tolist() == [[255, 0, 0], [0, 255, 1], [9, 8, 7], [0, 255, 1]]


def _compressed(values: np.ndarray, syntax: str) -> bytes:
    encode = {
        "1.2.840.10008.1.2.4.70": lambda frame: imagecodecs.ljpeg_encode(frame, bitspersample=16),
        "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_encode,
        "1.2.840.10008.1.2.4.90": lambda frame: imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True),
        "1.2.840.10008.1.2.4.50": lambda frame: imagecodecs.jpeg8_encode(frame, level=95),
    }[syntax]
    data = encapsulate([bytes(encode(np.ascontiguousarray(values)))])
    return dicom_file(values, TransferSyntaxUID=UID(syntax), PixelData=data)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"])
def test_lossless_compression_loses_nothing(syntax: str) -> None:
    values = random_values((40, 30), "uint16")
    decoded = open_image(_compressed(values, syntax))
    np.testing.assert_array_equal(np.asarray(decoded), values)


def test_compression_keeps_the_sign() -> None:
    values = np.ascontiguousarray(np.linspace(-1000, 1000, 1200).reshape(40, 30).astype(np.int16))
    data = encapsulate([bytes(imagecodecs.ljpeg_encode(values.view(np.uint16), bitspersample=16))])
    packed = dicom_file(values, TransferSyntaxUID=UID("1.2.840.10008.1.2.4.70"), PixelData=data)
    brain = DecodeConfig(window="40,400")
    plain = open_image(dicom_file(values), decode=brain)
    np.testing.assert_array_equal(np.asarray(open_image(packed, decode=brain)), np.asarray(plain))


def test_lossy_compression_is_read() -> None:
    values = np.tile(np.arange(0, 240, 8, dtype=np.uint8), (40, 1))
    decoded = open_image(_compressed(values, "1.2.840.10008.1.2.4.50"))
    assert np.abs(np.asarray(decoded) / 257 - values).max() < 6


def test_a_compressed_frame_that_announces_another_size_is_refused_before_it_is_decoded() -> None:
    for syntax in ("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"):
        values = random_values((40, 30), "uint16")
        dataset = pydicom.dcmread(io.BytesIO(_compressed(values, syntax)))
        dataset.Rows = 41
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        with pytest.raises(ImageError, match="a frame of 30 x 40 pixels where 30 x 41 are announced"):
            open_image(buffer.getvalue())


def test_a_deflated_file_that_unfolds_without_end_is_refused() -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom_file(np.zeros((4, 4), np.uint8))))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    data = buffer.getvalue()
    assert open_image(data).size == (4, 4)
    with pytest.raises(TruncatedImageError, match="before its compressed part does"):
        open_image(data[:-20])
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = data[:start] + packer.compress(bytes(2_000_000)) + packer.flush()
    with pytest.raises(ImageTooLargeError, match="unfolds to more than 1,600,000 bytes"):
        open_image(bomb, max_pixels=100_000)


def test_size_is_judged_from_the_header_and_names_no_person() -> None:
    data = dicom_file(np.zeros((30, 40), np.uint8), PatientName="Doe^Jane", PatientID="4711")
    with pytest.raises(ImageTooLargeError, match="has 40 x 30 pixels; the limit is 1,199"):
        open_image(data, max_pixels=1199)


def test_no_personal_field_leaves_the_file(caplog: pytest.LogCaptureFixture) -> None:
    personal = {
        "PatientName": "Doe^Jane",
        "PatientID": "MRN-4711",
        "PatientBirthDate": "19700101",
        "AccessionNumber": "A77",
    }
    data = dicom_file(random_values((8, 8), "uint16"), InstitutionName="Saint Elsewhere", **personal)
    secrets = [*personal.values(), "Saint Elsewhere", "Doe", "4711"]
    with caplog.at_level(logging.DEBUG):
        image = open_image(data)
        assert isinstance(image, Image.Image)
        told = [repr(vars(image)), repr(image.info)]
        for length in range(140, len(data), 11):
            try:
                open_image(data[:length])
            except ImageError as error:
                told += [str(error), repr(error.__cause__)]
    told.append(caplog.text)
    assert not [secret for secret in secrets if any(secret in text for text in told)]


def test_a_pseudonym_is_equal_for_equal_patients_and_not_their_id() -> None:
    pixels = np.zeros((2, 2), np.uint8)
    first, again, other, none = (
        dicom_file(pixels, **e) for e in ({"PatientID": "4711"}, {"PatientID": "4711 "}, {"PatientID": "4712"}, {})
    )
    assert patient_pseudonym(first) == patient_pseudonym(again) != patient_pseudonym(other)
    assert len(patient_pseudonym(first)) == 16
    assert int(patient_pseudonym(first), 16) > 0
    assert "4711" not in patient_pseudonym(first)
    assert patient_pseudonym(none) == patient_pseudonym(b"\x89PNG") == patient_pseudonym(first[:150]) == ""


def test_the_server_takes_no_dicom() -> None:
    data = dicom_file(np.zeros((2, 2), np.uint8))
    assert "DICOM" in FILE_FORMATS
    with pytest.raises(ImageFormatError, match="is a DICOM file; accepted: JPEG"):
        open_image(data, formats=SERVER_FORMATS)


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"pydicom; type: pip install 'vitreous\[medical\]'"):
        open_image(b"\0" * 128 + b"DICM")


def test_what_holds_no_image_or_no_possible_window_says_so() -> None:
    with pytest.raises(ImageError, match="is a DICOM file without an image"):
        open_image(b"\0" * 128 + b"DICM")
    with pytest.raises(ImageError, match="states a window of width 0"):
        open_image(dicom_file(HOUNSFIELD, WindowCenter=0, WindowWidth=0))
    assert len(_seen(dicom_file(HOUNSFIELD, WindowCenter=0, WindowWidth=0), "full")) == 6
    with pytest.raises(UnfitImageError, match="colours of"):
        open_image(dicom_file(np.zeros((2, 2, 3), np.uint32), SamplesPerPixel=3))


def test_a_file_reaches_the_model_through_its_window() -> None:
    data = dicom_file(np.tile(HOUNSFIELD, (6, 1)))
    spec = InputSpec(
        height=6, width=6, channels=1, bit_depth=16, mean=(0.0,), std=(1.0,), decode=DecodeConfig(window="lung")
    )
    np.testing.assert_allclose(prepare(data, spec)[0, 0] * 65535, _linear(HOUNSFIELD, -600, 1500), atol=0.01)
