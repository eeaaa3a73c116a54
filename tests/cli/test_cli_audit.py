"""`vitreous audit` on the command line: what it takes, what it refuses, and how it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, make_images: Callable[..., Path]) -> Path:
    """Nine good images, too few to probe. Read only."""
    return make_images(tmp_path_factory.mktemp("cli audit") / "few", 3)


@pytest.fixture
def leaking(clean: Path, tmp_path: Path) -> Path:
    root = tmp_path / "two parts"
    shutil.copytree(clean, root / "train")
    (root / "test" / "red").mkdir(parents=True)
    shutil.copy(clean / "red" / "plain_00.png", root / "test" / "red" / "copy.png")
    return root


def test_help_tells_the_flags_and_the_default_folder(call: Callable[..., Any]) -> None:
    done = call("audit", "--help")
    assert done.returncode == 0
    for flag in ("--strict", "--apply", "--show-augmented", "--model", "--group", "--decode.window", "--no-cache"):
        assert flag in done.stdout
    assert "audits/NAME" in done.stdout


def test_a_clean_set_passes_the_gate_and_json_has_the_promised_keys(
    call: Callable[..., Any], clean: Path, tmp_path: Path
) -> None:
    done = call("audit", clean, "--strict", "--json", "--threads", "1", "--out", tmp_path / "audit")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == 9 and found["classes"] == {"blue": 3, "green": 3, "red": 3}
    assert found["bad_files"] == found["leaks"] == []
    for kind in ("exact", "near"):
        assert set(found["duplicates"][kind]) == {"sets", "across_parts", "across_labels"}
    assert found["folder"] == str(tmp_path / "audit")
    names = {"audit.html", "audit.json", "fixes.csv", "bad_files.csv"}
    assert {path.name for path in (tmp_path / "audit").iterdir()} == names


@pytest.mark.parametrize(("strict", "code"), [(False, 0), (True, 3)])
def test_a_leak_ends_with_3_only_under_strict_and_is_always_written_down(
    strict: bool, code: int, call: Callable[..., Any], leaking: Path, tmp_path: Path
) -> None:
    flags = ["--strict"] if strict else []
    done = call("audit", leaking, "--threads", "1", "--out", tmp_path / "audit", *flags)
    assert done.returncode == code
    assert ("--strict: 1 pair" in done.stderr) is strict
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["leak_count"] == 1
    # What to type next can be typed: the folder has a space in its name.
    assert f"vitreous train '{leaking}' --fixes" in done.stdout


def test_a_test_part_elsewhere_is_judged_and_named_in_what_to_type_next(
    call: Callable[..., Any], leaking: Path, tmp_path: Path
) -> None:
    words = ["audit", leaking / "train", "--test", leaking / "test", "--strict", "--threads", "1"]
    done = call(*words, "--out", tmp_path / "audit")
    assert done.returncode == 3
    assert f"--test '{leaking / 'test'}' --fixes" in done.stdout


def test_an_existing_folder_gets_numbered_siblings(
    call: Callable[..., Any], clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("few", "few-2"):
        done = call("audit", clean, "--json", "--threads", "1")
        assert json.loads(done.stdout)["folder"] == str(Path("audits") / expected)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--apply", "fixes.csv"], "Add --out corrected.csv"),
        (["--apply", "gone.csv", "--out", "corrected.csv"], "gone.csv"),
        (["--apply", "gone.csv", "--out", "corrected.txt"], "is no CSV file"),
        (["--examples", "-1"], "--examples must not be negative"),
        (["--group", "patient"], "no image names a patient"),
        (["--group", "exif"], "no image tells its camera and time"),
        (["--model", "nowhere"], "nowhere"),
        (["--strct"], "--strict"),
        (["--preset", "medicl"], "medical"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_paragraph(
    flags: list[str],
    said: str,
    call: Callable[..., Any],
    clean: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("audit", clean, "--threads", "1", *flags)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "audits").exists()


@pytest.mark.parametrize("name", ["gone", "empty", "bad"])
def test_data_without_a_single_image_end_with_2(name: str, call: Callable[..., Any], tmp_path: Path) -> None:
    for path in ("empty/a", "bad/a", "bad/b"):
        (tmp_path / path).mkdir(parents=True)
    for letter in "ab":
        (tmp_path / "bad" / letter / "1.png").write_bytes(b"")
    done = call("audit", tmp_path / name, "--threads", "1", "--out", tmp_path / "audit")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert not (tmp_path / "audit").exists()


def test_remarks_of_decoders_stay_off_the_screen(clean: Path, tmp_path: Path) -> None:
    """A PNG that announces an animation without a frame, upon which Pillow remarks whenever it is opened."""
    root = tmp_path / "remarkable"
    shutil.copytree(clean, root)
    chunk = b"acTL" + bytes(8)
    for colour in ("red", "green"):  # the same picture under two labels is shown on the page
        data = (clean / "red" / "plain_00.png").read_bytes()
        chunks = len(chunk[4:]).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        (root / colour / "odd.png").write_bytes(data[:33] + chunks + data[33:])
    words = [sys.executable, "-m", "vitreous", "audit", root, "--threads", "1", "--out", tmp_path / "audit"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert "Warning" not in done.stderr and "site-packages" not in done.stderr
