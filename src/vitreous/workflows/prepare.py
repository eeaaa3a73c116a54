"""From a path to everything training needs: readable images, their split, facts, a complete recipe, pixel stores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vitreous.config.facts import DataFacts
from vitreous.config.input import InputSpec
from vitreous.config.train import TrainConfig, parse_duration
from vitreous.data import PixelStore, Scan, Source, Split, load_source, make_split
from vitreous.data.examination import scan as scanning
from vitreous.engines.onnxruntime import available_cores
from vitreous.errors import GateError
from vitreous.recipes import Resolved
from vitreous.workflows.environment import available_memory, default_device
from vitreous.workflows.reporter import Reporter

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
ROOM_TO_MOVE = 1.15
"""Training images are kept this much larger than the model sees, so that random crops need not enlarge."""


@dataclass(frozen=True)
class Material:
    """The data of a run, read once and decided upon."""

    source: Source
    """Readable images only."""
    scan: Scan
    split: Split
    """Aligned with the samples of `source`."""
    labels: np.ndarray
    """Class numbers (n,), aligned likewise."""

    def store(
        self, part: str, spec: InputSpec, threads: int, reporter: Reporter, most: int | None = None
    ) -> PixelStore:
        """Decode the images of one part (evenly spaced ones where it has more than `most`)."""
        rows = self.rows(part, most)
        # A quarter of what is free: the rest is for the model, the batches and other programs.
        with reporter.task(f"reading {part} images", "images") as progress:
            return PixelStore(
                self.source, rows, spec, threads=threads, max_bytes=available_memory() // 4, progress=progress.update
            )

    def rows(self, part: str, most: int | None = None) -> np.ndarray:
        rows = self.split.indices(part)
        if most is not None and len(rows) > most:
            rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
        return rows


def gather(data: str, config: TrainConfig, reporter: Reporter) -> Material:
    """Find the images, decode each once, and split them. Raises DataError, and GateError under `strict`."""
    threads = config.threads or available_cores()
    source = load_source(
        data, group=config.group, val=config.val, test=config.test, ignore_classes=config.ignore_classes
    )
    for note in source.notes:
        reporter.say(note)
    with reporter.task("checking every image", "images") as progress:
        scan = scanning.scan(source, threads=threads, progress=progress.update)
    scanning.check(scan, source, config.max_bad)
    if scan.bad:
        first = scan.bad[0]
        text = f"{len(scan.bad):,} files cannot be used and are left out, listed in bad_files.csv; the first: {first.path} {first.reason}."
        if config.strict:
            raise GateError(text, "Remove them, or leave out --strict.")
        reporter.warn(text)
    source = source.select(scan.good)
    split = make_split(
        source.samples,
        scan.hashes,
        seed=config.seed,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
    )
    for note in split.notes:
        reporter.say(note)
    if split.leaks:
        a, b = split.leaks[0]
        text = f"{len(split.leaks):,} pairs of the same image or group lie in different given parts, so the test number flatters; the first: {a} and {b}."
        if config.strict:
            raise GateError(text, "Move each pair into one part, or leave out --strict.")
        reporter.warn(text)
    if split.conflicts:
        a, b = split.conflicts[0]
        reporter.warn(f"{len(split.conflicts):,} pairs show the same pixels under two labels; the first: {a} and {b}.")
    index = {name: number for number, name in enumerate(source.classes)}
    labels = np.array([index[sample.label] for sample in source.samples], np.int64)
    return Material(source, scan, split, labels)


def facts_of(material: Material, config: TrainConfig) -> DataFacts:
    """What a recipe may depend on: from training images alone."""
    rows = material.rows("train")
    sample = material.rows("train", 2000)
    thumbnails = InputSpec(height=16, width=16, channels=1, resize="squash", mean=(0.5,), std=(0.5,))
    store = PixelStore(material.source, material.rows("train", 200), thumbnails, threads=1, max_bytes=2**20)
    counts = np.bincount(material.labels[rows], minlength=len(material.source.classes))
    return DataFacts(
        classes=tuple(material.source.classes),
        train_counts=tuple(int(count) for count in counts),
        num_val=len(material.rows("val")),
        num_test=len(material.rows("test")),
        sizes=tuple(material.scan.sizes[row] for row in sample),
        grey_share=float(np.mean([material.scan.modes[row] in GREY_MODES for row in rows])),
        deep_share=float(np.mean([material.scan.bits[row] == 16 for row in rows])),
        brightness=store.mean_std()[0][0],
        device=default_device(),
        cores=config.threads or available_cores(),
        budget=parse_duration(config.time) if config.time else None,
    )


def first_spec(
    resolved: Resolved, facts: DataFacts, statistics: tuple[tuple[float, ...], tuple[float, ...]] | None
) -> InputSpec:
    """Size, channels and depth of what the model sees; mean and deviation are measured on the training part later.

    statistics: mean and deviation that published weights were made with; such models take three channels and the bicubic
    filter too. None for all others.
    """
    pretrained = statistics is not None
    size = resolved.config.image_size
    assert size is not None
    grey = facts.grey_share >= 0.99 and not pretrained
    channels = 1 if grey else 3
    return InputSpec(
        height=size,
        width=size,
        channels=channels,
        resize=resolved.resize,
        interpolation="bicubic" if pretrained else "bilinear",
        bit_depth=16 if grey and facts.deep_share >= 0.5 else 8,
        mean=statistics[0] if statistics else (0.5,) * channels,
        std=statistics[1] if statistics else (0.5,) * channels,
        classes=facts.classes,
    )


def storage_spec(spec: InputSpec, crop_area: float) -> InputSpec:
    """The size training images are kept at: a little larger where random crops will be taken from large ones."""
    if crop_area >= 1 or spec.height < 64:
        return spec
    height, width = round(spec.height * ROOM_TO_MOVE), round(spec.width * ROOM_TO_MOVE)
    return replace(spec, height=height, width=width)
