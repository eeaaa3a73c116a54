"""Batch prediction: every way to name images, every way to write answers, interruptions and unusable files."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vitreous.data.sources.folder import IMAGE_SUFFIXES
from vitreous.errors import DataError, ImageError, StoppedError, UsageError
from vitreous.runs import Prediction
from vitreous.serving.predictor import Predictor
from vitreous.workflows import predict as module
from vitreous.workflows.predict import expand, predict


@pytest.fixture(scope="session")
def predictor(exported: Path) -> Predictor:
    return Predictor.load(exported, threads=1)


@pytest.fixture
def pictures(make_images: Callable[..., Path], tmp_path: Path) -> Path:
    """Twelve images in three folders."""
    return make_images(tmp_path / "pictures", 4)


def paths_of(rows: Sequence[Prediction]) -> list[str]:
    return [row.path or "" for row in rows]


def read_rows(out: Path) -> list[dict[str, Any]]:
    if out.suffix == ".parquet":
        return pq.read_table(out).to_pylist()
    if out.suffix == ".csv":
        with out.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_a_folder_a_glob_and_manifests_name_the_same_images(pictures: Path, tmp_path: Path) -> None:
    files = sorted(pictures.rglob("*.png"))
    inside = [path.relative_to(tmp_path).as_posix() for path in files]
    (tmp_path / "list.csv").write_text("label,path\n" + "".join(f"?,{name}\n" for name in inside), encoding="utf-8-sig")
    pq.write_table(pa.table({"image": inside, "n": list(range(len(inside)))}), tmp_path / "list.parquet")
    expected = [str(path) for path in files]
    assert len(expected) == 12
    assert expand([str(pictures)]) == expected
    assert sorted(expand([f"{pictures}/**/*.png"])) == expected
    assert expand([str(tmp_path / "list.csv")]) == expected
    assert expand([str(tmp_path / "list.parquet")]) == expected
    assert expand([expected[3], str(pictures)]) == [expected[3], *expected[:3], *expected[4:]]


def test_hidden_files_and_other_files_in_a_folder_are_not_taken_for_images(pictures: Path) -> None:
    expected = expand([str(pictures)])
    (pictures / "._red.png").write_bytes(b"resource fork")
    (pictures / ".cache").mkdir()
    shutil.copy(expected[0], pictures / ".cache" / "thumbnail.png")
    (pictures / "notes.txt").write_text("hello")
    assert expand([str(pictures)]) == expected


def test_prediction_looks_for_the_same_files_as_training(tmp_path: Path) -> None:
    for ending in IMAGE_SUFFIXES:
        (tmp_path / f"a{ending.upper()}").touch()
    assert {Path(path).suffix.lower() for path in expand([str(tmp_path)])} == set(IMAGE_SUFFIXES)
    assert module.IMAGE_SUFFIXES is IMAGE_SUFFIXES
    (tmp_path / "IM000001").write_bytes(bytes(128) + b"DICM")
    assert str(tmp_path / "IM000001") in expand([str(tmp_path)])


def test_what_a_bad_file_left_in_memory_is_not_kept(
    predictor: Predictor, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error holds on to the frames it came through, and so to all that a decoder had unpacked."""
    alive: weakref.WeakSet[ImageError] = weakref.WeakSet()
    most = 0

    def decode(self: Predictor, source: str, **options: Any) -> np.ndarray:
        nonlocal most
        most = max(most, len(alive))
        if source.endswith("_00.png"):
            return open_it(self, source, **options)
        raise bad()

    def bad() -> ImageError:
        error = ImageError("is bad")
        alive.add(error)
        return error

    open_it = Predictor.decode
    monkeypatch.setattr(Predictor, "decode", decode)
    found = predict(predictor, [str(pictures)])
    assert (found.count, len(found.bad_files)) == (3, 9)
    assert most <= 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"label,number\ncat,3\n", "no column of paths; it has label, number"),
        ("b.csv", b"", "no column of paths; it has none"),
        ("c.csv", b"path\n\xff\xfe\x00", "cannot be read as a table"),
        ("d.csv", b"label,path\nx,a.png\ny\n", "holds no path in row 2"),
        ("e.parquet", b"PAR1 but not really", "cannot be read as a table"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused_by_name(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        expand([str(tmp_path / name)])
    assert name in caught.value.message


def test_inputs_that_name_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for inputs, said in (
        ([str(tmp_path / "empty")], "holds no images"),
        ([f"{tmp_path}/*.png"], "Nothing matches"),
        ([str(tmp_path / "gone.png")], "no file or folder"),
        ([], "No images were named"),
    ):
        with pytest.raises(UsageError, match=said):
            expand(inputs)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_every_kind_of_file_holds_the_answers_in_the_order_of_the_images(
    ending: str, predictor: Predictor, pictures: Path, tmp_path: Path
) -> None:
    answers = predict(predictor, [str(pictures)], top=2).rows
    out = tmp_path / "deep" / f"answers{ending}"
    found = predict(predictor, [str(pictures)], out=out, top=2)
    rows = read_rows(out)
    assert (found.count, found.rows, found.out) == (12, [], out)
    assert [row["path"] for row in rows] == paths_of(answers)
    assert [row["label"] for row in rows] == [row.label for row in answers]
    assert [float(row["score"]) for row in rows] == pytest.approx([row.score for row in answers], abs=1e-6)
    if ending != ".csv":
        assert [len(row["top"]) for row in rows] == [2] * 12
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_file_that_is_there_is_kept_unless_overwrite_is_asked_for(
    predictor: Predictor, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.csv"
    out.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        predict(predictor, [str(pictures)], out=out)
    assert out.read_text() == "mine"
    predict(predictor, [str(pictures)], out=out, overwrite=True)
    assert len(read_rows(out)) == 12
    with pytest.raises(UsageError, match="no known ending"):
        predict(predictor, [str(pictures)], out=tmp_path / "answers.xlsx")


def interrupt_after(chunks: int, monkeypatch: pytest.MonkeyPatch, how: Callable[[], None]) -> None:
    """From now on `how` is called while the given chunk is in the model."""
    monkeypatch.setattr(module, "CHUNK", 5)
    real, count = Predictor.predict_arrays, 0

    def counted(self: Predictor, *arguments: Any) -> list[Prediction]:
        nonlocal count
        count += 1
        if count == chunks:
            how()
        return real(self, *arguments)

    monkeypatch.setattr(Predictor, "predict_arrays", counted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_answers_and_resume_adds_the_rest_once(
    number: signal.Signals, predictor: Predictor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, asked = tmp_path / "answers.jsonl", str(pictures)
    predict(predictor, [asked], out=tmp_path / "whole.jsonl")
    with monkeypatch.context() as patch:
        interrupt_after(2, patch, lambda: signal.raise_signal(number))
        with pytest.raises(StoppedError, match=f"Stopped by {number.name} after 10 of 12 images") as caught:
            predict(predictor, [asked], out=out)
    assert "--resume" in caught.value.hint
    assert not out.exists()
    asked_again: list[str] = []
    real = Predictor.decode

    def decode(self: Predictor, source: Any, **named: Any) -> np.ndarray:
        asked_again.append(str(source))
        return real(self, source, **named)

    monkeypatch.setattr(Predictor, "decode", decode)
    assert predict(predictor, [asked], out=out, resume=True).count == 12
    assert asked_again == expand([asked])[10:]
    # The batches differ in size, and so may the last digits.
    rows, whole = read_rows(out), read_rows(tmp_path / "whole.jsonl")
    assert [row["path"] for row in rows] == [row["path"] for row in whole]
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in whole], abs=1e-5)
    assert sorted(path.name for path in tmp_path.glob("answers*")) == ["answers.jsonl"]


def test_resume_after_a_crash_in_the_middle_of_a_line_loses_nothing_and_doubles_nothing(
    predictor: Predictor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "answers.csv"

    def crash() -> None:
        raise MemoryError

    for keep in (40, 7):  # twice, since the second resume reads what the first one wrote after the cut
        with monkeypatch.context() as patch:
            interrupt_after(2, patch, crash)
            with pytest.raises(MemoryError):
                predict(predictor, [str(pictures)], out=out, resume=True)
        part = tmp_path / "answers.csv.part"
        part.write_bytes(part.read_bytes()[:-keep])
    assert predict(predictor, [str(pictures)], out=out, resume=True).count == 12
    assert [row["path"] for row in read_rows(out)] == expand([str(pictures)])


def test_resume_on_a_finished_file_changes_nothing(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    predict(predictor, [str(pictures)], out=out)
    before = out.stat().st_mtime_ns
    assert predict(predictor, [str(pictures)], out=out, resume=True).count == 12
    assert out.stat().st_mtime_ns == before


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_resume_on_a_finished_file_of_other_images_says_how_many_are_missing(
    ending: str, predictor: Predictor, pictures: Path, tmp_path: Path
) -> None:
    out, files = tmp_path / f"answers{ending}", expand([str(pictures)])
    predict(predictor, files[:9], out=out)
    before = out.read_bytes()
    assert predict(predictor, files[2:5], out=out, resume=True).count == 3
    with pytest.raises(UsageError, match="3 of the 12 images asked for are not in it") as caught:
        predict(predictor, files, out=out, resume=True)
    assert "--overwrite" in caught.value.hint
    assert out.read_bytes() == before
    assert predict(predictor, files, out=out, resume=True, overwrite=True).count == 12
    assert [row["path"] for row in read_rows(out)] == files


def test_resume_on_a_finished_file_reports_the_unusable_images_again(
    predictor: Predictor, pictures: Path, bad_files: dict[str, Path], tmp_path: Path
) -> None:
    inputs = [str(pictures), *map(str, bad_files.values())]
    first = predict(predictor, inputs, out=tmp_path / "answers.csv")
    again = predict(predictor, inputs, out=tmp_path / "answers.csv", resume=True)
    assert again.count == first.count == 12
    assert again.bad_files == first.bad_files and len(again.bad_files) == 3


def test_resume_on_a_file_that_holds_no_answers_is_refused(
    predictor: Predictor, pictures: Path, tmp_path: Path
) -> None:
    for name, content in (("a.csv", "x,y\n1,2\n"), ("a.jsonl", "[1]\n{"), ("a.parquet", "mine")):
        (tmp_path / name).write_text(content)
        with pytest.raises(UsageError, match="not a table of answers"):
            predict(predictor, [str(pictures)], out=tmp_path / name, resume=True)
        assert (tmp_path / name).read_text() == content


def of_other_weights(predictor: Predictor) -> Predictor:
    files = {**predictor.run.facts["files"], "model.safetensors": "f" * 64}
    return replace(predictor, run=replace(predictor.run, facts={**predictor.run.facts, "files": files}))


@pytest.mark.parametrize("changed", ["model", "top", "no head"])
def test_answers_of_another_run_are_not_continued(
    changed: str, predictor: Predictor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, part = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.part"
    with monkeypatch.context() as patch:
        interrupt_after(2, patch, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(StoppedError):
            predict(predictor, [str(pictures)], out=out, top=2)
    if changed == "no head":
        part.write_text("".join(part.read_text().splitlines(keepends=True)[1:]))
    else:
        assert json.loads(part.read_text().splitlines()[0]) == {"version": predictor.run.version, "top": 2}
    asked, top = (of_other_weights(predictor) if changed == "model" else predictor), 1 if changed == "top" else 2
    before = part.read_bytes()
    with pytest.raises(UsageError, match=f"asked for are those of version {asked.run.version}, top {top}") as caught:
        predict(asked, [str(pictures)], out=out, top=top, resume=True)
    assert "Delete it" in caught.value.hint and "--overwrite" in caught.value.hint
    assert part.read_bytes() == before and not out.exists()
    assert predict(asked, [str(pictures)], out=out, top=top, resume=True, overwrite=True).count == 12
    assert {len(row["top"]) for row in read_rows(out)} == {top}
    assert not part.exists()


@pytest.mark.parametrize("top", [0, -3])
def test_fewer_classes_than_one_are_refused_before_anything_is_written(
    top: int, predictor: Predictor, pictures: Path, tmp_path: Path
) -> None:
    for out in (None, tmp_path / "new" / "answers.csv"):
        with pytest.raises(UsageError, match=f"--top must be at least 1, got {top}"):
            predict(predictor, [str(pictures)], out=out, top=top)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def bad_files(pictures: Path, tmp_path: Path) -> dict[str, Path]:
    """Files that are no images, in a folder beside the good ones."""
    folder = tmp_path / "bad"
    folder.mkdir()
    good = next(pictures.rglob("*.png"))
    from PIL import Image

    with Image.open(good) as image:
        image.resize((64, 64)).save(folder / "cut.jpg")
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("I am not an image.")
    (folder / "empty.png").touch()
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["cut", "text", "empty"])
def test_one_unusable_file_alone_is_an_error_that_says_what_is_wrong(
    kind: str, call: Callable[..., Any], exported: Path, bad_files: dict[str, Path], tmp_path: Path
) -> None:
    words = {"cut": "truncated", "text": "not", "empty": "empty (0 bytes)"}
    done = call("predict", exported, bad_files[kind], "--out", tmp_path / "answers.csv")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("vitreous: None of 1 images can be used") and words[kind] in last
    assert str(bad_files[kind]) in last
    assert not list(tmp_path.glob("answers*"))


def test_among_good_files_the_unusable_ones_are_listed_and_the_good_ones_answered(
    call: Callable[..., Any], exported: Path, pictures: Path, bad_files: dict[str, Path], tmp_path: Path
) -> None:
    inputs = [pictures, *bad_files.values()]
    done = call("predict", exported, *inputs, "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert len(found["predictions"]) == 12
    assert {entry["path"] for entry in found["bad_files"]} == {str(path) for path in bad_files.values()}
    assert all(entry["reason"] for entry in found["bad_files"])
    strict = call("predict", exported, *inputs, "--strict", "--out", tmp_path / "answers.parquet")
    assert strict.returncode == 3
    assert pq.read_table(tmp_path / "answers.parquet").num_rows == 12
    assert "12 images labelled" in strict.stdout and "3 could not be used" in strict.stdout


def test_bad_files_of_the_interrupted_part_are_reported_after_resume(
    predictor: Predictor,
    pictures: Path,
    bad_files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = [*map(str, bad_files.values()), str(pictures)]
    with monkeypatch.context() as patch:
        interrupt_after(2, patch, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(StoppedError):
            predict(predictor, inputs, out=tmp_path / "answers.csv")
    found = predict(predictor, inputs, out=tmp_path / "answers.csv", resume=True)
    assert sorted(path for path, _ in found.bad_files) == sorted(map(str, bad_files.values()))
    assert found.count == 12


def test_a_single_bad_image_in_python_is_named(trained: Path, bad_files: dict[str, Path], pictures: Path) -> None:
    import vitreous

    classifier = vitreous.load(trained)
    good = next(pictures.rglob("*.png"))
    with pytest.raises(ImageError, match=r"empty\.png is empty"):
        classifier.predict([good, bad_files["empty"]])
    with pytest.raises(DataError, match="None of 1 images"):
        predict(classifier.predictor, [str(bad_files["empty"])])
    with pytest.raises(ImageError, match="image 1 holds floats"):
        classifier.predict([np.zeros((8, 8)), np.full((8, 8), 7.0), np.zeros((8, 8))])
