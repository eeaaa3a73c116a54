from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitreous.data import Sample, load_source
from vitreous.data.sources import cells
from vitreous.data.sources.source import NO_METADATA
from vitreous.errors import DataError
from vitreous.inputs import open_image

Make = Callable[..., Path]


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5), number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, columns: dict[str, Any], metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path, row_group_size=3)
    return path


def _value(source: Any, index: int) -> int:
    return int(np.asarray(open_image(source.open(index)))[0, 0])


def test_a_csv_of_paths_with_groups_and_parts(make_images: Make) -> None:
    root = make_images({"img/1.png": 1, "img/2.png": 2, "img/3.png": 3})
    (root / "list.csv").write_text(
        "file,class,group,split\nimg/1.png,cat,g1,train\n./img/2.png,dog,,Validation\nimg\\3.png,dog,g1,\n"
    )
    source = load_source(root / "list.csv")
    assert [(s.path, s.label, s.group, s.part) for s in source.samples] == [
        ("img/1.png", "cat", "g1", "train"),
        ("img/2.png", "dog", None, "val"),
        ("img/3.png", "dog", "g1", None),
    ]
    assert source.name == "list"
    assert source.kind == "manifest"
    assert open_image(source.open(2)).size == (12, 10)


def test_the_only_table_of_a_folder_is_found(make_images: Make) -> None:
    root = make_images({"img/1.png": 1, "img/2.png": 2})
    (root / "labels.csv").write_text("filename;target\nimg/1.png;NA\nimg/2.png;x\n", encoding="utf-8-sig")
    source = load_source(root)
    assert source.classes == ["NA", "x"]


def test_text_labels_of_digits_keep_their_zeros_and_numeric_order(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,{label}\n" for i, label in enumerate(("10", "9", "007")))
    (tmp_path / "a.csv").write_text("path,label\n" + rows)
    assert load_source(tmp_path / "a.csv").classes == ["007", "9", "10"]


def test_rows_without_label_or_path_are_bad_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label\n1.png,a\n2.png,\n,b\n3.png,b\n")
    source = load_source(tmp_path / "a.csv")
    assert [s.path for s in source.samples] == ["1.png", "3.png"]
    assert [(bad.path, bad.reason) for bad in source.unusable] == [
        ("2.png", "has no label"),
        ("a.csv#2", "has neither a path nor bytes"),
    ]
    assert any("2 rows cannot be used" in note for note in source.notes)


def test_parquet_parts_of_bytes_with_label_names_in_numeric_order(tmp_path: Path) -> None:
    names = ["zebra", "ape"]
    for part, numbers in (("train", (1, 0, 1, 0)), ("test", (0, 1))):
        _write(
            tmp_path / f"{part}.parquet",
            {
                "image": [_png(10 * i + (part == "test")) for i in range(len(numbers))],
                "label": list(numbers),
                "label_name": [names[n] for n in numbers],
            },
        )
    source = load_source(tmp_path)
    assert source.classes == ["zebra", "ape"]
    assert [(s.path, s.label, s.part) for s in source.samples][:2] == [
        ("train.parquet#0", "ape", "train"),
        ("train.parquet#1", "zebra", "train"),
    ]
    assert [_value(source, i) for i in range(6)] == [0, 10, 20, 30, 1, 11]


def test_hugging_face_structs_shards_and_class_names_are_read(tmp_path: Path) -> None:
    feature = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["b", "a"]}}}}
    meta = {"huggingface": json.dumps(feature)}
    for shard, numbers in enumerate(((0, 1, -1), (1, 0))):
        images = [{"bytes": _png(100 * shard + i), "path": f"{i}.png"} for i in range(len(numbers))]
        _write(
            tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", {"image": images, "label": list(numbers)}, meta
        )
    source = load_source(tmp_path)
    assert source.classes == ["b", "a"]
    assert [s.path for s in source.samples][-1] == "data/train-00001-of-00002.parquet#1"
    assert [bad.reason for bad in source.unusable] == ["has no label"]
    assert [_value(source, i) for i in range(4)] == [0, 1, 100, 101]


def test_a_struct_without_bytes_falls_back_to_its_path(make_images: Make) -> None:
    root = make_images({"1.png": 1, "2.png": 2})
    _write(
        root / "a.parquet",
        {"image": [{"bytes": None, "path": "1.png"}, {"bytes": None, "path": "2.png"}], "label": ["a", "b"]},
    )
    assert open_image(load_source(root / "a.parquet").open(1)).size == (12, 10)


def test_minus_one_is_a_class_unless_the_metadata_say_otherwise(tmp_path: Path) -> None:
    _write(tmp_path / "a.parquet", {"image": [_png(0), _png(1)], "label": [1, -1]})
    assert load_source(tmp_path / "a.parquet").classes == ["-1", "1"]


def test_a_table_too_large_to_keep_is_mapped_from_disk_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.parquet", {"image": [_png(i) for i in range(40)], "label": [i % 2 for i in range(40)]})
    kept = load_source(path)
    expected = [kept.open(i) for i in range(40)]
    monkeypatch.setattr(cells, "KEEP_BYTES", 100)
    mapped = load_source(path)
    assert [mapped.open(i) for i in range(40)] == expected


def test_listing_a_parquet_file_does_not_read_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "a.parquet", {"image": [_png(0), _png(1)], "label": [0, 1]})

    def refuse(self: object) -> None:
        raise AssertionError("image bytes were read")

    monkeypatch.setattr(cells.ParquetCells, "_load", refuse)
    assert len(load_source(path).samples) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\nx,a\n", "has the columns name, label; it needs one of path, file"),
        ("path,kind\nx,a\n", "has the columns path, kind"),
        ("path,label,split\nx,a,train\ny,b,holdout\n", "Row 2 .* is in the part 'holdout'"),
        ("path,label\nx,a\ny\n", "cannot be read as CSV"),
        ("", "cannot be read as CSV"),
        ("path,label,label_name\nx,1,cat\ny,1,dog\n", "'1' is called 'cat' and 'dog'"),
        ("path,label,label_name\nx,1,cat\ny,2,cat\n", "Two labels are called 'cat'"),
        ("path,label\nx,\ny,\n", "holds no labelled image: x has no label"),
    ],
)
def test_a_table_that_does_not_fit_says_what_it_has(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_source(tmp_path / "a.csv")


def test_fractions_are_no_classes_but_whole_floats_are(tmp_path: Path) -> None:
    images = [_png(0), _png(1)]
    assert load_source(_write(tmp_path / "a.parquet", {"image": images, "label": [0.0, 1.0]})).classes == ["0", "1"]
    with pytest.raises(DataError, match="holds fractions"):
        load_source(_write(tmp_path / "b.parquet", {"image": images, "label": [0.5, 1.0]}))


def test_a_file_that_is_not_parquet_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match="cannot be read as PARQUET"):
        load_source(tmp_path / "a.parquet")


def test_tables_of_numbers_and_of_names_do_not_mix(tmp_path: Path) -> None:
    _write(tmp_path / "train.parquet", {"image": [_png(0), _png(1)], "label": [0, 1]})
    _write(tmp_path / "test.parquet", {"image": [_png(2)], "label": ["cat"]})
    with pytest.raises(DataError, match="do not agree"):
        load_source(tmp_path)


def test_any_column_may_name_the_groups(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", {"image": [_png(0), _png(1)], "label": [0, 1], "site": [7, 8]})
    assert [s.group for s in load_source(path, group="site").samples] == ["7", "8"]


def test_a_groups_csv_with_labels_is_itself_a_manifest(make_images: Make) -> None:
    root = make_images({"train/a/1.png": 1, "train/b/2.png": 2, "test/a/3.png": 3})
    (root / "groups.csv").write_text(
        "file,split,label,group\ntrain/a/1.png,train,a,x\ntrain/b/2.png,train,b,y\ntest/a/3.png,test,a,z\n"
    )
    source = load_source(root / "groups.csv")
    assert [(s.part, s.group) for s in source.samples] == [("train", "x"), ("train", "y"), ("test", "z")]


def test_the_columns_that_are_left_are_metadata_without_their_blank_cells(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label,site,age,group\n1.png,a,north,41,g\n2.png,b,, ,\n")
    first, second = load_source(tmp_path / "a.csv").samples
    assert dict(first.metadata) == {"site": "north", "age": "41"}
    assert (dict(second.metadata), len(second.metadata), "site" in second.metadata) == ({}, 0, False)
    assert second.metadata.get("site") is None
    assert first == Sample("1.png", "a", "g", None)  # metadata do not count in comparisons


def test_metadata_of_parquet_are_text_and_another_group_column_frees_the_usual_one(tmp_path: Path) -> None:
    columns = {"image": [_png(0), _png(1)], "label": [0, 1], "dose": [0.5, None], "group": ["x", "y"], "site": [1, 2]}
    samples = load_source(_write(tmp_path / "a.parquet", columns), group="site").samples
    assert [dict(s.metadata) for s in samples] == [{"dose": "0.5", "group": "x"}, {"group": "y"}]
    assert [s.group for s in samples] == ["1", "2"]


def test_weights_are_read_and_a_blank_one_counts_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label,weight\n1.png,a,0\n2.png,b,2.5\n3.png,b,\n")
    source = load_source(tmp_path / "a.csv")
    assert [s.weight for s in source.samples] == [0.0, 2.5, 1.0]
    assert any("weights from 0 to 2.5" in note for note in source.notes)


@pytest.mark.parametrize("weight", ["-1", "nan", "inf", "heavy"])
def test_a_weight_that_is_none_names_its_row(tmp_path: Path, weight: str) -> None:
    (tmp_path / "a.csv").write_text(f"path,label,weight\n1.png,a,1\n2.png,b,{weight}\n")
    with pytest.raises(DataError, match=f"Row 2 of 'a.csv' has the weight '{weight}'"):
        load_source(tmp_path / "a.csv")


def test_training_images_that_all_count_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label,weight\n1.png,a,0\n2.png,b,0\n")
    with pytest.raises(DataError, match="Every training image has the weight 0"):
        load_source(tmp_path / "a.csv")


def test_a_selection_reads_the_cells_of_its_own_rows(tmp_path: Path) -> None:
    for part, numbers in (("train", (1, 2, 3)), ("test", (4, 5))):
        _write(
            tmp_path / f"{part}.parquet",
            {"image": [_png(n) for n in numbers], "label": ["a", None, "b"][: len(numbers)]},
        )
    source = load_source(tmp_path, trainable=False)
    assert [_value(source, i) for i in range(3)] == [1, 3, 4]
    assert [_value(source.select([2, 0]), i) for i in range(2)] == [4, 1]


def test_many_rows_share_their_texts_and_need_no_dictionary_each(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,class{i % 3},train\n" for i in range(3000))
    (tmp_path / "a.csv").write_text("path,label,split\n" + rows)
    samples = load_source(tmp_path / "a.csv").samples
    assert len({id(s.label) for s in samples}) == 3
    assert {id(s.metadata) for s in samples} == {id(NO_METADATA)}
    assert not hasattr(samples[0], "__dict__")


def test_a_ready_source_is_returned_as_it_is_after_the_same_checks(make_images: Make) -> None:
    root = make_images({"img/1.png": 1, "img/2.png": 2})
    (root / "list.csv").write_text("path,label,site\nimg/1.png,cat,n\nimg/2.png,dog,s\n")
    source = load_source(root / "list.csv")
    assert load_source(source) is source
    assert [s.group for s in load_source(source, group="site").samples] == ["n", "s"]
    with pytest.raises(DataError, match="only the class 'cat'"):
        load_source(source, ignore_classes=("dog",))


def test_a_source_of_ones_own_is_taken_and_an_object_that_is_none_says_what_it_lacks() -> None:
    class Own:
        name, kind, root, task = "own", "folder", "", "single_label"
        samples: ClassVar = [Sample("1", "a", None, None), Sample("2", "b", None, None)]
        classes: ClassVar = ["a", "b"]
        notes: ClassVar = []
        unusable: ClassVar = []

        def open(self, index: int) -> bytes:
            return _png(index + 7)

        def select(self, indices: Any) -> Any: ...

    assert _value(load_source(Own()), 1) == 8
    with pytest.raises(DataError, match=r"A dict is no data: it lacks name, kind"):
        load_source({"image": []})
