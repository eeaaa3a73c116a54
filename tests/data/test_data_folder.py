from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vitreous.data import load_source
from vitreous.data.sources.folder import IMAGE_SUFFIXES
from vitreous.errors import DataError, UsageError
from vitreous.inputs import open_image
from vitreous.inputs.decode import FILE_FORMATS

Make = Callable[..., Path]


def test_class_folders_give_labels_in_natural_order_and_paths_with_forward_slashes(make_images: Make) -> None:
    root = make_images({"class10/a.png": 1, "class9/deep/er/b.JPG": 2, "Class1/c.png": 3})
    source = load_source(root)
    assert source.classes == ["Class1", "class9", "class10"]
    assert {(s.path, s.label, s.part, s.group) for s in source.samples} == {
        ("class10/a.png", "class10", None, None),
        ("class9/deep/er/b.JPG", "class9", None, None),
        ("Class1/c.png", "Class1", None, None),
    }
    assert source.kind == "folder"
    assert source.name == "photos"
    index = [s.path for s in source.samples].index("class10/a.png")
    assert open_image(source.open(index)).size == (12, 10)


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_part_folders_give_parts_under_each_usual_spelling(make_images: Make, val: str) -> None:
    files = {f"{part}/{label}/{i}.png": i for part in ("train", val, "Test") for label in "ab" for i in range(2)}
    source = load_source(make_images(files))
    assert Counter(s.part for s in source.samples) == {"train": 4, "val": 4, "test": 4}
    assert source.classes == ["a", "b"]


def test_a_class_may_be_called_train(make_images: Make) -> None:
    source = load_source(make_images({"train/1.png": 1, "bus/2.png": 2, "car/3.png": 3}))
    assert source.classes == ["bus", "car", "train"]
    assert {s.part for s in source.samples} == {None}


def test_a_class_called_train_may_have_subfolders(make_images: Make) -> None:
    source = load_source(make_images({"train/2019/1.png": 1, "train/2020/1.png": 4, "bus/2.png": 2}))
    assert source.classes == ["bus", "train"]


def test_files_that_are_no_images_are_ignored_and_counted(make_images: Make) -> None:
    root = make_images({"a/1.png": 1, "b/2.png": 2})
    for name in ("a/readme.txt", "a/notes.md", "b/Thumbs.db", "b/.DS_Store", "b/.hidden.png", "meta.json"):
        (root / name).write_text("x")
    (root / ".cache").mkdir()
    (root / ".cache" / "3.png").write_bytes((root / "a/1.png").read_bytes())
    source = load_source(root)
    assert len(source.samples) == 2
    assert any("6 files were ignored" in note and ".txt 1" in note for note in source.notes)


def test_images_outside_class_folders_and_empty_folders_are_said(make_images: Make) -> None:
    root = make_images({"a/1.png": 1, "b/2.png": 2, "stray.png": 3})
    (root / "c").mkdir()
    source = load_source(root)
    assert source.classes == ["a", "b"]
    assert any("1 images lie outside" in note for note in source.notes)
    assert any("without images: c" in note for note in source.notes)


def test_folders_beside_the_parts_are_left_out_and_said(make_images: Make) -> None:
    files = {f"{part}/{label}/1.png": 1 for part in ("train", "test") for label in "ab"}
    source = load_source(make_images({**files, "masks/a/1.png": 9}))
    assert source.classes == ["a", "b"]
    assert any("masks" in note for note in source.notes)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_links_are_followed_but_not_in_circles(make_images: Make) -> None:
    elsewhere = make_images({"1.png": 1, "2.png": 2}, root="elsewhere")
    root = make_images({"a/1.png": 3})
    (root / "b").symlink_to(elsewhere, target_is_directory=True)
    (root / "a" / "again").symlink_to(root, target_is_directory=True)
    (root / "b" / "self").symlink_to(elsewhere, target_is_directory=True)
    assert [s.path for s in load_source(root).samples] == ["a/1.png", "b/1.png", "b/2.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_a_broken_link_is_listed_so_that_the_scan_can_name_it(make_images: Make) -> None:
    root = make_images({"a/1.png": 3, "b/1.png": 4})
    (root / "b" / "gone.png").symlink_to(root / "nowhere.png")
    assert "b/gone.png" in [s.path for s in load_source(root).samples]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux stores arbitrary bytes in names")
def test_a_name_that_is_not_utf8_is_a_bad_file_and_not_a_crash(make_images: Make) -> None:
    root = make_images({"a/1.png": 3, "b/1.png": 4})
    (root / "b" / "1.png").rename(root / "b" / os.fsdecode(b"\xff.png"))
    (root / "b" / "2.png").write_bytes((root / "a/1.png").read_bytes())
    source = load_source(root)
    assert [bad.reason.split(";")[0] for bad in source.unusable] == ["has a name that is not valid UTF-8"]
    assert source.unusable[0].path.isascii()


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no images.*DATA/CLASS/image.jpg"):
        load_source(tmp_path)


def test_a_flat_folder_says_that_it_has_no_class_folders(make_images: Make) -> None:
    with pytest.raises(DataError, match="holds 2 images but no class folders"):
        load_source(make_images({"1.png": 1, "2.png": 2}))


def test_parts_without_class_folders_are_not_taken_for_classes(make_images: Make) -> None:
    with pytest.raises(DataError, match="hold images directly and no class folders"):
        load_source(make_images({"train/1.png": 1, "test/2.png": 2}))


def test_one_class_alone_is_refused_but_may_be_evaluated(make_images: Make) -> None:
    root = make_images({"a/1.png": 1, "a/2.png": 2})
    with pytest.raises(DataError, match=r"at least two classes.*only the class 'a'"):
        load_source(root)
    assert load_source(root, trainable=False).classes == ["a"]


def test_a_wrapper_folder_is_recognised(make_images: Make) -> None:
    with pytest.raises(DataError, match=r"Did you mean '.*photos.unpacked'"):
        load_source(make_images({"unpacked/a/1.png": 1, "unpacked/b/2.png": 2}))


def test_a_path_that_does_not_exist_names_the_nearest_one(make_images: Make) -> None:
    root = make_images({"a/1.png": 1})
    with pytest.raises(DataError, match=r"Did you mean '.*photos'"):
        load_source(root.with_name("phtos"))
    with pytest.raises(DataError, match=r"Did you mean '.*photos'"):
        load_source(root.with_name("photo") / "sub" / "folder")


def test_a_class_that_only_the_test_part_has_is_refused_by_name(make_images: Make) -> None:
    files = {"train/a/1.png": 1, "train/b/2.png": 2, "test/a/3.png": 3, "test/zebra/4.png": 4}
    root = make_images(files)
    with pytest.raises(DataError, match=r"test part has the class 'zebra'.*--ignore-classes zebra"):
        load_source(root)
    assert load_source(root, ignore_classes=("zebra",)).classes == ["a", "b"]


def test_a_class_that_only_training_has_is_said(make_images: Make) -> None:
    source = load_source(make_images({"train/a/1.png": 1, "train/b/2.png": 2, "test/a/3.png": 3}))
    assert "The test part has no image of: b." in source.notes


def test_an_unknown_class_to_ignore_names_the_nearest(make_images: Make) -> None:
    with pytest.raises(UsageError, match="Did you mean 'zebra'"):
        load_source(make_images({"zebra/1.png": 1, "b/2.png": 2, "c/3.png": 3}), ignore_classes=("zebar",))


def test_separate_parts_join_with_paths_relative_to_the_data(make_images: Make) -> None:
    root = make_images({"a/1.png": 1, "b/2.png": 2}, root="main")
    test = make_images({"a/1.png": 3, "b/2.png": 4}, root="held")
    source = load_source(root, test=test)
    assert [(s.path, s.part) for s in source.samples] == [
        ("a/1.png", None),
        ("b/2.png", None),
        ("../held/a/1.png", "test"),
        ("../held/b/2.png", "test"),
    ]
    assert Path(source.open(2)).read_bytes() == (test / "a/1.png").read_bytes()


def test_a_part_inside_the_data_is_not_listed_twice(make_images: Make) -> None:
    root = make_images({"a/1.png": 1, "b/2.png": 2, "held/a/1.png": 3, "held/b/1.png": 4})
    source = load_source(root, val=root / "held")
    assert Counter(s.part for s in source.samples) == {None: 2, "val": 2}
    assert source.classes == ["a", "b"]


def test_a_manifest_of_images_inside_the_data_moves_them_to_the_part(make_images: Make, tmp_path: Path) -> None:
    root = make_images({"a/1.png": 1, "a/2.png": 2, "b/1.png": 3, "b/2.png": 4})
    listing = tmp_path / "held.csv"
    listing.write_text("path,label\nphotos/a/1.png,a\nphotos/b/1.png,b\n")
    source = load_source(root, test=listing)
    assert {(s.path, s.part) for s in source.samples} == {
        ("a/1.png", "test"),
        ("a/2.png", None),
        ("b/1.png", "test"),
        ("b/2.png", None),
    }
    index = [s.path for s in source.samples].index("b/1.png")
    assert Path(source.open(index)).read_bytes() == (root / "b/1.png").read_bytes()


def test_a_given_part_beside_one_of_the_data_is_refused(make_images: Make) -> None:
    root = make_images({"train/a/1.png": 1, "train/b/2.png": 2, "test/a/3.png": 3})
    other = make_images({"a/1.png": 5, "b/1.png": 6}, root="other")
    with pytest.raises(UsageError, match="has a test part of its own"):
        load_source(root, test=other)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"no table: known are \.parquet, \.csv"):
        load_source(tmp_path / "photos.zip")


def test_digits_need_no_file() -> None:
    source = load_source("digits")
    assert source.classes == [str(digit) for digit in range(10)]
    assert len(source.samples) == 1797
    pixels = source.open(0)
    assert pixels.shape == (8, 8)
    assert pixels.dtype.name == "uint8"
    assert max(source.open(i).max() for i in range(20)) == 255
    assert pixels[0, 2] == round(5 * 255 / 16)


def test_every_suffix_of_a_format_that_is_read_is_looked_for() -> None:
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in FILE_FORMATS}
    assert known - set(IMAGE_SUFFIXES) == set()
