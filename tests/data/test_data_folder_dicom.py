"""DICOM files in a folder, which scanners often name without a suffix."""

from __future__ import annotations

from pathlib import Path

from vitreous.data.sources.folder import IMAGE_SUFFIXES, read_folder

DICOM = b"\0" * 128 + b"DICM" + b"\0" * 20


def test_dicom_files_are_images_with_and_without_a_suffix(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        folder = tmp_path / label
        folder.mkdir()
        for name in ("a.dcm", "b.DICOM", "IM000001", "1.2.840.10008.5"):
            (folder / name).write_bytes(DICOM)
        (folder / "DICOMDIR").write_bytes(DICOM)
        (folder / "README").write_bytes(b"read me")
        (folder / "1.2.txt").write_bytes(DICOM)
        (folder / "short").write_bytes(b"")
    listing = read_folder(tmp_path)
    names = [Path(sample.path).name for sample in listing.samples if sample.label == "cat"]
    assert sorted(names) == ["1.2.840.10008.5", "IM000001", "a.dcm", "b.DICOM"]
    assert any("8 files were ignored" in note for note in listing.notes)


def test_suffixes_are_named_once_and_in_lower_case() -> None:
    assert len(set(IMAGE_SUFFIXES)) == len(IMAGE_SUFFIXES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)
