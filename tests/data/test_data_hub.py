from __future__ import annotations

import builtins
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitreous.data import load_source
from vitreous.data.sources import hub
from vitreous.errors import DataError, MissingExtraError, UsageError
from vitreous.inputs import open_image

try:
    import datasets
except ImportError:
    pytest.skip("the package datasets (extra hub) is not installed", allow_module_level=True)


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5), number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _dataset(
    numbers: list[int],
    feature: Any = None,
    column: str = "label",
    labels: list[Any] | None = None,
    **columns: list[Any],
) -> datasets.Dataset:
    """Pictures of the greys, labelled by their last digit among three classes unless `labels` say otherwise."""
    names = ["zebra", "ape", "cow"]
    values = labels if labels is not None else [number % 10 for number in numbers]
    data = {"image": [{"bytes": _png(n), "path": None} for n in numbers], column: values, **columns}
    features = datasets.Features(
        {
            "image": datasets.Image(),
            column: feature or datasets.ClassLabel(names=names),
            **{name: datasets.Value("string") for name in columns},
        }
    )
    return datasets.Dataset.from_dict(data, features=features)


def _values(source: Any) -> list[int]:
    return [int(np.asarray(open_image(source.open(i)))[0, 0]) for i in range(len(source.samples))]


def test_a_dataset_keeps_its_class_names_columns_and_bytes() -> None:
    source = load_source(_dataset([11, 10, 21], group=["g", "h", None], site=["n", "", "s"]))
    assert (source.kind, source.classes, source.columns) == ("hub", ["zebra", "ape"], ("label", "group", "site"))
    assert [(s.path, s.label, s.group, s.part, dict(s.metadata)) for s in source.samples] == [
        ("dataset#0", "ape", "g", None, {"site": "n"}),
        ("dataset#1", "zebra", "h", None, {}),
        ("dataset#2", "ape", None, None, {"site": "s"}),
    ]
    assert source.open(1) == _png(10)
    assert _values(source) == [11, 10, 21]
    assert [s.group for s in load_source(_dataset([10, 11], site=["n", "s"]), group="site").samples] == ["n", "s"]


def test_bytes_that_are_no_image_reach_our_own_decoder() -> None:
    data = {"image": [{"bytes": b"no image", "path": None}, {"bytes": _png(1), "path": None}], "label": [0, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    source = load_source(datasets.Dataset.from_dict(data, features=features))
    assert source.open(0) == b"no image"


def test_rows_that_were_shuffled_or_selected_are_followed() -> None:
    source = load_source(_dataset([10, 11, 21, 20]).select([3, 1]))
    assert _values(source) == [20, 11]
    assert [s.label for s in source.samples] == ["zebra", "ape"]


def test_splits_are_parts_and_others_are_said_to_be_left_out() -> None:
    splits = {"test": [30, 31], "validation": [20, 21], "train": [10, 11], "unsupervised": [41]}
    source = load_source(datasets.DatasetDict({name: _dataset(numbers) for name, numbers in splits.items()}))
    assert [(s.path, s.part) for s in source.samples][::2] == [
        ("train#0", "train"),
        ("test#0", "test"),
        ("validation#0", "val"),
    ]
    assert _values(source) == [10, 11, 30, 31, 20, 21]
    assert any("left out: unsupervised" in note for note in source.notes)
    with pytest.raises(DataError, match="has no split that is a part, only unsupervised"):
        load_source(datasets.DatasetDict({"unsupervised": _dataset([10, 11])}))


def test_minus_one_of_a_class_label_is_no_label() -> None:
    source = load_source(_dataset([10, 11, 12], datasets.ClassLabel(names=["a", "b"]), labels=[0, 1, -1]))
    assert [(bad.path, bad.reason) for bad in source.unusable] == [("dataset#2", "has no label")]


def test_lists_of_class_labels_are_several_labels() -> None:
    many = datasets.Sequence(datasets.ClassLabel(names=["zebra", "ape", "cow"]))
    source = load_source(_dataset([1, 2, 3], many, "labels", labels=[[1, 0], [], [2]]))
    assert source.task == "multi_label"
    assert source.classes == ["zebra", "ape", "cow"]
    assert [s.labels for s in source.samples] == [("zebra", "ape"), (), ("cow",)]


def test_texts_are_labels_and_a_single_class_label_of_another_name_serves() -> None:
    assert load_source(_dataset([1, 2], datasets.Value("string"), labels=["b", "a"])).classes == ["a", "b"]
    assert load_source(_dataset([10, 11], column="digit")).classes == ["zebra", "ape"]
    with pytest.raises(DataError, match="has the columns image, kind; it needs"):
        load_source(_dataset([1, 2], datasets.Value("string"), "kind", labels=["b", "a"]))


def test_a_dataset_without_images_says_what_it_has() -> None:
    with pytest.raises(DataError, match="has the columns text, label; none is of the type Image"):
        load_source(datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}))


def test_a_dataset_that_streams_is_refused() -> None:
    with pytest.raises(DataError, match="IterableDataset can only be read front to back"):
        load_source(_dataset([10, 11]).to_iterable_dataset())


@pytest.mark.parametrize("divided", [False, True])
def test_a_saved_dataset_is_found_in_its_folder(tmp_path: Path, divided: bool) -> None:
    data = _dataset([10, 11, 12])
    saved = datasets.DatasetDict({"train": data, "test": _dataset([20, 21])}) if divided else data
    saved.save_to_disk(str(tmp_path / "beans"))
    source = load_source(tmp_path / "beans")
    assert (source.name, source.kind, source.root) == ("beans", "hub", str(tmp_path / "beans"))
    assert _values(source) == [10, 11, 12] + [20, 21] * divided
    assert {s.part for s in source.samples} == ({"train", "test"} if divided else {None})


def test_a_saved_dataset_that_is_damaged_is_said(tmp_path: Path) -> None:
    _dataset([10, 11]).save_to_disk(str(tmp_path / "beans"))
    for file in (tmp_path / "beans").glob("*.arrow"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="was saved by the library datasets but cannot be read"):
        load_source(tmp_path / "beans")


def test_a_saved_dataset_without_the_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _dataset([10, 11]).save_to_disk(str(tmp_path / "beans"))
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install 'vitreous\[hub\]'"):
        load_source(tmp_path / "beans")


# By name. Nothing here asks the network: the library's own loader is replaced.


class _Builder:
    """What `load_dataset_builder` returns, without the hub."""

    def download_and_prepare(self) -> None: ...

    def as_dataset(self) -> datasets.DatasetDict:
        return datasets.DatasetDict({"train": _dataset([10, 11])})


class _CacheBuilder(_Builder): ...


_CacheBuilder.__module__ = "datasets.packaged_modules.cache.cache"


def _replace(monkeypatch: pytest.MonkeyPatch, result: Any) -> list[Any]:
    asked: list[Any] = []

    def load(path: str, config: str | None, *, revision: str | None, **unexpected: Any) -> Any:
        asked.append((path, config, revision, unexpected))
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    return asked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:mnist", ("mnist", None, None, {})),
        ("hf:owner/beans", ("owner/beans", None, None, {})),
        ("hf:owner/beans/small", ("owner/beans", "small", None, {})),
        ("hf:owner/beans@v1.0", ("owner/beans", None, "v1.0", {})),
    ],
)
def test_names_configs_and_revisions_are_passed_on_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: Any
) -> None:
    asked = _replace(monkeypatch, _Builder())
    source = load_source(text)
    assert asked == [expected]
    assert source.name == expected[0].rsplit("/", 1)[-1]
    assert (source.samples[0].path, source.samples[0].part) == (f"{text[3:].split('@')[0]}/train#0", "train")
    assert "from the Hugging Face hub" in source.notes[0]


def test_a_folder_of_the_same_name_is_not_read_by_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _replace(monkeypatch, _Builder())
    (tmp_path / "owner" / "beans").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="'owner/beans' is also a path here"):
        load_source("hf:owner/beans")
    assert asked == []


def test_another_dataset_may_be_the_test_part(monkeypatch: pytest.MonkeyPatch) -> None:
    _replace(monkeypatch, _Builder())
    source = load_source("hf:owner/beans", test="hf:owner/peas")
    assert [(s.path, s.part) for s in source.samples][1:3] == [
        ("owner/beans/train#1", "train"),
        ("owner/peas/train#0", "test"),
    ]


def test_a_cached_copy_is_said_and_never_stands_in_for_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    _replace(monkeypatch, _CacheBuilder())
    assert "because the hub could not be reached" in load_source("hf:owner/beans").notes[0]
    with pytest.raises(DataError, match="does not say whether it holds the revision 'v1'"):
        load_source("hf:owner/beans@v1")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("no route"), r"cannot be fetched \(ConnectionError: no route\).*save_to_disk"),
        (type("DatasetNotFoundError", (Exception,), {})("gone"), r"has no dataset 'owner/beans'.*hf:owner/name"),
        (ValueError("BuilderConfig 'x' not found. Available: ['a']"), r"with the config None.*Available: \['a'\]"),
    ],
)
def test_a_hub_that_cannot_be_read_says_why(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    _replace(monkeypatch, error)
    with pytest.raises(DataError, match=message):
        load_source("hf:owner/beans")


def test_a_malformed_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _replace(monkeypatch, _Builder())
    for text in ("hf:", "hf:a/b/c/d", "hf:a b", "hf:a@"):
        with pytest.raises(UsageError, match="names no dataset of the hub"):
            load_source(text)
    assert asked == []


def test_offline_reads_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _replace(monkeypatch, _Builder())
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"'owner/beans' is not in the cache.*without offline"):
        load_source("hf:owner/beans", offline=True)
    with pytest.raises(UsageError, match="does not say whether it holds the revision"):
        load_source("hf:owner/beans@v1", offline=True)
    place = tmp_path / "owner___beans" / "default" / "0.0.0" / "abc"
    _cache(_dataset([10, 11, 20]), place)
    source = load_source("hf:owner/beans", offline=True)
    assert _values(source) == [10, 11, 20]
    assert "from the cache alone" in source.notes[0]
    assert asked == []


def _cache(data: datasets.Dataset, place: Path) -> None:
    """What the library leaves in its cache after it has fetched a dataset of one split."""
    data.save_to_disk(str(place))
    arrow = next(place.glob("*.arrow"))
    arrow.rename(place / "beans-train.arrow")
    info = data.info.copy()
    info.builder_name, info.dataset_name, info.config_name, info.version = (
        "cache",
        "beans",
        "default",
        datasets.Version("0.0.0"),
    )
    split = datasets.SplitInfo(name="train", num_bytes=1, num_examples=len(data), dataset_name="beans")
    info.splits = datasets.SplitDict({"train": split}, dataset_name="beans")
    info.write_to_directory(str(place))


def test_the_library_is_not_imported_to_tell_other_data_apart() -> None:
    assert not hub.is_dataset({"image": []})
    assert hub.is_dataset(_dataset([10]))
