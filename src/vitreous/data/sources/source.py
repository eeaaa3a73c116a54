"""What a data set is to the rest of vitreous: a list of labelled images, each of which can be opened.

Sample     one labelled image: path, label, group, part
BadFile    one entry that cannot be used, and why
Source     the protocol every other room sees
Listing    the one implementation; digits, folder, manifest, shards and hub differ only in how they fill it
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias

import numpy as np

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


Task: TypeAlias = Literal["single_label", "multi_label"]

LABEL_JOINT = "|"
"""Stands between the labels of an image in `Sample.label` where it may have several."""

NO_METADATA: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image."""

    path: str
    """Relative to the root of the data, with forward slashes; "train.parquet#17" for bytes in a table, "a.tar#1.jpg"
    for those in a shard."""
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

    @property
    def label_names(self) -> tuple[str, ...]:
        """Every label of the image: one for a single-label source, any number for a multi-label one."""
        return (self.label,) if self.labels is None else self.labels


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
        """digits, folder, manifest, shards or hub."""
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
    def task(self) -> Task:
        """multi_label where an image may have several labels or none."""
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
    task: Task = "single_label"
    shards: tuple[int, ...] = ()
    """Samples in each shard, in order, so that training can read shards nearly front to back; empty for other sources.
    After `select` these are the runs of samples that lie in one shard."""

    def open(self, index: int) -> ImageSource:
        return self.reader(index)

    def select(self, indices: Sequence[int]) -> Listing:
        chosen = [int(index) for index in indices]
        return replace(
            self,
            samples=[self.samples[index] for index in chosen],
            reader=lambda position: self.reader(chosen[position]),
            shards=self._shards_of(chosen),
        )

    def _shards_of(self, chosen: Sequence[int]) -> tuple[int, ...]:
        if not self.shards or not len(chosen):
            return ()
        shard = np.searchsorted(np.cumsum(self.shards), np.asarray(chosen), side="right")  # (len(chosen),)
        starts = np.concatenate([[0], np.flatnonzero(np.diff(shard)) + 1, [len(shard)]])
        return tuple(np.diff(starts).tolist())


def join(main: Listing, other: Listing, part: str) -> Listing:
    """Add a separately given part. Paths of `other` are rewritten relative to the root of `main`, and images that both
    list belong to the part. Where `other` is itself divided and has a part of this name, only that one is taken.

    Raises DataError where the images of `other` may have several labels and those of `main` may not.
    """
    if other.task == "multi_label" and main.task == "single_label":
        raise DataError(
            f"The images of {other.name!r} (--{part}) may have several labels each, those of {main.name!r} have one.",
            "Write the labels in the same form in both; a column called 'labels' may hold several in each row.",
        )
    named = [index for index, sample in enumerate(other.samples) if sample.part == part]
    other = other.select(named or range(len(other.samples)))
    rewrite = _rewriter(other.root, main.root)
    added = [replace(sample, path=rewrite(sample.path), part=part) for sample in other.samples]
    taken = {sample.path for sample in added}
    main = main.select([index for index, sample in enumerate(main.samples) if sample.path not in taken])
    strangers = set(other.classes) - set(main.classes)
    classes = natural_order({*main.classes, *strangers}) if strangers else main.classes
    first, count, samples = main, len(main.samples), main.samples + added
    return replace(
        main,
        samples=ordered_labels(samples, classes) if main.task == "multi_label" else samples,
        classes=classes,
        notes=[*main.notes, *(f"--{part}: {note}" for note in other.notes)],
        reader=lambda index: first.reader(index) if index < count else other.reader(index - count),
        unusable=main.unusable + [BadFile(rewrite(bad.path), bad.reason) for bad in other.unusable],
        shards=main.shards + other.shards if main.shards and other.shards else (),
    )


def ordered_labels(samples: Iterable[Sample], classes: Sequence[str]) -> list[Sample]:
    """The samples as those of a multi-label source: labels in the order of the classes, `label` written from them."""
    rank = {name: number for number, name in enumerate(classes)}
    relabelled = []
    for sample in samples:
        labels = tuple(sorted(sample.label_names, key=rank.__getitem__))
        relabelled.append(replace(sample, labels=labels, label=LABEL_JOINT.join(labels)))
    return relabelled


def check_trainable(source: Source) -> None:
    """Raise DataError where no classifier can be trained: fewer than two classes (one label that some images lack
    suffices where there may be several), no training images, none that counts, a class that validation or test holds
    and training does not.
    """
    if len(source.classes) < 2 and all(source.classes == list(sample.label_names) for sample in source.samples):
        found = f"only the class {source.classes[0]!r}" if source.classes else "no class"
        raise DataError(
            f"A classifier needs at least two classes; {source.root or source.name!r} holds {found}.",
            "Put the images of each class into a folder of their own: DATA/CLASS/image.jpg.",
        )
    labels: dict[str, set[str]] = {}
    weight = 0.0
    for sample in source.samples:
        part = sample.part or "train"
        labels.setdefault(part, set()).update(sample.label_names)
        weight += sample.weight if part == "train" else 0.0
    if "train" not in labels:
        held = " and ".join(part for part in PARTS if part in labels)
        raise DataError(
            f"{source.root or source.name!r} holds no training images, only {held}.",
            "Pass data with a train part, or the folder whose subfolders are the classes.",
        )
    if weight == 0:
        raise DataError("Every training image has the weight 0.", "Give the images that count a larger one.")
    for part in ("val", "test"):
        strangers = natural_order(labels.get(part, set()) - labels["train"])
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
    if "://" in root:
        return lambda path: f"{root}/{path}"
    if not root or not to or "://" in to:
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
