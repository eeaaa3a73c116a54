from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitreous.config.decode import DecodeConfig
from vitreous.data.examination.finding import Bad, Finding, from_record, one_line, to_record
from vitreous.data.examination.look import look, pixel_digest, see, sharpness
from vitreous.inputs.raster import Raster

DECODE = DecodeConfig()


def _bytes(image: Image.Image, name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


def _find(source: Any, name: str = "") -> Finding:
    entry = look(source, DECODE, 10**6, name=name)
    assert isinstance(entry, Finding), entry
    return entry


def _reason(source: Any, **others: Any) -> str:
    entry = look(source, others.get("decode", DECODE), others.get("max_pixels", 10**6))
    assert isinstance(entry, Bad), entry
    return entry.reason


def test_an_even_image_has_its_brightness_and_neither_contrast_nor_sharpness() -> None:
    data = _bytes(Image.new("RGB", (40, 30), (51, 51, 51)), "PNG")
    finding = _find(data)
    assert (finding.width, finding.height, finding.mode, finding.bits, finding.channels) == (40, 30, "RGB", 8, 3)
    assert (finding.brightness, finding.contrast, finding.sharpness) == (pytest.approx(0.2), 0.0, 0.0)
    assert (finding.low, finding.high, finding.frames, finding.format) == (51, 51, 1, "PNG")
    assert finding.bytes == len(data)
    assert finding.thumbnail == bytes([51]) * 32 * 32 * 3


def test_contrast_and_sharpness_are_those_of_their_definitions() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (50, 60), dtype=np.uint8)
    finding = _find(_bytes(Image.fromarray(grey), "PNG"))
    values = grey / 255
    edges = 4 * values[1:-1, 1:-1] - values[:-2, 1:-1] - values[2:, 1:-1] - values[1:-1, :-2] - values[1:-1, 2:]
    assert finding.brightness == pytest.approx(values.mean())
    assert finding.contrast == pytest.approx(values.std())
    assert finding.sharpness == pytest.approx(edges.var(), rel=1e-4)
    assert finding.channels == 1
    assert sharpness(np.ones((2, 9), np.uint8)) == 0.0


def test_a_blurred_image_is_less_sharp_and_a_large_one_is_judged_at_a_size_of_256() -> None:
    sharp = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8))
    blurred = sharp.resize((16, 16)).resize((64, 64), Image.Resampling.BICUBIC)
    assert _find(_bytes(blurred, "PNG")).sharpness < 0.1 * _find(_bytes(sharp, "PNG")).sharpness
    chequers = np.kron(np.indices((64, 128)).sum(0) % 2, np.ones((8, 8))).astype(np.uint8) * 255
    small, large = (_find(_bytes(Image.fromarray(chequers[::step, ::step]), "PNG")) for step in (4, 1))
    assert (small.width, large.width) == (256, 1024)
    assert large.sharpness == pytest.approx(small.sharpness, rel=1e-5)
    assert large.thumbnail == small.thumbnail


def test_the_thumbnail_is_the_whole_image_in_colour() -> None:
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, :64] = (250, 0, 0)
    pixels[:, 64:] = (0, 0, 250)
    thumbnail = np.frombuffer(_find(_bytes(Image.fromarray(pixels), "BMP")).thumbnail, np.uint8).reshape(32, 32, 3)
    assert (thumbnail[:, :16] == (250, 0, 0)).all()
    assert (thumbnail[:, 16:] == (0, 0, 250)).all()


def test_transparent_pixels_are_seen_as_white_and_not_as_what_is_hidden_there() -> None:
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:16] = (10, 20, 30, 255)
    pixels[16:] = (77, 0, 0, 0)
    finding = _find(_bytes(Image.fromarray(pixels), "PNG"))
    thumbnail = np.frombuffer(finding.thumbnail, np.uint8).reshape(32, 32, 3)
    assert (thumbnail[:16] == (10, 20, 30)).all()
    assert (thumbnail[16:] == 255).all()
    assert (finding.mode, finding.channels, finding.low, finding.high) == ("RGBA", 3, 0, 77)


def test_sixteen_bits_are_judged_on_their_own_scale() -> None:
    deep = np.full((20, 20), 1000, np.uint16)
    deep[:10] = 3000
    finding = _find(_bytes(Image.fromarray(deep), "PNG"))
    assert (finding.bits, finding.channels, finding.low, finding.high) == (16, 1, 1000, 3000)
    assert finding.brightness == pytest.approx(2000 / 65535)
    thumbnail = np.frombuffer(finding.thumbnail, np.uint8).reshape(32, 32, 3)
    assert thumbnail.min() == 0, "black is the smallest value"
    assert thumbnail.max() == 255, "white is the largest value"


def test_many_bands_are_judged_by_what_was_measured() -> None:
    values = np.full((12, 10, 5), 100, np.uint16)
    values[:, 5:] = 300
    values[0, 0] = 9999
    seen = see(Raster(values, nodata=9999))
    assert (seen.width, seen.height, seen.mode, seen.channels, seen.bits) == (10, 12, "5xuint16", 5, 16)
    assert (seen.low, seen.high) == (100, 300)
    floats = np.array([[[np.nan], [-1.0]], [[0.0], [3.0]]], np.float32)
    seen = see(Raster(floats))
    assert (seen.bits, seen.low, seen.high) == (32, -1.0, 3.0)
    assert seen.brightness == pytest.approx((0 + 0 + 0.25 + 1) / 4), "what was not measured counts as the smallest"


def test_equal_rasters_have_one_digest_and_others_have_another() -> None:
    values = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    digests = {
        pixel_digest(Raster(values)),
        pixel_digest(Raster(values.astype(np.int32))),
        pixel_digest(Raster(values.reshape(3, 2, 4))),
        pixel_digest(Raster(values + 1)),
    }
    assert len(digests) == 4
    assert pixel_digest(Raster(values.astype(">u2"))) == pixel_digest(Raster(values.copy()))
    deep = np.arange(6, dtype=np.uint16).reshape(2, 3)
    assert pixel_digest(Raster(deep[..., None])) == pixel_digest(Image.fromarray(deep))
    colour = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert pixel_digest(Raster(colour)) == pixel_digest(Image.fromarray(colour))


@pytest.mark.parametrize(
    ("name", "promised"),
    [("a.jpg", "JPEG"), ("a.PNG", ""), ("a.tiff", "TIFF"), ("a", ""), ("a.unknown", ""), ("train.parquet#17", "")],
)
def test_a_name_that_promises_another_format_is_noted(name: str, promised: str) -> None:
    assert _find(_bytes(Image.new("L", (8, 8)), "PNG"), name).suffix_format == promised


def test_names_that_phones_and_windows_use_for_the_same_format_are_in_order() -> None:
    pair = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    phone = _bytes(pair[0], "MPO", save_all=True, append_images=pair[1:])
    assert _find(phone, "a.jpg").suffix_format == ""
    assert _find(_bytes(pair[0], "DIB"), "a.bmp").suffix_format == ""


def test_camera_and_time_come_from_exif_and_the_size_is_that_of_the_upright_image() -> None:
    exif = Image.Exif()
    exif[271], exif[272], exif[306], exif[274] = "Maker\0", "Model  7", "2001:01:01 00:00:00", 6
    exif.get_ifd(0x8769)[0x9003] = "2020:02:03 04:05:06"
    exif.get_ifd(0x8769)[0xA431] = "SN-1\n"
    finding = _find(_bytes(Image.new("RGB", (30, 20)), "JPEG", exif=exif))
    assert finding.camera == "Maker Model 7 SN-1"
    assert finding.taken == "2020:02:03 04:05:06"
    assert (finding.width, finding.height) == (20, 30)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")  # as in a worker
def test_damaged_exif_hinders_nothing() -> None:
    finding = _find(_bytes(Image.new("L", (8, 8)), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"))
    assert (finding.format, finding.camera, finding.taken) == ("JPEG", "", "")


def test_frames_are_counted() -> None:
    frames = [Image.fromarray(np.full((8, 8), 60 * number, np.uint8)) for number in range(4)]
    assert _find(_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])).frames == 4
    assert _find(_bytes(frames[0], "TIFF", save_all=True, append_images=frames[1:])).frames == 4
    assert _find(_bytes(frames[0], "PNG")).frames == 1


def test_palettes_and_bilevel_images_are_seen_as_they_look() -> None:
    palette = Image.fromarray(np.zeros((8, 8), np.uint8), "P")
    palette.putpalette([0, 0, 255, 255, 255, 255])
    finding = _find(_bytes(palette, "PNG"))
    assert (finding.mode, finding.channels) == ("P", 3)
    assert finding.thumbnail[:3] == b"\0\0\xff"
    bilevel = Image.fromarray(np.eye(8, dtype=bool))
    finding = _find(_bytes(bilevel, "PNG"))
    assert (finding.mode, finding.channels, finding.low, finding.high) == ("1", 1, 0, 255)
    assert finding.brightness == pytest.approx(1 / 8)


def test_floats_are_seen_by_their_own_range_and_without_any_valid_pixel_they_are_bad() -> None:
    values = np.array([[-1.0, 0.0], [1.0, 3.0]], np.float32)
    finding = _find(_bytes(Image.fromarray(values), "TIFF"), "a.tif")
    assert (finding.mode, finding.bits, finding.low, finding.high, finding.format) == ("F", 32, -1.0, 3.0, "TIFF")
    assert finding.brightness == pytest.approx((0 + 0.25 + 0.5 + 1) / 4)
    assert "no valid pixel" in _reason(_bytes(Image.fromarray(values * np.nan), "TIFF"))


def test_only_the_chosen_bands_and_frame_are_seen() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[...] = (10, 20, 30)
    data = _bytes(Image.fromarray(pixels), "PNG")
    finding = look(data, DecodeConfig(bands=(2,)), 10**6)
    assert isinstance(finding, Finding)
    assert (finding.low, finding.high, finding.channels, finding.format) == (20, 20, 1, "PNG")
    assert "band 4" in _reason(data, decode=DecodeConfig(bands=(4,)))
    frames = [Image.new("L", (8, 8), 60 * number) for number in range(4)]
    animation = _bytes(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    finding = look(animation, DecodeConfig(frame="last"), 10**6)
    assert isinstance(finding, Finding)
    assert (finding.low, finding.frames) == (180, 4)


def test_patients_are_told_apart_by_a_pseudonym() -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    def scan_of(patient: str, level: int) -> bytes:
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = UID("1.2")
        dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
        dataset.PatientID = patient
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 8, 8, 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.PhotometricInterpretation = "MONOCHROME2"
        values = np.full((8, 8), level, np.uint16)
        values[0] = 0
        dataset.PixelData = values.tobytes()
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
        return stream.getvalue()

    first, second, other = (_find(scan_of(*which), "a.dcm") for which in (("ID-7", 9), ("ID-7", 99), ("ID-8", 9)))
    assert (first.format, first.frames, first.suffix_format) == ("DICOM", 1, "")
    assert first.patient == second.patient != other.patient
    assert first.patient
    assert "ID-7" not in str(first)


def test_an_array_is_looked_at_like_a_file() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    finding = _find(pixels)
    assert (finding.format, finding.bytes) == ("array", 9 * 9 * 3)
    assert finding.digest == _find(_bytes(Image.fromarray(pixels), "PNG")).digest


def test_each_way_of_being_bad_has_its_sentence() -> None:
    whole = _bytes(Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)), "PNG")
    assert _reason(b"") == "is empty (0 bytes)"
    assert _reason(b"%PDF-1.4") == "is a PDF document; export its pages as PNG first"
    assert _reason(b"hello") == "is not an image"
    assert _reason(whole[: len(whole) // 2]).startswith("is truncated")
    assert _reason(whole, max_pixels=1599) == "has 40 x 40 pixels; the limit is 1,599"


def test_too_little_memory_is_no_property_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise MemoryError

    data = _bytes(Image.new("L", (8, 8)), "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    assert look(data, DECODE, 10**6) == Bad("needs too much memory to be decoded", lasting=False)
    monkeypatch.setattr("vitreous.data.examination.look.open_image", fail)
    assert look(data, DECODE, 10**6) == Bad("needs too much memory to be decoded", lasting=False)


def test_what_nobody_foresaw_is_a_reason_of_one_line_that_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("line\nbreak \x1b[31m" + "x" * 1000)

    monkeypatch.setattr("vitreous.data.examination.look.open_image", fail)
    entry = look(b"data", DECODE, 10**6)
    assert isinstance(entry, Bad)
    assert not entry.lasting
    assert entry.reason.startswith("cannot be examined (RuntimeError: line break [31mxxx")
    assert entry.reason.isprintable()
    assert len(entry.reason) <= 240


def test_a_finding_survives_its_record() -> None:
    finding = _find(_bytes(Image.new("L", (8, 8), 9), "PNG"), "a.jpg")
    assert from_record(*to_record(finding)) == finding
    bad = Bad("is truncated", lasting=False)
    assert from_record(*to_record(bad)) == bad
    with pytest.raises(ValueError, match="thumbnail"):
        from_record(to_record(finding)[0], b"short")
    assert one_line("a\r\n\tb\x00c") == "a b c"
