"""What `audit` and `train` do first and alike: list the images, look at each once, find those that resemble each other."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from vitreous.config.decode import DecodeConfig
from vitreous.data import Scan, load_source
from vitreous.data.audit.fixes import apply_fixes, read_fixes
from vitreous.data.examination import scan as scanning
from vitreous.data.examination.remembered import similar_or_remembered
from vitreous.data.examination.similar import Similar, equal_pixels, find_similar, search_seconds
from vitreous.data.sources.source import Listing, check_trainable
from vitreous.data.splitting.bursts import group_by_camera
from vitreous.data.splitting.links import connected, link_keys
from vitreous.engines.onnxruntime import available_cores
from vitreous.errors import DataError, UsageError
from vitreous.inputs import as_picture, open_image
from vitreous.workflows.reporter import Reporter

NEEDED_FOR_SIMILAR = 256
"""Pixels of the longer side at which two pictures are compared when their thumbnails agree."""

SMALLEST_FOR_SIMILAR = 16
"""Pixels of the shorter side below which resemblance says nothing."""
SEARCH_SHARE = 0.05
"""Of a time budget that the full search for look-alikes may take."""


@dataclass(frozen=True)
class Inspection:
    """A data set, looked at. Everything but `listed` and `scan.bad` is about readable images, in one order."""

    listed: Listing
    """All entries, readable or not."""
    source: Listing
    """The readable ones, with the groups that only the images themselves tell (patient, camera and time)."""
    scan: Scan
    similar: Similar
    private_groups: bool
    """Groups are patients, whose names must not be written anywhere."""
    decode: DecodeConfig
    """How files that hold several pictures were read."""
    embeddings: np.ndarray | None = None
    """float32 (n, d): features of a model, where one is at hand."""

    @cached_property
    def units(self) -> np.ndarray:
        """int64 (n,): images of one number resemble each other and must not be spread over parts or folds."""
        keys = link_keys(self.source.samples, self.scan.hashes, self.similar.clusters)
        units = np.empty(len(self.source.samples), np.int64)
        for number, rows in enumerate(connected(keys, range(len(units)))):
            units[rows] = number
        return units

    @property
    def labels(self) -> np.ndarray:
        """Class numbers int64 (n,); -1 where an image has several labels, or none."""
        index = {name: number for number, name in enumerate(self.source.classes)}
        return np.array([index.get(sample.label, -1) for sample in self.source.samples], np.int64)

    @property
    def label_matrix(self) -> np.ndarray:
        """uint8 (n, k): 1 where an image has a label."""
        return label_matrix([sample.label_names for sample in self.source.samples], self.source.classes)


def label_matrix(names: Sequence[Sequence[str]], classes: Sequence[str]) -> np.ndarray:
    """uint8 (n, k): 1 where the names of an image's labels hold the class."""
    index = {name: number for number, name in enumerate(classes)}
    found = np.zeros((len(names), len(classes)), np.uint8)
    for row, own in enumerate(names):
        found[row, [index[name] for name in own]] = 1
    return found


def inspect(
    data: object,
    reporter: Reporter,
    *,
    group: str | None = None,
    val: Path | None = None,
    test: Path | None = None,
    ignore_classes: tuple[str, ...] = (),
    fixes: Path | None = None,
    decode: DecodeConfig | None = None,
    threads: int | None = None,
    cache: bool = True,
    offline: bool = False,
    trainable: bool = True,
    max_bad: float | None = None,
    embed: Callable[[Listing], np.ndarray] | None = None,
    budget: float | None = None,
    labelled: bool = True,
) -> Inspection:
    """List, look at and compare every image. Raises DataError for data that cannot be listed; bad files are counted.

    max_bad: largest share of bad files; also refuse what is too little to train on. None to put up with anything.
    budget: seconds of the command; where the full search for look-alikes would take more than a small share of them, a
    quick one is made. Decided by the number of images, not by a clock, so that the split repeats.
    embed: makes features (n, d) of the readable images, which find look-alikes that pixels do not show.
    labelled: when False, a folder of images without class folders will do.
    """
    decode, threads = decode or DecodeConfig(), threads or available_cores()
    listed = load_source(
        data,
        group=group,
        val=val,
        test=test,
        ignore_classes=ignore_classes,
        trainable=trainable,
        offline=offline,
        labelled=labelled,
    )
    if fixes is not None:
        listed = apply_fixes(listed, read_fixes(fixes))
        if trainable:
            check_trainable(listed)
    for note in listed.notes:
        reporter.say(note)
    listed = _rest_is_train(listed)
    scan = look_at(listed, reporter, decode=decode, threads=threads, cache=cache)
    if max_bad is not None:
        scanning.check(scan, listed, max_bad)
    if not scan.good:
        first = "; ".join(f"{bad.path} {bad.reason}" for bad in scan.bad[:3])
        raise DataError(f"None of the {len(scan.bad):,} images in {listed.name!r} can be used: {first}.")
    source, private = _grouped(listed.select(scan.good), scan, group, reporter)
    embeddings = embed(source) if embed is not None else None
    similar = _compare(source, scan, decode, threads, reporter, embeddings, cache, budget)
    return Inspection(listed, source, scan, similar, private, decode, embeddings)


def _rest_is_train(source: Listing) -> Listing:
    """Where only parts to measure on are given (--val, --test), training has all the rest: what it shares with them leaks."""
    if {sample.part for sample in source.samples} not in ({None, "val"}, {None, "test"}, {None, "val", "test"}):
        return source
    return replace(source, samples=[replace(sample, part=sample.part or "train") for sample in source.samples])


def look_at(
    source: Listing, reporter: Reporter, *, decode: DecodeConfig, threads: int, cache: bool | None = None
) -> Scan:
    """Decode every image once, in workers that a hostile file can neither crash nor hang."""
    with reporter.task("checking every image", "images") as progress:
        scan = scanning.scan(source, threads=threads, progress=progress.update, decode=decode, cache=cache)
    for note in scan.notes:
        reporter.warn(note)
    if 2 * scan.cached > len(source.samples):
        reporter.say(f"{scan.cached:,} of {len(source.samples):,} images are known from before and have not changed.")
    return scan


def _grouped(source: Listing, scan: Scan, group: str | None, reporter: Reporter) -> tuple[Listing, bool]:
    """Groups from inside the images: patients of DICOM files by default, bursts of one camera when asked for."""
    if any(sample.group is not None for sample in source.samples):
        return source, False
    findings = scan.findings
    found: Sequence[str | None] = [entry.patient or None for entry in findings]
    private = any(found)
    if group == "patient" and not private:
        raise UsageError("--group patient: no image names a patient.", "It reads PatientID of DICOM files.")
    if group == "exif":
        found, private = group_by_camera([e.camera for e in findings], [e.taken for e in findings]), False
        if not any(found):
            raise UsageError("--group exif: no image tells its camera and time.", "Many tools remove EXIF on export.")
    if group not in (None, "patient", "exif") or not any(found):
        return source, False
    what = "patients of the DICOM files" if private else "camera and time (EXIF)"
    reporter.say(f"Groups come from the {what}: {len(set(found) - {None}):,} groups.")
    samples = [replace(sample, group=name) for sample, name in zip(source.samples, found, strict=True)]
    return replace(source, samples=samples), private


def _compare(
    source: Listing,
    scan: Scan,
    decode: DecodeConfig,
    threads: int,
    reporter: Reporter,
    embeddings: np.ndarray | None,
    cache: bool,
    budget: float | None,
) -> Similar:
    expected = search_seconds(len(source.samples), threads)
    quick = budget is not None and expected > SEARCH_SHARE * budget

    def load(index: int) -> Image.Image:
        return as_picture(open_image(source.open(index), target=NEEDED_FOR_SIMILAR, decode=decode))

    def search() -> Similar:
        sides = [min(size) for size in scan.sizes]
        if sides and embeddings is None and statistics.median(sides) < SMALLEST_FOR_SIMILAR:
            # Two digits of 8 x 8 pixels by two hands resemble each other as much as copies of a photograph do.
            reporter.say(
                f"images of {statistics.median(sides):.0f} px are too small to tell look-alikes from copies: only images with "
                "equal pixels are kept together"
            )
            return equal_pixels(scan.hashes)
        if quick:
            reporter.say(
                f"look-alikes are looked for upright and mirrored only: in full it would take about {expected:.0f} s of "
                f"{budget:.0f} (`vitreous audit` does, and it is remembered)"
            )
        with reporter.task("looking for near-duplicates", "steps") as progress:
            return find_similar(
                scan.thumbnails,
                scan.hashes,
                load,
                threads=threads,
                progress=progress.update,
                extra_embeddings=embeddings,
                quick=quick,
            )

    return search() if embeddings is not None else similar_or_remembered(scan.hashes, search, cache, quick=quick)
