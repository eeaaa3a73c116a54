"""From what the user typed to a `Source`: the embedded digits, a folder of images, or a table that lists them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from vitreous.data.sources.digits import read_digits
from vitreous.data.sources.folder import LAYOUT, read_folder
from vitreous.data.sources.groups import GROUPS_FILE, group_by_pattern
from vitreous.data.sources.manifest import TABLE_SUFFIXES, read_manifest
from vitreous.data.sources.source import PART_NAMES, Listing, check_trainable, join
from vitreous.errors import DataError, UsageError, nearest, unknown_name

_PART_FILE = re.compile(rf"({'|'.join(PART_NAMES)})(-\d+-of-\d+)?\.(parquet|csv|tsv)", re.IGNORECASE)


def load_source(
    data: str | Path,
    *,
    group: str | None = None,
    val: Path | None = None,
    test: Path | None = None,
    ignore_classes: tuple[str, ...] = (),
    trainable: bool = True,
) -> Listing:
    """Find out what `data` is and list its images; nothing is decoded.

    group: a column of the manifest or of groups.csv, or else a regular expression on the path.
    val, test: a folder of class folders or a manifest, when these parts lie elsewhere.
    ignore_classes: class names to leave out.
    trainable: also refuse what no classifier can be trained on; off for data that is only to be evaluated.
    Raises DataError for data that cannot be used, UsageError for a group or a class name that does not fit it.
    """
    elsewhere = [Path(path) for path in (val, test) if path is not None]
    source = _read(data, group, elsewhere)
    for part, path in (("val", val), ("test", test)):
        if path is None:
            continue
        if any(sample.part == part for sample in source.samples):
            raise UsageError(
                f"--{part} {str(path)!r} was given, but {str(data)!r} has a {part} part of its own.",
                f"Leave out --{part}, or pass the folder with the training images alone.",
            )
        source = join(source, _read(path, group, []), part)
    if not source.samples:
        reason = f": {source.unusable[0].path} {source.unusable[0].reason}" if source.unusable else ""
        raise DataError(f"{str(data)!r} holds no labelled image{reason}.", LAYOUT)
    if group is not None and group not in source.columns:
        source = group_by_pattern(source, group)
    source = _without(source, ignore_classes)
    if trainable:
        check_trainable(source)
        source = replace(source, notes=[*source.notes, *_untested(source)])
    return source


def _read(data: str | Path, group: str | None, exclude: list[Path]) -> Listing:
    if str(data) == "digits":
        return read_digits()
    path = Path(data).expanduser()
    if not path.exists():
        raise _absent(path)
    if path.is_file():
        if path.suffix.lower() not in TABLE_SUFFIXES:
            raise DataError(
                f"{str(path)!r} is a file but no table: known are {', '.join(TABLE_SUFFIXES)}.",
                "Pass a folder of class folders (unpack archives first), a CSV or a Parquet file.",
            )
        return read_manifest([(path, None)], path.parent, group=group)
    part_files = _part_files(path)
    if part_files:
        return read_manifest(part_files, path, group=group)
    table = _only_table(path)
    if table is not None:
        return read_manifest([(table, None)], path, group=group)
    source = read_folder(path, group=group, exclude=exclude)
    if len(source.classes) == 1:
        _suggest_inner(path / source.classes[0], path)
    return source


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
    hint = f"Did you mean {str(parent / close[0])!r}?" if close else "Pass a folder, a CSV or Parquet file, or digits."
    return DataError(f"There is no {str(path)!r}.", hint)


def _without(source: Listing, ignore: tuple[str, ...]) -> Listing:
    if not ignore:
        return source
    for name in ignore:
        if name not in source.classes:
            raise unknown_name("class", name, source.classes)
    kept = [index for index, sample in enumerate(source.samples) if sample.label not in ignore]
    left_out = len(source.samples) - len(kept)
    return replace(
        source.select(kept),
        classes=[name for name in source.classes if name not in ignore],
        notes=[*source.notes, f"Classes left out: {', '.join(ignore)} ({left_out:,} images)."],
    )


def _untested(source: Listing) -> list[str]:
    """Sentences about classes that a given part lacks: no error, but no number for them either."""
    notes = []
    for part in ("val", "test"):
        present = {sample.label for sample in source.samples if sample.part == part}
        absent = [name for name in source.classes if name not in present]
        if present and absent:
            notes.append(f"The {part} part has no image of: {', '.join(absent[:10])}.")
    return notes
