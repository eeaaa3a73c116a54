"""Tar shards in the WebDataset layout as a source, and as a stream of shuffled samples.

A shard that lies on the disk uncompressed is read where it lies: one pass over its headers, then any member by its
offset. A compressed one, or one at a web address, is unpacked into a temporary folder first; see `spool`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.data.sources.labels import find_separator, labels_note, name_classes, split_labels
from vitreous.data.sources.metadata import parse_weight, plain_text
from vitreous.data.sources.shard_files import ShardFiles
from vitreous.data.sources.shard_index import LABEL_KINDS, Entry, index_shard
from vitreous.data.sources.shard_names import Shard, named_shards, shards_in, shards_root
from vitreous.data.sources.shard_order import BUFFER, shard_order
from vitreous.data.sources.source import (
    LABEL_JOINT,
    NO_METADATA,
    PARTS,
    BadFile,
    Listing,
    Sample,
    Source,
    folder_name,
)
from vitreous.data.sources.spool import Spool
from vitreous.data.sources.tar_headers import Window
from vitreous.errors import DataError, UsageError

CLASS_FILES = ("classes.txt", "classnames.txt")
"""Beside the shards: a name a line, for the labels 0, 1 ..."""


@dataclass
class _Found:
    """What the shards hold, all of them."""

    entries: list[Entry] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """The shard of each entry."""
    bad: list[BadFile] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def read_shards(
    data: str | Path,
    *,
    group: str | None = None,
    label_separator: str | None = None,
    spool: Spool | None = None,
) -> Listing:
    """The images in a folder of shards, in one shard, or in those a pattern such as x-{000..009}.tar stands for.

    group: the field of the .json members that names the groups; their field `group` when None.
    label_separator: what stands between several labels; see `find_separator`. spool: for shards that must be unpacked.
    Raises DataError for shards that are absent or cannot be fetched; what is damaged is among the unusable entries.
    """
    folder = Path(data).expanduser()
    shards = shards_in(folder) if folder.is_dir() else named_shards(str(data))
    if not shards:
        raise DataError(
            f"{str(data)!r} holds no tar shards.", "Pass a folder of .tar files that holds no images itself."
        )
    root = str(folder) if folder.is_dir() else shards_root(str(data))
    files = ShardFiles(shards, spool)
    found = _index(files)
    kind = next((kind for kind in LABEL_KINDS if any(entry.kind == kind for entry in found.entries)), "")
    labels, several = _labels(found.entries, kind, label_separator)
    names = _class_names(Path(root)) if not shards[0].is_web else None
    label_of, classes = _name(labels, names)
    samples, unusable, positions = _samples(found, shards, labels, label_of, classes, kind, group)
    where = np.array([(found.entries[i].offset, found.entries[i].size) for i in positions], np.int64).reshape(-1, 2)
    numbers = np.array([found.numbers[i] for i in positions], np.int32)

    def read(index: int) -> bytes:
        return files.read(int(numbers[index]), int(where[index, 0]), int(where[index, 1]))

    columns = {name: None for entry in found.entries for name in entry.fields or ()}
    source = Listing(
        name=shards_name(data),
        kind="shards",
        root=root,
        samples=samples,
        classes=classes,
        notes=_notes(files, samples, kind, names is not None, unusable, found.ignored),
        reader=read,
        unusable=unusable,
        columns=tuple(columns),
        task="multi_label" if several else "single_label",
        shards=tuple(count for count in np.bincount(numbers, minlength=len(shards)).tolist() if count),
    )
    groups = {sample.group for sample in samples} - {None}
    if groups:
        note = f"Groups come from the field {group or 'group'!r} of the .json members: {len(groups):,} groups."
        source = replace(source, notes=[*source.notes, note])
    return source


def stream(
    data: str | Path | Source, *, seed: int, epoch: int = 0, buffer: int = BUFFER, start: int = 0
) -> Iterator[tuple[Sample, bytes]]:
    """One epoch of samples with the bytes of their images, shards shuffled and passed through a shuffle buffer.

    start: samples to skip; the rest comes exactly as it would have. Bytes are read as they are asked for.
    Raises UsageError for a source that does not lie in shards.
    """
    source = read_shards(data) if isinstance(data, str | Path) else data
    sizes = getattr(source, "shards", ())
    if not sizes:
        raise UsageError(f"{source.name!r} does not lie in tar shards.", "Pass a folder of .tar files.")
    for index in shard_order(sizes, seed=seed, epoch=epoch, buffer=buffer)[start:].tolist():
        yield source.samples[index], source.open(index)


def _index(files: ShardFiles) -> _Found:
    found = _Found()
    for number, shard in enumerate(files.shards):
        try:
            file = files.file(number)
        except OSError as error:
            found.bad.append(BadFile(shard.name, f"cannot be read ({error.strerror or type(error).__name__})"))
            continue
        index = index_shard(Window(file.read_at), file.length, shard.name)
        damage = files.spool.damage.get(number)
        if damage:
            index.bad = [bad for bad in index.bad if bad.path != shard.name]  # the consequence of the same damage
            index.bad.append(BadFile(shard.name, damage))
        found.entries += index.entries
        found.numbers += [number] * len(index.entries)
        found.bad += index.bad
        found.ignored += index.ignored
    return found


def _labels(entries: Sequence[Entry], kind: str, forced: str | None) -> tuple[list[Any], bool]:
    """The stored label of each entry (str, a tuple of these, or None), and whether images may have several."""
    values = [entry.label if entry.kind == kind else None for entry in entries]
    column = "labels" if any(entry.field == "labels" for entry in entries) and kind == ".json" else "label"
    separator = None if kind == "folder" and forced is None else find_separator([(column, values)], forced)
    if separator is None:
        return values, False
    return list(split_labels("label", values, separator)), True


def _name(labels: Sequence[Any], names: Sequence[str] | None) -> tuple[dict[Any, str], list[str]]:
    distinct = {
        one for label in labels if label is not None for one in (label if isinstance(label, tuple) else [label])
    }
    numbers = {text: int(text) for text in distinct if re.fullmatch(r"[0-9]{1,9}", text)}
    if names is None or len(numbers) < len(distinct):
        return name_classes(distinct, {})
    beyond = max(numbers.values(), default=0)
    if beyond >= len(names):
        raise DataError(
            f"A sample has the label {beyond}, but {' or '.join(CLASS_FILES)} names only {len(names)} classes, from 0 on.",
            "Add the missing lines, or remove the file.",
        )
    return name_classes(distinct, {text: names[number] for text, number in numbers.items()}, "beside the shards")


def _class_names(root: Path) -> list[str] | None:
    file = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    if file is None:
        return None
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").rstrip().split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(file)!r} cannot be read ({error}).", "Save it as UTF-8, one class a line.") from error
    if "" in names:
        raise DataError(f"Line {names.index('') + 1} of {str(file)!r} is blank.", "Write one class a line.")
    return names


def _samples(
    found: _Found,
    shards: Sequence[Shard],
    labels: Sequence[Any],
    label_of: dict[Any, str],
    classes: Sequence[str],
    kind: str,
    group: str | None,
) -> tuple[list[Sample], list[BadFile], list[int]]:
    """Samples, what cannot be used, and the entry of each sample."""
    rank = {name: number for number, name in enumerate(classes)}
    samples, unusable, positions = [], list(found.bad), []
    for position, (entry, number, stored) in enumerate(zip(found.entries, found.numbers, labels, strict=True)):
        path = f"{shards[number].name}#{entry.name}"
        weight = parse_weight((entry.fields or {}).get("weight"))
        fault = entry.fault or ("" if weight is not None else "has a weight that is no finite number of at least 0")
        if stored is None and not fault:
            fault = f"has no label (no {kind})" if kind not in ("", "folder") else "has no label"
        if fault or weight is None:
            unusable.append(BadFile(path, fault))
            continue
        several = None
        if isinstance(stored, tuple):
            several = tuple(sorted((label_of[one] for one in stored), key=rank.__getitem__))
        label = label_of[stored] if several is None else LABEL_JOINT.join(several)
        fields = {name: text for name, value in (entry.fields or {}).items() if (text := plain_text(value)) is not None}
        fields.pop("weight", None)
        own = fields.pop(group or "group", None)
        samples.append(Sample(path, label, own, shards[number].part, several, weight, fields or NO_METADATA))
        positions.append(position)
    return samples, unusable, positions


def shards_name(data: str | Path) -> str:
    """A short name for what a path, a pattern or an address of shards holds, usable as a run folder's name."""
    if Path(data).expanduser().is_dir():
        return folder_name(Path(data).expanduser())
    stem = re.sub(r"\{[^{}]*\}", "", re.split(r"[?#]", str(data), maxsplit=1)[0].replace("\\", "/").rsplit("/", 1)[-1])
    stem = re.sub(r"[^\w.-]+", "-", re.sub(r"\.(tar(\.\w+)?|t\w+)$", "", stem, flags=re.IGNORECASE)).strip("-.")
    return stem or folder_name(Path(shards_root(str(data))))


def _notes(
    files: ShardFiles,
    samples: Sequence[Sample],
    kind: str,
    named: bool,
    unusable: Sequence[BadFile],
    ignored: Counter[str],
) -> list[str]:
    origin = "the folders inside" if kind == "folder" else f"the {kind} members"
    count = len(files.shards)
    note = f"{count:,} tar shard{'s' if count != 1 else ''}: {len(samples):,} images, labels from {origin}."
    parts = Counter(sample.part for sample in samples)
    if any(parts[part] for part in PARTS):
        note += f" Parts by the shards' names: {', '.join(f'{p} {parts[p]:,}' for p in PARTS if parts[p])}."
    notes = [note]
    if named:
        notes.append("A list of classes beside the shards names the labels.")
    if samples and samples[0].labels is not None:
        notes.append(labels_note(len(sample.label_names) for sample in samples))
    if unusable:
        notes.append(f"{len(unusable):,} entries cannot be used; the first: {unusable[0].path} {unusable[0].reason}.")
    if ignored:
        kinds = ", ".join(f"{name} {number:,}" for name, number in ignored.most_common(5))
        notes.append(f"{ignored.total():,} members were ignored ({kinds}).")
    if not all(shard.is_direct for shard in files.shards):
        gigabytes = files.spool.max_bytes / 1e9
        notes.append(f"Shards are unpacked into a temporary folder of at most {gigabytes:.3g} GB, removed at the end.")
    return notes
