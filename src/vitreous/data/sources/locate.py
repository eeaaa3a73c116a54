"""What kind of data stands at the place the user named, and its listing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitreous.data.sources.digits import read_digits
from vitreous.data.sources.folder import read_folder
from vitreous.data.sources.groups import GROUPS_FILE
from vitreous.data.sources.hub import HUB_PREFIX, is_dataset, is_saved, read_dataset, read_hub, read_saved
from vitreous.data.sources.manifest import read_manifest
from vitreous.data.sources.shard_names import SHARD_SUFFIXES, is_shard_name, is_web, shards_in
from vitreous.data.sources.shards import read_shards, shards_name
from vitreous.data.sources.source import PART_NAMES, Listing, Source, folder_name
from vitreous.data.sources.table import TABLE_SUFFIXES
from vitreous.errors import DataError, UsageError, nearest

_PART_FILE = re.compile(rf"({'|'.join(PART_NAMES)})(-\d+-of-\d+)?\.(parquet|csv|tsv)", re.IGNORECASE)


def read_any(
    data: Any,
    *,
    group: str | None,
    label_separator: str | None = None,
    offline: bool = False,
    exclude: Sequence[Path] = (),
    labelled: bool = True,
) -> Listing:
    """The listing of whatever `data` is; see `load_source`. exclude: folders to leave out of a folder of images."""
    if isinstance(data, str | Path):
        source = _read_place(str(data), group, label_separator, offline, exclude, labelled)
    elif is_dataset(data):
        source = read_dataset(data, group=group, label_separator=label_separator)
    else:
        source = _wrap(data)
    if label_separator and source.kind not in ("manifest", "shards", "hub"):
        raise UsageError(
            f"A label separator {label_separator!r} was given, but the labels of {source.name!r} stand in no cells to divide.",
            "Leave it out; it is for tables, tar shards and datasets.",
        )
    return source


def short_name(data: str) -> str:
    """What to call whatever `data` is, without reading it: fit for a folder's name."""
    if data == "digits":
        return data
    if data.startswith(HUB_PREFIX):
        return data.removeprefix(HUB_PREFIX).partition("@")[0].split("/")[:2][-1] or "data"
    if not is_path(data) or is_shard_name(data):
        return shards_name(data)
    return folder_name(Path(data).expanduser())


def in_words(data: object) -> str:
    """What to call the data in messages and files: as the user typed them; objects by their kind, not their content."""
    return str(data) if isinstance(data, str | Path) else f"a {type(data).__name__} in memory"


def is_path(data: str) -> bool:
    """Whether `data` names a file or folder here, and not the digits, the hub, the web or a pattern of shards."""
    if data == "digits" or data.startswith(HUB_PREFIX) or is_web(data):
        return False
    return Path(data).expanduser().exists() or not ("{" in data and is_shard_name(data))


def _read_place(
    data: str, group: str | None, label_separator: str | None, offline: bool, exclude: Sequence[Path], labelled: bool
) -> Listing:
    if data == "digits":
        return read_digits()
    if data.startswith(HUB_PREFIX):
        return read_hub(data, group=group, label_separator=label_separator, offline=offline)
    if is_web(data):
        _check_web(data, offline)
        return read_shards(data, group=group, label_separator=label_separator)
    path = Path(data).expanduser()
    if path.is_dir():
        return _read_folder(path, group, label_separator, exclude, labelled)
    if is_shard_name(data) and (path.exists() or "{" in data):
        return read_shards(data, group=group, label_separator=label_separator)
    if not path.exists():
        raise _absent(path)
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(
            f"{str(path)!r} is a file but no table: known are {', '.join(TABLE_SUFFIXES)}, "
            f"and tar shards {', '.join(SHARD_SUFFIXES)}.",
            "Pass a folder of class folders (unpack other archives first), a CSV or a Parquet file.",
        )
    return read_manifest([(path, None)], path.parent, group=group, label_separator=label_separator)


def _read_folder(
    path: Path, group: str | None, label_separator: str | None, exclude: Sequence[Path], labelled: bool
) -> Listing:
    part_files = _part_files(path)
    if part_files:
        return read_manifest(part_files, path, group=group, label_separator=label_separator)
    if is_saved(path):
        return read_saved(path, group=group, label_separator=label_separator)
    table = _only_table(path)
    if table is not None:
        return read_manifest([(table, None)], path, group=group, label_separator=label_separator)
    if shards_in(path):
        return read_shards(path, group=group, label_separator=label_separator)
    source = read_folder(path, group=group, exclude=exclude, labelled=labelled)
    if len(source.classes) == 1:
        _suggest_inner(path / source.classes[0], path)
    return source


def _wrap(data: Source) -> Listing:
    """A ready source: a `Listing` as it is, any other behind one."""
    if isinstance(data, Listing):
        return data
    needed = ("name", "kind", "root", "samples", "classes", "task", "notes", "unusable", "open", "select")
    lacking = [name for name in needed if not hasattr(data, name)]
    if lacking:
        raise DataError(
            f"A {type(data).__name__} is no data: it lacks {', '.join(lacking[:5])}.",
            "Pass a path, 'digits', 'hf:owner/name', a datasets.Dataset, or an object with the attributes of Source.",
        )
    return Listing(
        name=data.name,
        kind=data.kind,
        root=data.root,
        samples=list(data.samples),
        classes=list(data.classes),
        notes=list(data.notes),
        reader=data.open,
        unusable=list(data.unusable),
        columns=getattr(data, "columns", tuple(data.samples[0].metadata) if data.samples else ()),
        task=data.task,
        shards=getattr(data, "shards", ()),
    )


def _check_web(address: str, offline: bool) -> None:
    if offline:
        raise UsageError(
            f"{address!r} is a web address, and reading from the web was switched off.",
            "Leave out offline, or download the shards and pass their folder.",
        )
    if not is_shard_name(address):
        raise UsageError(
            f"{address!r} is a web address, but not of tar shards ({', '.join(SHARD_SUFFIXES)}).",
            "Download other data and pass its folder, or name shards such as https://host/x-{000..009}.tar.",
        )


def _part_files(folder: Path) -> list[tuple[Path, str | None]]:
    """Tables named after parts, in the folder or, as Hugging Face lays them out, in its subfolder `data`."""
    for place in (folder, folder / "data"):
        found = []
        for file in sorted(place.iterdir()) if place.is_dir() else []:
            match = _PART_FILE.fullmatch(file.name)
            if match and file.is_file():
                found.append((file, PART_NAMES[match[1].lower()]))
        if found:
            # Training first: its columns are the ones that messages and `--group` speak of.
            return sorted(found, key=lambda entry: (entry[1] != "train", entry[0].name))
    return []


def _only_table(folder: Path) -> Path | None:
    """The single table of a folder that has no subfolders with class names, only images or bytes listed in it."""
    tables = [file for file in folder.iterdir() if file.suffix.lower() in TABLE_SUFFIXES and file.name != GROUPS_FILE]
    folders = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return tables[0] if len(tables) == 1 and len(folders) <= 1 else None


def _suggest_inner(inner: Path, outer: Path) -> None:
    """An unpacked archive often wraps the class folders in one more folder."""
    folders = [entry for entry in inner.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if len(folders) > 1:
        raise DataError(
            f"{str(outer)!r} holds a single class folder, {inner.name!r}, which holds {len(folders)} folders itself.",
            f"Did you mean {str(inner)!r}?",
        )


def _absent(path: Path) -> DataError:
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    siblings = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    close = nearest(path.name, siblings)
    hint = (
        f"Did you mean {str(parent / close[0])!r}?"
        if close
        else "Pass a folder, a CSV or Parquet file, tar shards, hf:owner/name, or digits."
    )
    return DataError(f"There is no {str(path)!r}.", hint)
