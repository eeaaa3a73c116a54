from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.data import BadFile, Scan, load_source
from vitreous.data.examination.look import pixel_digest
from vitreous.data.examination.scan import check, scan
from vitreous.errors import DataError, ImageError

Make = Callable[..., Path]


def _broken(make: Make) -> Path:
    root = make({f"{label}/{i}.png": 10 * ord(label) + i for label in "ab" for i in range(4)})
    (root / "a" / "empty.png").write_bytes(b"")
    whole = (root / "a" / "0.png").read_bytes()
    (root / "b" / "half.png").write_bytes(whole[: len(whole) // 2])
    (root / "b" / "text.jpg").write_text("hello")
    Image.fromarray(np.full((3, 3), np.nan, np.float32)).save(root / "b" / "float.tiff")
    return root


def test_every_bad_file_is_named_with_its_reason_and_never_replaced(make_images: Make) -> None:
    source = load_source(_broken(make_images))
    result = scan(source, threads=2)
    reasons = {bad.path: bad.reason for bad in result.bad}
    assert set(reasons) == {"a/empty.png", "b/half.png", "b/text.jpg", "b/float.tiff"}
    assert reasons["a/empty.png"] == "is empty (0 bytes)"
    assert "truncated" in reasons["b/half.png"]
    assert "not an image" in reasons["b/text.jpg"]
    assert "no valid pixel" in reasons["b/float.tiff"]
    assert [source.samples[i].path for i in result.good] == [f"{label}/{i}.png" for label in "ab" for i in range(4)]
    assert result.sizes == [(12, 10)] * 8
    assert result.modes == ["RGB"] * 8
    assert result.bits == [8] * 8
    assert len(set(result.hashes)) == 8
    assert len(result.findings) == 8


def test_the_number_of_threads_changes_nothing(make_images: Make) -> None:
    source = load_source(_broken(make_images))
    assert scan(source, threads=1) == scan(source, threads=3)


def test_progress_ends_at_the_number_of_images(make_images: Make) -> None:
    calls: list[tuple[int, int]] = []
    source = load_source("digits")
    scan(source, threads=2, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (1797, 1797)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_size_limit_is_judged_here(make_images: Make) -> None:
    source = load_source(make_images({"a/1.png": 1, "b/1.png": 2}))
    result = scan(source, max_pixels=100, threads=1)
    assert result.good == []
    assert "12 x 10 pixels; the limit is 100" in result.bad[0].reason


def test_bad_files_are_written_as_csv(make_images: Make, tmp_path: Path) -> None:
    result = Scan([], [], [BadFile('a, "b".png', "is empty (0 bytes)")])
    result.write_bad_files(tmp_path / "bad_files.csv")
    rows = list(csv.reader((tmp_path / "bad_files.csv").read_text(encoding="utf-8").splitlines()))
    assert rows == [["path", "reason"], ['a, "b".png', "is empty (0 bytes)"]]


def test_identical_pixels_are_found_whatever_the_file(make_images: Make) -> None:
    root = make_images({"a/1.png": 1, "a/2.png": 2, "b/1.png": 3})
    Image.open(root / "a/1.png").save(root / "b" / "copy.bmp")
    source = load_source(root)
    result = scan(source, threads=1)
    sets = [[source.samples[result.good[position]].path for position in group] for group in result.duplicates]
    assert sets == [["a/1.png", "b/copy.bmp"]]


def test_the_digest_sees_through_palettes_and_byte_order_and_orientation() -> None:
    indices = np.array([[0, 1], [1, 0]], np.uint8)
    red, blue = Image.fromarray(indices, "P"), Image.fromarray(indices, "P")
    red.putpalette([0, 0, 0, 255, 0, 0])
    blue.putpalette([0, 0, 0, 0, 0, 255])
    assert pixel_digest(red) != pixel_digest(blue)
    assert pixel_digest(red) == pixel_digest(red.convert("RGB"))
    deep = np.array([[1, 300], [2, 65535]], np.uint16)
    big = Image.frombytes("I;16B", (2, 2), deep.astype(">u2").tobytes())
    assert pixel_digest(Image.fromarray(deep)) == pixel_digest(big)
    wide = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    tall = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(3, 2))
    assert pixel_digest(wide) != pixel_digest(tall)


def test_sixteen_bit_images_are_recorded_as_such(make_images: Make) -> None:
    root = make_images({"a/1.png": 1, "b/1.png": 2})
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(root / "a" / "deep.png")
    result = scan(load_source(root), threads=1)
    assert sorted(zip(result.modes, result.bits, strict=True)) == [("I;16", 16), ("RGB", 8), ("RGB", 8)]


def test_a_data_set_without_one_readable_image_is_refused(make_images: Make) -> None:
    root = make_images({"a/1.png": 1, "b/1.png": 2})
    for path in root.glob("*/*.png"):
        path.write_text("no image")
    source = load_source(root)
    with pytest.raises(DataError, match=r"None of the 2 images .* a/1.png is not an image"):
        check(scan(source, threads=1), source, max_bad=1.0)


def test_more_bad_files_than_allowed_are_refused(make_images: Make) -> None:
    source = load_source(_broken(make_images))
    result = scan(source, threads=1)
    check(result, source, max_bad=4 / 12)
    with pytest.raises(DataError, match=r"4 of 12 images cannot be used, more than --max-bad 0.3"):
        check(result, source, max_bad=0.3)


def test_a_class_that_is_too_small_is_named_with_what_to_do(make_images: Make) -> None:
    files = {f"a/{i}.png": i for i in range(3)} | {"tiny/1.png": 8, "tiny/2.png": 9}
    source = load_source(make_images(files))
    with pytest.raises(DataError, match=r"at least 3 readable images.*'tiny' \(2\).*--ignore-classes tiny"):
        check(scan(source, threads=1), source, max_bad=0.0)


def test_two_images_outside_the_test_part_suffice_where_it_is_given(make_images: Make) -> None:
    files = {f"train/{label}/{i}.png": i for label in "ab" for i in range(2)} | {"test/a/9.png": 9}
    source = load_source(make_images(files))
    check(scan(source, threads=1), source, max_bad=0.0)
    (Path(source.root) / "train" / "b" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"at least 2 readable images outside the test part.*'b' \(1\)"):
        check(scan(source, threads=1), source, max_bad=0.5)


def test_thumbnails_are_one_array_aligned_with_the_findings(make_images: Make) -> None:
    source = load_source(_broken(make_images))
    result = scan(source, threads=1)
    assert result.thumbnails.shape == (8, 32, 32, 3)
    assert result.thumbnails.dtype == np.uint8
    assert [row.tobytes() for row in result.thumbnails] == [finding.thumbnail for finding in result.findings]
    assert Scan([], [], []).thumbnails.shape == (0, 32, 32, 3)


def test_bad_files_are_written_even_where_their_names_are_no_text(tmp_path: Path) -> None:
    Scan([], [], [BadFile("line\nbreak\udcff.png", "is not an image")]).write_bad_files(tmp_path / "bad_files.csv")
    with (tmp_path / "bad_files.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1:] == [["line\nbreak\\udcff.png", "is not an image"]]


def test_an_image_that_the_source_cannot_offer_is_bad(make_images: Make) -> None:
    def read(index: int) -> bytes:
        raise ImageError("lies in a shard that ends before it")

    source = replace(load_source(make_images({"a/1.png": 1, "b/1.png": 2})), reader=read)
    result = scan(source, threads=1)
    assert [bad.reason for bad in result.bad] == ["lies in a shard that ends before it"] * 2


def test_an_error_of_the_source_reaches_the_caller(make_images: Make) -> None:
    def read(index: int) -> bytes:
        raise RuntimeError("no such row")

    source = replace(load_source(make_images({"a/1.png": 1, "b/1.png": 2})), reader=read)
    with pytest.raises(RuntimeError, match="no such row"):
        scan(source, threads=1)
