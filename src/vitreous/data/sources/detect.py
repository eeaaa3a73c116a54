"""From what the user typed to a `Source`: one listing, its separately given parts, its groups, and the first checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitreous.data.sources.folder import LAYOUT
from vitreous.data.sources.groups import FOUND_GROUPS, group_by_pattern, with_groups
from vitreous.data.sources.locate import read_any
from vitreous.data.sources.source import LABEL_JOINT, Listing, Sample, Source, check_trainable, join
from vitreous.errors import DataError, UsageError, unknown_name


def load_source(
    data: str | Path | Source | Any,
    *,
    group: str | None = None,
    val: str | Path | None = None,
    test: str | Path | None = None,
    ignore_classes: tuple[str, ...] = (),
    trainable: bool = True,
    label_separator: str | None = None,
    offline: bool = False,
    labelled: bool = True,
) -> Listing:
    """Find out what `data` is and list its images; nothing is decoded.

    data: "digits"; a folder of images, of tables or of tar shards; a table; a shard, or a pattern of shards such as
        x-{000..009}.tar, on the disk or at a web address; hf:owner/name for a dataset of the Hugging Face hub; a
        datasets.Dataset or DatasetDict, or a folder either was saved to; a ready Source (a Listing as it is).
    group: a column of the manifest or of groups.csv, or else a regular expression on the path. "patient" and "exif",
        where no column is called so, stand for what the images themselves say, which is found when they are decoded.
    val, test: the same kinds of data by name, when these parts lie elsewhere.
    ignore_classes: class names to leave out; from images that may have several labels only these labels are taken.
    trainable: also refuse what no classifier can be trained on; off for data that is only to be evaluated.
    label_separator: what stands between the labels of one image; "" where each cell is one label whatever it holds.
        When None it is "|" where that occurs, and ";" in a column called 'labels'.
    offline: refuse web addresses, and read datasets of the hub from the cache alone.
    labelled: when False, a folder of images that lie in no class folders is taken too, without labels.
    Raises DataError for data that cannot be used, UsageError for an argument that does not fit it.
    """
    elsewhere = [Path(path) for path in (val, test) if path is not None]
    source = read_any(
        data, group=group, label_separator=label_separator, offline=offline, exclude=elsewhere, labelled=labelled
    )
    named = repr(str(data)) if isinstance(data, str | Path) else f"the data {source.name!r}"
    for part, path in (("val", val), ("test", test)):
        if path is None:
            continue
        if any(sample.part == part for sample in source.samples):
            raise UsageError(
                f"--{part} {str(path)!r} was given, but {named} has a {part} part of its own.",
                f"Leave out --{part}, or pass the folder with the training images alone.",
            )
        other = read_any(path, group=group, label_separator=label_separator, offline=offline, labelled=labelled)
        source = join(source, other, part)
    if not source.samples:
        reason = f": {source.unusable[0].path} {source.unusable[0].reason}" if source.unusable else ""
        raise DataError(f"{named} holds no labelled image{reason}.", LAYOUT)
    source = _without(_grouped(source, group, ready=not isinstance(data, str | Path)), ignore_classes)
    if trainable:
        check_trainable(source)
        untested = [note for note in _untested(source) if note not in source.notes]
        source = replace(source, notes=[*source.notes, *untested]) if untested else source
    return source


def _grouped(source: Listing, group: str | None, ready: bool) -> Listing:
    """Groups by the pattern, where the group names no column. A source that came ready keeps columns as metadata."""
    if group is None:
        return source
    if group not in source.columns:
        return source if group in FOUND_GROUPS else group_by_pattern(source, group)
    if ready and any(group in sample.metadata for sample in source.samples):
        return replace(
            source, samples=with_groups(source.samples, [sample.metadata.get(group) for sample in source.samples])
        )
    return source


def _without(source: Listing, ignore: tuple[str, ...]) -> Listing:
    if not ignore:
        return source
    for name in ignore:
        if name not in source.classes:
            raise unknown_name("class", name, source.classes)
    classes = [name for name in source.classes if name not in ignore]
    if source.task == "multi_label":
        samples = list(_without_labels(source.samples, ignore))
        bare = sum(bool(old.labels) and not new.labels for old, new in zip(source.samples, samples, strict=True))
        note = f"Labels left out: {', '.join(ignore)}; {bare:,} images keep no other."
        return replace(source, samples=samples, classes=classes, notes=[*source.notes, note])
    kept = [index for index, sample in enumerate(source.samples) if sample.label not in ignore]
    left_out = len(source.samples) - len(kept)
    note = f"Classes left out: {', '.join(ignore)} ({left_out:,} images)."
    return replace(source.select(kept), classes=classes, notes=[*source.notes, note])


def _without_labels(samples: list[Sample], ignore: tuple[str, ...]) -> Iterator[Sample]:
    for sample in samples:
        labels = tuple(name for name in sample.label_names if name not in ignore)
        yield replace(sample, labels=labels, label=LABEL_JOINT.join(labels))


def _untested(source: Listing) -> list[str]:
    """Sentences about classes that a given part lacks: no error, but no number for them either."""
    notes = []
    for part in ("val", "test"):
        present = {name for sample in source.samples if sample.part == part for name in sample.label_names}
        absent = [name for name in source.classes if name not in present]
        if present and absent:
            notes.append(f"The {part} part has no image of: {', '.join(absent[:10])}.")
    return notes
