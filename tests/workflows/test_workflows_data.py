"""What training promises about its data, tried from the files to the finished run."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vitreous
from vitreous.data.sources.locked import LockedSource
from vitreous.errors import DataError, UsageError, VitreousError

Make = Callable[..., Path]


def splits(run: Path) -> dict[str, dict[str, str]]:
    with (run / "splits.csv").open(encoding="utf-8", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def spoil(folder: Path, share: float) -> set[str]:
    """Cut the first files of every class short; their paths."""
    spoilt = set()
    for name in sorted(entry.name for entry in folder.iterdir()):
        files = sorted((folder / name).iterdir())
        for file in files[: round(share * len(files))]:
            file.write_bytes(file.read_bytes()[:200])
            spoilt.add(f"{name}/{file.name}")
    return spoilt


def write_dicom(file: Path, pixels: np.ndarray, patient: str) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = patient, f"{patient}^NAME", "19700101"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(file, enforce_file_format=True)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_bad_files_are_counted_listed_and_in_no_number(
    make_images: Make, tiny: dict[str, Any], tmp_path: Path, share: float
) -> None:
    data = make_images(tmp_path / "data", 20)
    spoilt = spoil(data, share)
    run = vitreous.train(data, out=tmp_path / "run", max_bad=0.5, **tiny).path
    with (run / "bad_files.csv").open(encoding="utf-8", newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == spoilt
    parts = splits(run)
    assert len(parts) == 60 - len(spoilt) and not spoilt & set(parts)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for part in ("val", "test"):
        assert metrics[part]["accuracy"]["n"] == sum(row["part"] == part for row in parts.values())
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["data"]["bad_files"] == len(spoilt)


def test_more_bad_files_than_allowed_stop_the_run_before_it_begins(
    make_images: Make, tiny: dict[str, Any], tmp_path: Path
) -> None:
    data = make_images(tmp_path / "data", 20)
    spoil(data, 0.1)
    with pytest.raises(DataError, match="6 of 60 images cannot be used, more than --max-bad"):
        vitreous.train(data, out=tmp_path / "run", **tiny)
    assert not (tmp_path / "run").exists()


def test_training_that_reaches_for_the_test_part_is_stopped(
    colors: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitreous.workflows import train as training

    reasons: list[tuple[str, ...]] = []
    real = training.finish

    def curious(path: Path, state: Any, setup: Any, *rest: Any) -> Any:
        assert isinstance(setup.material.source, LockedSource)
        with pytest.raises(VitreousError, match="test part was opened while training"):
            setup.material.source.open(int(setup.material.split.indices("test")[0]))
        found = real(path, state, setup, *rest)
        reasons.append(setup.material.source.openings)
        return found

    monkeypatch.setattr(training, "finish", curious)
    vitreous.train(colors, out=tmp_path / "run", **tiny)
    assert reasons == [("scoring the test part",)]


def test_files_that_are_added_move_none_of_the_old_ones(
    make_images: Make, tiny: dict[str, Any], tmp_path: Path
) -> None:
    data = make_images(tmp_path / "data", 15)
    before = splits(vitreous.train(data, out=tmp_path / "first", **tiny).path)
    more = make_images(tmp_path / "more", 15, seed=5)
    for file in sorted(more.rglob("*.png")):
        file.rename(data / file.parent.name / f"new_{file.name}")
    after = splits(vitreous.train(data, out=tmp_path / "second", **tiny).path)
    assert len(after) == 2 * len(before)
    assert {path: row["part"] for path, row in after.items() if path in before} == {
        path: row["part"] for path, row in before.items()
    }


def test_the_folds_share_one_test_part_and_validate_every_other_image_once(
    make_images: Make, tiny: dict[str, Any], tmp_path: Path
) -> None:
    data = make_images(tmp_path / "data", 12)
    runs = [
        splits(vitreous.train(data, out=tmp_path / str(fold), k_fold=f"{fold}/3", **tiny).path) for fold in (1, 2, 3)
    ]
    tests = [{path for path, row in run.items() if row["part"] == "test"} for run in runs]
    validated = [path for run in runs for path, row in run.items() if row["part"] == "val"]
    assert tests[0] == tests[1] == tests[2] and tests[0]
    assert sorted(validated) == sorted(set(runs[0]) - tests[0])


def test_folds_and_a_given_validation_part_contradict_each_other(
    make_images: Make, tiny: dict[str, Any], tmp_path: Path
) -> None:
    make_images(tmp_path / "data" / "train", 8)
    make_images(tmp_path / "data" / "val", 4, seed=2)
    with pytest.raises(UsageError, match="validation part of their own"):
        vitreous.train(tmp_path / "data", out=tmp_path / "run", k_fold="1/3", **tiny)


def test_no_patient_is_named_in_the_run_and_none_is_in_two_parts(tiny: dict[str, Any], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    patients: dict[str, str] = {}
    for number in range(48):
        label, patient = ("dark", "bright")[number % 2], f"SECRET-{number // 3:03d}"
        pixels = (generator.random((16, 16)) * 900 + 3000 * (number % 2)).astype(np.uint16)
        file = tmp_path / "data" / label / f"{number}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_dicom(file, pixels, patient)
        patients[f"{label}/{number}.dcm"] = patient
    run = vitreous.train(tmp_path / "data", out=tmp_path / "run", **tiny).path
    parts: dict[str, set[str]] = {}
    for path, row in splits(run).items():
        parts.setdefault(patients[path], set()).add(row["part"])
    assert all(len(found) == 1 for found in parts.values())
    for file in run.rglob("*"):
        if file.is_file():
            assert b"SECRET" not in file.read_bytes(), file.name


@pytest.mark.parametrize("preset", ["satellite", "document"])
def test_what_training_does_to_images_is_shown_for_every_class(
    call: Callable[..., Any], colors: Path, tmp_path: Path, preset: str
) -> None:
    done = call("audit", colors, "--show-augmented", "--preset", preset, "--out", tmp_path / "sheet", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["preset"] == preset
    page = (tmp_path / "sheet" / "augmented.html").read_text(encoding="utf-8")
    assert all(f"<h3>{name}</h3>" in page for name in ("blue", "green", "red"))
    assert "http://" not in page and "https://" not in page
    assert ("eight symmetries" in found["augmentation"]) == (preset == "satellite")


def test_parts_that_leak_are_said_with_every_number(make_images: Make, tiny: dict[str, Any], tmp_path: Path) -> None:
    from vitreous.config.convert import from_dict
    from vitreous.config.study import StudyConfig
    from vitreous.config.train import TrainConfig
    from vitreous.workflows.study.compare import compare

    data = tmp_path / "data"
    make_images(data / "train", 8)
    make_images(data / "test", 4, seed=1)
    shutil.copy(data / "train" / "red" / "plain_02.png", data / "test" / "red" / "again.png")
    config = from_dict(TrainConfig, {**tiny, "out": tmp_path / "runs"})
    quick = StudyConfig(engines=("eager",), batches=(1,), seconds=0.02, curve=False)
    found = compare(data, ["vit_micro", "resnet_micro"], config, study=quick)
    run = found.runs[0]
    said = json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))["notes"]
    said += found.to_dict()["notes"] + vitreous.load(run.path).evaluate(split="test")["notes"]
    assert sum("leak" in note and "1 pair" in note for note in said) == 3
    for page in ("report.html", "README.md"):
        assert "1 pair" in (run.path / page).read_text(encoding="utf-8")
