"""Datasets of the Hugging Face library `datasets` (extra `hub`): by name from the hub, saved to a folder, or as objects.

Images are never decoded by that library: our own decoder sees the bytes, as it does for every other source. Nothing that
a dataset brings is executed; versions of the library that could do so are not supported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitreous.data.sources.labels import LABEL_COLUMNS
from vitreous.data.sources.manifest import list_tables
from vitreous.data.sources.source import PART_NAMES, Listing, folder_name
from vitreous.data.sources.table import IMAGE_COLUMNS, Table, is_label_list, is_plain, make_table
from vitreous.errors import DataError, MissingExtraError, UsageError

HUB_PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<name>[\w.-]+(?:/[\w.-]+){0,2})(?:@(?P<revision>[\w./-]+))?")


def is_dataset(data: object) -> bool:
    """Whether this is an object of the library `datasets`, without importing it."""
    return any(kind.__module__.split(".")[0] == "datasets" for kind in type(data).__mro__)


def is_saved(folder: Path) -> bool:
    """Whether a dataset was saved to this folder by `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in ("dataset_info.json", "state.json")
    )


def read_hub(text: str, *, group: str | None, label_separator: str | None = None, offline: bool = False) -> Listing:
    """A dataset by name: hf:owner/name, hf:owner/name/config, either with @revision.

    offline: only what the cache of `datasets` holds.
    Raises DataError for a dataset that does not exist or cannot be reached, UsageError for a malformed name.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} names no dataset of the hub.",
            "Write hf:owner/name, hf:owner/name/config or hf:owner/name@revision.",
        )
    pieces, revision = match["name"].split("/"), match["revision"]
    name, config = "/".join(pieces[:2]), pieces[2] if len(pieces) > 2 else None
    if offline:
        data = _load_cached(name, config, revision)
        origin = "from the cache alone"
    else:
        data, fresh = _load(name, config, revision)
        origin = "from the Hugging Face hub" if fresh else "from the cache, because the hub could not be reached"
    source = _list(
        data,
        root="",
        name=pieces[min(len(pieces), 2) - 1],
        prefix=f"{match['name']}/",
        group=group,
        label_separator=label_separator,
    )
    return replace(source, notes=[f"The dataset {text.removeprefix(HUB_PREFIX)} {origin}.", *source.notes])


def read_saved(folder: Path, *, group: str | None, label_separator: str | None = None) -> Listing:
    """A folder that `save_to_disk` wrote. Raises DataError where it cannot be read."""
    datasets = _library("A folder saved by the library datasets")
    try:
        data = datasets.load_from_disk(str(folder))
    except Exception as error:  # Arrow's, JSON's and the library's own
        raise DataError(
            f"{str(folder)!r} was saved by the library datasets but cannot be read: {_reason(error)}.",
            "Save it again, or as Parquet.",
        ) from error
    return _list(data, root=str(folder), name=folder_name(folder), group=group, label_separator=label_separator)


def read_dataset(data: Any, *, group: str | None, label_separator: str | None = None) -> Listing:
    """A `datasets.Dataset`, whose part is not known, or a `DatasetDict`, whose keys name the parts."""
    return _list(data, root="", name="dataset", group=group, label_separator=label_separator)


def _library(what: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(what, "hub", "datasets") from error
    return datasets


def _load(name: str, config: str | None, revision: str | None) -> tuple[Any, bool]:
    """The dataset, and whether it is what the hub holds rather than what was cached before."""
    datasets = _library(f"A dataset of the Hugging Face hub ({name})")
    if Path(name).exists():
        raise DataError(
            f"{name!r} is also a path here, which the library datasets would read in place of the hub's dataset.",
            f"Pass {name!r} without 'hf:' to read that, or go to another folder.",
        )
    try:
        builder = datasets.load_dataset_builder(name, config, revision=revision)
        fresh = not type(builder).__module__.startswith("datasets.packaged_modules.cache")
        if not fresh and revision is not None:
            raise DataError(
                f"The hub could not be reached, and the cache does not say whether it holds the revision {revision!r} of {name!r}.",
                "Try again later, or leave out @revision to use what the cache holds.",
            )
        builder.download_and_prepare()
        return builder.as_dataset(), fresh
    except DataError:
        raise
    except Exception as error:  # the library lets through whatever its own libraries raise
        raise _unavailable(name, config, error) from error


def _load_cached(name: str, config: str | None, revision: str | None) -> Any:
    _library(f"A dataset of the Hugging Face hub ({name})")
    from datasets.packaged_modules.cache.cache import Cache  # pyright: ignore[reportMissingImports]

    if revision is not None:
        raise UsageError(
            f"The cache does not say whether it holds the revision {revision!r} of {name!r}.",
            "Leave out @revision, or leave out offline.",
        )
    try:
        builder = Cache(
            dataset_name=name.rsplit("/", 1)[-1], repo_id=name, config_name=config, version="auto", hash="auto"
        )
        return builder.as_dataset()
    except Exception as error:  # as above
        raise DataError(
            f"The dataset {name!r} is not in the cache: {_reason(error)}.",
            "Load it once without offline, or save it with save_to_disk and pass the folder.",
        ) from error


def _unavailable(name: str, config: str | None, error: Exception) -> DataError:
    kind = type(error).__name__
    if kind == "DatasetNotFoundError":
        return DataError(
            f"The hub has no dataset {name!r} that can be read: {_reason(error)}.",
            "Check the spelling (hf:owner/name, then /config); for a gated one, log in with: hf auth login",
        )
    if "onfig" in str(error):
        return DataError(
            f"The dataset {name!r} cannot be read with the config {config!r}: {_reason(error)}.",
            f"Write hf:{name}/CONFIG with one of its configs.",
        )
    return DataError(
        f"The dataset {name!r} cannot be fetched ({kind}: {_reason(error)}).",
        "Check the connection, or download it elsewhere, save it with save_to_disk and pass the folder.",
    )


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split())[:300] or type(error).__name__).rstrip(".")


def _list(
    data: Any, *, root: str, name: str, group: str | None, label_separator: str | None, prefix: str = ""
) -> Listing:
    """prefix: what the paths begin with, so that those of two datasets differ."""
    kind = type(data).__name__
    if kind.startswith("Iterable"):
        raise DataError(
            f"A {kind} can only be read front to back.",
            "Load the dataset without streaming=True, or save it as tar shards.",
        )
    splits: dict[str, Any] = dict(data) if isinstance(data, Mapping) else {"": data}
    used = {split: PART_NAMES.get(split.lower()) for split in splits if not split or split.lower() in PART_NAMES}
    if not used:
        raise DataError(
            f"The dataset {name!r} has no split that is a part, only {', '.join(splits) or 'none'}.",
            "Load it with datasets and pass one split: load_source(dataset['SPLIT']).",
        )
    others = [split for split in splits if split not in used]
    ordered = sorted(used, key=lambda split: used[split] != "train")
    tables = [_table(splits[split], split or name, used[split], group) for split in ordered]
    source = list_tables(
        tables,
        [f"{prefix}{split or name}" for split in ordered],
        root=Path(root),
        name=name,
        kind="hub",
        label_separator=label_separator,
    )
    groups = {sample.group for sample in source.samples} - {None}
    notes = list(source.notes)
    if others:
        notes.append(f"Splits that are no part were left out: {', '.join(others)}.")
    if groups:
        notes.append(f"Groups come from the column {group or 'group'!r}: {len(groups):,} groups.")
    return replace(source, root=root, notes=notes)


def _table(split: Any, name: str, part: str | None, group: str | None) -> Table:
    features: Mapping[str, Any] = split.features
    image = _image_column(features, name)
    light = [column for column in features if column != image and _is_light(column, features[column])]
    plain = split.select_columns(light).with_format("arrow")[:]
    label = next((column for wanted in LABEL_COLUMNS for column in features if column.lower() == wanted), "")
    if not label and len(named := [column for column in light if _class_names(features[column])]) == 1:
        label = named[0]  # "fine_label" or "digit" is the label where nothing else has class names
        plain = plain.rename_columns(["label" if column == label else column for column in light])
    return make_table(
        plain,
        file=Path(name),
        part=part,
        group=group,
        cells=_cells(split, image, features[image]),
        all_columns=list(features),
        class_names=_class_names(features.get(label)),
    )


def _image_column(features: Mapping[str, Any], name: str) -> str:
    images = [column for column, feature in features.items() if type(feature).__name__ == "Image"]
    usual = [column for wanted in IMAGE_COLUMNS for column in features if column.lower() == wanted]
    column = next((column for column in usual if column in images), None) or next(iter([*images, *usual]), None)
    if column is None:
        raise DataError(
            f"The dataset {name!r} has the columns {', '.join(features) or '(none)'}; none is of the type Image.",
            "Cast the column: dataset.cast_column('NAME', datasets.Image()).",
        )
    return column


def _cells(split: Any, column: str, feature: Any) -> Callable[[int], Any]:
    images = split.select_columns([column]).with_format(None)
    if type(feature).__name__ == "Image":
        images = images.cast_column(column, type(feature)(decode=False))
    return lambda row: images[row][column]


def _is_light(column: str, feature: Any) -> bool:
    if type(feature).__name__ in ("Value", "ClassLabel"):
        return is_plain(_arrow_type(feature))
    return column.lower() in LABEL_COLUMNS and is_label_list(_arrow_type(feature))


def _arrow_type(feature: Any) -> Any:
    from datasets.features.features import get_nested_type  # pyright: ignore[reportMissingImports]

    return get_nested_type(feature)


def _class_names(feature: Any) -> Sequence[str] | None:
    """Names of a ClassLabel, or of a list of these."""
    inner: Any = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)
    return list(inner.names) if type(inner).__name__ == "ClassLabel" else None
