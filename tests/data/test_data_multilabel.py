from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vitreous.data import load_source
from vitreous.errors import DataError, UsageError

Make = Callable[..., Path]


def _csv(folder: Path, *rows: str, header: str = "path,label", name: str = "a.csv") -> Path:
    (folder / name).write_text("\n".join((header, *rows)) + "\n")
    return folder / name


def _parquet(path: Path, labels: pa.Array, column: str, metadata: dict[str, str] | None = None) -> Path:
    table = pa.table({"path": [f"{i}.png" for i in range(len(labels))], column: labels})
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def _labels(source: Any) -> list[tuple[str, ...] | None]:
    return [sample.labels for sample in source.samples]


def test_a_bar_in_the_label_column_stands_between_labels(tmp_path: Path) -> None:
    source = load_source(_csv(tmp_path, "1.png,dog|cat", "2.png,cat", "3.png,", "4.png, bird | bird"))
    assert source.task == "multi_label"
    assert source.classes == ["bird", "cat", "dog"]
    assert _labels(source) == [("cat", "dog"), ("cat",), ("bird",)]
    assert [s.label for s in source.samples] == ["cat|dog", "cat", "bird"]
    assert [(bad.path, bad.reason) for bad in source.unusable] == [("3.png", "has no label")]
    assert any("1.33 labels an image on average" in note for note in source.notes)


def test_without_a_bar_every_image_has_one_label(tmp_path: Path) -> None:
    source = load_source(_csv(tmp_path, '1.png,"dog, large; brown"', "2.png,cat"))
    assert (source.task, source.classes, _labels(source)) == (
        "single_label",
        ["cat", "dog, large; brown"],
        [None, None],
    )


def test_a_column_called_labels_may_be_empty_and_divided_by_semicolons(tmp_path: Path) -> None:
    source = load_source(_csv(tmp_path, "1.png,10;9", "2.png,", "3.png,9", header="path,labels"))
    assert source.classes == ["9", "10"]
    assert _labels(source) == [("9", "10"), (), ("9",)]
    assert source.samples[1].label == ""
    assert source.unusable == []
    assert any("1 images have none" in note for note in source.notes)


def test_a_comma_never_divides_but_may_be_named(tmp_path: Path) -> None:
    path = _csv(tmp_path, '1.png,"a, b"', "2.png,b")
    assert load_source(path).classes == ["a, b", "b"]
    assert _labels(load_source(path, label_separator=",")) == [("a", "b"), ("b",)]


def test_an_empty_separator_keeps_a_bar_in_a_name(tmp_path: Path) -> None:
    source = load_source(_csv(tmp_path, "1.png,a|b", "2.png,c"), label_separator="")
    assert (source.task, source.classes) == ("single_label", ["a|b", "c"])


def test_a_column_of_lists_is_several_labels_and_an_empty_list_none(tmp_path: Path) -> None:
    labels = pa.array([["x", "y"], [], None, ["y"]], pa.list_(pa.string()))
    source = load_source(_parquet(tmp_path / "a.parquet", labels, "label"))
    assert _labels(source) == [("x", "y"), (), ("y",)]
    assert [bad.path for bad in source.unusable] == ["2.png"]


def test_lists_of_numbers_take_the_names_that_hugging_face_wrote(tmp_path: Path) -> None:
    feature = {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["zebra", "ape", "cow"]}}
    meta = {"huggingface": json.dumps({"info": {"features": {"labels": feature}}})}
    labels = pa.array([[1, 0], [2]], pa.list_(pa.int64()))
    source = load_source(_parquet(tmp_path / "a.parquet", labels, "labels", meta))
    assert source.classes == ["zebra", "ape", "cow"]
    assert _labels(source) == [("zebra", "ape"), ("cow",)]


def test_whole_numbers_in_a_column_called_labels_are_one_label_each(tmp_path: Path) -> None:
    source = load_source(_parquet(tmp_path / "a.parquet", pa.array([0, 1, 1]), "labels"))
    assert (source.task, source.classes) == ("single_label", ["0", "1"])
    assert any("holds one label in each row" in note for note in source.notes)


def test_tables_of_parts_agree_on_the_task(tmp_path: Path) -> None:
    _csv(tmp_path, "1.png,a|b", "2.png,b", name="train.csv")
    _csv(tmp_path, "3.png,a", name="test.csv")
    assert _labels(load_source(tmp_path)) == [("a", "b"), ("b",), ("a",)]


def test_a_given_part_with_single_labels_joins_one_with_several(make_images: Make) -> None:
    root = make_images({"1.png": 1, "2.png": 2})
    held = make_images({"a/3.png": 3, "b/4.png": 4}, root="held")
    source = load_source(_csv(root, "1.png,b|a", "2.png,a"), test=held)
    assert _labels(source) == [("a", "b"), ("a",), ("a",), ("b",)]


def test_a_given_part_with_several_labels_does_not_join_single_ones(make_images: Make) -> None:
    root = make_images({"a/1.png": 1, "b/2.png": 2})
    held = _csv(root.parent, "x.png,a|b", name="held.csv")
    with pytest.raises(DataError, match=r"--test\) may have several labels each"):
        load_source(root, test=held)


def test_a_joined_part_keeps_labels_weights_and_metadata(make_images: Make) -> None:
    root = make_images({"1.png": 1, "2.png": 2})
    held = _csv(root.parent, "x.png,b|a,2,north", header="path,label,weight,site", name="held.csv")
    sample = load_source(_csv(root, "1.png,b|a", "2.png,a"), test=held).samples[-1]
    assert (sample.labels, sample.weight, dict(sample.metadata), sample.part) == (
        ("a", "b"),
        2.0,
        {"site": "north"},
        "test",
    )


def test_a_label_to_ignore_is_taken_from_the_images_which_stay(tmp_path: Path) -> None:
    source = load_source(_csv(tmp_path, "1.png,a|b", "2.png,b", "3.png,c"), ignore_classes=("b",))
    assert source.classes == ["a", "c"]
    assert _labels(source) == [("a",), (), ("c",)]
    assert [s.label for s in source.samples] == ["a", "", "c"]
    assert any("1 images keep no other" in note for note in source.notes)


def test_a_label_that_only_the_test_part_has_is_refused_by_its_own_name(tmp_path: Path) -> None:
    path = _csv(tmp_path, "1.png,a|b,train", "2.png,b,train", "3.png,a|c,test", header="path,label,split")
    with pytest.raises(DataError, match=r"test part has the class 'c'.*--ignore-classes c"):
        load_source(path)


def test_one_label_that_some_images_lack_can_be_learned(tmp_path: Path) -> None:
    assert load_source(_csv(tmp_path, "1.png,a", "2.png,", header="path,labels")).classes == ["a"]
    with pytest.raises(DataError, match="only the class 'a'"):
        load_source(_csv(tmp_path, "1.png,a", "2.png,a", header="path,labels"))


def test_a_separator_for_a_folder_of_images_is_refused(make_images: Make) -> None:
    with pytest.raises(UsageError, match="stand in no cells to divide"):
        load_source(make_images({"a/1.png": 1, "b/2.png": 2}), label_separator="|")


def test_select_keeps_the_task(tmp_path: Path) -> None:
    source = load_source(_csv(tmp_path, "1.png,a|b", "2.png,b"))
    assert source.select([1]).task == "multi_label"
    assert replace(source, task="single_label").select([1]).task == "single_label"
