"""The table of corrections: read, refused, carried out."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vitreous.data import load_source
from vitreous.data.audit.fixes import Fix, apply_fixes, read_fixes, removals, write_fixes, write_manifest
from vitreous.data.sources.source import BadFile, Listing
from vitreous.errors import DataError, UsageError


@pytest.fixture
def source(tmp_path: Path) -> Listing:
    for name in ("cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"):
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), int(file.stem)).save(file)
    return load_source(tmp_path / "data")


def table(folder: Path, text: str) -> Path:
    file = folder / "fixes.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    fixes = [
        Fix("cat/1.png", "remove", "", 'a, "quoted" reason'),
        Fix("dog/ü.png", "relabel", "cat", ""),
        Fix("x", "review", "", ""),
    ]
    write_fixes(tmp_path / "fixes.csv", fixes)
    assert read_fixes(tmp_path / "fixes.csv") == fixes


def test_removed_images_are_gone_relabelled_ones_renamed_and_the_rest_stays_in_order(source: Listing) -> None:
    fixes = [
        Fix("cat/1.png", "remove", "", ""),
        Fix("dog/3.png", "relabel", "cat", ""),
        Fix("cat/2.png", "review", "dog", ""),
    ]
    corrected = apply_fixes(source, fixes)
    assert [(sample.path, sample.label) for sample in corrected.samples] == [
        ("cat/2.png", "cat"),
        ("dog/3.png", "cat"),
        ("dog/4.png", "dog"),
    ]
    assert Path(str(corrected.open(1))) == Path(source.root) / "dog/3.png"
    assert (
        corrected.notes[-1]
        == "Corrections: 1 images left out, 1 labelled anew; 1 rows still say review and change nothing."
    )


def test_a_class_that_loses_its_last_image_is_no_class_any_more(source: Listing) -> None:
    fixes = [Fix(f"dog/{number}.png", "relabel", "cat", "") for number in (3, 4)]
    assert apply_fixes(source, fixes).classes == ["cat"]


def test_removing_a_bad_file_takes_it_off_the_list(source: Listing) -> None:
    bad = Listing(
        **{**vars(source), "unusable": [BadFile("cat/9.png", "is truncated"), BadFile("cat/8.png", "is odd")]}
    )
    assert [entry.path for entry in apply_fixes(bad, removals(bad.unusable[:1])).unusable] == ["cat/8.png"]


@pytest.mark.parametrize(
    ("fixes", "says"),
    [
        ([Fix("cat/11.png", "remove", "", "")], "do not hold"),
        ([Fix("cat/1.png", "relabel", "cta", "")], "'cta'"),
        ([Fix("cat/1.png", "remove", "", ""), Fix("cat/1.png", "keep", "", "")], "both remove and keep"),
    ],
)
def test_corrections_that_do_not_fit_the_data_are_refused_by_name(source: Listing, fixes: list[Fix], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        apply_fixes(source, fixes)


def test_two_reasons_for_one_removal_are_one_removal(source: Listing) -> None:
    fixes = [Fix("cat/1.png", "remove", "", "identical"), Fix("cat/1.png", "remove", "", "blurred")]
    assert len(apply_fixes(source, fixes).samples) == 3


def test_removing_everything_is_refused(source: Listing) -> None:
    with pytest.raises(DataError, match="every image"):
        apply_fixes(source, [Fix(sample.path, "remove", "", "") for sample in source.samples])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,what\na,b\n", "lacks path and action"),
        ("path,action\ncat/1.png,delete\n", "'delete' in line 2"),
        ("path,action,label\ncat/1.png,relabel,\n", "no label is given"),
        ("path,action\n,remove\n", "line 2 of 'fixes.csv' the path is empty"),
    ],
)
def test_a_table_that_says_something_impossible_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_fixes(table(tmp_path, text))


def test_an_absent_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_fixes(tmp_path / "none.csv")


def test_the_manifest_of_corrected_data_lists_them_wherever_it_lies(source: Listing, tmp_path: Path) -> None:
    corrected = apply_fixes(source, [Fix("cat/1.png", "remove", "", ""), Fix("cat/2.png", "relabel", "dog", "")])
    manifest = tmp_path / "elsewhere" / "corrected.csv"
    write_manifest(corrected, manifest)
    again = load_source(manifest, trainable=False)
    assert [sample.label for sample in again.samples] == ["dog", "dog", "dog"]
    assert [Path(str(again.open(row))).resolve() for row in range(3)] == [
        Path(str(corrected.open(row))).resolve() for row in range(3)
    ]


def test_images_inside_other_files_have_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="inside other files"):
        write_manifest(load_source("digits"), tmp_path / "out.csv")


def test_a_number_sign_in_a_file_name_is_no_other_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "photos" / name / "#1.png")
    write_manifest(load_source(tmp_path / "photos"), tmp_path / "list.csv")
    assert [sample.path for sample in load_source(tmp_path / "list.csv").samples] == [
        "photos/a/#1.png",
        "photos/b/#1.png",
    ]
