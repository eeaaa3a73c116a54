from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vitreous.data import load_source
from vitreous.errors import DataError, UsageError

Make = Callable[..., Path]
FILES = {f"{label}/p{patient}_{i}.png": 10 * patient + i for label in "ab" for patient in (1, 2) for i in (1, 2)}


def _table(root: Path, header: str, *rows: str) -> None:
    (root / "groups.csv").write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")


def test_groups_csv_beside_the_images_is_read_without_being_asked_for(make_images: Make) -> None:
    root = make_images(FILES)
    _table(root, "file,group", "a/p1_1.png,x", "a/p1_2.png,x", "b/p1_1.png,")
    source = load_source(root)
    groups = {s.path: s.group for s in source.samples}
    assert groups["a/p1_1.png"] == groups["a/p1_2.png"] == "x"
    assert groups["b/p1_1.png"] is None
    assert any("column 'group' of groups.csv: 1 groups. 6 images have none" in note for note in source.notes)
    assert not any("ignored" in note for note in source.notes)


def test_another_column_of_groups_csv_can_be_named(make_images: Make) -> None:
    root = make_images(FILES)
    _table(root, "file,group,site", "a/p1_1.png,x,north", "b/p2_1.png,y,north")
    groups = {s.path: s.group for s in load_source(root, group="site").samples}
    assert groups["a/p1_1.png"] == groups["b/p2_1.png"] == "north"


def test_the_table_of_a_divided_set_also_serves_its_train_folder_alone(make_images: Make) -> None:
    root = make_images({f"train/{name}": number for name, number in FILES.items()})
    _table(root, "file,group", "train/a/p1_1.png,x")
    groups = {s.path: s.group for s in load_source(root / "train").samples}
    assert groups["a/p1_1.png"] == "x"


def test_a_pattern_groups_by_its_first_group_or_the_whole_match(make_images: Make) -> None:
    root = make_images(FILES)
    assert {s.group for s in load_source(root, group=r"(p\d)_").samples} == {"p1", "p2"}
    assert {s.group for s in load_source(root, group=r"p\d_\d").samples} == {"p1_1", "p1_2", "p2_1", "p2_2"}


def test_paths_that_a_pattern_does_not_match_stand_alone_and_are_counted(make_images: Make) -> None:
    source = load_source(make_images({**FILES, "a/other.png": 99}), group=r"(p\d)_")
    assert {s.path: s.group for s in source.samples}["a/other.png"] is None
    assert any("1 paths do not match" in note for note in source.notes)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(p", "not a valid regular expression"),
        ("subject", r"matches none of the 8 paths\."),
        (r"\.png", r"finds '.png' in every path"),
    ],
)
def test_a_pattern_that_cannot_group_is_refused_with_an_example_path(
    make_images: Make, pattern: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_source(make_images(FILES), group=pattern)
    assert "a/p1_1.png" in str(caught.value)


def test_a_mistyped_column_is_offered(make_images: Make) -> None:
    root = make_images(FILES)
    _table(root, "file,group,patient_id", "a/p1_1.png,x,1")
    with pytest.raises(UsageError, match="Did you mean the column 'patient_id'"):
        load_source(root, group="pateint_id")


def test_a_table_that_lists_none_of_the_images_is_refused(make_images: Make) -> None:
    root = make_images(FILES)
    _table(root, "file,group", "elsewhere/1.png,x")
    with pytest.raises(DataError, match=r"names 'elsewhere/1.png', an image is 'a/p1_1.png'"):
        load_source(root)


def test_a_table_without_a_file_column_is_refused_by_its_columns(make_images: Make) -> None:
    root = make_images(FILES)
    _table(root, "image,group", "a/p1_1.png,x")
    with pytest.raises(DataError, match="has the columns image, group; it needs 'file'"):
        load_source(root)


@pytest.mark.parametrize("name", ["patient", "exif"])
def test_what_the_images_themselves_say_is_no_pattern(make_images: Make, name: str) -> None:
    assert {s.group for s in load_source(make_images(FILES), group=name).samples} == {None}


def test_a_column_called_patient_still_names_the_groups(make_images: Make) -> None:
    root = make_images(FILES)
    _table(root, "file,patient", "a/p1_1.png,7")
    assert {s.path: s.group for s in load_source(root, group="patient").samples}["a/p1_1.png"] == "7"


def test_the_other_columns_of_groups_csv_are_metadata_and_weights(make_images: Make) -> None:
    root = make_images(FILES)
    _table(root, "file,group,site,label,weight,age", "a/p1_1.png,x,north,a,0.5,", "b/p1_1.png,,south,b,,41")
    samples = {s.path: s for s in load_source(root).samples}
    assert dict(samples["a/p1_1.png"].metadata) == {"site": "north"}
    assert dict(samples["b/p1_1.png"].metadata) == {"site": "south", "age": "41"}
    assert dict(samples["a/p2_1.png"].metadata) == {}
    assert [samples[f"{label}/p1_1.png"].weight for label in "ab"] == [0.5, 1.0]


def test_a_weight_in_groups_csv_that_is_none_names_its_file(make_images: Make) -> None:
    root = make_images(FILES)
    _table(root, "file,weight", "a/p1_1.png,-1")
    with pytest.raises(DataError, match=r"gives 'a/p1_1.png' the weight '-1'"):
        load_source(root)
