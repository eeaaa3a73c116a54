"""What a data set is to the rest of vitreous: a list of labelled images, each of which can be opened.

Sample     one labelled image: path, label, group, part
BadFile    one entry that cannot be used, and why
Source     the protocol every other room sees
Listing    the one implementation; digits, folder and manifest differ only in how they fill it
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from vitreous.errors import DataError
from vitreous.inputs import ImageSource

PARTS = ("train", "val", "test")

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Spellings of the parts that folders, file names and columns use, in lower case."""


NO_METADATA: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Sample:
    """One labelled image."""

    path: str
    """Relative to the root of the data, with forward slashes; "train.parquet#17" for bytes in a table."""
    label: str
    """Name of its class; of several labels, their names joined by "|" in the order of the classes."""
    group: str | None
    """Images of one group (a patient, a scene) must stay in one part; None where nothing is known."""
    part: str | None
    """train, val or test where the data says so."""
    labels: tuple[str, ...] | None = None
    """All labels of an image that may have several (or none); None where each image has exactly one."""
    weight: float = 1.0
    """How much the image counts in the training loss; at least 0."""
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA, compare=False, repr=False)
    """The other columns the data offers, as text; empty cells are absent."""


@dataclass(frozen=True)
class BadFile:
    """An entry of the data that cannot be used."""

    path: str
    reason: str
    """Completes the sentence that begins with the path: "is truncated ..."."""


class Source(Protocol):
    """Where images and labels come from. `open` may be called from several threads."""

    @property
    def name(self) -> str:
        """Short, and fit for a folder's name."""
        ...

    @property
    def kind(self) -> str:
        """digits, folder or manifest."""
        ...

    @property
    def root(self) -> str:
        """What the paths are relative to; empty for embedded data."""
        ...

    @property
    def samples(self) -> list[Sample]: ...

    @property
    def classes(self) -> list[str]:
        """Names in the order people expect: natural order, or numeric order of integer labels."""
        ...

    @property
    def notes(self) -> list[str]:
        """Sentences about what was found and decided."""
        ...

    @property
    def unusable(self) -> list[BadFile]:
        """Entries found unusable before any image was decoded, such as rows without a label."""
        ...

    def open(self, index: int) -> ImageSource:
        """What `vitreous.inputs.open_image` takes, for one sample."""
        ...

    def select(self, indices: Sequence[int]) -> Source:
        """The same data with only these samples, in this order."""
        ...


@dataclass(frozen=True)
class Listing:
    """A `Source` held as lists."""

    name: str
    kind: str
    root: str
    samples: list[Sample]
    classes: list[str]
    notes: list[str]
    reader: Callable[[int], ImageSource]
    unusable: list[BadFile] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    """Columns that `--group` may name."""

    def open(self, index: int) -> ImageSource:
        return self.reader(index)

    def select(self, indices: Sequence[int]) -> Listing:
        chosen = [int(index) for index in indices]
        return replace(
            self,
            samples=[self.samples[index] for index in chosen],
            reader=lambda position: self.reader(chosen[position]),
        )


def join(main: Listing, other: Listing, part: str) -> Listing:
    """Add a separately given part. Paths of `other` are rewritten relative to the root of `main`, and images that both
    list belong to the part. Where `other` is itself divided and has a part of this name, only that one is taken.
    """
    named = [index for index, sample in enumerate(other.samples) if sample.part == part]
    other = other.select(named or range(len(other.samples)))
    rewrite = _rewriter(other.root, main.root)
    added = [Sample(rewrite(sample.path), sample.label, sample.group, part) for sample in other.samples]
    taken = {sample.path for sample in added}
    main = main.select([index for index, sample in enumerate(main.samples) if sample.path not in taken])
    strangers = set(other.classes) - set(main.classes)
    first, count = main, len(main.samples)
    return replace(
        main,
        samples=main.samples + added,
        classes=natural_order({*main.classes, *strangers}) if strangers else main.classes,
        notes=[*main.notes, *(f"--{part}: {note}" for note in other.notes)],
        reader=lambda index: first.reader(index) if index < count else other.reader(index - count),
        unusable=main.unusable + [BadFile(rewrite(bad.path), bad.reason) for bad in other.unusable],
    )


def check_trainable(source: Source) -> None:
    """Raise DataError where no classifier can be trained: fewer than two classes, no training images, a class that
    validation or test holds and training does not.
    """
    if len(source.classes) < 2:
        found = f"only the class {source.classes[0]!r}" if source.classes else "no class"
        raise DataError(
            f"A classifier needs at least two classes; {source.root or source.name!r} holds {found}.",
            "Put the images of each class into a folder of their own: DATA/CLASS/image.jpg.",
        )
    labels = {part: {sample.label for sample in source.samples if (sample.part or "train") == part} for part in PARTS}
    if not labels["train"]:
        held = " and ".join(part for part in PARTS if labels[part])
        raise DataError(
            f"{source.root or source.name!r} holds no training images, only {held}.",
            "Pass data with a train part, or the folder whose subfolders are the classes.",
        )
    for part in ("val", "test"):
        strangers = natural_order(labels[part] - labels["train"])
        if strangers:
            raise DataError(
                f"The {part} part has the class {_listed(strangers)}, which no training image has; "
                f"training has {_listed(natural_order(labels['train']))}.",
                f"Add training images, correct the name, or leave it out: --ignore-classes {' '.join(strangers[:5])}",
            )


def natural_key(text: str) -> tuple[list[str | int], str]:
    """Sort key under which "image10" comes after "image9"."""
    pieces = re.split(r"(\d+)", text.casefold())
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)], text


def natural_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=natural_key)


def folder_name(path: Path) -> str:
    """A short name for a data set at this path, usable as a run folder's name on every system."""
    resolved = path.resolve()
    name = resolved.name if resolved.is_dir() else resolved.stem
    if name.lower() in PART_NAMES:
        name = resolved.parent.name
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"


def _rewriter(root: str, to: str) -> Callable[[str], str]:
    """Turns paths below `root` into paths below `to`: "cat/1.jpg" into "../val/cat/1.jpg"."""
    if not root or not to:
        return lambda path: f"{Path(root).as_posix()}/{path}" if root else path
    try:
        outward, inward = (Path(os.path.relpath(*pair)).as_posix() + "/" for pair in ((root, to), (to, root)))
    except ValueError:  # another drive
        return lambda path: f"{Path(root).as_posix()}/{path}"
    if outward == "./":
        return lambda path: path
    return lambda path: path[len(inward) :] if path.startswith(inward) else outward + path


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
