"""From a path to everything training needs: readable images, their split, facts, a complete recipe, pixel stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vitreous.config.facts import DataFacts
from vitreous.config.input import InputSpec
from vitreous.config.train import TrainConfig, parse_duration, parse_fold
from vitreous.data import PixelStore, Scan, Split, make_split
from vitreous.data.sources.locked import LockedSource
from vitreous.data.splitting.share import share_of_training
from vitreous.engines.onnxruntime import available_cores
from vitreous.errors import DataError, GateError, UsageError
from vitreous.evaluation.words import counted
from vitreous.inputs import band_values, needs_range, open_image
from vitreous.recipes import Resolved
from vitreous.workflows.environment import available_memory, default_device
from vitreous.workflows.inspection import Inspection, inspect
from vitreous.workflows.reporter import Reporter

RANGE_IMAGES = 500
"""Training images that the range of stored values is taken from."""
SHARED_FROM = 64 * 2**20
"""Bytes of decoded images from which several processes share one copy on disk, instead of each decoding its own."""
ROOM_TO_MOVE = 1.15
"""Training images are kept this much larger than the model sees, so that random crops need not enlarge."""


@dataclass(frozen=True)
class Material:
    """The data of a run, read once and decided upon."""

    source: LockedSource
    """Readable images only; those of the test part cannot be opened before `unlocked`."""
    scan: Scan
    split: Split
    """Aligned with the samples of `source`."""
    labels: np.ndarray
    """Class numbers (n,), aligned likewise; or uint8 (n, k), 1 where a label is there, where there may be several."""
    trained: np.ndarray
    """int64 positions of the training images that are used."""
    shards: tuple[int, ...]
    """Of them in each shard, in their order; empty for data that do not come in shards."""
    processes: int = 1
    """That read the same images on this machine."""
    budget: float | None = None
    """Seconds of the command when the images were compared with each other."""

    def store(
        self, part: str, spec: InputSpec, threads: int, reporter: Reporter, most: int | None = None
    ) -> PixelStore:
        """Decode the images of one part (evenly spaced ones where it has more than `most`)."""
        rows = self.rows(part, most)
        # A quarter of what is free: the rest is for the model, the batches and other programs.
        most_bytes = available_memory() // 4 // self.processes
        with reporter.task(f"reading {part} images", "images") as progress:

            def held(max_bytes: int) -> PixelStore:
                return PixelStore(
                    self.source,
                    rows,
                    spec,
                    threads=threads,
                    max_bytes=max_bytes,
                    progress=progress.update,
                    digests=self.scan.hashes,
                )

            if self.processes == 1:
                return held(most_bytes)
            # One file on disk, decoded once, serves all processes; each has its own copy only where that cannot be.
            shared = held(min(most_bytes, SHARED_FROM))
            return shared if shared.where != "decoded each time" else held(most_bytes)

    def weights(self) -> np.ndarray | None:
        """float64 (n,): how much each image counts in training; None where all count the same."""
        weights = np.array([sample.weight for sample in self.source.samples])
        return None if (weights == 1).all() else weights

    @property
    def labelled(self) -> bool:
        """Whether the images have classes; pretraining does without."""
        return bool(self.source.classes)

    def rows(self, part: str, most: int | None = None) -> np.ndarray:
        rows = self.trained if part == "train" else self.split.indices(part)
        if most is not None and len(rows) > most:
            rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
        return rows


def gather(
    data: object,
    config: TrainConfig,
    reporter: Reporter,
    previous: Split | None = None,
    origin: str = "",
    budget: float | None = None,
) -> Material:
    """Find the images, look at each once, and split them. Raises DataError, and GateError under `strict`.

    For pretraining labels are not needed and count for nothing but the split, which is the one that training a classifier on
    the same data makes: what that will be tested on is not looked at. Images without labels have no test part.
    previous: an earlier split of the same data, which images that are in it keep; origin: where it comes from, to be said
    where it matters. budget: seconds of the command, which decide how thoroughly look-alikes are searched for.
    """
    found = inspect(
        data,
        reporter,
        group=config.group,
        val=config.val,
        test=config.test,
        ignore_classes=config.ignore_classes,
        fixes=config.fixes,
        decode=config.decode,
        threads=config.threads,
        offline=config.offline,
        max_bad=config.max_bad,
        trainable=not config.pretrains,
        labelled=not config.pretrains,
        budget=budget,
    )
    if found.scan.bad:
        first = found.scan.bad[0]
        text = f"{len(found.scan.bad):,} files cannot be used and are left out, listed in bad_files.csv; the first: {first.path} {first.reason}."
        if config.strict:
            raise GateError(text, "Remove them, or leave out --strict.")
        reporter.warn(text)
    if previous is not None and origin:
        _tell_of(previous, origin, found, reporter)
    split = _split(found, config, previous, reporter)
    if split.leak_count:
        leak = split.leaks[0]
        text = f"{counted(split.leak_count, 'pair')} of images in different given parts are the same, so the test number flatters; the first ({leak.reason}): {leak.first} and {leak.second}."
        if config.strict:
            raise GateError(text, "Move each pair into one part (`vitreous audit` shows them), or leave out --strict.")
        reporter.warn(text)
    if split.conflicts:
        a, b = split.conflicts[0]
        reporter.warn(f"{len(split.conflicts):,} pairs show the same pixels under two labels; the first: {a} and {b}.")
    source = LockedSource(found.source, split.indices("test"))
    labels = np.zeros(len(split.paths), np.int64)
    if not config.pretrains:
        labels = found.label_matrix if found.source.task == "multi_label" else found.labels
        _check_parts(split, labels, found.source.classes)
    return shared(Material(source, found.scan, split, labels, split.indices("train"), ()), config, reporter)


def shared(material: Material, config: TrainConfig, reporter: Reporter) -> Material:
    """With the share of the training part that is asked for."""
    split, trained = material.split, material.split.indices("train")
    if config.train_share < 1:
        seed = config.seed if config.split_seed is None else config.split_seed
        labels = [sample.label_names for sample in material.source.samples]
        trained = share_of_training(split, labels, config.train_share, seed)
        whole = len(split.indices("train"))
        reporter.say(f"{len(trained):,} of {whole:,} training images are used (--train-share {config.train_share:g})")
    shards = material.source.select(trained.tolist()).shards
    return replace(material, trained=trained, shards=shards)


def _check_parts(split: Split, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Raise DataError for a part that shows one class only: nothing is learned from it, and no number from it means anything."""
    if labels.ndim == 2:
        never = [
            name for name, count in zip(classes, labels[split.indices("train")].sum(axis=0), strict=True) if not count
        ]
        if never:
            raise DataError(
                f"No training image has the label {never[0]!r}, so it cannot be learned.",
                f"Add such images, or leave it out: --ignore-classes {' '.join(never[:5])}",
            )
        return
    for part in ("train", "val", "test"):
        shown = np.unique(labels[split.indices(part)])
        if len(shown) == 1:
            raise DataError(
                f"The {part} part shows one class only, {classes[shown[0]]!r}, of {len(classes)}: what a model makes of the others "
                "cannot be seen in it.",
                f"Add images of other classes, or groups that hold them; or name another {part} part."
                if part == "train"
                else f"Name another with --{part} PATH, give it a larger share (--{part}-fraction), or add images of other classes.",
            )


def _tell_of(previous: Split, origin: str, found: Inspection, reporter: Reporter) -> None:
    known = set(previous.hashes)
    new = sum(digest not in known for digest in found.scan.hashes)
    if new:
        reporter.say(f"{new:,} images are new since {origin}; the others keep the part they have there.")


def _split(found: Inspection, config: TrainConfig, previous: Split | None, reporter: Reporter) -> Split:
    samples, hashes = found.source.samples, found.scan.hashes
    split = make_split(
        samples,
        hashes,
        clusters=found.similar.clusters,
        near_pairs=[(pair.first, pair.second) for pair in found.similar.pairs],
        seed=config.seed if config.split_seed is None else config.split_seed,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        previous=previous,
        private_groups=found.private_groups,
        folds=parse_fold(config.k_fold)[1] if config.k_fold else 5,
        wanted=("test", "val") if found.source.classes else ("val",),
    )
    for note in split.notes:
        reporter.say(note)
    if config.k_fold is not None:
        split = _with_fold(split, found, config.k_fold)
        reporter.say(f"Fold {config.k_fold} is the validation part: {len(split.indices('val')):,} images.")
    return split


def _with_fold(split: Split, found: Inspection, fold: str) -> Split:
    """Validation is one fold of everything that is not test.

    Raises UsageError where the data name a validation part, DataError where there are fewer groups than folds.
    """
    if any(sample.part == "val" for sample in found.source.samples):
        raise UsageError("--k-fold was given, but the data have a validation part of their own.", "Leave out --k-fold.")
    number, count = parse_fold(fold)
    if all(each < 0 for each in split.folds):
        raise DataError(
            f"{count} folds cannot be made of so few independent groups of images.",
            "Ask for fewer folds, or leave it out.",
        )
    parts = [
        part if each < 0 else "val" if each == number - 1 else "train"
        for part, each in zip(split.parts, split.folds, strict=True)
    ]
    return replace(split, parts=parts)


def facts_of(material: Material, config: TrainConfig) -> DataFacts:
    """What a recipe may depend on: from training images alone."""
    rows = material.rows("train")
    sample = material.rows("train", 2000)
    seen = [material.scan.findings[row] for row in sample]
    brightness = [finding.brightness for finding in seen]
    findings = [material.scan.findings[row] for row in rows]
    labels = material.labels[rows]
    several = labels.ndim == 2
    counts = (
        labels.sum(axis=0, dtype=np.int64) if several else np.bincount(labels, minlength=len(material.source.classes))
    )
    formats = Counter(finding.format for finding in findings)
    return DataFacts(
        classes=tuple(material.source.classes),
        train_counts=tuple(int(count) for count in counts),
        images=len(rows) if several else None,
        num_val=len(material.rows("val")),
        num_test=len(material.rows("test")),
        sizes=tuple(material.scan.sizes[row] for row in sample),
        grey_share=float(np.mean([finding.channels == 1 for finding in findings])),
        deep_share=float(np.mean([finding.bits > 8 for finding in findings])),
        brightness=float(np.mean(brightness)),
        device=default_device(),
        cores=config.threads or available_cores(),
        budget=parse_duration(config.time) if config.time else None,
        channels=Counter(finding.channels for finding in findings).most_common(1)[0][0],
        formats=tuple((name, count / len(findings)) for name, count in formats.most_common()),
        exposure_spread=float(np.std(brightness) / max(1e-6, np.median([finding.contrast for finding in seen]))),
    )


def first_spec(
    resolved: Resolved,
    facts: DataFacts,
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None,
    value_range: tuple[tuple[float, float], ...] = (),
) -> InputSpec:
    """Size, channels and depth of what the model sees; mean and deviation are measured on the training part later.

    statistics: mean and deviation that published weights were made with; such models take three channels and the bicubic
    filter too. None for all others.
    value_range: what becomes 0 and 1 in images whose type has no range of its own; see `fit_value_range`.
    """
    size = resolved.config.image_size
    assert size is not None and resolved.config.exposure != "auto"
    bands = len(resolved.config.decode.bands) or facts.channels
    sensor = bands not in (1, 3)  # published statistics are those of red, green and blue
    pretrained = statistics is not None and not sensor
    grey = bands == 1 and facts.grey_share >= 0.99 and not pretrained
    channels = bands if sensor else 1 if grey else 3
    deep = facts.deep_share >= 0.5 or bool(value_range)
    return InputSpec(
        height=size,
        width=size,
        channels=channels,
        resize=resolved.resize,
        interpolation="bicubic" if pretrained else "bilinear",
        bit_depth=16 if deep else 8,
        mean=statistics[0] if statistics and pretrained else (0.5,) * channels,
        std=statistics[1] if statistics and pretrained else (0.5,) * channels,
        classes=facts.classes,
        decode=resolved.config.decode,
        value_range=value_range,
        exposure=resolved.config.exposure,
    )


def fit_value_range(material: Material, config: TrainConfig, reporter: Reporter) -> tuple[tuple[float, float], ...]:
    """(low, high) for each band of images whose type has no range of its own (floats, signed and wide integers).

    From training images alone: the range between the 0.05th and 99.95th percentile, widened by a half on either side but
    not beyond what occurs, so that a few wild values do not press all others together. Empty for other images.
    """
    rows = [row for row in material.rows("train", RANGE_IMAGES) if needs_range(material.scan.findings[row].mode)]
    if not rows:
        return ()
    values = [
        band_values(open_image(material.source.open(int(row)), decode=config.decode)).astype(np.float64) for row in rows
    ]
    example = {entry.shape[1]: material.source.samples[row].path for entry, row in zip(values, rows, strict=True)}
    if len(example) > 1:
        named = ", ".join(f"{count} in {path}" for count, path in sorted(example.items()))
        raise DataError(
            f"The images have different numbers of bands: {named}.",
            "Choose a band that all have, such as --decode.bands 1, or leave the others out (--fixes).",
        )
    every = np.concatenate(values)
    low, high = np.percentile(every, (0.05, 99.95), axis=0)
    reach = 0.5 * (high - low)
    lows, highs = np.maximum(every.min(axis=0), low - reach), np.minimum(every.max(axis=0), high + reach)
    highs = np.where(highs > lows, highs, lows + 1)
    found = tuple((float(a), float(b)) for a, b in zip(lows, highs, strict=True))
    shown = ", ".join(f"{a:.4g} to {b:.4g}" for a, b in found[:4]) + (" ..." if len(found) > 4 else "")
    reporter.say(f"stored values become 0 to 1 by the range of the training images: {shown}")
    return found


def storage_spec(spec: InputSpec, crop_area: float) -> InputSpec:
    """The size training images are kept at: a little larger where random crops will be taken from large ones."""
    if crop_area >= 1 or spec.height < 64:
        return spec
    height, width = round(spec.height * ROOM_TO_MOVE), round(spec.width * ROOM_TO_MOVE)
    return replace(spec, height=height, width=width)
