"""A folder of hostile files, through real workers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import damaged_files, hostile_files, odd_entries
from PIL import Image

from vitreous.data import load_source
from vitreous.data.examination.scan import Scan, check, scan
from vitreous.data.sources.source import Listing, Sample
from vitreous.errors import DataError

Make = Callable[..., Path]


def _source(folder: Path, names: list[str], *, as_bytes: bool = False) -> Listing:
    def read(index: int) -> str | bytes:
        path = folder / names[index]
        return path.read_bytes() if as_bytes else str(path)

    samples = [Sample(name, "class", None, None) for name in names]
    return Listing("hostile", "folder", str(folder), samples, ["class"], [], read)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, content in hostile_files():
        (folder / name).write_bytes(content)
    odd_entries(folder)
    return folder


@pytest.fixture(scope="module")
def names(folder: Path) -> list[str]:
    return [*sorted(path.name for path in folder.iterdir()), "absent.jpg"]


@pytest.fixture(scope="module")
def found(folder: Path, names: list[str]) -> Scan:
    return scan(_source(folder, names), threads=2)


def test_every_hostile_file_is_a_finding_or_has_a_reason_of_one_line(found: Scan, names: list[str]) -> None:
    assert len(names) > 600
    assert len(found.findings) == len(found.good)
    assert sorted([names[index] for index in found.good] + [bad.path for bad in found.bad]) == sorted(names)
    assert found.good == sorted(found.good)
    for bad in found.bad:
        assert bad.reason.isprintable()
        assert 5 < len(bad.reason) <= 240
        assert "examined" not in bad.reason, "an exception nobody foresaw"
        assert "crashes" not in bad.reason
        assert "seconds" not in bad.reason


def test_the_reasons_name_what_is_wrong(found: Scan) -> None:
    reasons = {bad.path: bad.reason for bad in found.bad}
    expected = {
        "absent.jpg": "does not exist",
        "zero.jpg": "is empty (0 bytes)",
        "folder.jpg": "is a folder",
        "document.jpg": "is a PDF document",
        "text.png": "is not an image",
    }
    for side in (20_000, 65_535, 2**31 - 1):
        expected[f"bomb-{side}.png"] = "pixels"
    for suffix in ("bmp", "gif", "ppm", "tif", "webp"):
        expected[f"bomb.{suffix}"] = "pixels"
    if sys.platform != "win32":
        expected |= {"pipe.jpg": "is not a regular file", "device.jpg": "is not a regular file"}
        expected |= {"nowhere.jpg": "does not exist", "loop.jpg": "cannot be read"}
    wrong = {name: reasons[name] for name, words in expected.items() if words not in reasons[name]}
    assert wrong == {}
    cut = [reason for name, reason in reasons.items() if name.startswith("cut-") and name.endswith(".png")]
    assert len([reason for reason in cut if "truncated" in reason]) > 0.8 * len(cut)


def test_good_files_among_hostile_ones_are_seen_as_what_they_are(found: Scan, names: list[str]) -> None:
    findings = {names[index]: finding for index, finding in zip(found.good, found.findings, strict=True)}
    assert (findings["png-inside.jpg"].format, findings["png-inside.jpg"].suffix_format) == ("PNG", "JPEG")
    assert (findings["jpeg-inside.png"].format, findings["jpeg-inside.png"].suffix_format) == ("JPEG", "PNG")
    assert findings["frames.gif"].frames == 5_000
    assert findings["zip-behind.jpg"].format == "JPEG"
    assert {"comment.jpg", "exif.jpg", "page-behind.gif", "pixel-bomb.png"} <= set(findings)


def test_bytes_in_a_table_are_judged_like_files(tmp_path: Path) -> None:
    files = dict(damaged_files())
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    by_path, by_bytes = (scan(_source(tmp_path, list(files), as_bytes=way), threads=2) for way in (False, True))
    assert by_path == by_bytes


@pytest.mark.parametrize("count", [0, 1, 5, 50])
def test_bad_files_are_counted_against_all_files(make_images: Make, count: int) -> None:
    root = make_images({f"{label}/{number}.png": 100 * ord(label) + number for label in "ab" for number in range(50)})
    for number in range(count):
        path = root / "ab"[number % 2] / f"{number // 2}.png"
        path.write_bytes(path.read_bytes()[: 40 + number])
    source = load_source(root)
    found = scan(source, threads=2)
    assert (len(found.good), len(found.bad), len(source.samples)) == (100 - count, count, 100)
    if count <= 5:
        check(found, source, max_bad=0.05)
    else:
        with pytest.raises(DataError, match=r"50 of 100 images cannot be used, more than --max-bad 0.05"):
            check(found, source, max_bad=0.05)
    if count:
        with pytest.raises(DataError, match=f"{count} of 100 images"):
            check(found, source, max_bad=(count - 0.5) / 100)


def test_a_script_without_a_main_guard_scans_from_a_folder_of_misleading_modules(
    tmp_path: Path, in_process: Any
) -> None:
    for number in range(40):
        pixels = np.full((8, 8, 3), number, np.uint8)
        (tmp_path / "data" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "data" / "ab"[number % 2] / f"{number}.png")
    for module in ("numpy", "json", "PIL", "vitreous"):
        (tmp_path / "work").mkdir(exist_ok=True)
        (tmp_path / "work" / f"{module}.py").write_text("raise RuntimeError('the wrong module')")
    code = (
        "import sys; sys.path.pop(0)\n"
        "from vitreous.data import load_source\n"
        "from vitreous.data.examination.scan import scan\n"
        "print(len(scan(load_source(sys.argv[1]), threads=2).good))"
    )
    done = in_process(code, tmp_path / "data", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "40\n"), done.stderr
    done = in_process("import os; os.chdir('work')\n" + code, tmp_path / "data", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "40\n"), done.stderr
