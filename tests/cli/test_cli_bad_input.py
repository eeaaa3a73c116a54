"""What people get wrong: each time one paragraph that says what to do, the right exit code, and nothing left behind."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.runs.atomic import sha256_file


def one_paragraph(done: Any, code: int, *said: str) -> None:
    """Exit code, no traceback, nothing on stdout, and a last line that holds all of these words."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    last = done.stderr.rstrip("\n").splitlines()[-1]
    assert last.startswith("vitreous: ")
    assert done.stderr.count("vitreous: ") == 1
    for word in said:
        assert word in last, last


@pytest.fixture
def data(make_images: Callable[..., Path], tmp_path: Path) -> Path:
    return make_images(tmp_path / "data", 8)


def no_folder(data: Path) -> None:
    shutil.rmtree(data)


def emptied(data: Path) -> None:
    no_folder(data)
    data.mkdir()


def loose(data: Path) -> None:
    for path in list(data.rglob("*.png")):
        path.rename(data / f"{path.parent.name}_{path.name}")
    for folder in [path for path in data.iterdir() if path.is_dir()]:
        folder.rmdir()


def one_class(data: Path) -> None:
    shutil.rmtree(data / "red")
    shutil.rmtree(data / "blue")


def one_image(data: Path) -> None:
    for path in sorted((data / "red").iterdir())[1:]:
        path.unlink()


def all_unreadable(data: Path) -> None:
    for path in data.rglob("*.png"):
        path.write_text("I was an image once.")


def too_many_unreadable(data: Path) -> None:
    for path in sorted(data.rglob("*.png"))[:3]:
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_folder, ("There is no",)),
        (emptied, ("holds no images", "DATA/CLASS/image.jpg")),
        (loose, ("no class folders", "DATA/CLASS/image.jpg")),
        (one_class, ("at least two classes", "'green'")),
        (one_image, ("'red' (1)", "--ignore-classes red")),
        (all_unreadable, ("None of the 24 images", "blue/plain_00.png")),
        (too_many_unreadable, ("3 of 24 images cannot be used", "--max-bad")),
    ],
)
def test_data_that_nothing_can_be_learned_from(
    spoil: Callable[[Path], None], said: tuple[str, ...], call: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    spoil(data)
    one_paragraph(call("train", data, "--out", tmp_path / "runs" / "x", "--offline"), 2, *said)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--model", "vit_smal"), ("Unknown model 'vit_smal'", "'vit_small'")),
        (("--model", "resnet5o"), ("'resnet50'",)),
        (("--preset", "natral"), ("'natural'",)),
        (
            ("--image-size", "18", "--net.patch-size", "4"),
            ("18 is not divisible by the patch size 4", "--image-size 20"),
        ),
        (("--model", "vit_tiny_patch16_224", "--image-size", "40"), ("not divisible by the patch size 16",)),
        (("--net.embed-dim", "50"), ("cannot be built", "50")),
        (("--time", "1s"), ("--time 1s is over before training could begin", "Give at least --time")),
        (("--init", "gone.safetensors"), ("gone.safetensors", "neither a file")),
        (("--init", "timm:vit_tiny_patch16_224.augreg_in21k", "--image-size", "32"), ("offline",)),
        (("--val", "gone"), ("gone",)),
        (("--group", "patient"), ("patient",)),
        (("--ignore-classes", "red", "green"), ("at least two classes",)),
        (("--ignore-classes", "rod"), ("rod",)),
        (("--val-fraction", "0.9"), ("--val-fraction must lie in (0, 0.5]",)),
        (("--optim.lr", "-1"), ("--optim.lr",)),
        (("--epochs", "0"), ("--epochs must be at least 1",)),
    ],
)
def test_settings_that_do_not_fit(
    flags: tuple[str, ...],
    said: tuple[str, ...],
    call: Callable[..., Any],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    one_paragraph(call("train", data, "--out", tmp_path / "run", "--offline", "--threads", "1", *flags), 2, *said)
    assert not (tmp_path / "run").exists()


def test_a_few_unreadable_files_are_left_out_listed_and_counted(
    call: Callable[..., Any], make_images: Callable[..., Path], tiny_flags: list[str], tmp_path: Path
) -> None:
    data, out = make_images(tmp_path / "data", 20), tmp_path / "run"
    (data / "red" / "plain_03.png").write_bytes(b"")
    whole = (data / "blue" / "plain_07.png").read_bytes()
    (data / "blue" / "plain_07.png").write_bytes(whole[: len(whole) // 2])
    strict = call("train", data, "--out", out, "--strict", *tiny_flags)
    one_paragraph(strict, 3, "2 files cannot be used", "--strict")
    assert not out.exists()
    done = call("train", data, "--out", out, *tiny_flags)
    assert done.returncode == 0, done.stderr
    assert "! 2 files cannot be used and are left out, listed in bad_files.csv" in done.stderr
    with (out / "bad_files.csv").open(encoding="utf-8", newline="") as file:
        listed = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert listed.keys() == {"red/plain_03.png", "blue/plain_07.png"}
    assert "empty" in listed["red/plain_03.png"] and "truncated" in listed["blue/plain_07.png"]
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))["data"]
    assert facts["bad_files"] == 2
    assert sum(facts["counts"].values()) == 58
    assert not set(listed) & {line.split(",")[0] for line in (out / "splits.csv").read_text().splitlines()}


def test_the_same_image_in_two_given_parts_is_warned_about_and_refused_under_strict(
    call: Callable[..., Any], make_images: Callable[..., Path], tiny_flags: list[str], tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    make_images(data / "train", 10)
    make_images(data / "test", 4, seed=1)
    shutil.copy(data / "train" / "red" / "plain_02.png", data / "test" / "red" / "again.png")
    one_paragraph(
        call("train", data, "--out", out, "--strict", *tiny_flags), 3, "1 pair of", "test/red/again.png", "--strict"
    )
    assert not out.exists()
    done = call("train", data, "--out", out, *tiny_flags)
    assert done.returncode == 0
    assert (
        "the test number flatters; the first (identical pixels): train/red/plain_02.png and test/red/again.png"
        in done.stderr
    )
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["data"]["leaks"] == 1
    assert "test/red/again.png" in (out / "report.html").read_text(encoding="utf-8")


VERBS = (("evaluate",), ("predict", "IMAGE"), ("explain", "IMAGE"), ("export",), ("serve", "--port", "0"))


@pytest.mark.parametrize("words", VERBS)
def test_a_half_written_run_is_recognised_by_every_verb(
    words: tuple[str, ...], call: Callable[..., Any], run_copy: Path, colors: Path
) -> None:
    facts = json.loads((run_copy / "run.json").read_text(encoding="utf-8"))
    (run_copy / "run.json").write_text(json.dumps({**facts, "status": "training"}))
    verb, *rest = (str(colors / "red" / "plain_00.png") if word == "IMAGE" else word for word in words)
    one_paragraph(call(verb, run_copy, *rest), 2, "half written", f"vitreous train {colors} --out {run_copy} --resume")
    (run_copy / "run.json").unlink()
    one_paragraph(call(verb, run_copy, *rest), 2, "half written", f"vitreous train DATA --out {run_copy} --resume")


@pytest.mark.parametrize("words", VERBS)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "splits.csv"])
def test_a_damaged_file_of_the_run_is_found_by_every_verb(
    name: str, words: tuple[str, ...], call: Callable[..., Any], run_copy: Path, colors: Path
) -> None:
    content = bytearray((run_copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run_copy / name).write_bytes(content)
    verb, *rest = (str(colors / "red" / "plain_00.png") if word == "IMAGE" else word for word in words)
    one_paragraph(call(verb, run_copy, *rest), 2, repr(name), "changed or damaged", "Restore it")


def test_a_run_of_a_newer_vitreous_says_so(call: Callable[..., Any], run_copy: Path) -> None:
    facts = json.loads((run_copy / "run.json").read_text(encoding="utf-8"))
    (run_copy / "run.json").write_text(json.dumps({**facts, "schema_version": 99}))
    one_paragraph(call("evaluate", run_copy), 2, "schema version 99", "pip install --upgrade vitreous")
    (run_copy / "run.json").write_text('{"schema_ver')
    one_paragraph(call("evaluate", run_copy), 2, "is damaged")


def test_export_refuses_an_unknown_format_and_the_unknown_engine_names_the_nearest(
    call: Callable[..., Any], run_copy: Path, colors: Path
) -> None:
    one_paragraph(call("export", run_copy, "--format", "onxx"), 2, "'onnx'")
    assert not (run_copy / "exports").exists()
    one_paragraph(call("predict", run_copy, colors, "--engine", "onxruntime"), 2, "'onnxruntime'")
    one_paragraph(
        call("predict", run_copy, colors, "--engine", "onnxruntime"), 2, f"vitreous export {run_copy} --format onnx"
    )


def test_overwrite_never_empties_a_folder_that_is_no_run(
    call: Callable[..., Any], data: Path, tiny_flags: list[str], tmp_path: Path
) -> None:
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.tex").write_text("In the beginning")
    one_paragraph(call("train", data, "--out", mine, "--overwrite", *tiny_flags), 2, "is not a run folder")
    assert [path.name for path in mine.iterdir()] == ["chapter.tex"]
    one_paragraph(call("train", data, "--out", mine / "chapter.tex", *tiny_flags), 2, "is a file")


def test_an_existing_folder_gets_numbered_siblings(
    call: Callable[..., Any], data: Path, tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = []
    for expected in ("data", "data-2"):
        done = call("train", "data", *tiny_flags, "--json")
        assert json.loads(done.stdout)["run"] == f"runs/{expected}"
        weights.append(sha256_file(Path("runs") / expected / "model.safetensors"))
    assert weights[0] == weights[1]


def test_output_piped_into_a_program_that_stops_reading_is_no_error(
    in_process: Callable[..., Any], exported: Path, colors: Path
) -> None:
    code = """
import subprocess, sys
words = [sys.executable, "-m", "vitreous", "predict", *sys.argv[1:], "--json"]
reader = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
reader.stdout.close()
told = reader.stderr.read().decode()
assert reader.wait() == 0, told
assert "Traceback" not in told and "BrokenPipe" not in told, told
reader.stderr.close()
"""
    done = in_process(code, exported, *[colors] * 2)
    assert done.returncode == 0, done.stderr
