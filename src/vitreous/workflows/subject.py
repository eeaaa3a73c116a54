"""The labelled images that a run is judged on: a part of its own data, found again, or other data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vitreous.config.convert import from_dict, read_settings
from vitreous.config.train import TrainConfig
from vitreous.data import BadFile, Source, Split, load_source
from vitreous.data.examination import scan as scanning
from vitreous.data.sources.locate import in_words, is_path
from vitreous.engines.onnxruntime import available_cores
from vitreous.errors import DataError, UsageError
from vitreous.runs.folder import CONFIG, SPLITS, RunFolder
from vitreous.workflows.inspection import label_matrix
from vitreous.workflows.reporter import Reporter

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Subject:
    """The images to score."""

    source: Source
    labels: np.ndarray
    groups: list[str]
    bad: list[BadFile]
    known: Counter[str]
    """How many of the images stand in each part of the run's own split, judged by their pixels."""


def own_part(run: RunFolder, part: str) -> Subject:
    """The images of one part, matched by path with the split that is stored in the run."""
    config = from_dict(TrainConfig, read_settings(run.path / CONFIG))
    split = Split.read_csv(run.path / SPLITS)
    place = str(run.facts["data"]["source"])
    if is_path(place) and not Path(place).exists():
        raise DataError(
            f"The run was made from {place!r}, which is not here (looked from {str(Path.cwd())!r}).",
            f"Go where it is, or say where it lies now: vitreous evaluate {run.path} DATA --split {part}",
        )
    source = load_source(
        place,
        group=config.group,
        val=config.val,
        test=config.test,
        ignore_classes=config.ignore_classes,
        offline=config.offline,
    )
    index = {sample.path: number for number, sample in enumerate(source.samples)}
    wanted = split.indices(part)
    missing = [split.paths[row] for row in wanted if split.paths[row] not in index]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(wanted):,} {part} images are no longer in {place!r}; the first: {missing[0]}.",
            "Restore them, or name other data: vitreous evaluate RUN DATA",
        )
    source = replace(source.select([index[split.paths[row]] for row in wanted]), unusable=[])  # never in any part
    scan = scanning.scan(source, threads=available_cores(), decode=run.spec.decode, cache=True)
    changed = [
        split.paths[wanted[i]]
        for i, digest in zip(scan.good, scan.hashes, strict=True)
        if digest != split.hashes[wanted[i]]
    ]
    if changed or scan.bad:
        first = changed[0] if changed else scan.bad[0].path
        raise DataError(
            f"{len(changed) + len(scan.bad):,} {part} images changed since training; the first: {first}.",
            "Restore them, or name the folder to evaluate it as new data: vitreous evaluate RUN DATA",
        )
    labels = _labels(run, [(split.labels[row], tuple(filter(None, split.labels[row].split("|")))) for row in wanted])
    return Subject(source, labels, [split.groups[row] for row in wanted], [], Counter({part: len(wanted)}))


def _labels(run: RunFolder, told: Sequence[tuple[str, tuple[str, ...]]]) -> np.ndarray:
    """Class numbers (n,), or (n, k) where there may be several. told: of each image its label, and the names of all it has."""
    if run.several_labels:
        return label_matrix([names for _, names in told], run.classes)
    index = {name: number for number, name in enumerate(run.classes)}
    return np.array([index[label] for label, _ in told], np.int64)


def is_own(run: RunFolder, data: str) -> bool:
    own = str(run.facts["data"]["source"])
    return data == own or (is_path(data) and is_path(own) and Path(data).resolve() == Path(own).resolve())


def foreign(run: RunFolder, data: object, split: str | None, reporter: Reporter) -> Subject:
    source, name = load_source(data, trainable=False), in_words(data)
    for note in source.notes:
        reporter.say(note)
    parts = {sample.part for sample in source.samples}
    wanted = split or ("test" if "test" in parts else None)
    if wanted is not None:
        if wanted not in parts:
            raise UsageError(f"{name!r} has no part {wanted!r}.", "Leave out --split to score all of it.")
        source = source.select([row for row, sample in enumerate(source.samples) if sample.part == wanted])
        reporter.say(f"scoring its {wanted} part")
    if source.task == "multi_label" and not run.several_labels:
        raise DataError(
            f"{name!r} has images with several labels; the model gives each image one.",
            "Name one label an image.",
        )
    unknown = [name for name in source.classes if name not in run.classes]
    if unknown:
        raise UsageError(
            f"{name!r} has the class {unknown[0]!r}, which the model does not know; it knows {', '.join(run.classes[:20])}.",
            "Rename the folder or label, or leave those images out.",
        )
    with reporter.task("checking every image", "images") as progress:
        scan = scanning.scan(
            source, threads=available_cores(), progress=progress.update, decode=run.spec.decode, cache=True
        )
    if not scan.good:
        raise DataError(f"None of the {len(source.samples):,} images in {name!r} can be used.")
    source, own = source.select(scan.good), Split.read_csv(run.path / SPLITS)
    labels = _labels(run, [(sample.label, sample.label_names) for sample in source.samples])
    groups = [sample.group or digest for sample, digest in zip(source.samples, scan.hashes, strict=True)]
    split_by_pixels = dict(zip(own.hashes, own.parts, strict=True))
    known = Counter(split_by_pixels[digest] for digest in scan.hashes if split_by_pixels.get(digest) in PARTS)
    return Subject(source, labels, groups, scan.bad, known)
